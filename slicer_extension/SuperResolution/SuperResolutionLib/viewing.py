"""The display of a result in slice views: a comparison, the frame around the enhanced region, and overlays."""

from __future__ import annotations

from contextlib import ExitStack

from slicer.util import NodeModify

from SuperResolutionLib import compare, display, filling, headers, result_nodes, volumes
from SuperResolutionLib.controller import describeScale
from SuperResolutionLib.errors import _
from SuperResolutionLib.framing import FittedViews, Frame

IN_PLACE, SIDE_BY_SIDE, DIFFERENCE = "inPlace", "sideBySide", "difference"  # the kinds of comparison
_BARS_OPACITY = 0.55


class Viewing:
    """Comparison and overlays of one result, for ``slicer.app.applicationLogic()``. One ends before the next starts.

    `kind` and `result` are those of the comparison that is shown, if there is one. `isOriginal` is True while the
    original is shown in place of the result.
    """

    def __init__(self, applicationLogic):
        self._logic = applicationLogic
        self.kind, self.result, self.isOriginal = "", None, False
        self._bars, self._parts = None, []

    def show(self, kind: str, resultNode, viewName: str = "Red", fit: bool = True) -> None:
        """Show a result with its source around it, framed, captioned, with one window and level for both.

        Views side by side take the orientation of the view `viewName`, and are fitted to the region also without `fit`.
        """
        source, scene = result_nodes.existingSource(resultNode), resultNode.GetScene()
        self.stop()
        for node in (resultNode, *result_nodes.derivedNodes(resultNode)):  # the source may have been moved since
            node.SetAndObserveTransformNodeID(source.GetTransformNodeID())
        self._parts = [compare.SavedViews(scene)]  # `stop` brings back also what fails below
        overlay = resultNode
        if kind == DIFFERENCE:
            overlay = result_nodes.addDifference(resultNode)
            filling.step()
        elif kind == SIDE_BY_SIDE:
            view = self._logic.GetSliceLogicByLayoutName(viewName)
            orientation = view.GetSliceNode().GetOrientation() if view else ""
            compare.showSideBySide(self._logic, source, resultNode, orientation)
        self.kind, self.result, self._shownVolume = kind, resultNode, overlay
        captions = [(self._caption(), None)]
        if kind == SIDE_BY_SIDE:
            before, after = (logic.GetSliceNode().GetID() for logic in self._logics())
            captions = [(self._caption(), after), (_("original"), before)]
        else:
            for composite in self._overlaidComposites():
                with NodeModify(composite):
                    composite.SetBackgroundVolumeID(source.GetID())
                    composite.SetForegroundVolumeID(overlay.GetID())
                    composite.SetForegroundOpacity(1.0)
        self._showAids(source)
        self._frame = Frame(resultNode, captions, headers.edgeLettersOf(source))
        self._legend = display.Legend(self._frame.displayNode)
        self._parts += [self._frame, self._legend, display.WindowLink(source, resultNode)]
        if kind == SIDE_BY_SIDE:
            self._parts.append(compare.LinkedCursor(scene))
        if fit or kind == SIDE_BY_SIDE:
            self._parts.append(FittedViews(self._logics(), resultNode))
        self._showLegend()

    def stop(self) -> None:
        """Show what the views showed before; their zoom stays. Calling it again does nothing."""
        self.showOriginal(False)
        if self._bars is not None:
            self._bars.stop()
        for part in reversed(self._parts):
            part.stop()
        self.kind, self.result, self._bars, self._parts = "", None, None, []

    def showOriginal(self, isOriginal: bool) -> None:
        """Show the original in place of the result, or the result again: one change of every view."""
        if not self.kind or isOriginal == self.isOriginal:
            return
        self.isOriginal = isOriginal
        with ExitStack() as changes:
            for composite in self._overlaidComposites():
                changes.enter_context(NodeModify(composite))
                composite.SetForegroundOpacity(0.0 if isOriginal else 1.0)
            if self._bars is not None:
                self._bars.setVisible(not isOriginal)
        self._frame.setCaption(self._caption())

    def showErrorBars(self, resultNode, tolerance: float) -> None:
        """Lay error bars, if any, over the image where they are wider than `tolerance`; 0: the widest quarter."""
        bars = result_nodes.errorBarsOf(resultNode)
        self.hideErrorBars()
        if bars is None:
            return
        if not self.kind:
            self.show(IN_PLACE, resultNode)
        self.showOriginal(False)
        display.colorErrorBars(bars, threshold=tolerance)
        self._bars = display.Overlay(self._overlaidComposites(), bars, _BARS_OPACITY)
        self._legend.show(bars, _("± {unit}").format(unit=result_nodes.unitOf(resultNode)))

    def hideErrorBars(self) -> None:
        """Hide the error bars."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._showLegend()

    def _caption(self) -> str:
        if self.isOriginal:
            return _("original")
        if self.kind == DIFFERENCE:
            return _("what super-resolution added to interpolation")
        report = result_nodes.reportOf(self.result)
        text = _("enhanced {scale}, predicted detail")
        if report["provenance"].get("instead_of"):
            text = _("interpolated {scale}, nothing added")
        elif report.get("synthetic"):
            text = _("enhanced {scale}, texture: generated")
        return text.format(scale=describeScale(report["scaleZYX"]))

    def _showLegend(self) -> None:
        """Show the legend of the difference, if one is shown and was not removed."""
        self._legend.stop()
        if self.kind == DIFFERENCE and self._shownVolume.GetScene() is not None:
            self._legend.show(self._shownVolume, _("added {unit}").format(unit=result_nodes.unitOf(self.result)))

    def _showAids(self, source) -> None:
        """Show Slicer's ruler where a millimetre is known, and orientation letters where the patient's axes are."""
        hasSpacing, isFilm = volumes.spacingZyx(source) is not None, volumes.isFilm(source)
        for logic in self._logics():
            view = logic.GetSliceNode()
            view.SetRulerType(view.RulerTypeThin if hasSpacing else view.RulerTypeNone)
            # The frame bears the letters of a film: Slicer's own would call its upper edge anterior.
            view.SetOrientationMarkerType(view.OrientationMarkerTypeNone if isFilm else view.OrientationMarkerTypeAxes)

    def _logics(self) -> list:
        """Return the slice logics of the comparison; side by side, that of the original comes first."""
        if self.kind == SIDE_BY_SIDE:
            return compare.pairOf(self._logic)
        logics = self._logic.GetSliceLogics()
        return [logics.GetItemAsObject(n) for n in range(logics.GetNumberOfItems())]

    def _overlaidComposites(self) -> list:
        """Return the composite nodes of the views that show the result."""
        logics = self._logics()[1:] if self.kind == SIDE_BY_SIDE else self._logics()
        return [logic.GetSliceCompositeNode() for logic in logics]
