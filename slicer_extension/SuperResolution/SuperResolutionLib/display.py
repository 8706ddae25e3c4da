"""How volumes look in slice views: window and level, colours of error bars, differences and masks, and the legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import vtk

COLORS = "SuperResolution.Colors"
"""Attribute of our colour tables: "ErrorBars", "Difference" or "Mask". A scene has one of each at most."""

# Colours at even steps from the lowest to the highest value. They differ in lightness too, so that they can be told
# apart without colour vision; no change is black, which is what an empty view is.
_STEPS = {
    "ErrorBars": [(0.30, 0.00, 0.20), (0.70, 0.10, 0.20), (0.95, 0.45, 0.10), (1.00, 0.80, 0.30), (1.00, 1.00, 0.80)],
    "Difference": [(0.55, 0.85, 1.0), (0.10, 0.40, 0.95), (0.0, 0.0, 0.0), (0.90, 0.35, 0.05), (1.0, 0.85, 0.45)],
}
_MASK = (1.0, 0.25, 0.65)  # neither lung nor bone looks like it


def addDisplay(volumeNode) -> None:
    """Give a volume a display node whose window is not automatic.

    Slicer's own `CreateDefaultDisplayNodes` sorts the voxels for an automatic window: a second per 100 million.
    """
    if volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        volumeNode.CreateDefaultDisplayNodes()
        return
    display = slicer.vtkMRMLScalarVolumeDisplayNode()
    display.SetAutoWindowLevel(0)
    volumeNode.GetScene().AddNode(display)
    display.SetDefaultColorMap()
    volumeNode.SetAndObserveDisplayNodeID(display.GetID())


def copyWindow(fromNode, toNode) -> None:
    """Show a volume as another one is shown: window, level, thresholds, colours, interpolation; never automatic."""
    there, here = fromNode.GetDisplayNode(), toNode.GetDisplayNode()
    modified = here.StartModify()
    here.SetAutoWindowLevel(0)
    here.SetWindowLevel(there.GetWindow(), there.GetLevel())
    here.SetAutoThreshold(0)
    here.SetThreshold(there.GetLowerThreshold(), there.GetUpperThreshold())
    here.SetApplyThreshold(there.GetApplyThreshold())
    here.SetInterpolate(there.GetInterpolate())
    here.SetInvertDisplayScalarRange(there.GetInvertDisplayScalarRange())
    here.SetAndObserveColorNodeID(there.GetColorNodeID())
    here.EndModify(modified)


class WindowLink:
    """Keeps window and level of volumes the same while the user changes either, so that before and after compare.

    At the beginning those of the first volume hold. Call `stop` when the comparison ends. A volume that is removed
    meanwhile leaves the link.
    """

    def __init__(self, *volumeNodes):
        self._displays = [node.GetDisplayNode() for node in volumeNodes]
        self._tags = [display.AddObserver(vtk.vtkCommand.ModifiedEvent, self._follow) for display in self._displays]
        self._follow(self._displays[0])

    def _follow(self, changed, event=None):
        window, level = changed.GetWindow(), changed.GetLevel()
        for display in self._displays:
            # Equal ones are left alone, which is also what ends the echo of this change.
            if display is not changed and (display.GetWindow(), display.GetLevel()) != (window, level):
                display.SetAutoWindowLevel(0)
                display.SetWindowLevel(window, level)

    def stop(self) -> None:
        for display, tag in zip(self._displays, self._tags):
            display.RemoveObserver(tag)
        self._displays, self._tags = [], []


def outlineOnly(roiNode, color: Sequence[float] | None = None) -> None:
    """Show a region box as an outline: filled, and with a dot in its middle, it would cover what it is about.

    Args:
        roiNode: markups ROI.
        color: red, green, blue from 0 to 1; as it is where None.
    """
    if roiNode.GetDisplayNode() is None:
        roiNode.CreateDefaultDisplayNodes()
    for point in range(roiNode.GetNumberOfControlPoints()):
        roiNode.SetNthControlPointVisibility(point, False)
    shown = roiNode.GetDisplayNode()
    modified = shown.StartModify()
    shown.SetFillVisibility(False)
    if color is not None:
        shown.SetColor(*color)
        shown.SetSelectedColor(*color)
    shown.EndModify(modified)


def showName(roiNode, visible: bool) -> None:
    """Write the name of a region box beside its middle, or not."""
    roiNode.GetDisplayNode().SetPropertiesLabelVisibility(visible)


def showHandles(roiNode, visible: bool) -> None:
    """Let a region box be moved and resized by hand, or not."""
    roiNode.GetDisplayNode().SetHandlesInteractive(visible)


def colors(scene, kind: str):
    """The scene's colour table "ErrorBars", "Difference" or "Mask", made where there is none yet."""
    for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode", scene):
        if node.GetAttribute(COLORS) == kind:
            return node
    node = slicer.vtkMRMLColorTableNode()
    node.SetTypeToUser()
    node.SetName(f"Super-resolution {kind}")
    node.SetAttribute("Category", "Super-resolution")
    node.SetAttribute(COLORS, kind)
    node.SetHideFromEditors(False)
    if kind == "Mask":
        node.SetNumberOfColors(2)
        node.SetColor(0, "within tolerance", 0, 0, 0, 0)
        node.SetColor(1, "uncertain", *_MASK, 1)
    else:
        steps = np.array(_STEPS[kind])
        node.SetNumberOfColors(256)
        places = np.linspace(0, len(steps) - 1, 256)
        for index, place in enumerate(places):
            rgb = [float(np.interp(place, range(len(steps)), steps[:, channel])) for channel in range(3)]
            node.SetColor(index, str(index), *rgb, 1)
    if not hasattr(node, "SetColorDefined"):  # Slicer 5.8, which else writes its own names over these
        node.NamesInitialisedOn()
    return scene.AddNode(node)


