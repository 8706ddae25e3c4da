"""Boxes that are drawn by dragging on slice views, and boxes whose edges are moved onto those of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import slicer

from SuperResolutionLib import box_nodes, display, region
from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.framing import YELLOW
from SuperResolutionLib.volumes import check, ijkToRasOf, shapeOf, toWorldOf, transformPoints

REGION_PIXELS, BOX_PIXELS = 128, 32  # sides of a region and of an anomaly box that are drawn by a click alone
_FIRST = 10.0  # priority of our observers: above those of Slicer's views, whose mouse modes rest meanwhile
_CLICK = 3  # largest distance of the mouse, in pixels of the screen, that counts as a click


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
            self._observe(view, interactor, "LeftButtonPressEvent", self._press)
            self._observe(view, interactor, "MouseMoveEvent", self._move)
            self._observe(view, interactor, "LeftButtonReleaseEvent", self._release)

    def stop(self) -> None:
        """End the drawing without a box. Calling it again does nothing."""
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._observed, self._start = [], None
        if self._preview is not None and self._preview.GetScene() is not None:
            box_nodes.removeBox(self._preview)
        self._preview = None

    def _observe(self, view, interactor, event, function) -> None:
        def called(caller, name):
            command = interactor.GetCommand(tag)
            if function(view, interactor.GetEventPosition()):
                command.SetAbortFlag(1)  # Slicer's own mouse modes must not act on it

        tag = interactor.AddObserver(event, called, _FIRST)
        self._observed.append((interactor, tag))

    def _press(self, view, position) -> bool:
        self._start = (view, position)
        return True

    def _move(self, view, position) -> bool:
        if self._start is None or self._start[0] is not view:
            return False
        extent = self._extent(position)
        if extent and self._preview is None:
            self._preview = addRegion(self.volume, extent, isHidden=True)
        elif extent:
            region.placeBox(self._preview, self.volume, extent)
        return True

    def _release(self, view, position) -> bool:
        if self._start is None:
            return False
        extent = self._extent(position)
        self._start = None
        if extent:
            self.stop()
            self._onEnd(extent)
        return True

    def _extent(self, position):
        view, start = self._start
        isClick = max(abs(a - b) for a, b in zip(start, position)) <= _CLICK
        try:
            return extentBetween(view, self.volume, start, position, self._pixels if isClick else 0)
        except InputError as error:
            self._onError(str(error))
            return None


def extentBetween(sliceNode, volumeNode, start: Sequence[int], end: Sequence[int], pixels: int = 0) -> list[int]:
    """Return the extent of the voxels between two places of a slice view, on the slice that the view shows.

    The places are in pixels of the screen from the lower left corner of the view. With `pixels` above 0 it is a square
    of that side around `end`, as far as it lies in the volume.
    """
    first, last = np.reshape(region.ofSlice(sliceNode, volumeNode), (3, 2))[::-1].T
    worldToIndex = np.linalg.inv(toWorldOf(volumeNode) @ ijkToRasOf(volumeNode))
    xyToIndex = worldToIndex @ slicer.util.arrayFromVTKMatrix(sliceNode.GetXYToRAS())
    points = transformPoints(xyToIndex, np.array([[*start, 0.0], [*end, 0.0]])) + 0.5
    if ((points.max(axis=0) < first - 0.5) | (points.min(axis=0) > last + 0.5)).any():
        raise InputError(_("The mouse was outside '{name}'. Drag over the image."), name=volumeNode.GetName())
    low, high = np.round(points.min(axis=0)), np.round(points.max(axis=0))
    if pixels:  # near the edge of the volume the square is moved into it
        low = np.clip(np.round(points[1] - pixels / 2), 0, np.maximum(last - pixels, 0))
        high = low + pixels
    low = np.clip(low, first, last - 1)
    bounds = np.stack([low, np.clip(high, low + 1, last)], axis=1)
    return [int(edge) for edge in bounds[::-1].ravel()]


def addRegion(volumeNode, extent: Sequence[int], isHidden: bool = False):
    """Add a region box on an extent, as an outline without handles, and return its node; no list shows a hidden one."""
    scene = volumeNode.GetScene()
    node = slicer.vtkMRMLMarkupsROINode()
    region.placeBox(node, volumeNode, extent)
    node.SetName(scene.GenerateUniqueName("SR region"))
    node.SetHideFromEditors(isHidden)
    scene.AddNode(node)
    display.outlineOnly(node, YELLOW)
    display.showHandles(node, False)
    return node


def snap(roiNode, volumeNode) -> None:
    """Move the edges of a box onto the nearest edges of pixels; a box that is turned against the volume stays."""
    try:
        worldToIndex = np.linalg.inv(toWorldOf(volumeNode) @ ijkToRasOf(volumeNode))
        boxToWorld = toWorldOf(roiNode) @ slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToNodeMatrix())
    except InputError:
        return
    axes = (worldToIndex @ boxToWorld)[:3, :3]
    axes = np.abs(axes / np.linalg.norm(axes, axis=0))
    if np.abs(axes - axes.round()).max() > region.TOLERANCE:
        return
    counts = np.array(shapeOf(volumeNode))
    low, high = np.reshape(box_nodes.boundsIn(roiNode, volumeNode), (3, 2)).T
    if (high <= 0).any() or (low >= counts).any():
        return  # it lies outside, which is told when it is used
    low = np.clip(np.round(low), 0, counts - 1)
    high = np.clip(np.maximum(np.round(high), low + 1), 1, counts)
    region.placeBox(roiNode, volumeNode, np.stack([low, high], axis=1).ravel())
