"""Slice views during a comparison: their saved state, a pair side by side, and one cursor for both."""

from __future__ import annotations

import slicer
from slicer.util import NodeModify, VTKObservationMixin, getNodesByClass

from SuperResolutionLib.errors import _

LAYOUT = 9871  # number of our layout; Slicer's own numbers are below 1000
BEFORE, AFTER = "SuperResolutionBefore", "SuperResolutionAfter"  # layout names of the two views of `showSideBySide`
_VIEW_GROUP = 7
_SAVED = {
    "vtkMRMLSliceCompositeNode": ("BackgroundVolumeID", "ForegroundVolumeID", "ForegroundOpacity"),
    "vtkMRMLSliceNode": ("RulerType", "OrientationMarkerType"),
}  # properties of each class of nodes that a comparison changes


class SavedViews:
    """The saved state of the slice views and of their layout; `stop` brings it back.

    Saved is what a comparison changes; the user's zoom stays. Volumes and views that were removed stay away, and a
    layout that the user chose meanwhile stays.
    """

    def __init__(self, scene):
        saved = [(node, names) for kind, names in _SAVED.items() for node in getNodesByClass(kind, scene)]
        self._states = [(node, {name: getattr(node, f"Get{name}")() for name in names}) for node, names in saved]
        self._layouts = []
        for layout in getNodesByClass("vtkMRMLLayoutNode", scene):  # there is none without a window
            maximized = [layout.GetMaximizedViewNode(n) for n in range(layout.GetNumberOfMaximizedViewNodes())]
            self._layouts.append((layout, layout.GetViewArrangement(), maximized, layout.GetSaveWithScene()))

    def stop(self) -> None:
        """Bring the saved state back."""
        for node, state in self._states:
            if (scene := node.GetScene()) is None:
                continue
            with NodeModify(node):
                for name, value in state.items():
                    isGone = name.endswith("ID") and value and scene.GetNodeByID(value) is None
                    getattr(node, f"Set{name}")(None if isGone else value)
        for layout, arrangement, maximized, isSaved in self._layouts:
            layout.SetSaveWithScene(isSaved)
            if layout.GetViewArrangement() == LAYOUT:
                layout.SetViewArrangement(arrangement)
                for view in maximized:
                    layout.AddMaximizedViewNode(view)


def layoutText(orientation: str = "Axial") -> str:
    """Return Slicer's XML description of two slice views side by side."""
    items = ""
    for name, label, color in ((BEFORE, _("Before"), "#8a8a8a"), (AFTER, _("After"), "#e0a030")):
        values = {"orientation": orientation, "viewlabel": label, "viewcolor": color, "viewgroup": _VIEW_GROUP}
        text = "".join(f'<property name="{key}" action="default">{value}</property>' for key, value in values.items())
        items += f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">{text}</view></item>'
    return f'<layout type="horizontal" split="true">{items}</layout>'


def showSideBySide(applicationLogic, beforeNode, afterNode, orientation: str) -> None:
    """Show a volume in two linked views, and over it, on the right, another one, to whose planes both are rotated.

    The orientation is "Axial", "Coronal" or "Sagittal"; another one gives "Axial".
    """
    orientation = orientation if orientation in ("Axial", "Coronal", "Sagittal") else "Axial"
    layout = afterNode.GetScene().GetFirstNodeByClass("vtkMRMLLayoutNode")
    if layout is not None:  # there is none without a window
        layout.AddLayoutDescription(LAYOUT, "")  # has no effect on one that there is
        layout.SetLayoutDescription(LAYOUT, layoutText(orientation))
        layout.RemoveAllMaximizedViewNodes()  # else Slicer would go on showing them alone
        layout.SetViewArrangement(LAYOUT)
        layout.SetSaveWithScene(False)  # a Slicer that does not know our layout would open the scene without any view
    for logic, foreground in zip(pairOf(applicationLogic), (None, afterNode)):
        composite, view = logic.GetSliceCompositeNode(), logic.GetSliceNode()
        with NodeModify(composite):
            composite.SetBackgroundVolumeID(beforeNode.GetID())
            composite.SetForegroundVolumeID(foreground and foreground.GetID())
            composite.SetLabelVolumeID(None)
            composite.SetForegroundOpacity(1.0)
            composite.SetLinkedControl(1)
            composite.SetHotLinkedControl(1)
        view.SetOrientation(orientation)
        view.SetViewGroup(_VIEW_GROUP)
        view.RotateToVolumePlane(afterNode)


def pairOf(applicationLogic) -> list:
    """Return the slice logics of the two views of `showSideBySide`; an empty list if the layout has no such views."""
    logics = [applicationLogic.GetSliceLogicByLayoutName(name) for name in (BEFORE, AFTER)]
    return [] if None in logics else logics


class LinkedCursor(VTKObservationMixin):
    """A crosshair that follows the mouse until `stop`, so that every view shows where the mouse is in another one."""

    def __init__(self, scene):
        super().__init__()
        self._crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self._mode = self._crosshair.GetCrosshairMode()
        self._crosshair.SetCrosshairMode(slicer.vtkMRMLCrosshairNode.ShowSmallBasic)
        self.addObserver(self._crosshair, slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent, self._follow)

    def _follow(self, crosshair, event=None) -> None:
        position = [0.0, 0.0, 0.0]
        if crosshair.GetCursorPositionRAS(position):
            crosshair.SetCrosshairRAS(position)

    def stop(self) -> None:
        """Leave the crosshair to the user."""
        self.removeObservers()
        self._crosshair.SetCrosshairMode(self._mode)
