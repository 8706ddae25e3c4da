"""The next image of a reader: the least certain one, the one that readers disagree on, or any.

The order is computed anew from the store at every request, and what was served is recorded there, so a restart of the
server changes nothing.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from labelling.box_store import CONSENSUS, BoxStore
from labelling.consensus import disagreement
from labelling.errors import ConflictError, NotFoundError, RefusedError

logger = logging.getLogger(__name__)

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


def next_image(
    store: BoxStore, images: list[str], reader: str, strategy: str, find_problem: Callable[[str], str] = lambda _: ""
) -> dict[str, Any]:
    """Return the next image for a reader, and record that it was served.

    Images that the reader has submitted, or that enough readers have or are at, are left out. A reader is at the image
    that they were served last, for `HOLDS` at most. What was served and not submitted comes again after all others.

    Args:
        store: readings and records.
        images: names of all images.
        reader, strategy: who asks, and one of `STRATEGIES`.
        find_problem: returns why an image is not to be served, or nothing. It is asked of the images that come first
            until one has no problem, and again at the next request. Default: none has.

    Returns:
        `id` of the image, `score` and how many are `left`, without those that are known to have a problem; nothing
        where all is done.

    Raises:
        NotFoundError: no such strategy.
        ConflictError: nothing that the strategy needs was measured or read yet.
    """
    if strategy not in STRATEGIES:
        raise NotFoundError(f"there is no such strategy; there are {', '.join(STRATEGIES)}.")
    usable: set[str] = set()
    while True:
        # The images are looked at without the lock, for which the others would wait.
        with _lock:
            served: dict[str, int] = store.record(_QUEUE, reader) or {}
            scores = _scores(store, _open_images(store, images, reader), reader, strategy)
            order = sorted(scores, key=lambda name: (served.get(name, 0), -scores[name], name))
            chosen = next((name for name in order if name in usable), "")
            if chosen:
                times = served.pop(chosen, 0) + 1
                store.set_record(_QUEUE, reader, {**served, chosen: times})  # the last one is where the reader is
                left = len(scores.keys() - left_out(store, images).keys())
                return {"id": chosen, "score": round(scores[chosen], 6), "left": left}
        first = next((name for name in order if not _is_left_out(store, name, find_problem(name))), None)
        if first is None:
            return {}
        usable.add(first)


def left_out(store: BoxStore, images: list[str]) -> dict[str, str]:
    """Return those of all images that the queue has left out, with a sentence on each; forget those that are gone."""
    problems = _left_out.get(str(store.file), {})
    for name in dict(problems).keys() - set(images):
        problems.pop(name, None)
    return dict(problems)


def _is_left_out(store: BoxStore, image: str, problem: str) -> bool:
    """Keep whether an image has a problem, log it once, and return it. A log names no images: these may be patients."""
    problems = _left_out.setdefault(str(store.file), {})
    if not problem:
        problems.pop(image, None)
    elif problems.get(image) != problem:
        problems[image] = problem
        logger.warning("An image is left out of the queue: GET /activelearning/left_out says which, and why.")
    return bool(problem)


_left_out: dict[str, dict[str, str]] = {}


def _open_images(store: BoxStore, images: list[str], reader: str) -> list[str]:
    """Return the images that a reader has not submitted, and that not enough readers have or are at."""
    readers = {name: set(numbers) - {CONSENSUS} for name, numbers in store.images().items()}
    needed = readers_per_image(store)
    recent = store.records(_QUEUE, since=datetime.now(UTC) - HOLDS)
    others = {key: content for key, content in recent.items() if key != reader}

    def is_open(name: str) -> bool:
        have = readers.get(name, set())
        at_it = {other for other, content in others.items() if [*content][-1] == name}
        return reader not in have and len(have | at_it) < needed

    return [name for name in images if is_open(name)]


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
