"""Which comparison the slice views show, and what lies over it: one at a time, each ended before the next begins."""

from __future__ import annotations

import slicer

from SuperResolutionLib import compare, display, filling, result_nodes
from SuperResolutionLib.errors import InputError

OVER, SIDE_BY_SIDE, REVEAL, FLICKER, DIFFERENCE = "over", "sideBySide", "reveal", "flicker", "difference"
KINDS = (OVER, SIDE_BY_SIDE, REVEAL, FLICKER, DIFFERENCE)


class Viewing:
    """Comparison and overlays of one result.

    Args:
        applicationLogic: in Slicer ``slicer.app.applicationLogic()``.
        rendererOf: gives the renderer of a slice view by its layout name, for the reveal line; None without views.
    """

    def __init__(self, applicationLogic, rendererOf=None):
        self._logic, self._rendererOf = applicationLogic, rendererOf
        self._kind, self._result = "", None
        self._running, self._saved, self._underOverlay, self._link = None, None, None, None

    @property
    def kind(self) -> str:
        """What is compared now, one of `KINDS`; empty where nothing is."""
        return self._kind

    @property
    def result(self):
        """The result that is compared now; None where nothing is."""
        return self._result

    def show(self, kind: str, resultNode, viewName: str = "Red") -> None:
        """Compare a result with its source, in one window and level; `viewName` is the view of a reveal line.

        Raises:
            InputError: the source is gone, or no such view is shown.
        """
        source = result_nodes.existingSource(resultNode)
        self.stop()
        orientation = self._orientationOf(viewName)
        if kind == SIDE_BY_SIDE:
            self._saved = compare.showSideBySide(self._logic, source, resultNode, orientation)
        elif kind == REVEAL:
            self._running = self._revealed(source, resultNode, viewName)
        elif kind == FLICKER:
            self._running = compare.Flicker(self._composites(resultNode), source, resultNode)
        else:
            self._saved = compare.SavedViews(self._composites(resultNode))
            over = resultNode
            if kind == DIFFERENCE:
                over = result_nodes.addDifference(resultNode, wait=False)
                filling.step()
            for composite in self._composites(resultNode):
                composite.SetBackgroundVolumeID(source.GetID())
            display.showOver(self._composites(resultNode), over, opacity=1.0)
            if kind == DIFFERENCE:
                display.showLegend(over, "Result minus interpolation")
        self._kind, self._result = kind, resultNode
        self._link = display.WindowLink(source, resultNode)

    def stop(self) -> None:
        """Show what was shown before; more often does no harm."""
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
        """The next picture of a flicker; the caller's timer calls it two to four times a second."""
        if self._kind == FLICKER and not self._running.tick():
            self.stop()

    def showErrorBars(self, resultNode, tolerance: float, unit: str) -> None:
        """Lay the error bars over the result, where they are wider than `tolerance` (0: a quarter of their range).

        A reveal line, a flicker or a difference ends: each needs the layer that the error bars take.

        Raises:
            InputError: the result has none.
        """
        bars = result_nodes.errorBarsOf(resultNode)
        if bars is None:
            raise InputError(f"'{resultNode.GetName()}' has no error bars. Enhance with a model that has them.")
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
        """Take the error bars away."""
        if self._underOverlay is not None:
            if self._result.GetScene() is not None:
                display.showOver(self._composites(self._result), None)  # with its legend
            self._underOverlay.restore()
            self._underOverlay = None

    def showMask(self, resultNode, tolerance: float) -> float:
        """Mark the pixels whose error bar is wider than `tolerance`.

        A large result is marked by `filling.step`, and `maskText` tells when it is done.

        Returns:
            Their share, 0 to 1, of the pixels that are marked already.

        Raises:
            InputError: no error bars, or a tolerance that is not above 0.
        """
        if result_nodes.errorBarsOf(resultNode) is None:
            raise InputError(f"'{resultNode.GetName()}' has no error bars. Enhance with a model that has them.")
        if not tolerance > 0:
            raise InputError("The tolerance is 0. Enter the widest error bar that you accept, in grey levels or HU.")
        mask = result_nodes.addTrustMask(resultNode, tolerance, wait=False)
        filling.step()
        display.showMask(self._composites(resultNode), mask)
        return result_nodes.uncertainShare(mask)

    def maskText(self, resultNode) -> tuple[str, bool]:
        """How much of a result its trust mask marks, in words, and whether it is still being marked."""
        mask = next(iter(result_nodes.madeFrom(resultNode, result_nodes.MASK)), None) if resultNode else None
        if mask is None:
            return "", False
        if filling.of(mask) is not None:
            return "Marking…", True
        unit = result_nodes.reportOf(resultNode)["consistency"]["unit"]
        share = result_nodes.uncertainShare(mask)
        return (
            f"{share:.1%} of the pixels have an error bar wider than {result_nodes.toleranceOf(mask):g} {unit}.",
            False,
        )

    def hideMask(self, resultNode) -> None:
        """Take the mask away."""
        display.showMask(self._composites(resultNode), None)

    def _revealed(self, source, resultNode, viewName):
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
