"""The display of volumes in slice views: window and level, colours of error bars and differences, legends."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from slicer.util import NodeModify, VTKObservationMixin

COLORS = "SuperResolution.Colors"  # attribute of our colour tables: "ErrorBars" or "Difference", one of each

# Colours at even steps from the lowest to the highest value. They differ in lightness too, so that they can be
# distinguished without colour vision. No change is black, as an empty view is.
_STEPS = {
    "ErrorBars": [(1.00, 1.00, 0.70), (1.00, 0.90, 0.25), (1.00, 0.60, 0.05), (0.95, 0.25, 0.05), (0.75, 0.00, 0.25)],
    "Difference": [(0.55, 0.85, 1.0), (0.10, 0.40, 0.95), (0.0, 0.0, 0.0), (0.90, 0.35, 0.05), (1.0, 0.85, 0.45)],
}
_COLORS = 256  # colours of a table
_LAYERS = 3  # layers of every view: background, foreground and label
_HANDLE_SCALE = 1.5  # size of the handles in percent of the view; Slicer's own is 3


def addDisplay(volumeNode, likeNode=None) -> None:
    """Give a volume a display node whose window is not automatic; it is a copy of that of `likeNode`, if there is one.

    Slicer's own `CreateDefaultDisplayNodes` sorts the voxels for an automatic window: a second per 100 million.
    """
    display = slicer.vtkMRMLScalarVolumeDisplayNode()
    volumeNode.GetScene().AddNode(display)
    display.SetDefaultColorMap()
    if likeNode is not None:
        likeNode.CreateDefaultDisplayNodes()  # a script may have left it out; one that there is stays
        display.CopyContent(likeNode.GetDisplayNode())
        display.SetAndObserveColorNodeID(likeNode.GetDisplayNode().GetColorNodeID())
    display.SetAutoWindowLevel(0)
    display.SetAutoThreshold(0)
    volumeNode.SetAndObserveDisplayNodeID(display.GetID())


class WindowLink(VTKObservationMixin):
    """A link that keeps window and level of volumes equal until `stop`; the first volume sets them at the start."""

    stop = VTKObservationMixin.removeObservers

    def __init__(self, *volumeNodes):
        super().__init__()
        self._displays = [node.GetDisplayNode() for node in volumeNodes]
        for display in self._displays:
            self.addObserver(display, vtk.vtkCommand.ModifiedEvent, self._follow)
        self._follow(self._displays[0])

    def _follow(self, changed, event=None):
        window, level = changed.GetWindow(), changed.GetLevel()
        for display in self._displays:
            # Only unequal ones are set, which also ends the echo of this change.
            if display is not changed and (display.GetWindow(), display.GetLevel()) != (window, level):
                display.SetAutoWindowLevel(0)
                display.SetWindowLevel(window, level)


def outlineOnly(roiNode, color: Sequence[float]) -> None:
    """Show a region box as an outline in a colour, without handles: a fill, a dot or a name would cover the finding."""
    for point in range(roiNode.GetNumberOfControlPoints()):
        roiNode.SetNthControlPointVisibility(point, False)
    display = roiNode.GetDisplayNode()
    with NodeModify(display):
        display.SetFillVisibility(False)
        display.SetPropertiesLabelVisibility(False)
        display.SetHandlesInteractive(False)
        display.SetColor(*color)
        display.SetSelectedColor(*color)


def showHandles(roiNode, visible: bool) -> None:
    """Show or hide the handles of a region box: small ones at its edges, and none in the middle, which it frames."""
    display = roiNode.GetDisplayNode()
    with NodeModify(display):
        display.SetInteractionHandleScale(_HANDLE_SCALE)
        display.SetTranslationHandleVisibility(False)
        display.SetRotationHandleVisibility(False)
        display.SetHandlesInteractive(visible)


def colors(scene, kind: str):
    """Return the scene's colour table "ErrorBars" or "Difference"; make it if it is missing."""
    for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode", scene):
        if node.GetAttribute(COLORS) == kind:
            return node
    node = slicer.vtkMRMLColorTableNode()
    node.SetTypeToUser()
    node.SetName(f"Super-resolution {kind}")
    node.SetAttribute("Category", "Super-resolution")
    node.SetAttribute(COLORS, kind)
    node.SetHideFromEditors(False)
    node.SetNumberOfColors(_COLORS)
    steps = np.array(_STEPS[kind])
    for index, position in enumerate(np.linspace(0, len(steps) - 1, _COLORS)):
        rgb = [np.interp(position, range(len(steps)), channel) for channel in steps.T]
        node.SetColor(index, str(index), *rgb, 1)
    return scene.AddNode(node)


