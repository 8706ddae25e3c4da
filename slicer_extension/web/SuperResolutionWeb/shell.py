"""The page's logic over SuperResolutionLib, with trame's state in place of the panel's widgets."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import slicer
import vtk
from SuperResolutionLib import box_nodes, box_statistics, compare, display, nodes, placing, result_nodes, volumes
from SuperResolutionLib.controller import Choice, resultText
from SuperResolutionLib.enhancer import BOX, SLICE, WHOLE, Enhancer
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.viewing import FLICKER, OVER, SIDE_BY_SIDE, Viewing

from monai_sr_bundle.errors import SuperResolutionError
from SuperResolutionWeb import images
from SuperResolutionWeb.application import MAIN, PAIR, SINGLE, Application

TICK_SECONDS = 0.02
FLICKER_SECONDS = 0.4

START = {
    "path": "", "loading": False, "loadMessage": "", "images": [], "which": 0, "name": "", "slices": 1,
    "window": [0, 1], "windowRange": [0, 1], "windowStep": 1,
    "regionKind": BOX, "regionMessage": "",
    "bundle": "", "bundles": [], "bundleText": "", "texture": 0.0, "steps": 0, "seed": 0, "errorBars": True,
    "live": False, "textureEnabled": False, "stepsEnabled": False, "installed": True, "absence": "",
    "subjectText": "", "estimateText": "", "message": "", "messageIsError": False,
    "canRun": False, "canCancel": False, "running": False, "progress": 0.0, "progressText": "",
    "results": [], "result": "", "resultText": "", "resultFile": "", "resultMessage": "", "writing": False,
    "kind": "", "hasBars": False, "showBars": False, "showMask": False, "tolerance": 0.0, "toleranceText": "",
    "unit": "", "boxes": [], "box": "", "boxLabel": "Nodule", "boxReader": "", "boxCertainty": 0.5, "boxText": "",
    "boxMessage": "", "boxUpload": None,
}  # fmt: skip
"""The initial state of trame; the page's inputs and texts are bound to its entries."""