def colorErrorBars(errorBarsNode, top: float | None = None, threshold: float | None = None) -> None:
    """Colour a volume of error bars from 0 to `top`, and show nothing where they are below `threshold`.

    Args:
        errorBarsNode: half-widths, in the unit of the voxels.
        top: the half-width of the brightest colour; the 99th percentile where None.
        threshold: half-widths below are not shown, 0 shows all; where None, the widest quarter is shown.
    """
    display = errorBarsNode.GetDisplayNode()
    bars = slicer.util.arrayFromVolume(errorBarsNode)
    if top is None:
        top = float(np.percentile(_some(bars), 99)) or 1.0
    if threshold is None:
        threshold = float(np.percentile(_some(bars), 75))
    modified = display.StartModify()
    display.SetAndObserveColorNodeID(colors(errorBarsNode.GetScene(), "ErrorBars").GetID())
    display.SetAutoWindowLevel(0)
    display.SetWindowLevelMinMax(0, top)
    display.EndModify(modified)
    setThreshold(errorBarsNode, threshold)


def setThreshold(volumeNode, threshold: float) -> None:
    """Show nothing of a volume where it is below `threshold`."""
    display = volumeNode.GetDisplayNode()
    modified = display.StartModify()
    display.SetAutoThreshold(0)
    display.SetThreshold(threshold, np.finfo(np.float32).max)
    display.SetApplyThreshold(threshold > 0)
    display.EndModify(modified)


def colorDifference(differenceNode, top: float | None = None, of: np.ndarray | None = None) -> None:
    """Colour a signed difference: darker than before in blue, no change in black, brighter in orange.

    Args:
        differenceNode: result minus interpolated input, in the unit of the voxels.
        top: the difference of the brightest colours; the 99.5th percentile of the size where None.
        of: voxels that it is the percentile of; all where None.
    """
    if top is None:
        of = slicer.util.arrayFromVolume(differenceNode) if of is None else of
        top = float(np.percentile(np.abs(_some(of)), 99.5)) or 1.0
    display = differenceNode.GetDisplayNode()
    modified = display.StartModify()
    display.SetAndObserveColorNodeID(colors(differenceNode.GetScene(), "Difference").GetID())
    display.SetAutoWindowLevel(0)
    display.SetWindowLevelMinMax(-top, top)
    display.EndModify(modified)


def showLegend(volumeNode, title: str):
    """Say what the colours of a volume mean, at the right edge of the views that show it. Returns the legend's node.

    The legend says what the volume's window says: colour it first. `show` and `showOver` hide it with the volume.
    """
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(volumeNode)
    if legend is None:
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(volumeNode)
    modified = legend.StartModify()
    legend.SetTitleText(title)
    legend.SetSize(0.07, 0.3)  # of the view: its letters follow
    legend.SetNumberOfLabels(5)
    legend.SetLabelFormat("%.0f" if volumeNode.GetDisplayNode().GetWindow() >= 40 else "%.2g")
    legend.SetVisibility(True)
    legend.EndModify(modified)
    return legend


def show(compositeNodes: Sequence, volumeNode) -> None:
    """Show a volume in slice views, under what lies over it. Legends come and go with their volume."""
    for composite in compositeNodes:
        _changeLegend(composite, composite.GetBackgroundVolumeID(), visible=False)
        composite.SetBackgroundVolumeID(volumeNode.GetID())
        _changeLegend(composite, volumeNode.GetID(), visible=True)


def showOver(compositeNodes: Sequence, volumeNode, opacity: float = 0.6) -> None:
    """Lay a volume over the images of slice views; None takes away what lies there. Legends come and go with it."""
    for composite in compositeNodes:
        _changeLegend(composite, composite.GetForegroundVolumeID(), visible=False)
        composite.SetForegroundVolumeID(volumeNode and volumeNode.GetID())
        composite.SetForegroundOpacity(opacity if volumeNode else 0.0)
        _changeLegend(composite, volumeNode and volumeNode.GetID(), visible=True)


def showMask(compositeNodes: Sequence, maskNode, opacity: float = 0.5) -> None:
    """Lay a trust mask over the images of slice views; None takes away what lies there."""
    for composite in compositeNodes:
        composite.SetLabelVolumeID(maskNode and maskNode.GetID())
        composite.SetLabelOpacity(opacity if maskNode else 1.0)


def _changeLegend(compositeNode, volumeName: str | None, visible: bool) -> None:
    """Show or hide the legend of a volume: it does not notice by itself that a view shows another volume."""
    volumeNode = compositeNode.GetScene().GetNodeByID(volumeName) if volumeName else None
    legend = volumeNode and slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(volumeNode)
    if legend:
        legend.SetVisibility(visible)
        legend.Modified()


def _some(array: np.ndarray) -> np.ndarray:
    """Some of the voxels: a large volume need not be read and sorted whole to be coloured."""
    return array.ravel()[:: max(1, array.size // 50_000)]
