"""Enlarged images of known truth, from which error bars are trained and calibrated."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_sr_bundle.backends.backend import Backend
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.input_range import LEAST_SIDE
from monai_sr_bundle.inferers.neighbours import middle
from monai_sr_bundle.inferers.sampler_options import AS_STATED, SamplerOptions
from monai_sr_bundle.metrics.stored import level_limits
from monai_sr_bundle.transforms.pairs import Degraded, LoadHighResd, evenly_spread, pair_items
from monai_sr_bundle.transforms.random_degradation import RandomDegradation

IDEAL, SINGLE = 0.15, 0.25
"""Shares of films without and with one loss of resolution. The rest has several, whose errors are harder to foresee."""
LOSSES_PER_FILM = 3
"""Random losses of resolution that each film is calibrated with, at every scale."""
LARGEST_SIDE = 768
"""Of the middle of a film that is calibrated, in its own pixels."""


@dataclass(frozen=True)
class EnlargedCase:
    """An image of known truth, its input and a bundle's result.

    Attributes:
        name, patient: name of the image and of its patient.
        low_res: ``[rows, columns]``, the slice that was enlarged, without its neighbours.
        super_res: ``[scale * rows, scale * columns]``, rounded as stored results are.
        high_res: the truth, same shape.
        boxes: ``[n, 4]`` corners of anomalies in pixels of `high_res`.
    """

    name: str
    patient: str
    low_res: np.ndarray
    super_res: np.ndarray
    high_res: np.ndarray
    boxes: np.ndarray


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
    family = bundle.require_in_plane("comparison with single images")
    levels = int(bundle.facts["levels"])
    items, load = open_pairs(bundle, data, split, sets=sets, limit=limit)
    limits = level_limits(levels)
    tile = None
    for index, item in enumerate(items):
        pair = load(item)
        stack, high_res = pair["low"].numpy(), middle(pair["high"].numpy())
        resolved = family.resolve(replace(options, seed=index))
        super_res, tile = family.enlarge_slice(stack, backend, resolved, tile=tile, limits=limits)
        stored = round_to_storage(super_res, levels)
        name, patient = str(item["name"]), str(item["patient"])
        yield EnlargedCase(name, patient, middle(stack), stored, high_res, pair["boxes_xyxy"])
        if progress is not None:
            progress(index + 1, len(items))


def enlarge_films(
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
    """Degrade the films of a split, of all splits if None, in several ways at random, and enlarge them again.

    Args:
        bundle, backend: the bundle at one of its scales, and its open backend.
        data: folder with a manifest, or a folder of such folders.
        split: "train", "val" or "test"; None for all.
        sources: folders, None for all, and the whole factor that their films are reduced by first.
        limit: number of films of each source, evenly spread. Default: all.
        options: sampler options.
        progress: called with the number of finished cases and of all.

    Raises:
        InputError: a film is too small; see `pair_items` and `ModelFamily.resolve`.
        BundleError: the bundle enlarges along the slices.
    """
    family = bundle.require_in_plane("comparison with single images")
    levels = int(bundle.facts["levels"])
    limits, resolved = level_limits(levels), family.resolve(options)
    degrade = RandomDegradation(ideal=IDEAL, single=SINGLE)
    items = []
    for folder, reduce in sources:
        films = pair_items(str(data), bundle.modality, split, sets=None if folder is None else [folder])
        items += [(item, reduce) for item in evenly_spread(films, limit or len(films))]
    tile, done = None, 0
    for item, reduce in items:
        name, patient = str(item["name"]), str(item["patient"])
        load = LoadHighResd("high", window=bundle.window, reduce=reduce, multiple=bundle.scale, levels=levels)
        high_res = _middle_of(middle(load(item)["high"].numpy()), bundle.scale)
        if min(high_res.shape) < LEAST_SIDE * bundle.scale:
            rows, columns = high_res.shape
            raise InputError(
                f"{item['path']}: {rows} x {columns} pixels, expected at least {LEAST_SIDE * bundle.scale} along each "
                f"side to calibrate error bars at scale {bundle.scale}. Take the film out of the manifest."
            )
        # The same film has the same losses whatever else is calibrated.
        degrade.set_random_state(zlib.crc32(f"{name} {reduce} {bundle.scale}".encode()))
        for _ in range(LOSSES_PER_FILM):
            low_res = degrade(high_res, bundle.scale)
            super_res, tile = family.enlarge_slice(low_res, backend, resolved, tile=tile, limits=limits)
            stored = round_to_storage(super_res, levels)
            yield EnlargedCase(name, patient, low_res, stored, high_res, np.empty((0, 4), dtype=np.float32))
            done += 1
            if progress is not None:
                progress(done, LOSSES_PER_FILM * len(items))


def _middle_of(film: np.ndarray, multiple: int) -> np.ndarray:
    sides = [min(LARGEST_SIDE - LARGEST_SIDE % multiple, side) for side in film.shape]
    top, left = ((side - part) // 2 for side, part in zip(film.shape, sides, strict=True))
    return film[top : top + sides[0], left : left + sides[1]]


def round_to_storage(super_res: np.ndarray, levels: int) -> np.ndarray:
    """Return a result as float32 as it is after it was stored with `levels` steps between 0 and 1."""
    stored = np.rint(super_res * levels) / np.float32(levels)
    limits = level_limits(levels)
    return np.asarray(stored if limits is None else stored.clip(*limits), dtype=np.float32)