class Shell:
    """The session of one person.

    Args:
        server: trame server of the page.
        worker: client of the worker process, a `worker_client.WorkerClient`.
    """

    def __init__(self, server, worker):
        self._server = server
        self.state = server.state
        self.state.update(START)
        self.application = Application(server)
        self._headers = images.Headers()
        self.enhancer = Enhancer(worker, self._headers)
        self.viewing = Viewing(self.application.logic, self.application.rendererOf)
        self._path = ""
        self._sources = self._image = self._volume = self._region = None
        self._result = None
        self._choiceChanged = self._boxesChanged = True
        self._shownPanel = None
        self._isMarking = False
        self._measurement = box_statistics.BoxMeasurement()
        self._flickerTime = 0.0
        self._tags = []
        for names, function in (
            (("which",), self._onWhich), (("window",), self._onWindow),
            (("regionKind", "bundle", "texture", "steps", "seed", "errorBars", "live"), self._onChoice),
            (("result",), self._onResult), (("showBars", "showMask", "tolerance"), self._onOverlay),
            (("box",), self._onBox), (("boxLabel", "boxReader", "boxCertainty"), self._onBoxWords),
            (("boxUpload",), self._onBoxUpload),
        ):  # fmt: skip
            self.state.change(*names)(function)
        self.application.sliceNode().AddObserver(vtk.vtkCommand.ModifiedEvent, self._onSlice)
        controller = server.controller
        for function in (
            self.load, self.newRegion, self.fit, self.run, self.cancel, self.removeResult, self.compare, self.addBox,
            self.removeBox,
        ):  # fmt: skip
            controller.set(function.__name__)(function)
        controller.trigger("downloadResult")(self.downloadResult)
        controller.trigger("downloadBoxes")(self.downloadBoxes)

    async def live(self) -> None:
        """Call `tick` until this task is cancelled. Nothing here waits for the worker."""
        while True:
            with self.state:
                self.tick()
            await asyncio.sleep(TICK_SECONDS)

    def close(self) -> None:
        """End the worker."""
        self.enhancer.close()
        if self._sources is not None:
            self._sources.close()

    def tick(self) -> None:
        """Pass on the user's choice, read the worker's answers and show what changed."""
        if self._choiceChanged:
            self._choiceChanged = False
            self._choose()
        for node in self.enhancer.step():
            self._newResult(node)
        if self.viewing.kind == FLICKER and time.monotonic() - self._flickerTime > FLICKER_SECONDS:
            self._flickerTime = time.monotonic()
            self.viewing.tick()
            self._showKind()
        if self._isMarking:
            self._showUncertainShare()
        if self._boxesChanged:
            self._boxesChanged = False
            self._showBoxes()
        self._showFigures()
        panel = self.enhancer.controller.panel()
        if panel != self._shownPanel:
            self._show(panel)

    # The image.

    async def load(self, path: str) -> None:
        """Find the images at a path, and show the first.

        Args:
            path: path that the user typed. It does not come from the state, which may lag behind: half a path is a
                folder, and all of it would be searched.
        """
        self._path = path = path.strip().strip("'\"")
        if not path:
            self.state.loadMessage = "Enter the path of an image: a DICOM file or folder, a NIfTI, a PNG, JPEG or TIFF."
            return
        with self._reading():
            sources = await asyncio.to_thread(images.ImageSources, path)
            if self._path != path:  # the user has opened another path meanwhile
                sources.close()
                return
            if self._sources is not None:
                self._sources.close()
            self._sources = sources
            self.state.images = [{"title": name, "value": number} for number, name in enumerate(sources.names)]
            self.state.which = 0
            await self._read(0)

    async def _onWhich(self, which, **_):
        if self._sources is None or self._image is None or self._image.source is self._sources[which]:
            return
        with self._reading():
            await self._read(which)

    async def _read(self, number: int) -> None:
        sources = self._sources
        image = await asyncio.to_thread(sources.read, number)
        if self._sources is not sources or self.state.which != number:
            return  # the user has chosen another image meanwhile
        self._removeImage()
        self._image = image
        self._volume = images.addVolume(self.application.scene, image, self._headers)
        self._observe(self._volume, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent)
        self.viewing.stop()
        self.application.layouts.set_layout(SINGLE)
        composite = self.application.sliceLogic().GetSliceCompositeNode()
        composite.SetBackgroundVolumeID(self._volume.GetID())
        compare.fitTo(self.application.sliceLogic(), self._volume)
        state, volumeDisplay = self.state, self._volume.GetDisplayNode()
        state.name, state.slices = self._volume.GetName(), len(image.values)
        low, high = (float(value) for value in self._volume.GetImageData().GetScalarRange())
        state.windowRange, state.windowStep = [low, max(high, low + 1)], 1 if high - low > 100 else (high - low) / 200
        state.window = [volumeDisplay.GetWindowLevelMin(), volumeDisplay.GetWindowLevelMax()]
        if state.regionKind == BOX:
            self.newRegion()
        self._choiceChanged = self._boxesChanged = True
        self.application.render()

    @contextmanager
    def _reading(self):
        self.state.loading, self.state.loadMessage = True, ""
        self.state.flush()
        try:
            yield
        except (SuperResolutionError, InputError) as error:
            self.state.loadMessage = str(error)
        finally:
            self.state.loading = False

    def _removeImage(self) -> None:
        """Remove the image from the scene, with its results and boxes."""
        if self._volume is None:
            return
        if self.enhancer.controller.panel().canCancel:
            self.cancel()
        self._stopObserving()
        self.viewing.stop()
        for node in result_nodes.resultsOf(self._volume):
            self.enhancer.remove(node)
        for node in box_nodes.boxesOf(self.application.scene, self._volume):
            box_nodes.removeBox(node)
        for node in (self._region, self._volume):
            if node is not None:
                nodes.remove(node)
        self._volume = self._region = None
        self._showResults("")

    def fit(self) -> None:
        """Fit the whole image into its view."""
        if self._volume is not None:
            for name in self.application.shownViews():
                compare.fitTo(self.application.sliceLogic(name), self._volume)
            self.application.render()

    def _onWindow(self, window, **_):
        if self._volume is None or not window[0] < window[1]:
            return
        for node in (self._volume, *result_nodes.resultsOf(self._volume)):
            node.GetDisplayNode().SetWindowLevelMinMax(*window)
        self.application.render()

    # Choices.

    def newRegion(self) -> None:
        """Put the region box in the middle of the volume, on the slice that the view shows."""
        with self._showInputErrors("regionMessage"):
            volumes.check(self._volume)
            if self._region is not None:
                nodes.remove(self._region)
                self._region = None
            self._region = placing.addRegion(self._volume, self.application.sliceNode())
            display.showHandles(self._region, True)
            display.showName(self._region, False)
            self._observe(self._region, slicer.vtkMRMLMarkupsNode.PointModifiedEvent)
            self.state.regionKind = BOX
            self._choiceChanged = True
            self.application.render()

    def _onChoice(self, **_):
        self._choiceChanged = True
        if self._region is not None:
            self._region.GetDisplayNode().SetVisibility(self.state.regionKind == BOX)

    def _choose(self) -> None:
        state = self.state
        if self._volume is None:
            self.enhancer.controller.choose(None, "", Choice())
            return
        node = {BOX: self._region, SLICE: self.application.sliceNode(), WHOLE: None}[state.regionKind]
        choice = Choice(
            state.bundle or "", float(state.texture), _readCount(state.steps), _readCount(state.seed),
            bool(state.errorBars), bool(state.live),
        )  # fmt: skip
        self.enhancer.choose(self._volume, state.regionKind, node, choice)

    def _show(self, panel) -> None:
        state = self.state
        bundles = [{"title": title, "value": name, "description": text} for name, title, text in panel.bundles]
        if state.bundles != bundles:
            state.bundles = bundles
        for name, value in vars(panel).items():
            if name not in ("bundles", "progress"):
                state[name] = value
        state.running = panel.progress is not None
        state.progress = round(100 * (panel.progress or 0), 1)
        self._shownPanel = panel

    def run(self) -> None:
        self.enhancer.controller.requestRun()

    def cancel(self) -> None:
        self.enhancer.cancel()

    # Results.

    def _newResult(self, node) -> None:
        isFollowing = node is self._result  # in live mode; the views show its new voxels already
        self._showResults(node.GetID())
        if isFollowing:
            self._describeResult()

    def _showResults(self, chosen: str) -> None:
        """Fill the list of results, and show one."""
        resultNodes = result_nodes.resultsOf(self._volume) if self._volume is not None else []
        self.state.results = [{"title": node.GetName(), "value": node.GetID()} for node in resultNodes]
        self.state.result = chosen
        self._onResult()

    def _resultNode(self):
        return self.application.scene.GetNodeByID(self.state.result) if self.state.result else None

    def _onResult(self, **_):
        node = self._resultNode()
        if node is self._result:
            return
        self._result = node
        if node is not None:
            with self._showInputErrors("resultMessage"):
                self._compare(self.viewing.kind or OVER, node)
        self._describeResult()

    def _describeResult(self) -> None:
        state, node = self.state, self._result
        state.resultText = resultText(result_nodes.reportOf(node)) if node else ""
        state.resultFile = images.nameResult(self._image) if node else ""
        state.hasBars = node is not None and result_nodes.errorBarsOf(node) is not None
        state.unit = result_nodes.reportOf(node)["consistency"]["unit"] if node else ""
        if node is None:
            state.toleranceText = state.resultMessage = ""
        self._showKind()
        self._onOverlay()
        self._boxesChanged = True

    def compare(self, kind: str) -> None:
        """Show a comparison, or end it if it is shown already."""
        node = self._resultNode()
        if node is None:
            return
        with self._showInputErrors("resultMessage"):
            if kind == self.viewing.kind:
                self.viewing.stop()
            else:
                self._compare(kind, node)
        self._showKind()
        self._onOverlay()

    def _compare(self, kind: str, node) -> None:
        if kind == SIDE_BY_SIDE:
            self.application.makeRoomForPair()
        elif kind != OVER:
            self.state.showBars = False  # these comparisons take the layer of the error bars
        self.viewing.show(kind, node, MAIN)

    def _showKind(self) -> None:
        kind = self.viewing.kind
        if self.state.kind != kind:
            self.state.kind = kind
        self.application.layouts.set_layout(PAIR if kind == SIDE_BY_SIDE else SINGLE)
        self.application.render()

    def _onOverlay(self, **_):
        """Show or hide error bars and trust mask, as the switches say."""
        state = self.state
        with self._showInputErrors("resultMessage"):
            self.viewing.showOverlays(
                self._resultNode(), _readNumber(state.tolerance), bool(state.showBars), bool(state.showMask)
            )
        self._showUncertainShare()
        self._showKind()

    def _showUncertainShare(self) -> None:
        """Show how much the trust mask marks. A large result is marked over several ticks."""
        self.state.toleranceText, self._isMarking = self.viewing.maskText(
            self._resultNode() if self.state.showMask else None
        )

    def removeResult(self) -> None:
        node = self._resultNode()
        if node is not None:
            self.viewing.stop()
            self.state.showBars = self.state.showMask = False
            self.enhancer.remove(node)
            self._showResults("")

    async def downloadResult(self):
        """Return the result as a file for the browser, in the format of its source; None if it cannot be written."""
        node = self._resultNode()
        if node is None:
            return None
        with self._showInputErrors("resultMessage"), tempfile.TemporaryDirectory(prefix="sr-") as folder:
            self.state.writing = True
            self.state.flush()
            try:
                path = await asyncio.to_thread(images.prepareFile(node, self._image, Path(folder)))
                return self._attachment(path.read_bytes())
            finally:
                self.state.writing = False
        return None

    # Anomaly boxes.

    def _boxNodes(self) -> list:
        return box_nodes.boxesOf(self.application.scene, self._volume) if self._volume is not None else []

    def _showBoxes(self) -> None:
        state, entries = self.state, []
        for node in self._boxNodes():
            finding, reader, certainty = box_nodes.wordsOf(node)
            entries.append({"label": finding, "reader": reader, "certainty": certainty, "id": node.GetID()})
        if state.boxes != entries:
            state.boxes = entries
        if state.box and all(entry["id"] != state.box for entry in entries):
            state.box = ""

    def _showFigures(self) -> None:
        """Show statistics inside the chosen box, before and after. They follow the box and the result."""
        if self._measurement.step(self._boxNode(), self._resultNode()):
            self.state.boxText = _formatLines(self._measurement.rows) or self._measurement.message

    def _boxNode(self):
        return self.application.scene.GetNodeByID(self.state.box) if self.state.box else None

    def addBox(self) -> None:
        """Add a box in the middle of the slice, with the class, reader and certainty of the form."""
        state = self.state
        with self._showInputErrors("boxMessage"):
            bounds = placing.middleExtent(self._volume, self.application.sliceNode())
            node = box_nodes.addBox(
                self._volume, bounds, state.boxLabel, state.boxReader, _readNumber(state.boxCertainty)
            )
            state.box = node.GetID()
            self._onBox()
        self._boxesChanged = True

    def removeBox(self) -> None:
        node = self._boxNode()
        if node is not None:
            box_nodes.removeBox(node)
            self.state.box = ""
            self._boxesChanged = True
            self.application.render()

    def _onBox(self, **_):
        """Let the chosen box be moved, and show its class, reader and certainty in the form."""
        for node in self._boxNodes():
            chosen = node.GetID() == self.state.box
            display.showHandles(node, chosen)
            display.showName(node, chosen)
            if chosen:
                finding, reader, certainty = box_nodes.wordsOf(node)
                self.state.update({"boxLabel": finding, "boxReader": reader})
                self.state.boxCertainty = certainty
        self._boxesChanged = True
        self.application.render()

    def _onBoxWords(self, **_):
        node, state = self._boxNode(), self.state
        if node is not None:
            with self._showInputErrors("boxMessage"):
                certainty = None if state.boxCertainty is None else _readNumber(state.boxCertainty)
                box_nodes.describe(node, state.boxLabel or "", state.boxReader or "", certainty)
            self._boxesChanged = True
            self.application.render()

    def downloadBoxes(self):
        """Return the boxes as a markups file for the browser; None if there are no boxes."""
        with self._showInputErrors("boxMessage"), tempfile.TemporaryDirectory(prefix="sr-") as folder:
            path = Path(folder) / f"boxes{box_nodes.SUFFIX}"
            box_nodes.saveBoxes(self._boxNodes(), path)
            return self._attachment(path.read_bytes())
        return None

    def _onBoxUpload(self, boxUpload, **_):
        """Add the boxes of a markups file that the browser has sent."""
        upload = boxUpload[0] if isinstance(boxUpload, list) and boxUpload else boxUpload
        if not upload:
            return
        with self._showInputErrors("boxMessage"), tempfile.TemporaryDirectory(prefix="sr-") as folder:
            path = Path(folder) / Path(upload["name"]).name
            path.write_bytes(upload["content"])
            box_nodes.loadBoxes(path, self._volume)
        self.state.boxUpload = None
        self._boxesChanged = True
        self.application.render()

    # Observers and helpers.

    def _observe(self, node, event) -> None:
        for observed in (vtk.vtkCommand.ModifiedEvent, event):
            self._tags.append((node, node.AddObserver(observed, self._onChosenNode)))

    def _stopObserving(self) -> None:
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        self._tags = []

    def _onChosenNode(self, node, event):
        self._choiceChanged = True

    def _onSlice(self, node, event):
        if self.state.regionKind == SLICE:
            self._choiceChanged = True

    @contextmanager
    def _showInputErrors(self, name: str):
        """Show an error in a text of the state instead of raising it; clear the text if there is none."""
        self.state[name] = ""
        try:
            yield
        except (InputError, SuperResolutionError) as error:
            self.state[name] = str(error)

    def _attachment(self, content: bytes):
        return self._server.protocol.addAttachment(content)


def _formatLines(rows: Sequence[tuple[str, str, str]]) -> str:
    """Return rows of a name and the numbers before and after as lines of text."""
    return "\n".join(f"{name}: {before} → {after}" if before else f"{name}: {after}" for name, before, after in rows)


def _readNumber(field) -> float:
    """Return the number in a field; 0 while it is empty."""
    try:
        return float(field)
    except (TypeError, ValueError):
        return 0.0


def _readCount(field) -> int:
    """Return the whole number in a field, at least 0."""
    return max(int(_readNumber(field)), 0)
