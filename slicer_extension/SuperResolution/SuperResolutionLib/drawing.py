"""Boxes that are drawn by dragging on slice views, and boxes whose edges are moved onto those of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import slicer

from SuperResolutionLib import display, nodes, region
from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.framing import YELLOW
from SuperResolutionLib.volumes import check, ijkToWorldOf, shapeOf, transformPoints

REGION_PIXELS, BOX_PIXELS = 128, 32  # sides of a region and of an anomaly box that are drawn by a click alone
_PRESS, _MOVE, _RELEASE = "LeftButtonPressEvent", "MouseMoveEvent", "LeftButtonReleaseEvent"
_FIRST = 10.0  # priority of our observers: above those of Slicer's views, whose mouse modes rest meanwhile
_CLICK = 3  # largest distance of the mouse, in pixels of the screen, that counts as a click
_TURNED = 0.01  # voxels by which a corner of an upright box may lie beside its bounding box


class BoxDrawing:
    """The drawing of one box: press, drag, release. A click without a drag draws a square of `pixels` around the mouse.

    `views` are pairs of a slice node and the interactor of its view. `onEnd` is called once with the extent, whose
    edges are edges of pixels, and `onError` with a sentence if nothing can be drawn there; the drawing goes on.
    """

    def __init__(
        self, views: Sequence, volumeNode, pixels: int, onEnd: Callable[[list], None], onError: Callable[[str], None]
    ):
        check(volumeNode)
        self.volume, self._pixels, self._onEnd, self._onError = volumeNode, pixels, onEnd, onError
        self._start, self._preview, self._observed = None, None, []
        for view, interactor in views:
            for event in (_PRESS, _MOVE, _RELEASE):
                self._observe(view, interactor, event)

    def stop(self) -> None:
        """End the drawing without a box. Calling it again does nothing."""
        for interactor, tag in self._observed:
            interactor.RemoveObserver(tag)
        self._observed = []
        if self._preview is not None:
            nodes.Removal(self._preview)

    def _observe(self, view, interactor, event: str) -> None:
        def onMouse(caller, name):
            position = interactor.GetEventPosition()
            if event == _PRESS:
                self._start = view, position
            if self._start is None:
                return
            interactor.GetCommand(tag).SetAbortFlag(1)  # Slicer's own mouse modes must not act on it
            if event != _PRESS:
                self._drag(position, isEnd=event == _RELEASE)

        tag = interactor.AddObserver(event, onMouse, _FIRST)
        self._observed.append((interactor, tag))

    def _drag(self, position, isEnd: bool) -> None:
        view, start = self._start
        if isEnd:
            self._start = None
        try:
            extent = self._extentBetween(view, start, position)
            if isEnd:
                self.stop()
                self._onEnd(extent)
            elif self._preview is None:
                self._preview = addRegion(self.volume, extent, isHidden=True)
            else:
                region.placeBox(self._preview, self.volume, extent)
        except InputError as error:
            self._onError(str(error))

    def _extentBetween(self, view, start: Sequence[int], end: Sequence[int]) -> list[int]:
        """Return the extent of the voxels between two pixels of the screen, on the slice that the view shows."""
        first, last = np.reshape(region.ofSlice(view, self.volume), (3, 2))[::-1].T
        xyToIndex = np.linalg.inv(ijkToWorldOf(self.volume)) @ slicer.util.arrayFromVTKMatrix(view.GetXYToRAS())
        points = transformPoints(xyToIndex, np.array([[*start, 0.0], [*end, 0.0]])) + 0.5
        if ((points.max(axis=0) < first - 0.5) | (points.min(axis=0) > last + 0.5)).any():
            raise InputError(_("The mouse was outside '{name}'. Drag over the image."), name=self.volume.GetName())
        low, high = np.round(points.min(axis=0)), np.round(points.max(axis=0))
        if np.abs(np.subtract(start, end)).max() <= _CLICK:
            # Near the edge of the volume the square is moved into it.
            low = np.clip(np.round(points[1] - self._pixels / 2), 0, np.maximum(last - self._pixels, 0))
            high = low + self._pixels
        low = np.clip(low, first, last - 1)
        bounds = np.stack([low, np.clip(high, low + 1, last)], axis=1)
        return bounds[::-1].astype(int).ravel().tolist()


def addRegion(volumeNode, extent: Sequence[int], isHidden: bool = False):
    """Add a region box on an extent, as an outline without handles, and return its node; no list shows a hidden one."""
    scene = volumeNode.GetScene()
    node = slicer.vtkMRMLMarkupsROINode()
    region.placeBox(node, volumeNode, extent)
    node.SetName(scene.GenerateUniqueName("SR region"))
    node.SetHideFromEditors(isHidden)
    scene.AddNode(node)
    display.outlineOnly(node, YELLOW)
    return node


def snap(roiNode, volumeNode) -> None:
    """Move the edges of a box onto the nearest edges of pixels; one that is turned or lies outside stays."""
    try:
        corners, counts = region.cornersZyx(roiNode, volumeNode), np.array(shapeOf(volumeNode))
    except InputError:  # bent by a transform, which is told when the box is used
        return
    low, high = corners.min(axis=0), corners.max(axis=0)
    isTurned = np.minimum(corners - low, high - corners).max() > _TURNED
    if isTurned or (high <= 0).any() or (low >= counts).any():
        return
    low = np.clip(np.round(low), 0, counts - 1)
    high = np.clip(np.maximum(np.round(high), low + 1), 1, counts)
    region.placeBox(roiNode, volumeNode, np.stack([low, high], axis=1).ravel())
