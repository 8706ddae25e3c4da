"""Enlarged images of known truth, from which error bars are trained and calibrated."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai_sr_bundle.backends.backend import Backend
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.families.family import Inference, InPlaneFamily
from monai_sr_bundle.images.input_checks import LEAST_SIDE
from monai_sr_bundle.inferers.sampler_options import AS_STATED, SamplerOptions
from monai_sr_bundle.inferers.tiling import middle, neighbours
from monai_sr_bundle.metrics.fidelity import level_limits
from monai_sr_bundle.transforms.native_patches import degrade_slices, middle_part, read_scan, to_unit
from monai_sr_bundle.transforms.pairs import Degraded, LoadHighResd, pair_items
from monai_sr_bundle.transforms.random_degradation import RandomDegradation, RandomScanDegradation

LOSS_SHARES: dict[str, Any] = {"ideal": 0.15, "single": 0.25}
"""Shares of films without and with one loss of resolution. The rest has several, whose errors are harder to foresee."""
LOSSES = {"CXR": 3, "CT": 9}
"""Random losses of resolution that each film and each CT slice is calibrated with, at every scale."""
LARGEST_SIDE = 768
"""Largest side of the middle of a film that is calibrated, in its own pixels."""


@dataclass(frozen=True)
class EnlargedCase:
    """An image of known truth, its input and a bundle's result.

    Attributes:
        name, patient: name of the image and of its patient.
        low_res: ``[rows, columns]``, the slice that was enlarged, without its neighbours.
        super_res: ``[scale * rows, scale * columns]``, rounded as stored results are.
        high_res: the truth, same shape.
        padding: pixels of `high_res` that were not reconstructed, which have no error; False for none.
    """

    name: str
    patient: str
    low_res: np.ndarray
    super_res: np.ndarray
    high_res: np.ndarray
    padding: np.ndarray | bool = False


def require_in_plane(bundle: Bundle, what: str) -> InPlaneFamily:
    """Return the family of a bundle that enlarges in the plane; refuse any other.

    Args:
        bundle: a bundle.
        what: a thing that only such bundles have, for the message.

    Raises:
        BundleError: the bundle enlarges along the slices.
    """
    if not isinstance(bundle.family, InPlaneFamily):
        raise BundleError(
            f"bundle {bundle.name} enlarges along the slices of a volume, for which there is no {what}. Name a bundle "
            "that enlarges in the plane."
        )
    return bundle.family


def open_pairs(
    bundle: Bundle, data: Path, split: str | None, *, sets: list[str] | None = None, limit: int | None = None
) -> tuple[list[dict[Hashable, Any]], Callable[[Mapping[Hashable, Any]], dict[Hashable, Any]]]:
    """List the images of a split, of all splits if None, and return a loader of their pairs for a bundle.

    Returns:
        Items of `pair_items`, and a function that adds `low` and `high` to one, ``[slices, rows, columns]`` each.

    Raises:
        InputError: see `pair_items`.
    """
    facts = bundle.facts
    levels = int(facts["levels"])
    items = pair_items(
        str(data),
        bundle.modality,
        split,
        sets=sets,
        # Patients that a bundle's training set aside for validation are no patients of its training.
        validation_share=float(facts.get("validation_share", 0.0)) if split == "train" else 0.0,
        limit=limit,
    )
    load = LoadHighResd(
        "high",
        window=bundle.window,
        reduce=int(facts.get("reduce", 1)),
        multiple=bundle.scale,
        levels=levels,
        slices=bundle.family.slices,
    )
    degrade = Degraded("high", "low", operator=bundle.operator, levels=levels)
    return items, lambda item: degrade(load(item))


def enlarge_cases(
    bundle: Bundle,
    backend: Backend,
    data: Path,
    split: str | None,
    *,
    sets: list[str] | None = None,
    limit: int | None = None,
    options: SamplerOptions = AS_STATED,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[EnlargedCase]:
    """Reduce the images of a split, of all splits if None, and enlarge them again.

    Raises:
        InputError: see `pair_items` and `ModelFamily.resolve`.
        BundleError: the bundle enlarges along the slices.
    """
    family = require_in_plane(bundle, "comparison with single images")
    levels = int(bundle.facts["levels"])
    items, load = open_pairs(bundle, data, split, sets=sets, limit=limit)
    limits = level_limits(levels)
    inference = Inference(backend, options)
    for index, item in enumerate(items):
        pair = load(item)
        stack, high_res = pair["low"].numpy(), middle(pair["high"].numpy())
        inference = replace(inference, options=family.resolve(replace(options, seed=index)))
        super_res = family.enlarge_slice(stack, inference, limits=limits)
        stored = round_to_storage(super_res, levels)
        name, patient = str(item["name"]), str(item["patient"])
        yield EnlargedCase(name, patient, middle(stack), stored, high_res)
        if progress is not None:
            progress(index + 1, len(items))


def enlarge_degraded(
    bundle: Bundle,
    backend: Backend,
    data: Path,
    split: str | None,
    *,
    sources: Sequence[tuple[str | None, int]],
    limit: int | None = None,
    options: SamplerOptions = AS_STATED,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[EnlargedCase]:
    """Degrade the films or CT slices of a split, of all splits if None, in several ways at random, and enlarge them.

    Args:
        bundle, backend: the bundle at one of its scales, and its open backend.
        data: folder with a manifest, or a folder of such folders.
        split: "train", "val" or "test"; None for all.
        sources: folders, None for all, and the whole factor that their images are reduced by first.
        limit: number of images of each source, evenly spread. Default: all.
        options: sampler options.
        progress: called with the number of finished cases and of all.

    Raises:
        InputError: an image is too small; see `pair_items` and `ModelFamily.resolve`.
        BundleError: the bundle enlarges along the slices.
    """
    family = require_in_plane(bundle, "comparison with single images")
    levels = int(bundle.facts["levels"])
    limits, losses = level_limits(levels), LOSSES[bundle.modality]
    items = []
    for folder, reduce in sources:
        images = pair_items(str(data), bundle.modality, split, sets=None if folder is None else [folder], limit=limit)
        items += [(item, reduce) for item in images]
    inference, done = Inference(backend, family.resolve(options)), 0
    for item, reduce in items:
        name, patient = str(item["name"]), str(item["patient"])
        # The same image has the same losses whatever else is calibrated.
        seed = zlib.crc32(f"{name} {reduce} {bundle.scale}".encode())
        high_res, padding, degrade = (_open_slice if bundle.modality == "CT" else _open_film)(
            bundle, item, reduce, seed
        )
        if min(high_res.shape) < LEAST_SIDE * bundle.scale:
            rows, columns = high_res.shape
            raise InputError(
                f"{item['path']}: {rows} x {columns} pixels, expected at least {LEAST_SIDE * bundle.scale} along each "
                f"side to calibrate error bars at scale {bundle.scale}. Take the image out of the manifest."
            )
        for _ in range(losses):
            stack = degrade()
            super_res = family.enlarge_slice(stack, inference, limits=limits)
            stored = round_to_storage(super_res, levels)
            yield EnlargedCase(name, patient, middle(stack), stored, high_res, padding)
            done += 1
            if progress is not None:
                progress(done, losses * len(items))


class _Original(NamedTuple):
    """An image in units of the window, its padding, and a function that degrades it anew with every call."""

    high_res: np.ndarray
    padding: np.ndarray | bool
    degrade: Callable[[], np.ndarray]


def _open_film(bundle: Bundle, item: Mapping[Hashable, Any], reduce: int, seed: int) -> _Original:
    levels, degrade = int(bundle.facts["levels"]), RandomDegradation(**LOSS_SHARES)
    degrade.set_random_state(seed)
    load = LoadHighResd("high", window=bundle.window, reduce=reduce, multiple=bundle.scale, levels=levels)
    film = middle(load(item)["high"].numpy())
    high_res = film[middle_part(film.shape, LARGEST_SIDE, bundle.scale)]
    return _Original(high_res, False, lambda: degrade(high_res, bundle.scale)[None])


def _open_slice(bundle: Bundle, item: Mapping[Hashable, Any], reduce: int, seed: int) -> _Original:
    degrade, index = RandomScanDegradation(), int(item["slice_index"])
    degrade.set_random_state(seed)
    scan = read_scan(Path(item["path"]), reduce)
    part = tuple(slice(side - side % bundle.scale) for side in scan.shape[1:])
    indices = neighbours(index, len(scan.hu), bundle.family.slices)

    def degrade_stack() -> np.ndarray:
        low_res = degrade_slices(scan, indices, lambda hu, padding: degrade(hu, bundle.scale, padding), *part)
        return to_unit(low_res, bundle.window)

    return _Original(to_unit(scan.hu[index][part], bundle.window), scan.padding[index][part], degrade_stack)


def round_to_storage(super_res: np.ndarray, levels: int) -> np.ndarray:
    """Return a result as float32 as it is after it was stored with `levels` steps between 0 and 1."""
    stored = np.rint(super_res * levels) / np.float32(levels)
    limits = level_limits(levels)
    return np.asarray(stored if limits is None else stored.clip(*limits), dtype=np.float32)
