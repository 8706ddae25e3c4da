"""Comparisons of before and after: side by side in linked views, a reveal line, flicker. `stop` restores the views.

Nothing here needs Qt: the caller owns the timer of a flicker and passes the renderer of a view for a reveal line
(in Slicer ``layoutManager.sliceWidget("Red").sliceView().renderWindow().GetRenderers().GetFirstRenderer()``).
"""

from __future__ import annotations

from collections.abc import Sequence

import slicer
import vtk

from SuperResolutionLib import display

LAYOUT = 9871
"""Number of our layout; Slicer's own numbers are below 1000."""

BEFORE, AFTER = "SuperResolutionBefore", "SuperResolutionAfter"
"""Layout names of the two views of `showSideBySide`."""

_VIEW_GROUP = 7
_WHITE, _YELLOW = (1.0, 1.0, 1.0), (1.0, 0.85, 0.2)


class SavedViews:
    """The saved state of slice views, and optionally of the layout; `restore` brings it back.

    Volumes and views that were removed stay away, and a layout that the user chose meanwhile stays.
    """

    def __init__(self, compositeNodes: Sequence, layoutNode=None):
        self._states = [
            (
                node,
                (node.GetBackgroundVolumeID(), node.GetForegroundVolumeID(), node.GetLabelVolumeID()),
                (node.GetForegroundOpacity(), node.GetLabelOpacity()),
                (node.GetLinkedControl(), node.GetHotLinkedControl()),
            )
            for node in compositeNodes
        ]
        self._layout = layoutNode
        self._arrangement = layoutNode.GetViewArrangement() if layoutNode else None

    def restore(self) -> None:
        if self._layout and self._layout.GetScene() and self._layout.GetViewArrangement() == LAYOUT:
            self._layout.SetViewArrangement(self._arrangement)
        for composite, volumes, opacities, links in self._states:
            if composite.GetScene() is None:
                continue
            background, foreground, label = (self._existing(composite, volume) for volume in volumes)
            modified = composite.StartModify()
            composite.SetLinkedControl(links[0])
            composite.SetHotLinkedControl(links[1])
            composite.SetBackgroundVolumeID(background)
            composite.SetForegroundVolumeID(foreground)
            composite.SetLabelVolumeID(label)
            composite.SetForegroundOpacity(opacities[0])
            composite.SetLabelOpacity(opacities[1])
            composite.EndModify(modified)

    @staticmethod
    def _existing(compositeNode, name):
        return name if name and compositeNode.GetScene().GetNodeByID(name) else None


def layoutNode(scene):
    """Return the node of Slicer's window layout, or None if there is no window."""
    return scene.GetFirstNodeByClass("vtkMRMLLayoutNode")


def layoutText(orientation: str = "Axial") -> str:
    """Return Slicer's XML description of two slice views side by side."""
    views = ((BEFORE, "Before", "#8a8a8a"), (AFTER, "After", "#e0a030"))
    items = "".join(
        f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">'
        f'<property name="orientation" action="default">{orientation}</property>'
        f'<property name="viewlabel" action="default">{label}</property>'
        f'<property name="viewcolor" action="default">{color}</property>'
        f'<property name="viewgroup" action="default">{_VIEW_GROUP}</property></view></item>'
        for name, label, color in views
    )
    return f'<layout type="horizontal" split="true">{items}</layout>'


def showSideBySide(applicationLogic, beforeNode, afterNode, orientation: str = "Axial") -> SavedViews:
    """Show two volumes in two linked views: what moves in one, moves in the other.

    Args:
        applicationLogic: application logic, in Slicer ``slicer.app.applicationLogic()``.
        beforeNode: volume on the left.
        afterNode: volume on the right; both views are rotated and fitted to it.
        orientation: "Axial", "Coronal" or "Sagittal".

    Returns:
        The previous layout; `restore` it to end the comparison.
    """
    layout = layoutNode(afterNode.GetScene())
    # The views of our own layout need not be saved: they show nothing else.
    saved = SavedViews([], layout)
    if layout is not None:
        if layout.IsLayoutDescription(LAYOUT):
            layout.SetLayoutDescription(LAYOUT, layoutText(orientation))
        else:
            layout.AddLayoutDescription(LAYOUT, layoutText(orientation))
        layout.SetViewArrangement(LAYOUT)
    logics = [applicationLogic.GetSliceLogicByLayoutName(name) for name in (BEFORE, AFTER)]
    if None in logics:
        saved.restore()
        raise RuntimeError(f"The views {BEFORE} and {AFTER} were not made: the layout manager did not take the layout.")
    for logic, volume in zip(logics, (beforeNode, afterNode)):
        composite, view = logic.GetSliceCompositeNode(), logic.GetSliceNode()
        modified = composite.StartModify()
        composite.SetLinkedControl(0)  # the views are linked when both are set up
        composite.SetHotLinkedControl(0)
        composite.SetBackgroundVolumeID(volume.GetID())
        composite.SetForegroundVolumeID(None)
        composite.SetLabelVolumeID(None)
        composite.SetForegroundOpacity(0.0)
        composite.EndModify(modified)
        view.SetOrientation(orientation)
        view.SetViewGroup(_VIEW_GROUP)
        fitTo(logic, afterNode)
    for logic in logics:
        logic.GetSliceCompositeNode().SetLinkedControl(1)
        logic.GetSliceCompositeNode().SetHotLinkedControl(1)
    return saved


def fitTo(sliceLogic, volumeNode) -> None:
    """Rotate a slice view to the planes of a volume, fit it to the volume, and show the volume's middle slice."""
    view = sliceLogic.GetSliceNode()
    view.RotateToVolumePlane(volumeNode)
    width, height, _ = view.GetDimensions()
    sliceLogic.FitSliceToVolume(volumeNode, width, height)
    sliceLogic.SnapSliceOffsetToIJK()


