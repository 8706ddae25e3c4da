"""Volumes of thick slices with the thin ones they are the means of, to evaluate what enlarges along the slices."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms.transform import MapTransform

from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.images.nifti import read_nifti
from monai_sr_bundle.transforms.pairs import evenly_spread, pair_items


def volume_items(
    dataset_dir: str,
    modality: str,
    split: str,
    *,
    sets: Sequence[str] | None = None,
    validation_share: float = 0.0,
    limit: int | None = None,
) -> list[dict[Hashable, Any]]:
    """Return one item per CT volume of a split, for `ThickSlicesd`; see `transforms.pairs.pair_items`.

    Args:
        limit: number of volumes, evenly spread over the split; None for all.
    """
    items = pair_items(dataset_dir, modality, split, sets=sets, validation_share=validation_share)
    volumes = {item["path"]: {**item, "name": Path(item["path"]).name.partition(".")[0]} for item in items}
    return [*volumes.values()] if limit is None else evenly_spread([*volumes.values()], limit)


class ThickVolumes:
    """A function of an item, a thin slice, that returns the thin and thick slices of its volume.

    Args:
        operator: name of a through-plane degradation.
        window, levels: window and grey steps, see a bundle's model.yaml.
        quarter_turns: counter-clockwise rotation of every slice by right angles. Default 0.
    """

    def __init__(self, operator: str, window: Sequence[float], levels: int, quarter_turns: int = 0) -> None:
        self.degradation = Degradation.parse(operator)
        self.window, self.levels, self.quarter_turns = window, levels, quarter_turns
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
