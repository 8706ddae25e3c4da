"""The next image of a reader: the least certain one, the one that readers disagree on, or any.

The order is computed anew from the store at every request, and what was served is recorded there, so a restart of the
server changes nothing.
"""

from __future__ import annotations

import hashlib
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from labelling.box_store import CONSENSUS, BoxStore
from labelling.consensus import disagreement
from labelling.errors import ConflictError, NotFoundError, RefusedError

STRATEGIES = {
    "random": "any image, in an order of the reader's own",
    "error_bars": "the image with the widest error bars, of those that were measured",
    "disagreement": "the image whose readers disagree most, of those with at least two readers",
}
DEFAULT_READERS = 3
_QUEUE, _WIDTH, _READERS = "queue", "error_bar_width", "readers_per_image"
_lock = threading.Lock()
HOLDS = timedelta(days=1)
"""Time for which a reader who was served an image and does not come back counts as one of its readers."""


def next_image(store: BoxStore, images: list[str], reader: str, strategy: str) -> dict[str, Any]:
    """Return the next image for a reader, and record that it was served.

    Images that the reader has submitted, or that enough readers have or are at, are left out. A reader is at the image
    that they were served last, for `HOLDS` at most. What was served and not submitted comes again after all others.

    Returns:
        `id` of the image, `score` and how many are `left`; nothing where all is done.

    Raises:
        NotFoundError: no such strategy.
        ConflictError: nothing that the strategy needs was measured or read yet.
    """
    if strategy not in STRATEGIES:
        raise NotFoundError(f"there is no such strategy; there are {', '.join(STRATEGIES)}.")
    with _lock:
        readers = {name: set(numbers) - {CONSENSUS} for name, numbers in store.images().items()}
        served: dict[str, int] = store.record(_QUEUE, reader) or {}
        needed = readers_per_image(store)
        recent = store.records(_QUEUE, since=datetime.now(UTC) - HOLDS)
        others = {key: content for key, content in recent.items() if key != reader}

        def is_open(name: str) -> bool:
            have = readers.get(name, set())
            at_it = {other for other, content in others.items() if [*content][-1] == name}
            return reader not in have and len(have | at_it) < needed

        scores = _scores(store, [name for name in images if is_open(name)], reader, strategy)
        if not scores:
            return {}
        chosen = min(scores, key=lambda name: (served.get(name, 0), -scores[name], name))
        times = served.pop(chosen, 0) + 1
        store.set_record(_QUEUE, reader, {**served, chosen: times})  # the last one is where the reader is
    return {"id": chosen, "score": round(scores[chosen], 6), "left": len(scores)}


def readers_per_image(store: BoxStore) -> int:
    """Return how many readers an image is to have."""
    return int(store.record(_READERS, "all") or DEFAULT_READERS)


def set_readers_per_image(store: BoxStore, count: int) -> None:
    """Set how many readers an image is to have.

    Raises:
        RefusedError: not 1 to 100.
    """
    if not 1 <= count <= 100:
        raise RefusedError(f"readers is {count}, expected 1 to 100.")
    store.set_record(_READERS, "all", count)


def set_width(store: BoxStore, image: str, bundle: str, width: float | None) -> None:
    """Record the mean half-width of an image's error bars, as a share of the window; None where it has none."""
    measured = datetime.now(UTC).isoformat(timespec="seconds")
    store.set_record(_WIDTH, image, {"bundle": bundle, "width": width, "measured": measured})


def widths(store: BoxStore) -> dict[str, dict[str, Any]]:
    """Return the records of `set_width`, by image."""
    return store.records(_WIDTH)


def _scores(store: BoxStore, images: list[str], reader: str, strategy: str) -> dict[str, float]:
    if strategy == "random":
        return {name: _draw(reader, name) for name in images}
    if strategy == "error_bars":
        measured = {name: content["width"] for name, content in widths(store).items() if content["width"] is not None}
        if images and not measured:
            raise ConflictError("no error bars were measured yet: POST /activelearning/error_bars/measure first.")
        return {name: measured[name] for name in images if name in measured}
    read = {name: numbers for name, numbers in store.images().items() if len(set(numbers) - {CONSENSUS}) > 1}
    if images and not read:
        raise ConflictError("no image has two readers yet, so nothing is known of disagreement. Use another strategy.")
    return {name: _disagreement(store, name, read[name]) for name in images if name in read}


def _disagreement(store: BoxStore, image: str, numbers: dict[str, int]) -> float:
    """Return how much the readers of an image disagree, computed once for the same versions."""
    versions = tuple(sorted(numbers.items()))
    key = str(store.file), image
    if _disagreements.get(key, ((), 0.0))[0] != versions:
        readings = [version.reading for version in store.submitted(image) if version.reading is not None]
        _disagreements[key] = versions, disagreement(readings)
    return _disagreements[key][1]


_disagreements: dict[tuple[str, str], tuple[tuple[tuple[str, int], ...], float]] = {}


def _draw(reader: str, image: str) -> float:
    """Return a number in [0, 1) that is always the same for a reader and an image."""
    digest = hashlib.sha256(f"{reader} {image}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