class Flicker:
    """Alternation of before and after in the same view, where the eye sees every change.

    The caller's timer calls `tick` two to four times a second until it returns False, and `stop` at the end.
    """

    def __init__(self, compositeNodes: Sequence, beforeNode, afterNode):
        self._composites, self._volumes = list(compositeNodes), (beforeNode, afterNode)
        self._saved = SavedViews(self._composites)
        self.showsAfter = True
        self._running = True
        layOver(self._composites, beforeNode, afterNode, opacity=1.0)

    def tick(self) -> bool:
        """Show the other volume. Return False once a volume was removed."""
        if self._running and any(node.GetScene() is None for node in self._volumes):
            self.stop()
        if self._running:
            self.showsAfter = not self.showsAfter
            for composite in self._composites:
                composite.SetForegroundOpacity(1.0 if self.showsAfter else 0.0)
        return self._running

    def stop(self) -> None:
        """Show what the views showed before. Calling it again does nothing."""
        if self._running:
            self._running = False
            self._saved.restore()


class RevealLine:
    """A line in a slice view: before on its left, after on its right. It follows the mouse, or `moveTo`.

    Where the result covers only a part of the view, before is visible around it on both sides.
    """

    def __init__(self, sliceLogic, renderer, beforeNode, afterNode):
        self._logic, self._renderer = sliceLogic, renderer
        self._saved = SavedViews([sliceLogic.GetSliceCompositeNode()])
        self._observed = []
        self._position = 0.5
        layOver([sliceLogic.GetSliceCompositeNode()], beforeNode, afterNode, opacity=0.0)
        self._blend = vtk.vtkImageBlend()
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._mapper.UseCustomExtentsOn()
        image = vtk.vtkActor2D()
        image.SetMapper(self._mapper)
        image.GetProperty().SetDisplayLocationToBackground()
        self._image, self._line = image, vtk.vtkLineSource()
        self._captions = [_caption("before", right=True), _caption("after", right=False)]
        self._actors = [image, _lineActor(self._line), *self._captions]
        for actor in self._actors:
            renderer.AddActor2D(actor)
        self._observe(sliceLogic, vtk.vtkCommand.ModifiedEvent, self._update)
        self._update()

    def moveTo(self, position: float) -> None:
        """Move the line to a position from 0, the left edge of the view, to 1. The caller renders."""
        self._position = min(max(float(position), 0.0), 1.0)
        self._update()

    def followCursor(self, crosshairNode) -> None:
        """Let the line follow the mouse over this view until `stop`."""
        event = slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent
        self._observe(crosshairNode, event, self._onCursorMove)

    def stop(self) -> None:
        """Remove the line and show what the view showed before. Calling it again does nothing."""
        for node, tag in self._observed:
            node.RemoveObserver(tag)
        for actor in self._actors:
            self._renderer.RemoveActor2D(actor)
        if self._actors:
            self._saved.restore()
        self._observed, self._actors = [], []

    def _observe(self, node, event, function) -> None:
        self._observed.append((node, node.AddObserver(event, function)))

    def _onCursorMove(self, crosshairNode, event=None) -> None:
        xyz = [0.0, 0.0, 0.0]
        view = self._logic.GetSliceNode()
        if crosshairNode.GetCursorPositionXYZ(xyz) is view:
            self.moveTo(xyz[0] / view.GetDimensions()[0])
            self._renderer.GetRenderWindow().Render()

    def _update(self, caller=None, event=None) -> None:
        layers = [self._logic.GetBackgroundLayer(), self._logic.GetForegroundLayer()]
        connections = [layer.GetImageDataConnection() if layer and layer.GetVolumeNode() else None for layer in layers]
        hasBoth = None not in connections
        for actor in self._actors:
            actor.SetVisibility(hasBoth)
        if not hasBoth:  # one of the volumes was removed meanwhile
            return
        self._blend.RemoveAllInputConnections(0)
        for connection in connections:
            self._blend.AddInputConnection(connection)
        self._mapper.SetInputConnection(self._blend.GetOutputPort())
        width, height, _ = self._logic.GetSliceNode().GetDimensions()
        column = min(round(self._position * width), width - 1)
        self._mapper.SetCustomDisplayExtents([column, width - 1, 0, height - 1])
        self._image.SetPosition(column, 0)
        self._line.SetPoint1(column, 0, 0)
        self._line.SetPoint2(column, height, 0)
        for caption, offset in zip(self._captions, (-6, 6)):
            caption.SetPosition(column + offset, height - 20)


def layOver(compositeNodes: Sequence, beforeNode, afterNode, opacity: float) -> None:
    """Show one volume over another in slice views. Legends come and go with the upper one."""
    for composite in compositeNodes:
        composite.SetBackgroundVolumeID(beforeNode.GetID())
    display.showOver(compositeNodes, afterNode, opacity)


def _lineActor(line):
    mapper = vtk.vtkPolyDataMapper2D()
    mapper.SetInputConnection(line.GetOutputPort())
    actor = vtk.vtkActor2D()
    actor.SetMapper(mapper)
    actor.GetProperty().SetColor(*_YELLOW)
    actor.GetProperty().SetLineWidth(2)
    return actor


def _caption(text: str, right: bool):
    actor = vtk.vtkTextActor()
    actor.SetInput(text)
    style = actor.GetTextProperty()
    style.SetFontSize(14)
    style.SetColor(*_WHITE)
    style.SetShadow(True)
    if right:
        style.SetJustificationToRight()
    return actor