def colorErrorBars(errorBarsNode, threshold: float = 0.0) -> None:
    """Colour a volume of error bars from 0 to their 99th percentile, and show nothing where they are below `threshold`.

    The threshold is in the unit of the voxels. Default 0: the widest quarter is shown.
    """
    widestQuarter, widest = np.percentile(_subsample(slicer.util.arrayFromVolume(errorBarsNode)), (75, 99)).tolist()
    _colorBetween(errorBarsNode, "ErrorBars", 0, widest or 1.0)
    display = errorBarsNode.GetDisplayNode()
    with NodeModify(display):
        display.SetThreshold(threshold or widestQuarter, np.finfo(np.float32).max)
        display.SetApplyThreshold(True)


def colorDifference(differenceNode, samples: np.ndarray | None = None) -> None:
    """Colour a signed difference: darker than before in blue, no change in black, brighter in orange.

    The brightest colours are the 99.5th percentile of the absolute value of `samples`, by default of all voxels.
    """
    samples = slicer.util.arrayFromVolume(differenceNode) if samples is None else samples
    top = float(np.percentile(np.abs(_subsample(samples)), 99.5)) or 1.0
    _colorBetween(differenceNode, "Difference", -top, top)


def _colorBetween(volumeNode, kind: str, lowest: float, highest: float) -> None:
    """Colour a volume by one of our tables."""
    display = volumeNode.GetDisplayNode()
    with NodeModify(display):
        display.SetAndObserveColorNodeID(colors(volumeNode.GetScene(), kind).GetID())
        display.SetWindowLevelMinMax(lowest, highest)


class Legend(VTKObservationMixin):
    """A legend of a volume's colours at the right edge of the views that show a markups node; it follows the volume.

    Slicer shows the legend of a volume only where the volume is background, foreground or label of a view, so the
    legend belongs to the markups that frame it, whose own colour stays.
    """

    def __init__(self, markupsDisplayNode):
        super().__init__()
        self._markups, self._legend = markupsDisplayNode, None

    def show(self, volumeNode, title: str) -> None:
        """Show the colours of a volume in place of those of another one."""
        self.stop()
        self._title = title
        self.addObserver(volumeNode.GetDisplayNode(), vtk.vtkCommand.ModifiedEvent, self._update)
        self._update(volumeNode.GetDisplayNode())

    def _update(self, display, event=None) -> None:
        lowest, highest = display.GetWindowLevelMin(), display.GetWindowLevelMax()
        step = max((highest - lowest) / 4, 1e-6)
        self._markups.SetScalarRangeFlag(self._markups.UseManualScalarRange)
        self._markups.SetScalarRange(lowest, highest)
        self._markups.SetAndObserveColorNodeID(display.GetColorNodeID())  # else a new legend logs errors
        # Adds a legend if there is none.
        self._legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(self._markups)
        self._legend.SetSaveWithScene(False)
        self._legend.SetTitleText(textwrap.fill(self._title, 8))  # wider, it would reach into a fitted region
        self._legend.SetSize(0.05, 0.3)  # share of the view; the letters follow
        self._legend.SetNumberOfLabels(5)
        self._legend.SetLabelFormat(f"%.{max(0, 1 - int(np.floor(np.log10(step))))}f")
        self._legend.SetVisibility(True)

    def stop(self) -> None:
        """Hide the legend."""
        self.removeObservers()
        if self._legend is not None:
            self._legend.SetVisibility(False)


class Overlay:
    """A volume over the images of slice views until `stop`, in a layer of its own above those that the user has."""

    def __init__(self, compositeNodes: Sequence, volumeNode, opacity: float):
        self._composites, self._volume, self._opacity = compositeNodes, volumeNode.GetID(), opacity
        for composite in compositeNodes:
            composite.SetNthLayerVolumeID(_LAYERS + composite.GetNumberOfAdditionalLayers(), self._volume)
        self.setVisible(True)

    def setVisible(self, visible: bool) -> None:
        for composite, layer in self._layers():
            composite.SetNthLayerOpacity(layer, self._opacity if visible else 0.0)

    def stop(self) -> None:
        """Take the volume out of the views. Calling it again does nothing."""
        for composite, layer in self._layers():
            composite.SetNthLayerVolumeID(layer, None)

    def _layers(self) -> list:
        """Return the views that show the volume, and the numbers of its layers."""
        layers = [(each, _LAYERS + n) for each in self._composites for n in range(each.GetNumberOfAdditionalLayers())]
        return [(each, layer) for each, layer in layers if each.GetNthLayerVolumeID(layer) == self._volume]


def _subsample(array: np.ndarray) -> np.ndarray:
    """Return every n-th voxel: colouring need not read and sort a whole large volume."""
    return array.ravel()[:: max(1, array.size // 50_000)]
