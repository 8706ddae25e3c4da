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
        self._bars, self._legend, self._parts = None, None, []

    def show(self, kind: str, resultNode, viewName: str = "Red", fit: bool = True) -> None:
        """Show a result with its source around it, framed, captioned, with one window and level for both.

        Views side by side take the orientation of the view `viewName`, and are fitted to the region also without `fit`.
        """
        source = result_nodes.existingSource(resultNode)
        self.stop()
        for node in (resultNode, *result_nodes.derivedNodes(resultNode)):  # the source may have been moved since
            node.SetAndObserveTransformNodeID(source.GetTransformNodeID())
        overlay = resultNode
        if kind == SIDE_BY_SIDE:
            saved = compare.showSideBySide(self._logic, source, resultNode, self._orientationOf(viewName))
            self._parts.append(compare.LinkedCursor(resultNode.GetScene()))
        else:
            saved = compare.SavedViews(self._logics())
            if kind == DIFFERENCE:
                overlay = result_nodes.addDifference(resultNode)
                filling.step()
            for composite in _compositesOf(self._logics()):
                with NodeModify(composite):
                    composite.SetBackgroundVolumeID(source.GetID())
                    composite.SetForegroundVolumeID(overlay.GetID())
                    composite.SetForegroundOpacity(1.0)
        self.kind, self.result, self._saved = kind, resultNode, saved
        self._showAids(source)
        captions = [(self._caption(), None)]
        if kind == SIDE_BY_SIDE:
            before, after = (logic.GetSliceNode().GetID() for logic in self._comparedLogics())
            captions = [(self._caption(), after), (_("original"), before)]
        self._frame = Frame(resultNode, captions, headers.edgeLettersOf(source, headers.openDatabase()))
        self._parts += [self._frame, display.WindowLink(source, resultNode)]
        if fit or kind == SIDE_BY_SIDE:
            self._parts.append(FittedViews(self._comparedLogics(), resultNode))
        if kind == DIFFERENCE:
            self._difference = overlay
            self._showDifferenceLegend()

    def stop(self) -> None:
        """Show what the views showed before; their zoom stays. Calling it again does nothing."""
        self.showOriginal(False)
        if not self.kind:
            return
        self.hideErrorBars()
        if self._legend is not None:
            self._legend.stop()
        for part in self._parts:
            part.stop()
        self._saved.restore()
        self.kind, self.result, self._legend, self._parts = "", None, None, []

    def showOriginal(self, isOriginal: bool) -> None:
        """Show the original in place of the result, or the result again: one change of every view."""
        if not self.kind or isOriginal == self.isOriginal:
            return
        self.isOriginal = isOriginal
        with ExitStack() as changes:
            for composite in _compositesOf(self._overlaidLogics()):
                changes.enter_context(NodeModify(composite))
                composite.SetForegroundOpacity(0.0 if isOriginal else 1.0)
            if self._bars is not None:
                self._bars.setVisible(not isOriginal)
        self._frame.setCaption(self._caption())

    def showErrorBars(self, resultNode, tolerance: float) -> None:
        """Lay the error bars of a result over the image where they are wider than `tolerance`; 0: the widest quarter.

        A result without error bars changes nothing.
        """
        bars = result_nodes.errorBarsOf(resultNode)
        self.hideErrorBars()
        if bars is None:
            return
        if not self.kind:
            self.show(IN_PLACE, resultNode)
        self.showOriginal(False)
        display.colorErrorBars(bars, threshold=tolerance or None)
        self._bars = display.Overlay(_compositesOf(self._overlaidLogics()), bars, _BARS_OPACITY)
        self._showLegend(bars, _("± {unit}").format(unit=result_nodes.unitOf(resultNode)))

    def hideErrorBars(self) -> None:
        """Hide the error bars."""
        if self._bars is None:
            return
        self._bars.stop()
        self._bars = None
        self._legend.stop()
        if self.kind == DIFFERENCE and self._difference.GetScene() is not None:
            self._showDifferenceLegend()

    def _caption(self) -> str:
        if self.isOriginal:
            return _("original")
        if self.kind == DIFFERENCE:
            return _("what super-resolution added to interpolation")
        report = result_nodes.reportOf(self.result)
        scale = describeScale(report["scaleZYX"])
        if report["provenance"].get("instead_of"):
            return _("interpolated {scale}, nothing added").format(scale=scale)
        if report.get("synthetic"):
            return _("enhanced {scale}, texture: generated").format(scale=scale)
        return _("enhanced {scale}, predicted detail").format(scale=scale)

    def _showDifferenceLegend(self) -> None:
        self._showLegend(self._difference, _("added {unit}").format(unit=result_nodes.unitOf(self.result)))

    def _showLegend(self, volumeNode, title: str) -> None:
        if self._legend is not None:
            self._legend.stop()
        self._legend = display.Legend(self._frame.displayNode, volumeNode, title)

    def _showAids(self, source) -> None:
        """Show Slicer's ruler where a millimetre is known, and orientation letters where the patient's axes are."""
        isFilm = volumes.isFilm(source)
        for logic in self._comparedLogics():
            view = logic.GetSliceNode()
            hasSpacing = volumes.spacingZyx(source) is not None
            view.SetRulerType(view.RulerTypeThin if hasSpacing else view.RulerTypeNone)
            # The frame bears the letters of a film: Slicer's own would call its upper edge anterior.
            view.SetOrientationMarkerType(view.OrientationMarkerTypeNone if isFilm else view.OrientationMarkerTypeAxes)

    def _logics(self) -> list:
        logics = self._logic.GetSliceLogics()
        return [logics.GetItemAsObject(n) for n in range(logics.GetNumberOfItems())]

    def _comparedLogics(self) -> list:
        return compare.pairOf(self._logic) if self.kind == SIDE_BY_SIDE else self._logics()

    def _overlaidLogics(self) -> list:
        return compare.pairOf(self._logic)[1:] if self.kind == SIDE_BY_SIDE else self._logics()

    def _orientationOf(self, viewName: str) -> str:
        logic = self._logic.GetSliceLogicByLayoutName(viewName)
        orientation = logic.GetSliceNode().GetOrientation() if logic else ""
        return orientation if orientation in ("Axial", "Coronal", "Sagittal") else "Axial"


def _compositesOf(sliceLogics) -> list:
    return [logic.GetSliceCompositeNode() for logic in sliceLogics]
