"""Voxels that are computed piece by piece, so that the interface goes on between two pieces.

A volume that is made from a large result (difference, trust mask) comes into the scene at once, empty. Whoever has a
timer calls `step`, as `Enhancer.step` does; the slices that the views show come first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import slicer

from SuperResolutionLib import voxel_grid
from SuperResolutionLib.volumes import ijkToRasOf, toWorldOf

BUDGET = 0.015
"""Seconds that a call of `step` takes, about: a piece is begun before they are over, and ended."""
PIECE = 1 << 17
"""Voxels of a piece: a few milliseconds of cubic interpolation."""
BETWEEN_VIEWS = 0.5
"""Seconds between two renderings of a volume that is being filled."""

Extent = list[int]


class Filling:
    """A volume that is being filled.

    Args:
        node: it has its voxels already, all 0.
        array: ``[slices, rows, columns]``, those voxels.
        compute: gives the voxels of an extent ``[k0, k1, r0, r1, c0, c1]``.
        ended: called when all are there.

    Attributes:
        pieces: that were computed.
    """

    def __init__(self, node, array: np.ndarray, compute: Callable[[Extent], np.ndarray], ended: Callable[[], Any]):
        self.node, self._array, self._compute, self._ended = node, array, compute, ended
        self._image = node.GetImageData()
        slices, rows, columns = array.shape
        self._high = max(1, PIECE // columns)
        # From the middle of a slice, where there is most to see, and from which colours are chosen.
        first = sorted(range(0, rows, self._high), key=lambda row: abs(row + self._high / 2 - rows / 2))
        self._left = {k: list(first) for k in range(slices)}
        self._rendered = -BETWEEN_VIEWS
        self.pieces = 0
        node.SetSaveWithScene(False)  # what is saved is whole

    def close(self) -> None:
        """Compute no more."""
        self.node.SetSaveWithScene(True)
        self._left.clear()

    @property
    def isLeft(self) -> bool:
        """Whether voxels are missing, of a volume that is still there as it was."""
        return bool(self._left and self.node.GetScene()) and self.node.GetImageData() is self._image

    @property
    def voxelsLeft(self) -> int:
        """That are still to be computed."""
        _, rows, columns = self._array.shape
        return columns * sum(min(row + self._high, rows) - row for left in self._left.values() for row in left)

    def step(self) -> np.ndarray:
        """Compute the next piece, of the slice that is nearest to one that a view shows; gives its voxels."""
        shown = shownSlices(self.node) or [len(self._array) // 2]
        k = min(self._left, key=lambda index: min(abs(index - one) for one in shown))
        row = self._left[k].pop(0)
        extent = [k, k + 1, row, min(row + self._high, self._array.shape[1]), 0, self._array.shape[2]]
        piece = self._compute(extent)
        self._array[k, extent[2] : extent[3]] = piece[0]
        self.pieces += 1
        if not self._left[k]:
            del self._left[k]
            if time.monotonic() - self._rendered > BETWEEN_VIEWS or not self._left:
                self._rendered = time.monotonic()
                self._image.GetPointData().GetScalars().Modified()
                self._image.Modified()
        if not self._left:
            self._ended()
        return piece


_running: list[Filling] = []


def begin(
    node, array: np.ndarray, compute: Callable[[Extent], np.ndarray], ended: Callable[[], Any] = lambda: None
) -> Filling:
    """Fill a volume from now on, in place of what it was being filled with; see `Filling`."""
    _forget(node)
    _running.append(Filling(node, array, compute, ended))
    return _running[-1]


def of(node) -> Filling | None:
    """The filling of a volume; None where it has all its voxels."""
    return next((one for one in _running if one.node is node and one.isLeft), None)


def isBusy() -> bool:
    """Whether a volume is being filled."""
    return bool(_running)


def step(seconds: float = BUDGET) -> None:
    """Compute pieces until the time is over; a volume that has left the scene or has other voxels now is forgotten."""
    until = time.monotonic() + seconds
    while _running:
        filling = _running[0]
        if filling.isLeft:
            filling.step()
        if not filling.isLeft:
            _forget(filling.node)
        if time.monotonic() >= until:
            return


def finish(node) -> None:
    """Wait until a volume has all its voxels."""
    while (filling := of(node)) is not None:
        filling.step()
    _forget(node)


def _forget(node) -> None:
    for one in [each for each in _running if each.node is node]:
        one.close()
        _running.remove(one)


def shownSlices(volumeNode) -> list[int]:
    """The slices of a volume that slice views show, of views that lie along its slices."""
    parent = volumeNode.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        return []  # bent: no slice of it is plane
    world = toWorldOf(volumeNode) @ ijkToRasOf(volumeNode)
    toIndex = np.linalg.inv(world)
    found = []
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode", volumeNode.GetScene()):
        sliceToRas = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())
        along = np.abs(sliceToRas[:3, :2].T @ world[:3, 2]) / np.linalg.norm(world[:3, 2])
        if along.max() < 1e-3:  # the view's plane holds no step from slice to slice
            found.append(int(voxel_grid.transformed(toIndex, sliceToRas[None, :3, 3])[0][2].round()))
    return found
