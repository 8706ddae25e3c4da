"""Enlarged images of known truth, from which error bars are trained and calibrated."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_sr_bundle.backends.backend import Backend
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.inferers.neighbours import middle
from monai_sr_bundle.inferers.sampler_options import AS_STATED, SamplerOptions
from monai_sr_bundle.metrics.stored import level_limits
from monai_sr_bundle.transforms.pairs import Degraded, LoadHighResd, pair_items


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


def round_to_storage(super_res: np.ndarray, levels: int) -> np.ndarray:
    """Return a result as float32 as it is after it was stored with `levels` steps between 0 and 1."""
    stored = np.rint(super_res * levels) / np.float32(levels)
    limits = level_limits(levels)
    return np.asarray(stored if limits is None else stored.clip(*limits), dtype=np.float32)
