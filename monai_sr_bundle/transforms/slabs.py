"""Thick slices with the thin ones they are the means of: volumes to evaluate on, and batches of patches to train on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.dataset import Dataset
from monai.transforms.transform import MapTransform, Randomizable
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.nifti import read_nifti
from monai_sr_bundle.images.unit import check_window
from monai_sr_bundle.inferers.tiling import neighbours
from monai_sr_bundle.transforms.native_patches import Scan, middle_part, read_scans, to_unit
from monai_sr_bundle.transforms.pairs import limit_values, pair_items, volume_name
from monai_sr_bundle.transforms.patches import PatchSource, RandomPatches


def volume_items(*of_slices: Any, limit: int | None = None, **options: Any) -> list[dict[Hashable, Any]]:
    """Return one item per CT volume of a split, for `ThickSlicesd`.

    Args:
        of_slices, options: the arguments of `transforms.pairs.pair_items`.
        limit: number of volumes, evenly spread over the split; None for all.
    """
    items = pair_items(*of_slices, **options)
    volumes = {item["path"]: {**item, "name": volume_name(Path(item["path"]))} for item in items}
    return limit_values([*volumes.values()], limit)


class ThickVolumes:
    """A function of an item, a thin slice, that returns the thin and thick slices of its volume.

    Args:
        operator: name of a through-plane degradation.
        window, levels: window and grey steps, see a bundle's model.yaml.
        quarter_turns: counter-clockwise rotation of every slice by right angles. Default 0.
    """

    def __init__(self, operator: str, window: Sequence[float], levels: int, quarter_turns: int = 0) -> None:
        self.degradation = Degradation.parse(operator)
        self.window, self.levels, self.quarter_turns = check_window(window), levels, quarter_turns
        self._path, self._pair = "", (np.empty(0), np.empty(0))

    def __call__(self, item: Mapping[Hashable, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return thin slices, and thick ones as a scanner would store them, in units of the window.

        Both are ``[slices, rows, columns]`` float32.
        """
        if item["path"] != self._path:
            image = read_nifti(Path(item["path"]))
            low, high = self.window
            stored = np.rot90(image.pixels, self.quarter_turns, (1, 2)).astype(np.float64)
            thin = (stored * image.slope + image.intercept - low) / (high - low)
            thin = thin[: len(thin) // self.degradation.scale * self.degradation.scale]
            # The slices are the rows of planes of slices and columns.
            thick = self.degradation(thin.reshape(len(thin), -1), levels=self.levels)
            thick = thick.reshape(-1, *thin.shape[1:])
            self._path, self._pair = item["path"], (thin.astype(np.float32), thick)
        return self._pair


class ThickSlicesd(MapTransform):
    """Read an item of `volume_items`: thin slices as the target, their means as the input.

    Args:
        high_key, low_key: keys of target and input, ``[1, rows, columns, slices]`` float32 in units of the window.
        operator, window, levels: see `ThickVolumes`.
    """

    def __init__(
        self, high_key: Hashable, low_key: Hashable, *, operator: str, window: Sequence[float], levels: int
    ) -> None:
        super().__init__([high_key, low_key])
        self.high_key, self.low_key = high_key, low_key
        self.volumes = ThickVolumes(operator, window, levels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        thin, thick = (torch.from_numpy(np.moveaxis(slices, 0, -1)[None].copy()) for slices in self.volumes(data))
        return {**data, self.high_key: thin, self.low_key: thick}


def image_pairs(output: Sequence[Mapping[str, torch.Tensor]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return results and targets for a metric, ``[1, rows, columns]`` each; a volume gives one pair for each slice.

    Args:
        output: items of an engine with `pred` and `label`, ``[1, rows, columns]`` or ``[1, rows, columns, slices]``.
    """
    pairs = [
        (pred, label)
        for item in output
        for pred, label in zip(_images(item["pred"]), _images(item["label"]), strict=True)
    ]
    return [pred for pred, _ in pairs], [label for _, label in pairs]


def image_names(batch: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a name for each pair of `image_pairs`, as MONAI's MetricsSaver asks for them."""
    names = []
    for item in batch:
        count = len(_images(item["label"]))
        names += [item["name"]] if count == 1 else [f"{item['name']}_{index:03d}" for index in range(count)]
    return [{"filename_or_obj": name} for name in names]


def _images(image: torch.Tensor) -> list[torch.Tensor]:
    return [image] if image.ndim == 3 else [*image.unbind(-1)]


class RandomSlabThickness(Randomizable):
    """A thickness for thick slices, as the multiple of their distance: 1, or thicker, so that they overlap.

    Attributes:
        overlapping_share: how often they overlap, 0 to 1.
        thickest: largest thickness; those that overlap are spread evenly between 1 and it.
    """

    overlapping_share, thickest = 0.25, 2.0

    def __call__(self) -> float:
        return float(self.R.uniform(1, self.thickest)) if self.R.random_sample() < self.overlapping_share else 1.0


def average_slab(thin: np.ndarray, centre: float, thickness: float) -> np.ndarray:
    """Return one thick slice: the mean of thin ones over a box, as a scanner with whole HU would store it.

    Args:
        thin: ``[slices, rows, columns]`` in HU.
        centre: middle of the box in thin slices; slice k reaches from k to k + 1.
        thickness: length of the box in thin slices. What reaches beyond the ends of `thin` is left out.

    Returns:
        ``[rows, columns]`` float32.
    """
    edges = np.clip([centre - thickness / 2, centre + thickness / 2], 0, len(thin))
    first, last = int(np.floor(edges[0])), int(np.ceil(edges[1]))
    index = np.arange(first, last)
    share = np.minimum(index + 1, edges[1]) - np.maximum(index, edges[0])
    mean = np.tensordot((share / share.sum()).astype(np.float32), thin[first:last].astype(np.float32), axes=1)
    return np.rint(mean)


def make_slabs(thin: np.ndarray, start: int, scale: int, slices: int, thickness: float) -> np.ndarray:
    """Return a thick slice with its neighbours.

    Args:
        thin: ``[slices, rows, columns]`` in HU.
        start: first of the `scale` thin slices that the thick one in the middle stands for; it decides where the others
            begin. Beyond the ends, where no whole thick slice is left, the last one is repeated.
        scale: thin slices per thick one.
        slices: number of thick slices, odd.
        thickness: thickness of a thick slice, as the multiple of the distance between them.

    Returns:
        ``[slices, rows, columns]`` float32 in HU.
    """
    phase = start % scale
    indices = neighbours(start // scale, (len(thin) - phase) // scale, slices)
    slabs = {k: average_slab(thin, phase + scale * (k + 0.5), scale * thickness) for k in sorted(set(indices))}
    return np.stack([slabs[k] for k in indices])


class SlabPatches(RandomPatches):
    """Endless batches of random patches of thick slices with their neighbours, all of one batch at one scale.

    The volumes are drawn equally often, however many slices they have, each at its own distance of slices.

    Args:
        dataset_dir: folder of folders with manifests.
        sets: folders to read.
        window: HU that become 0 and 1; values beyond are kept.
        slices: thick slices of the input, odd; the target are the thin slices of the middle one. Default 5.
        scales: thin slices per thick one; all factors are drawn alike.
        limit: read only this many files of each set (for a trial).
        patches: `patch_size`, `batch_size` and `seed` of `RandomPatches`.

    Yields:
        `image`, ``[B, slices, patch_size, patch_size]``, and `label`, ``[B, scale, patch_size, patch_size]``, 0 and 1
        at the ends of the window.

    Raises:
        InputError: no volume of a set is large enough for a patch, or has the slices.
    """

    turn = True  # rows of a NIfTI may run either way
    in_plane = False

    def __init__(
        self,
        dataset_dir: str | Path,
        *,
        sets: Sequence[str],
        window: Sequence[float],
        slices: int = 5,
        scales: Sequence[int] = (2, 4),
        limit: int | None = None,
        **patches: Any,
    ) -> None:
        self.window, self.slices, sets = window, slices, [sets] if isinstance(sets, str) else sets
        if not sets:
            raise InputError(f"{dataset_dir}: no image set is named. Name those to learn from: --sets \"['NAME']\".")
        super().__init__(
            [_read_volumes(dataset_dir, name, "train", max(scales), limit) for name in sets],
            [PatchSource(name, 1, 1.0) for name in sets],
            RandomSlabThickness(),
            scales=scales,
            scale_shares=[1 / len(scales)] * len(scales),
            **patches,
        )

    def make_pair(self, image: Scan, rows: slice, columns: slice, scale: int) -> tuple[np.ndarray, np.ndarray]:
        start = int(self.R.randint(len(image.hu) - scale + 1))
        thin = image.hu[:, rows, columns]
        thick, target = make_slabs(thin, start, scale, self.slices, self.degrade()), thin[start : start + scale]
        if self.R.random_sample() < 0.5:
            thick, target = thick[::-1], target[::-1]  # a volume may be stored from either end
        return to_unit(thick, self.window), to_unit(target, self.window)


PAIR_SIDE = 256
"""Largest side of the images that weights are chosen by."""


class SlabPairs(Dataset):
    """Thick slices that are the means of thin ones, to choose weights by: the middle of each.

    Args:
        dataset_dir: folder of folders with manifests.
        sets, window, slices: see `SlabPatches`.
        scale: thin slices per thick one.
        limit: take only this many thick slices, evenly spread over all that can be made of a volume.

    Items:
        `image` ``[slices, rows, columns]`` and `label` ``[scale, rows, columns]``, 0 and 1 at the ends of the window,
        and `name`.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        *,
        sets: Sequence[str],
        window: Sequence[float],
        slices: int = 5,
        scale: int = 4,
        limit: int | None = None,
    ) -> None:
        pairs: list[dict[str, Any]] = []
        sets = [sets] if isinstance(sets, str) else sets
        for number, scan in enumerate(scan for name in sets for scan in _read_volumes(dataset_dir, name, "val", scale)):
            thin = scan.hu[:, *middle_part(scan.shape[1:], PAIR_SIDE)]
            starts = range(len(thin) - scale + 1)
            for start in limit_values(starts, limit):
                pair = {"image": make_slabs(thin, start, scale, slices, 1.0), "label": thin[start : start + scale]}
                in_units = {key: torch.from_numpy(to_unit(hu, window)) for key, hu in pair.items()}
                pairs.append({**in_units, "name": f"{number}_{start:03d}"})
        super().__init__(pairs)


def _read_volumes(
    dataset_dir: str | Path, set_name: str, split: str, fewest: int, limit: int | None = None
) -> list[Scan]:
    scans = read_scans(Path(dataset_dir), set_name, split, limit=limit)
    volumes = [scan for scan in scans.values() if len(scan.hu) >= fewest]
    if not volumes:
        raise InputError(
            f"{set_name}: none of {len(scans)} scans of the {split} split has {fewest} slices, which one thick slice "
            "is made of. Leave this set out."
        )
    return volumes
