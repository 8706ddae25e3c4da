"""The comparison that the slice views show, and its overlays. One comparison ends before the next one starts."""

from __future__ import annotations

import slicer

from SuperResolutionLib import compare, display, filling, result_nodes
from SuperResolutionLib.errors import InputError

OVER, SIDE_BY_SIDE, REVEAL, FLICKER, DIFFERENCE = "over", "sideBySide", "reveal", "flicker", "difference"
KINDS = (OVER, SIDE_BY_SIDE, REVEAL, FLICKER, DIFFERENCE)


class Viewing:
    """Comparison and overlays of one result.

    Args:
        applicationLogic: application logic, in Slicer ``slicer.app.applicationLogic()``.
        rendererOf: function of a layout name that returns the renderer of that slice view, for the reveal line; None
            without views.
    """

    def __init__(self, applicationLogic, rendererOf=None):
        self._logic, self._rendererOf = applicationLogic, rendererOf
        self._kind, self._result = "", None
        self._running, self._saved, self._underOverlay, self._link = None, None, None, None

    @property
    def kind(self) -> str:
        """The comparison that is shown, one of `KINDS`; empty if there is none."""
        return self._kind

    @property
    def result(self):
        """The result that is compared; None if there is none."""
        return self._result

    def show(self, kind: str, resultNode, viewName: str = "Red") -> None:
        """Compare a result with its source, with the same window and level; `viewName` is the view of a reveal line.

        Raises:
            InputError: the source is gone, or the view is not shown.
        """
        source = result_nodes.existingSource(resultNode)
        self.stop()
        orientation = self._orientationOf(viewName)
        if kind == SIDE_BY_SIDE:
            self._saved = compare.showSideBySide(self._logic, source, resultNode, orientation)
        elif kind == REVEAL:
            self._running = self._startRevealLine(source, resultNode, viewName)
        elif kind == FLICKER:
            self._running = compare.Flicker(self._composites(resultNode), source, resultNode)
        else:
            self._saved = compare.SavedViews(self._composites(resultNode))
            overlay = resultNode
            if kind == DIFFERENCE:
                overlay = result_nodes.addDifference(resultNode, wait=False)
                filling.step()
            compare.layOver(self._composites(resultNode), source, overlay, opacity=1.0)
            if kind == DIFFERENCE:
                display.showLegend(overlay, "Result minus interpolation")
        self._kind, self._result = kind, resultNode
        self._link = display.WindowLink(source, resultNode)

    def stop(self) -> None:
        """Show what the views showed before. Calling it again does nothing."""
        self.hideErrorBars()
        if self._kind == DIFFERENCE and self._result.GetScene() is not None:
            display.showOver(self._composites(self._result), None)
        if self._running is not None:
            self._running.stop()
        if self._saved is not None:
            self._saved.restore()
        if self._link is not None:
            self._link.stop()
        self._kind, self._result, self._running, self._saved, self._link = "", None, None, None, None

    def tick(self) -> None:
        """Show the other image of a flicker; the caller's timer calls this two to four times a second."""
        if self._kind == FLICKER and not self._running.tick():
            self.stop()

    def showOverlays(self, resultNode, tolerance: float, errorBars: bool, mask: bool) -> None:
        """Show or hide the error bars and the trust mask of a result; without error bars, hide those of earlier voxels.

        Raises:
            InputError: as `showErrorBars` and `showMask`.
        """
        if resultNode is None or result_nodes.errorBarsOf(resultNode) is None:
            self.hideErrorBars()
            return
        if errorBars:
            self.showErrorBars(resultNode, tolerance, result_nodes.reportOf(resultNode)["consistency"]["unit"])
        else:
            self.hideErrorBars()
        if mask:
            self.showMask(resultNode, tolerance)
        else:
            self.hideMask(resultNode)

    def showErrorBars(self, resultNode, tolerance: float, unit: str) -> None:
        """Lay the error bars over the result where they are wider than `tolerance`; 0 shows the widest quarter.

        A reveal line, a flicker or a difference ends, because the error bars take its layer.

        Raises:
            InputError: the result has no error bars.
        """
        bars = result_nodes.existingErrorBars(resultNode)
        self.hideErrorBars()
        if self._kind not in (OVER, SIDE_BY_SIDE):
            self.show(OVER, resultNode)
        self._underOverlay = compare.SavedViews(self._composites(resultNode))
        display.colorErrorBars(bars, threshold=tolerance or None)
        composites = self._composites(resultNode)
        if self._kind == SIDE_BY_SIDE:
            composites = [self._logic.GetSliceLogicByLayoutName(compare.AFTER).GetSliceCompositeNode()]
        else:
            for composite in composites:
                composite.SetBackgroundVolumeID(resultNode.GetID())
        display.showOver(composites, bars)
        display.showLegend(bars, f"Error bar ({unit})" if unit else "Error bar")

    def hideErrorBars(self) -> None:
        """Hide the error bars."""
        if self._underOverlay is not None:
            if self._result.GetScene() is not None:
                display.showOver(self._composites(self._result), None)  # with its legend
            self._underOverlay.restore()
            self._underOverlay = None

    def showMask(self, resultNode, tolerance: float) -> float:
        """Mark the pixels whose error bar is wider than `tolerance`.

        A large result is marked by `filling.step`; `maskText` says when that is done.

        Returns:
            The share of these pixels, 0 to 1, among those that are checked already.

        Raises:
            InputError: the result has no error bars, or the tolerance is not above 0.
        """
        mask = result_nodes.addTrustMask(resultNode, tolerance, wait=False)
        filling.step()
        display.showMask(self._composites(resultNode), mask)
        return result_nodes.uncertainShare(mask)

    def maskText(self, resultNode) -> tuple[str, bool]:
        """Describe how much of a result its trust mask marks. Also return whether it is still being marked."""
        mask = next(iter(result_nodes.derivedNodes(resultNode, result_nodes.MASK)), None) if resultNode else None
        if mask is None:
            return "", False
        if filling.fillingOf(mask) is not None:
            return "Marking…", True
        unit = result_nodes.reportOf(resultNode)["consistency"]["unit"]
        share = result_nodes.uncertainShare(mask)
        return (
            f"{share:.1%} of the pixels have an error bar wider than {result_nodes.toleranceOf(mask):g} {unit}.",
            False,
        )

    def hideMask(self, resultNode) -> None:
        """Hide the trust mask."""
        display.showMask(self._composites(resultNode), None)

    def _startRevealLine(self, source, resultNode, viewName):
        logic = self._logic.GetSliceLogicByLayoutName(viewName)
        renderer = self._rendererOf(viewName) if self._rendererOf and logic else None
        if renderer is None:
            raise InputError(f"View '{viewName}' is not shown. Choose a layout with it, or another view.")
        line = compare.RevealLine(logic, renderer, source, resultNode)
        crosshairs = slicer.util.getNodesByClass("vtkMRMLCrosshairNode", resultNode.GetScene())
        if crosshairs:
            line.followCursor(crosshairs[0])
        return line

    def _composites(self, resultNode) -> list:
        return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", resultNode.GetScene())

    def _orientationOf(self, viewName: str) -> str:
        logic = self._logic.GetSliceLogicByLayoutName(viewName)
        orientation = logic.GetSliceNode().GetOrientation() if logic else ""
        return orientation if orientation in ("Axial", "Coronal", "Sagittal") else "Axial"
