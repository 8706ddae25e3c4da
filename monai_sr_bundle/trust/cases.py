"""What a method makes of images of known truth: the material of error bars."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_sr_bundle.backends.backend import Backend, choose_draw, enlarge
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.inferers.slices import middle
from monai_sr_bundle.transforms.pairs import Degraded, LoadHighResd, pair_items


@dataclass(frozen=True)
class Seen:
    """What a method made of one image of known truth.

    Attributes:
        name, patient: of the image.
        low: ``[rows, columns]``, what the method saw and enlarged, without neighbours that it saw beside it.
        made: ``[scale * rows, scale * columns]``, stored as the method's results are.
        high: the truth, of the same shape.
        boxes: ``[n, 4]`` corners of anomalies in pixels of `high`.
    """

    name: str
    patient: str
    low: np.ndarray
    made: np.ndarray
    high: np.ndarray
    boxes: np.ndarray


def pairs_of(
    bundle: Bundle, data: Path, split: str | None, *, sets: list[str] | None = None, limit: int | None = None
) -> tuple[list[dict[Hashable, Any]], Callable[[Mapping[Hashable, Any]], dict[Hashable, Any]]]:
    """The images of a split, of all if None, as a bundle sees them.

    Returns:
        Items of `pair_items`, and what adds `low` and `high` to one, ``[slices, rows, columns]`` each.

    Raises:
        InputError: as `pair_items`.
    """
    facts = bundle.facts
    levels = int(facts["levels"])
    items = pair_items(
        str(data),
        bundle.modality,
        split,
        sets=sets,
        # What a bundle set aside of its training patients is no patient of its own.
        validation_share=float(facts.get("validation_share", 0.0)) if split == "train" else 0.0,
        limit=limit,
    )
    load = LoadHighResd(
        "high",
        window=bundle.window,
        reduce=int(facts.get("reduce", 1)),
        multiple=bundle.scale,
        levels=levels,
        slices=bundle.slices,
    )
    degrade = Degraded("high", "low", operator=bundle.operator, levels=levels)
    return items, lambda item: degrade(load(item))


def seen_by(
    bundle: Bundle,
    backend: Backend,
    data: Path,
    split: str | None,
    *,
    sets: list[str] | None = None,
    limit: int | None = None,
    texture: float | None = None,
    steps: int | None = None,
    samples: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Seen]:
    """What a method makes of the images of a split, of all if None.

    Raises:
        InputError: as `pair_items` and `choose_draw`.
    """
    levels = int(bundle.facts["levels"])
    items, load = pairs_of(bundle, data, split, sets=sets, limit=limit)
    limits = (0.0, 1.0) if levels == 255 else None
    tile = None
    for index, item in enumerate(items):
        pair = load(item)
        stack, high = pair["low"].numpy(), middle(pair["high"].numpy())
        draw = choose_draw(bundle, index, None, steps, samples, texture)
        made, tile = enlarge(stack, bundle, backend, draw=draw, tile=tile, limits=limits)
        stored = np.rint(made * levels) / np.float32(levels)
        if limits is not None:
            stored = stored.clip(*limits)
        name, patient = str(item["name"]), str(item["patient"])
        yield Seen(name, patient, middle(stack), stored.astype(np.float32), high, pair["boxes_xyxy"])
        if progress is not None:
            progress(index + 1, len(items))
