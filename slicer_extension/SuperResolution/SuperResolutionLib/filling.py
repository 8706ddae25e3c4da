"""Volumes whose voxels are computed piece by piece, so that the interface stays responsive.

A volume that is derived from a large result (difference, trust mask) comes into the scene at once, empty. A timer calls
`step`, as `Enhancer.step` does; the slices that the views show come first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import slicer

from SuperResolutionLib.volumes import ijkToRasOf, toWorldOf, transformPoints

BUDGET = 0.015  # approximate seconds of a call of `step`, which always finishes its last piece
PIECE = 1 << 17  # voxels in a piece, a few milliseconds of cubic interpolation
BETWEEN_VIEWS = 0.5  # seconds between two renderings of a volume that is being filled
Extent = list[int]


class Filling:
    """A volume node that is being filled: its voxels `array`, all 0 at first, by `compute`, a function of an extent.

    `onEnd` is called when all voxels are computed.
    """

    def __init__(
        self, node, array: np.ndarray, compute: Callable[[Extent], np.ndarray], onEnd: Callable[[], Any] = lambda: None
    ):
        self.node, self._array, self._compute, self._onEnd = node, array, compute, onEnd
        self._image = node.GetImageData()
        slices, rows, columns = array.shape
        self._pieceRows = max(1, PIECE // columns)
        # The middle of a slice comes first: it shows most, and colours are chosen from it.
        first = sorted(range(0, rows, self._pieceRows), key=lambda row: abs(row + self._pieceRows / 2 - rows / 2))
        self._remainingRows = {k: list(first) for k in range(slices)}
        self._rendered = -BETWEEN_VIEWS
        node.SetSaveWithScene(False)  # incomplete volumes are not saved

    def close(self) -> None:
        """Stop computing."""
        self.node.SetSaveWithScene(True)
        self._remainingRows.clear()

    @property
    def isUnfinished(self) -> bool:
        """True while voxels are missing and the volume is still in the scene with the same image."""
        return bool(self._remainingRows and self.node.GetScene()) and self.node.GetImageData() is self._image

    def step(self) -> np.ndarray:
        """Compute the next piece, in the slice nearest to a visible one, and return its voxels."""
        visible = visibleSlices(self.node) or [len(self._array) // 2]
        k = min(self._remainingRows, key=lambda index: min(abs(index - other) for other in visible))
        row = self._remainingRows[k].pop(0)
        extent = [k, k + 1, row, min(row + self._pieceRows, self._array.shape[1]), 0, self._array.shape[2]]
        piece = self._compute(extent)
        self._array[k, extent[2] : extent[3]] = piece[0]
        if not self._remainingRows[k]:
            del self._remainingRows[k]
            if time.monotonic() - self._rendered > BETWEEN_VIEWS or not self._remainingRows:
                self._rendered = time.monotonic()
                self._image.GetPointData().GetScalars().Modified()
                self._image.Modified()
        if not self._remainingRows:
            self._onEnd()
        return piece


_running: list[Filling] = []


def begin(node, *arguments) -> None:
    """Start to fill a volume, in place of an earlier filling of it; the arguments are those of `Filling`."""
    _drop(node)
    _running.append(Filling(node, *arguments))


def fillingOf(node) -> Filling | None:
    """Return the filling of a volume; None if it has all its voxels."""
    return next((filling for filling in _running if filling.node is node and filling.isUnfinished), None)


def isBusy() -> bool:
    """Return True while a volume is being filled."""
    return bool(_running)


def step(seconds: float = BUDGET) -> None:
    """Compute pieces until the time is over. Drop volumes that left the scene or have other voxels now."""
    until = time.monotonic() + seconds
    while _running:
        filling = _running[0]
        if filling.isUnfinished:
            filling.step()
        if not filling.isUnfinished:
            _drop(filling.node)
        if time.monotonic() >= until:
            return


def _drop(node) -> None:
    for filling in [filling for filling in _running if filling.node is node]:
        filling.close()
        _running.remove(filling)


def visibleSlices(volumeNode) -> list[int]:
    """Return the slices of a volume that slice views show, for views parallel to its slices."""
    parent = volumeNode.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        return []  # no slice is a plane
    world = toWorldOf(volumeNode) @ ijkToRasOf(volumeNode)
    toIndex = np.linalg.inv(world)
    visible = []
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode", volumeNode.GetScene()):
        sliceToRas = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())
        along = np.abs(sliceToRas[:3, :2].T @ world[:3, 2]) / np.linalg.norm(world[:3, 2])
        if along.max() < 1e-3:  # the view's plane holds no step from slice to slice
            visible.append(int(transformPoints(toIndex, sliceToRas[None, :3, 3])[0][2].round()))
    return visible
