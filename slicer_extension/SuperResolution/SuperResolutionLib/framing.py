"""The frame and the caption of an enhanced region on the image, and views that are fitted to the region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from slicer.util import NodeModify, VTKObservationMixin

from SuperResolutionLib import display, nodes, region
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.volumes import ijkToRasOf, shapeOf, transformPoints

CONTEXT = 1.6  # size of what a fitted view shows, in sizes of the region
YELLOW = (1.0, 0.85, 0.2)
_INVISIBLE = 0.01
_BESIDE = 0.08  # of the size of the region, from the frame to a letter; twice as far above, for the caption


class Frame:
    """A thin frame around a volume in the slice views, with captions above its first row and letters at its edges.

    A caption is words for the reader, and the ID of the only view that shows them, or None for all views. The letters
    are those of the left, right, upper and lower edge. All are markups that no list shows and no scene file holds;
    nothing of them can be moved by hand.
    """

    def __init__(self, volumeNode, captions: Sequence[tuple[str, str | None]], letters: Sequence[str] = ()):
        self._volume, scene = volumeNode, volumeNode.GetScene()
        self._box = _addMarkups(scene, slicer.vtkMRMLMarkupsROINode())
        self.displayNode = self._box.GetDisplayNode()  # a legend can be attached to it
        slices, rows, columns = shapeOf(volumeNode)
        try:
            region.placeBox(self._box, volumeNode, region.whole(volumeNode))
        except InputError:
            self._box.SetDisplayVisibility(False)  # the axes are not square: the caption has to do
        display.outlineOnly(self._box, YELLOW)
        # A point is shown in its own slice only.
        self._captions = [self._addTexts([(words, k, 0, 0) for k in range(slices)], view) for words, view in captions]
        far = _BESIDE * max(rows, columns)
        positions = (rows / 2, -far), (rows / 2, columns + far / 4), (-2 * far, columns / 2), (rows + far, columns / 2)
        self._edges = self._addTexts([(letter, 0, *position) for letter, position in zip(letters, positions)])

    def setCaption(self, caption: str) -> None:
        """Change the first caption."""
        points = self._captions[0]
        with NodeModify(points):
            for n in range(points.GetNumberOfControlPoints()):
                points.SetNthControlPointLabel(n, caption)

    def _addTexts(self, texts: Sequence, view: str | None = None):
        """Add texts, each with its slice, row and column; 0 is the outer face of the first pixel."""
        points = _addMarkups(self._volume.GetScene(), slicer.vtkMRMLMarkupsFiducialNode())
        if view:
            points.GetDisplayNode().AddViewNodeID(view)
        with NodeModify(points):
            points.SetAndObserveTransformNodeID(self._volume.GetTransformNodeID())
            for text, k, row, column in texts:
                index = np.array([[column - 0.5, row - 0.5, k]])
                points.AddControlPoint(vtk.vtkVector3d(*transformPoints(ijkToRasOf(self._volume), index)[0]), text)
        return points

    def stop(self) -> None:
        """Take frame, captions and letters out of the scene. Calling it again does nothing."""
        nodes.Removal(self._box, self._edges, *self._captions)


def _addMarkups(scene, node):
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    node.SetLocked(True)
    scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    displayNode = node.GetDisplayNode()
    displayNode.SetSaveWithScene(False)
    displayNode.SetVisibility3D(False)
    displayNode.SetGlyphScale(_INVISIBLE)
    displayNode.SetSelectedColor(*YELLOW)
    return node


class FittedViews(VTKObservationMixin):
    """Slice views that stay fitted to a volume when their size changes, until the user zooms, or `stop` is called."""

    stop = VTKObservationMixin.removeObservers

    def __init__(self, sliceLogics: Sequence, volumeNode):
        super().__init__()
        self._volume, self._fits = volumeNode, {}
        for logic in sliceLogics:
            self._fit(logic)
            self.addObserver(logic.GetSliceNode(), vtk.vtkCommand.ModifiedEvent, self._onModified)

    def _fit(self, logic) -> None:
        """Fit a view to the volume, with a little context; a slice that goes through the volume already stays."""
        view, offset, bounds = logic.GetSliceNode(), logic.GetSliceOffset(), [0.0] * 6
        size = view.GetDimensions()[:2]
        logic.GetVolumeSliceBounds(self._volume, bounds)
        with NodeModify(view):
            logic.FitSliceToVolume(self._volume, *size)
            width, height, depth = view.GetFieldOfView()
            view.SetFieldOfView(CONTEXT * width, CONTEXT * height, depth)
            if bounds[4] <= offset <= bounds[5]:
                logic.SetSliceOffset(offset)
            else:  # the middle of a voxel, where a view shows no mixture of two slices
                logic.SnapSliceOffsetToIJK()
            self._fits[view.GetID()] = logic, size, CONTEXT * height

    def _onModified(self, view, event=None) -> None:
        logic, size, height = self._fits[view.GetID()]
        isSameZoom = np.isclose(view.GetFieldOfView()[1], height)  # Slicer keeps it when it resizes a view
        if view.GetDimensions()[:2] != size and isSameZoom and self._volume.GetScene() is not None:
            self._fit(logic)
