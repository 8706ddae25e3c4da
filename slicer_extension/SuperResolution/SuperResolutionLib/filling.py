"""Volumes that are computed piece by piece while a timer calls `step`, so that the interface stays responsive."""

from __future__ import annotations

import time
from collections.abc import Iterator

BUDGET = 0.015  # seconds after which a call of `step` begins no further piece
BETWEEN_VIEWS = 0.5  # seconds between two renderings of a volume that is being filled

_running: dict = {}  # each volume node, with the rest of its work and the time at which it was rendered last


def begin(node, pieces: Iterator) -> None:
    """Start to fill a volume; `pieces` computes a piece each time it is advanced."""
    node.SetSaveWithScene(False)  # incomplete volumes are not saved
    _running[node] = [pieces, time.monotonic()]


def isBusy() -> bool:
    """Return True while a volume is being filled."""
    return bool(_running)


def step(seconds: float = BUDGET) -> None:
    """Compute pieces until the time is over. Leave volumes that left the scene."""
    until = time.monotonic() + seconds
    for node, work in list(_running.items()):
        pieces, rendered = work
        while True:  # at least one piece each, so that it ends
            isOver = node.GetScene() is None or next(pieces, None) is None
            if isOver or time.monotonic() > until:
                break
        if isOver:
            del _running[node]
            node.SetSaveWithScene(True)
        if isOver or time.monotonic() - rendered > BETWEEN_VIEWS:
            work[1] = time.monotonic()
            node.GetImageData().GetPointData().GetScalars().Modified()
            node.GetImageData().Modified()
