"""Slicer's core in this process: the scene, and the slice views that the page shows."""

from __future__ import annotations

import logging
import os

import slicer
import vtk
from SuperResolutionLib import compare
from trame.widgets import html
from trame_slicer.app.logic import connect_slice_view_slider_to_state
from trame_slicer.app.ui.slider import Slider
from trame_slicer.core import LayoutManager, SlicerApp
from trame_slicer.views import Layout, LayoutDirection, ViewLayoutDefinition, ViewProps, ViewType

from SuperResolutionWeb.views import Factory

MAIN = "Red"
"""Slicer's layout name of the single view."""

logger = logging.getLogger(__name__)

SINGLE, PAIR = "single", "pair"
_NAMES = {MAIN: "", compare.BEFORE: "before", compare.AFTER: "after"}


class Application:
    """Slicer's scene, application logic and slice views, as its modules expect them.

    Args:
        server: trame server of the page.

    Attributes:
        scene, logic: Slicer's MRML scene and application logic.
        layouts: layout manager of the page, with the layouts `SINGLE` and `PAIR`.
    """

    def __init__(self, server):
        self._core = SlicerApp()
        _logVtk()
        self.scene, self.logic = self._core.scene, self._core.app_logic
        slicer.mrmlScene = self.scene
        folder = os.path.dirname(__file__)  # holds no colours, but without a folder the logic logs errors
        self.logic.SetHomeDirectory(folder)
        self.logic.SetShareDirectory(folder)
        # This replaces trame-slicer's colour logic, which has no legends. The application logic holds a weak reference.
        self._colors = slicer.vtkSlicerColorLogic()
        self._colors.SetMRMLApplicationLogic(self.logic)
        self._colors.SetMRMLScene(self.scene)
        self.logic.SetModuleLogic("Colors", self._colors)
        self._core.view_manager.register_factory(Factory(server, _decorate))
        self.layouts = LayoutManager(self.scene, self._core.view_manager, server)
        self.layouts.register_layout(SINGLE, Layout(LayoutDirection.Horizontal, [_view(MAIN)]))
        pair = [_view(compare.BEFORE), _view(compare.AFTER)]
        self.layouts.register_layout(PAIR, Layout(LayoutDirection.Horizontal, pair))
        self.layouts.set_layout(SINGLE)
        for crosshair in slicer.util.getNodesByClass("vtkMRMLCrosshairNode", self.scene):
            # A reveal line follows the cursor, and does not ask for a rendering itself.
            crosshair.AddObserver(slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent, self._onCursor)

    def view(self, name: str):
        """Return a slice view of trame-slicer."""
        return self._core.view_manager.get_view(name)

    def sliceLogic(self, name: str = MAIN):
        return self.logic.GetSliceLogicByLayoutName(name)

    def sliceNode(self, name: str = MAIN):
        return self.sliceLogic(name).GetSliceNode()

    def rendererOf(self, name: str):
        return self.view(name).first_renderer()

    def shownViews(self) -> list[str]:
        return [MAIN] if self.layouts.layout_id == SINGLE else [compare.BEFORE, compare.AFTER]

    def makeRoomForPair(self) -> None:
        """Give the two views of a comparison their size on the page before an image is fitted to them."""
        width, height, _ = self.sliceNode().GetDimensions()
        for name in (compare.BEFORE, compare.AFTER):
            self.sliceLogic(name).ResizeSliceNode(max(width // 2, 1), max(height, 1))

    def render(self) -> None:
        for name in self.shownViews():
            self.view(name).schedule_render()

    def _onCursor(self, crosshair, event):
        self.render()


def _logVtk() -> None:
    """Send VTK's messages to logging. Most are warnings of a missing screen."""
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    window = vtk.vtkOutputWindow()
    window.SetDisplayModeToNever()

    @vtk.calldata_type(vtk.VTK_STRING)
    def log(caller, event, text):
        logger.log(logging.ERROR if event == "ErrorEvent" else logging.INFO, "%s", text.strip())

    for event in ("ErrorEvent", "WarningEvent", "MessageEvent"):
        window.AddObserver(event, log)
    vtk.vtkOutputWindow.SetInstance(window)


def _view(name: str) -> ViewLayoutDefinition:
    return ViewLayoutDefinition(name, ViewType.SLICE_VIEW, ViewProps(label=name, orientation="Axial"))


def _decorate(server, view) -> None:
    """Put the name of a view over it, and a slice slider if the volume has several slices."""
    html.Div(_NAMES[view.get_singleton_tag()], classes="sr-view-name")
    with html.Div(classes="sr-slice", v_show=("slices > 1",)):
        Slider(typed_state=connect_slice_view_slider_to_state(server, view), theme="dark", density="compact")
