"""From a file of a manifest to a training pair: the high-resolution target and the input made from it."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import nibabel
import numpy as np
import torch
from monai.transforms.transform import MapTransform, Randomizable
from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.datasets.manifest import read_boxes, read_manifest
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import InputError, require_count
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.nifti import read_nifti
from monai_sr_bundle.images.picture import read_picture
from monai_sr_bundle.images.unit import check_window
from monai_sr_bundle.inferers.tiling import middle, neighbours
from monai_sr_bundle.transforms.augmentation import BOXES, FINDINGS, move_boxes
from monai_sr_bundle.transforms.patches import OWN_IMAGES

Value = TypeVar("Value")


def pair_items(
    dataset_dir: str,
    modality: str,
    split: str | None,
    *,
    sets: Sequence[str] | None = None,
    validation_share: float = 0.0,
    limit: int | None = None,
) -> list[dict[Hashable, Any]]:
    """Return one item per radiograph or CT slice of a split, for `LoadHighResd`.

    Args:
        dataset_dir: folder with a manifest, or folder of folders with manifests.
        modality: "CXR" or "CT".
        split: "train", "val" or "test" of the manifest; None for all.
        sets: names of the folders to read; None for all.
        validation_share: for a manifest without validation patients, the upper share of every training patient's z
            range that is "val" and not "train", 0 to 1. It may stop a training, but never be reported, because slices
            of one patient are not independent.
        limit: number of items, evenly spread over the split; None for all.

    Returns:
        Dictionaries with `path`, `modality`, `slice_index` (0 for a radiograph) and `name`; ``boxes_xyxy``, float32
        ``[boxes, 4]`` in pixels of the stored image, upper edge excluded, and `findings`, as many names.

    Raises:
        InputError: `read_manifest` or `read_boxes` refuses the data; a box of a volume names no slice; a limit below 1.
    """
    kind: Literal["ct", "cxr"] = "ct" if modality == "CT" else "cxr"
    if validation_share and any(each.split == "val" for each in read_manifest(Path(dataset_dir), kind=kind, sets=sets)):
        validation_share = 0.0
    manifest_split = "train" if validation_share and split == "val" else split
    records = read_manifest(Path(dataset_dir), kind=kind, split=manifest_split, sets=sets)
    boxes = read_boxes(Path(dataset_dir), sets=sets)
    items: list[dict[Hashable, Any]] = []
    for record in records:
        item: dict[Hashable, Any] = {"path": str(record.file), "modality": modality, "patient": record.patient_id}
        if modality != "CT":
            box_fields = _make_box_fields(boxes.get(record.file, []))
            items.append({**item, "slice_index": 0, "z": 0.0, "name": record.file.stem, **box_fields})
        elif record.file.is_file():  # a manifest's CT is a NIfTI; its DICOM series are samples for reading
            header: Any = nibabel.load(record.file)
            slice_boxes = _group_by_slice(boxes.get(record.file, []), record.file)
            for index in range(header.shape[2]):
                z = float((header.affine @ [0, 0, index, 1])[2])
                name = f"{volume_name(record.file)}_{index:03d}"
                items.append(
                    {**item, "slice_index": index, "z": z, "name": name, **_make_box_fields(slice_boxes.get(index, []))}
                )
    if validation_share and split in ("train", "val"):
        items = [item for item in items if _is_validation(item, items, validation_share) == (split == "val")]
        if not items:
            raise InputError(
                f"{dataset_dir}: the manifest has no validation patient, and the training patients have too few slices "
                "to leave some out. Give a patient the split val in manifest.csv."
            )
    return limit_values(items, limit)


def volume_name(file: Path) -> str:
    """Return the name of a NIfTI without its suffix; other dots, as of a UID, are part of it."""
    return file.name.removesuffix(".gz").removesuffix(".nii")


def limit_values(values: Sequence[Value], limit: int | None) -> list[Value]:
    """Return `limit` of the values, evenly spread; all of them if it is None. Raise UsageError for one below 1."""
    return list(values) if limit is None else evenly_spread(values, require_count("limit", limit))


def evenly_spread(values: Sequence[Value], count: int) -> list[Value]:
    """Return `count` of the values, from the first to the last; all of them if there are no more."""
    count = min(count, len(values))
    return [values[round(k * (len(values) - 1) / max(1, count - 1))] for k in range(count)]


def boxes_repeated(items: list[dict[Hashable, Any]], times: int, *, needed: bool = False) -> list[dict[Hashable, Any]]:
    """Return the items with those that have boxes repeated, so that training sees rare findings more often.

    Args:
        items: items of `pair_items`.
        times: number of copies of each item with boxes, at least 1.
        needed: whether the training has a loss inside boxes. Default False.

    Raises:
        InputError: `times` below 1; or no item has a box although boxes are needed or repeated.
    """
    boxed = [item for item in items if len(item[BOXES])]
    if times < 1:
        raise InputError(f"box_repeats is {times}, expected at least 1. Correct it in the bundle's model.yaml.")
    if (times > 1 or needed) and not boxed:
        raise InputError(
            f"none of the {len(items)} training images has a box, which box_weight or box_repeats ({times}) needs. Add "
            "boxes.csv to a folder of the data, or train with box_repeats 1 and box_weight 0."
        )
    return items + (times - 1) * boxed


def _is_validation(item: dict[Hashable, Any], items: list[dict[Hashable, Any]], share: float) -> bool:
    heights = [other["z"] for other in items if other["patient"] == item["patient"]]
    return bool(item["z"] > max(heights) - share * (max(heights) - min(heights)))


def _make_box_fields(boxes: list[Box]) -> dict[Hashable, Any]:
    corners = [(box.x_min, box.y_min, box.x_max, box.y_max) for box in boxes]
    return {BOXES: np.array(corners, dtype=np.float32).reshape(-1, 4), FINDINGS: tuple(box.finding for box in boxes)}


def _group_by_slice(boxes: list[Box], file: Path) -> dict[int, list[Box]]:
    slice_boxes: dict[int, list[Box]] = {}
    for box in boxes:
        if box.slice_index is None:
            raise InputError(
                f"{file}: the box of {box.finding} in boxes.csv names no slice, expected a slice_index counted from 0 "
                "along z for every box of a volume. Fill it in, or remove the row."
            )
        slice_boxes.setdefault(box.slice_index, []).append(box)
    return slice_boxes


@lru_cache(maxsize=1)
def _read_volume(path: str) -> Image:
    # The items of one volume follow each other; decompressing it once per slice would take minutes.
    return read_nifti(Path(path))


class LoadHighResd(MapTransform):
    """Read one item of `pair_items` as the high-resolution target.

    Args:
        key: key of the target; the item needs `path`, `modality` and `slice_index`.
        window: modality values (grey levels of the storage, HU) that become 0 and 1. Values outside are not clipped.
        reduce: integer factor of an antialiased bicubic reduction, which removes JPEG artefacts. Default 1.
        multiple: number that rows and columns are cropped to a multiple of, so that every factor divides. Default 4.
        levels: steps of the storage between 0 and 1, to which a reduced target is rounded. Default 255.
        slices: number of slices of the volume that are read, odd; the item's is the middle one. Default 1.

    Returns:
        The item with ``[slices, rows, columns]`` float32 under `key`, and its ``boxes_xyxy`` in pixels of this target.

    Raises:
        InputError: an item of another kind; the file cannot be read.
    """

    def __init__(
        self,
        key: Hashable,
        *,
        window: Sequence[float],
        reduce: int = 1,
        multiple: int = 4,
        levels: int = 255,
        slices: int = 1,
    ) -> None:
        super().__init__([key])
        self.key, self.window, self.reduce, self.multiple = key, check_window(window), reduce, multiple
        self.levels, self.slices = levels, slices

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        if "path" not in data:
            raise InputError(OWN_IMAGES)
        image = _read_volume(data["path"]) if data["modality"] == "CT" else read_picture(Path(data["path"]))
        indices = neighbours(data["slice_index"], len(image.pixels), self.slices)
        target = np.stack([self._read_target(image, index) for index in indices])
        boxes = move_boxes(data, np.diag([1 / self.reduce, 1 / self.reduce, 1.0]), *target.shape[1:])
        return {**data, self.key: torch.from_numpy(target), **boxes}

    def _read_target(self, image: Image, index: int) -> np.ndarray:
        stored = image.pixels[index].astype(np.float64)
        low, high = self.window
        target = (stored * image.slope + image.intercept - low) / (high - low)
        rows, columns = (n - n % (self.multiple * self.reduce) for n in target.shape)
        target = target[:rows, :columns]
        if self.reduce > 1:
            target = Degradation("bicubic_antialias", self.reduce)(target, levels=self.levels)
        return np.asarray(target, dtype=np.float32)


class Degraded(MapTransform):
    """Add the low-resolution input that a degradation makes from the high-resolution target.

    Args:
        high_key: key of the target, ``[slices, rows, columns]``.
        low_key: key of the input, with as many slices.
        operator: name of a `Degradation`, such as `bicubic_antialias_x4`.
        levels: steps of the storage between 0 and 1.

    The seed of the operator's noise is the item's `name`, so that an image always gets the same.
    """

    def __init__(self, high_key: Hashable, low_key: Hashable, *, operator: str, levels: int = 255) -> None:
        super().__init__([high_key])
        self.high_key, self.low_key, self.levels = high_key, low_key, levels
        self.degradation = Degradation.parse(operator)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        name = zlib.crc32(str(data.get("name", "")).encode())
        return self._degrade(data, self.degradation, np.random.default_rng([0, name]))

    def _degrade(
        self, data: Mapping[Hashable, Any], degradation: Degradation, rng: np.random.Generator
    ) -> dict[Hashable, Any]:
        high = np.asarray(data[self.high_key])
        low = [np.empty(0, dtype=np.float32)] * len(high)
        # From the middle outward: a slice's noise does not depend on the number of neighbours.
        for index in sorted(range(len(high)), key=lambda index: abs(index - len(high) // 2)):
            low[index] = degradation(high[index], levels=self.levels, rng=rng)
        return {**data, self.low_key: torch.from_numpy(np.stack(low))}


MIXTURE = tuple(
    f"{kernel}_x{{scale}}{blur}{noise}"
    for kernel in ("bicubic_antialias", "bilinear_antialias", "area")
    for blur in ("", "+blur0.5", "+blur1", "+blur1.5")
    for noise in ("", "+noise1", "+noise2")
)
"""Degradations of a mixture, for `str.format`: kernels, detector blurs and noises of real images."""


class RandDegradedd(Degraded, Randomizable):
    """Add an input made by the bundle's degradation or, for a share of the images, by another one of `MIXTURE`.

    Args:
        high_key, low_key, operator, levels: see `Degraded`.
        mixture: share of the images with another degradation. Default 0.
    """

    def __init__(
        self, high_key: Hashable, low_key: Hashable, *, operator: str, levels: int = 255, mixture: float = 0.0
    ) -> None:
        super().__init__(high_key, low_key, operator=operator, levels=levels)
        self.mixture = mixture
        self.others = [Degradation.parse(name.format(scale=self.degradation.scale)) for name in MIXTURE]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        degradation = self.degradation
        if self.R.random_sample() < self.mixture:
            degradation = self.others[self.R.randint(len(self.others))]
        return self._degrade(data, degradation, np.random.default_rng(self.R.randint(2**32, dtype=np.uint32)))


class MiddleSliced(MapTransform):
    """Keep the middle one of a target's slices; only the input needs its neighbours.

    Args:
        key: key of ``[slices, rows, columns]``, which becomes ``[1, rows, columns]``.
    """

    def __init__(self, key: Hashable) -> None:
        super().__init__([key])
        self.key = key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        # Copied: a view would keep the neighbours in a cache.
        return {**data, self.key: torch.from_numpy(middle(np.asarray(data[self.key])).copy())[None]}


class RandSliceOrderd(MapTransform, Randomizable):
    """Reverse the order of an input's slices at random: a volume may be stored from either end.

    Args:
        key: key of ``[slices, rows, columns]``.
    """

    def __init__(self, key: Hashable) -> None:
        super().__init__([key])
        self.key = key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, self.key: data[self.key].flip(0)} if self.R.random_sample() < 0.5 else dict(data)
