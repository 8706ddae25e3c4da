"""Super-resolution of chest radiographs and CT: the panel of the module, over SuperResolutionLib.

From Slicer's Python console:

    from SuperResolution import SuperResolutionLogic
    logic = SuperResolutionLogic()
    result = logic.enhance(slicer.util.getNode("chest"), slicer.util.getNode("R"))
"""

import html
import logging
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin
from SuperResolutionLib import (
    box_nodes,
    dicom_jobs,
    display,
    drawing,
    install,
    label_client,
    label_exchange,
    nodes,
    region,
    result_nodes,
    volumes,
    windows,
    worker_client,
)
from SuperResolutionLib.controller import AMBER, COLORS, GREEN, RED, Choice, Panel, inNumbers, resultText, trustOf
from SuperResolutionLib.enhancer import BOX, SLICE, WHOLE, Enhancer
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.viewing import DIFFERENCE, IN_PLACE, SIDE_BY_SIDE, Viewing

TICK_MS, IDLE_MS = 20, 250  # milliseconds between two looks at the worker: while there is work, and else
UNDOABLE = 5  # removals that can be undone; a removed result keeps its memory until then
ERROR_STYLE = f"font-weight: bold; padding-left: 4px; border-left: 4px solid {COLORS[RED]}"  # on any ground
SPACE = "Space"  # name of the key that changes between before and after
MODALITIES = ("CXR", "CT")  # what an image may be, in the order of the panel's list
REGION_KINDS = (BOX, SLICE, WHOLE)  # kinds of region in the order of the panel's list


class SuperResolution(ScriptedLoadableModule):
    """The module's entry in Slicer's list of modules: title, category, help."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Super-Resolution")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Filtering")]
        self.parent.dependencies = ["CropVolume", "Markups"]
        self.parent.contributors = ["The monai-sr-bundle authors"]
        self.parent.helpText = _(
            "Draw a box on a chest radiograph or a chest CT, press Run, and compare: the region comes back enlarged, "
            "with error bars that say how far to trust it. Research only, not a medical device: detail finer than the "
            "source spacing is predicted, not measured. All images stay on this machine.\n\n"
            "Keys while the module is open: the space bar changes between result and original while they are compared; "
            "1, 2 and 3 compare in place, side by side and by difference; R runs. Slicer's own R, which resets the "
            "zoom of a view, works again when another module is open."
        )
        self.parent.acknowledgementText = _("The models and their training data are named on the cards of each bundle.")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Add a synthetic chest radiograph to the Sample Data module."""
    import SampleData

    resources = Path(__file__).resolve().parent / "Resources"
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="SuperResolution",
        sampleName="DrawnChestRadiograph",
        thumbnailFileName=str(resources / "Icons" / "SuperResolution.png"),
        uris=(resources / "SampleData" / "DrawnChestRadiograph.nrrd").as_uri(),
        fileNames="DrawnChestRadiograph.nrrd",
        nodeNames="DrawnChestRadiograph",
        loadFileType="VolumeFile",
    )


@parameterNodeWrapper
class SuperResolutionParameterNode:
    """The user's choices, saved with the scene. The panel's .ui file names the parameter of each widget."""

    inputVolume: slicer.vtkMRMLScalarVolumeNode
    regionKind: str = BOX
    region: slicer.vtkMRMLMarkupsROINode
    sliceView: slicer.vtkMRMLSliceNode
    bundle: str = ""
    texture: Annotated[float, WithinRange(0, 1)] = 0.0
    steps: Annotated[int, WithinRange(0, 1000)] = 0
    seed: Annotated[int, WithinRange(0, 2147483647)] = 0
    errorBars: bool = True
    result: slicer.vtkMRMLScalarVolumeNode
    tolerance: Annotated[float, WithinRange(0, 100000)] = 0.0
    reader: str = ""


class SuperResolutionLogic(ScriptedLoadableModuleLogic):
    """The module's logic: sends volumes to the worker and puts results into the scene. It works without the panel."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.enhancer = Enhancer(newClient())

    def getParameterNode(self):
        return SuperResolutionParameterNode(ScriptedLoadableModuleLogic.getParameterNode(self))

    def enhance(self, volumeNode, regionNode=None, **options):
        """Enhance a volume, wait, and return the result's volume node; see `Enhancer.enhance`."""
        options.setdefault("idle", slicer.app.processEvents)
        return self.enhancer.enhance(volumeNode, regionNode, **options)


class SuperResolutionWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel. A timer asks the controller for news, so the interface never waits."""

    def __init__(self, parent=None):
        self._parameterNode = None
        self._isOpen, self._isChanged = False, True
        self._shownPanel = Panel()
        self._drawing = None
        self._windows, self._windowed, self._keys = [], None, {}
        self._removedResults, self._removedBoxes = deque(maxlen=UNDOABLE), deque(maxlen=UNDOABLE)
        self._observed = set()
        self._jobs = {}  # running jobs, by the name of the label that shows how they end
        self._installation = None
        # This comes last: without a parent it calls `setup`.
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/SuperResolution.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = SuperResolutionLogic()
        self.viewing = Viewing(slicer.app.applicationLogic())
        buttons = self.ui.inPlaceButton, self.ui.sideBySideButton, self.ui.differenceButton
        self.compareButtons = dict(zip((IN_PLACE, SIDE_BY_SIDE, DIFFERENCE), buttons))
        self.ui.resultSelector.addAttribute("vtkMRMLScalarVolumeNode", result_nodes.REPORT)
        self.ui.wheelFolderLineEdit.text = setting("WheelFolder")
        self.ui.serverLineEdit.text = setting("LabelServer") or label_client.ADDRESS
        self.ui.boxesTable.setHorizontalHeaderLabels([_("Class"), _("Reader"), _("Certainty")])
        for name in ("compareLabel", "exportLabel", "boxLabel", "serverLabel", "installProgressLabel"):
            showText(getattr(self.ui, name), "")
        self._connect()
        self._addKeys()
        self.timer = qt.QTimer()
        self.timer.setInterval(TICK_MS)
        self.timer.connect("timeout()", self.onTick)
        self._useParameterNode(self.logic.getParameterNode())
        if getattr(self.parent, "isEntered", False):  # after Reload, which enters no module that is open
            self.enter()

    def _connect(self):
        ui = self.ui
        ui.modalityComboBox.connect("activated(int)", self.onModality)
        ui.regionKindComboBox.connect("activated(int)", self.onRegionKind)
        ui.bundleComboBox.connect("activated(int)", self.onBundle)
        for button, function in (
            (ui.wheelFolderButton, self.onWheelFolder), (ui.installButton, self.onInstall),
            (ui.cancelInstallButton, lambda: self._installation.cancel()), (ui.runButton, self.onRun),
            (ui.cancelButton, self.onCancel), (ui.removeButton, self.onRemoveResult),
            (ui.undoButton, self.onUndoResult), (ui.detailsButton, self._showResult),
            (ui.exportButton, self.onExport), (ui.removeBoxButton, self.onRemoveBoxes),
            (ui.undoBoxButton, self.onUndoBoxes), (ui.loadReportButton, self.onLoadReport),
            (ui.sendBoxesButton, self.onSendBoxes), (ui.fetchBoxesButton, self.onFetchBoxes),
            (ui.sendToDatabaseButton, lambda: self.startExport(dicom_jobs.SendToDatabase)),
        ):  # fmt: skip
            button.connect("clicked()", function)
        for kind, button in self.compareButtons.items():
            button.connect("clicked(bool)", lambda on, kind=kind: self.onCompare(kind, on))
        ui.drawRegionButton.connect("clicked(bool)", self.onDrawRegion)
        ui.adjustRegionButton.connect("clicked(bool)", self.onAdjustRegion)
        ui.addBoxButton.connect("clicked(bool)", self.onDrawBox)
        ui.originalButton.connect("pressed()", lambda: self.viewing.showOriginal(True))
        ui.originalButton.connect("released()", lambda: self.viewing.showOriginal(False))
        ui.windowComboBox.connect("activated(int)", self.onWindow)
        ui.dragWindowButton.connect("clicked(bool)", self.onDragWindow)
        ui.toleranceSpinBox.connect("valueChanged(double)", self.onErrorBars)
        ui.showErrorBarsCheckBox.connect("clicked(bool)", self.onErrorBars)
        ui.boxesTable.connect("itemChanged(QTableWidgetItem*)", self.onBoxEdited)
        ui.boxesTable.connect("itemSelectionChanged()", self.onBoxChosen)
        scene, mouse = slicer.mrmlScene, slicer.app.applicationLogic().GetInteractionNode()
        self.addObserver(scene, scene.NodeAddedEvent, self.onChange)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onChange)
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneChanged)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneChanged)
        self.addObserver(mouse, mouse.InteractionModeChangedEvent, self.onMouseMode)

    def _addKeys(self):
        """Add the keys of the open panel. The arrow keys change slices in every view of Slicer's."""
        functions = {
            SPACE: lambda: self.viewing.showOriginal(not self.viewing.isOriginal),
            "R": self.ui.runButton.click,
        }
        for number, kind in enumerate(self.compareButtons, start=1):
            functions[str(number)] = lambda kind=kind: self.onCompare(kind)
        for key, function in functions.items():
            shortcut = qt.QShortcut(qt.QKeySequence(key), slicer.util.mainWindow() or self.parent)
            shortcut.autoRepeat = shortcut.enabled = False
            shortcut.connect("activated()", function)
            self._keys[key] = shortcut

    def cleanup(self):
        """Stop all work: the application ends, or the module is reloaded."""
        for shortcut in self._keys.values():
            if shortcut:  # else it went with the main window, which is gone when the application ends
                shortcut.setParent(None)
        self._keys = {}
        self.exit()
        self.viewing.stop()
        self.timer.stop()  # which a change may have started
        for job in (*self._jobs.values(), self._installation):
            if isinstance(job, (dicom_jobs.Command, install.Installation)):  # an exchange leaves the scene alone
                job.close()
        self._useParameterNode(None)
        self.removeObservers()
        self.logic.enhancer.close()

    def enter(self):
        """Start the timer: the user has opened the module, so the worker may start."""
        self._isOpen = True
        chosen = self._parameterNode
        if chosen.inputVolume is None:
            chosen.inputVolume = firstVolume()
        if not chosen.reader:
            chosen.reader = setting("Reader")
        self._showKind()
        self.onChange()
        self.timer.start()

    def exit(self):
        """Let running work go on while another module is shown; the timer stops when it is done."""
        self._isOpen = False
        self._showKind()
        self._stopDrawing()
        self.viewing.showOriginal(False)
        self.onChange()

    # The parameter node and the nodes it names.

    def _useParameterNode(self, parameterNode):
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._gui)
            self.removeObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onChange)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            # `connectGui` is not used: in many Slicers it does not return what `disconnectGui` needs.
            widgets = {widget.property("SlicerParameterName"): widget for widget in vars(self.ui).values()}
            self._gui = parameterNode.connectParametersToGui({name: widgets[name] for name in widgets if name})
            self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onChange)
            self.onChange()

    def onChange(self, caller=None, event=None):
        """Show at the next tick, which comes soon, what has changed."""
        self._isChanged = True
        self._setInterval(TICK_MS)
        if self.viewing.kind and not self.timer.active:  # a caption must not outlive what it says
            self.timer.start()

    def _observe(self):
        """Observe the chosen nodes, the anomaly boxes of the scene, the mouse if the panel is open, and no others."""
        chosen, modified, observed = self._parameterNode, vtk.vtkCommand.ModifiedEvent, set()
        if chosen is not None:
            transformed = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
            volumeEvents = modified, transformed, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent
            regionEvents = modified, transformed, slicer.vtkMRMLMarkupsNode.PointModifiedEvent
            boxes = {chosen.region, *box_nodes.boxesOf(slicer.mrmlScene)}
            crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode") if self._isOpen else None
            observed = {
                *((chosen.inputVolume, event, self.onChange) for event in volumeEvents),
                *((chosen.region, event, self.onChange) for event in regionEvents),
                *((box, slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent, self.onBoxMoved) for box in boxes),
                (chosen.inputVolume, slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent, self.onWindowChanged),
                (crosshair, slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent, self.onCursor),
                (chosen.sliceView, modified, self.onChange),
            }
        observed = {each for each in observed if each[0] is not None}
        for each in self._observed - observed:
            self.removeObserver(*each)
        for each in observed - self._observed:
            self.addObserver(*each)
        self._observed = observed

    def onSceneStartClose(self, caller, event):
        self._stopDrawing()
        self.viewing.stop()
        self._removedResults.clear()
        self._removedBoxes.clear()
        self.onCancel()
        self._useParameterNode(None)
        self._observe()
        self._windowed = None
        self.logic.enhancer.controller.choose(None, "", Choice())  # it would keep the volume in memory

    def onSceneChanged(self, caller, event):
        """Read the choices anew: before the end of loading, the nodes that they name were not there."""
        self._useParameterNode(self.logic.getParameterNode())

    def onRegionKind(self, index):
        self._parameterNode.regionKind = REGION_KINDS[index]

    def onModality(self, index):
        """Store what the user says the volume is."""
        self._parameterNode.inputVolume.SetAttribute(volumes.MODALITY, MODALITIES[index])
        self._windows = []  # those of CT are others
        self.onChange()

    def onBundle(self, index):
        self._parameterNode.bundle = self.ui.bundleComboBox.itemData(index)

    # Boxes drawn on the image.

    def onDrawRegion(self, on):
        """Let the user drag the region on the image."""
        self._draw(on, self.ui.drawRegionButton, drawing.REGION_PIXELS, self.setRegion, self.ui.messageLabel)

    def setRegion(self, extent):
        """Put the region box on an extent of the input volume; add one if there is none."""
        chosen = self._parameterNode
        if chosen.region is None:
            chosen.region = drawing.addRegion(chosen.inputVolume, extent)
        else:
            region.placeBox(chosen.region, chosen.inputVolume, extent)
        chosen.regionKind = BOX

    def onAdjustRegion(self, on):
        display.showHandles(self._parameterNode.region, on)

    def onDrawBox(self, on):
        """Let the user drag an anomaly box on the image."""
        self._stopDrawing()
        with showInputErrors(self.ui.boxLabel):
            if on and not self._parameterNode.reader.strip():
                raise InputError(_("Enter the reader first: every box names its reader."))
            self._draw(on, self.ui.addBoxButton, drawing.BOX_PIXELS, self.addBox, self.ui.boxLabel)

    def addBox(self, extent):
        """Add an anomaly box on an extent of the input volume."""
        chosen = self._parameterNode
        display.showHandles(box_nodes.addBox(chosen.inputVolume, extent, _("Finding"), chosen.reader, 0.5), True)

    def _draw(self, on, button, pixels, add, label):
        """Let the user drag an extent, which `add` gets; a label shows errors."""

        def onEnd(extent):
            self._stopDrawing()
            with showInputErrors(label):
                add(extent)

        self._stopDrawing()
        if on:
            with showInputErrors(label):
                volume, showError = self._parameterNode.inputVolume, lambda text: showText(label, text)
                self._drawing = drawing.BoxDrawing(sliceViews(), volume, pixels, onEnd, showError)
                button.checked = True

    def _stopDrawing(self):
        if self._drawing is not None:
            self._drawing.stop()
        self._drawing = None
        self.ui.drawRegionButton.checked = self.ui.addBoxButton.checked = False

    def onBoxMoved(self, box, event):
        """Move the edges of a box that the user has let go onto edges of pixels of its own volume."""
        volume = box.GetNodeReference(box_nodes.VOLUME)
        if volume is None and box is self._parameterNode.region:
            volume = self._parameterNode.inputVolume
        if volume is not None:
            drawing.snap(box, volume)

    # Window, mouse and what is under it.

    def _showWindows(self):
        """Offer the windows of the input volume."""
        volume, combo = self._parameterNode.inputVolume, self.ui.windowComboBox
        if volume is not self._windowed or not self._windows:
            self._windowed = volume
            self._windows = windows.windowsOf(volume) if volume else []
            combo.clear()
            combo.addItems(["", *map(windows.describe, self._windows)])
            self.onWindowChanged()

    def onWindowChanged(self, caller=None, event=None):
        """Show the window that is set as the first of the list, and its name if it has one."""
        displayNode, combo = self._windowed.GetDisplayNode() if self._windowed else None, self.ui.windowComboBox
        if displayNode is not None:
            now = (displayNode.GetWindow(), displayNode.GetLevel())
            combo.setItemText(0, " / ".join(map(inNumbers, now)))
            matching = (n for n, window in enumerate(self._windows, start=1) if tuple(window[1:]) == now)
            combo.currentIndex = next(matching, 0)

    def onWindow(self, index):
        if index > 0:
            windows.show(self._parameterNode.inputVolume, self._windows[index - 1])

    def onDragWindow(self, on):
        """Let the mouse change the window by dragging, as Slicer's own button does, or let it go."""
        mouse = slicer.app.applicationLogic().GetInteractionNode()
        mouse.SetCurrentInteractionMode(mouse.AdjustWindowLevel if on else mouse.ViewTransform)

    def onMouseMode(self, caller, event):
        self.ui.dragWindowButton.checked = caller.GetCurrentInteractionMode() == caller.AdjustWindowLevel

    def onCursor(self, crosshair, event):
        """Show what is under the mouse."""
        volume, result = self._parameterNode.inputVolume, self.viewing.result
        if result_nodes.sourceOf(result) is not volume:
            result = None
        text = windows.textAt(crosshair, volume, result) if volume is not None and volume.GetImageData() else ""
        self.ui.readoutLabel.text = text or _("Move the mouse over the image to read its values.")

    # Installation.

    def onWheelFolder(self):
        if folder := qt.QFileDialog.getExistingDirectory(None, _("Folder of wheels")):
            self.ui.wheelFolderLineEdit.text = folder

    def onInstall(self):
        """Find out what would be installed; `_showInstallation` asks the user when that is known."""
        source = self.ui.wheelFolderLineEdit.text.strip()
        setting("WheelFolder", source)
        kind = "full" if self.ui.fullInstallCheckBox.checked else "base"
        self._installation = install.Installation(kind, chosenPython(), source or None)
        self._showInstallation()

    def _showInstallation(self):
        """Show what pip does, and ask before it installs. After a successful installation, ask the worker again."""
        installation, ui = self._installation, self.ui
        isRunning = installation.step()
        question, installation.question = installation.question, ""  # the timer goes on while the user is asked
        if question:
            if slicer.util.confirmOkCancelDisplay(question, _("Install the models")):
                installation.confirm()
                # Windows does not exchange files that a process uses, and elsewhere it would mix old and new.
                self.logic.enhancer.stop(_("The models are being installed."))
            else:
                installation.cancel()
        showText(ui.installProgressLabel, installation.text)
        ui.installButton.enabled, ui.cancelInstallButton.enabled = not isRunning, isRunning
        if not isRunning:
            self._installation = None
            self.logic.enhancer.controller.retry()
        if installation.isInstalled:
            self.logic.enhancer.controller.setAbsent("")

    # Running.

    def onTick(self):
        """Pass on the user's choice, read the worker's answers and show what changed, every `TICK_MS`."""
        if self._installation is not None:  # first: an error of what follows must not leave it waiting
            self._showInstallation()
        if self._parameterNode is None:
            return
        enhancer = self.logic.enhancer
        if self._isChanged:
            self._isChanged = False
            self._choose()
            self._showBoxes()
            self._showResult()
        for node in enhancer.step():
            self._parameterNode.result = node
            self.onCompare(self.viewing.kind or IN_PLACE)
        for name, job in list(self._jobs.items()):
            label = getattr(self.ui, name)
            if not job.step():
                showText(label, job.message or job.summary)
                del self._jobs[name]
                self.onChange()
            elif name == "exportLabel":
                showText(label, f"{job.fraction:.0%}")
        panel = enhancer.controller.panel()
        if panel != self._shownPanel:
            self._show(panel)
        isBusy = enhancer.isBusy or self._isChanged or self._jobs or self._installation is not None
        self._setInterval(TICK_MS if isBusy else IDLE_MS)
        if not (self._isOpen or isBusy):
            self.timer.stop()

    def _setInterval(self, milliseconds):
        if self.timer.interval != milliseconds:  # else the timer would start anew, and never end
            self.timer.interval = milliseconds

    def _choose(self):
        """Pass on the user's choice, and offer what can be done with it."""
        chosen, ui = self._parameterNode, self.ui
        if self._drawing is not None and self._drawing.volume is not chosen.inputVolume:
            self._stopDrawing()  # it would land on the pixels of another volume
        self._observe()
        kind = chosen.regionKind
        ui.regionKindComboBox.currentIndex = REGION_KINDS.index(kind)
        ui.regionSelector.enabled, ui.sliceSelector.enabled = kind == BOX, kind == SLICE
        ui.modalityComboBox.enabled = ui.drawRegionButton.enabled = chosen.inputVolume is not None
        ui.adjustRegionButton.enabled = kind == BOX and chosen.region is not None
        self._showWindows()
        node = {BOX: chosen.region, SLICE: chosen.sliceView, WHOLE: None}[kind]
        choice = Choice(chosen.bundle, chosen.texture, chosen.steps, chosen.seed, chosen.errorBars)
        self.logic.enhancer.choose(chosen.inputVolume, kind, node, choice)

    def _show(self, panel):
        ui = self.ui
        if panel.absence != self._shownPanel.absence:
            ui.installCollapsibleButton.collapsed = not panel.absence
            ui.installLabel.text = panel.absence or _("The models are installed.")
        ui.inputsCollapsibleButton.enabled = ui.modelCollapsibleButton.enabled = not panel.absence
        if panel.bundles != self._shownPanel.bundles:
            ui.bundleComboBox.clear()
            for index, (name, title, description) in enumerate(panel.bundles):
                ui.bundleComboBox.addItem(title, name)
                ui.bundleComboBox.setItemData(index, description, qt.Qt.ToolTipRole)
        ui.bundleComboBox.currentIndex = ui.bundleComboBox.findData(self._parameterNode.bundle)
        ui.modalityComboBox.currentIndex = MODALITIES.index(panel.modality) if panel.modality else -1
        for label, text in (
            (ui.bundleLabel, panel.bundleText), (ui.subjectLabel, panel.subjectText),
            (ui.estimateLabel, panel.estimateText), (ui.messageLabel, panel.message),
        ):  # fmt: skip
            showText(label, text)
        ui.messageLabel.styleSheet = ERROR_STYLE if panel.messageIsError else ""
        ui.textureSlider.enabled = panel.textureEnabled
        ui.stepsSpinBox.enabled = ui.seedSpinBox.enabled = panel.stepsEnabled
        ui.runButton.enabled, ui.cancelButton.enabled = panel.canRun, panel.canCancel
        ui.progressBar.visible = panel.progress is not None
        if panel.progress is not None:
            ui.progressBar.value = round(1000 * panel.progress)
            ui.progressBar.format = panel.progressText
        self._shownPanel = panel

    def onRun(self):
        self._choose()  # what has changed since the last tick
        self.logic.enhancer.run()
        self.onChange()

    def onCancel(self):
        self.logic.enhancer.cancel()
        self.onChange()

    # The result.

    def _showResult(self):
        ui, result = self.ui, self._parameterNode.result
        report = result_nodes.reportOf(result) if result else None
        showText(ui.trustLabel, trustText(report) if report else "")
        showText(ui.resultLabel, resultText(report) if report and ui.detailsButton.checked else "")
        for widget in (*self.compareButtons.values(), ui.originalButton, ui.detailsButton, ui.removeButton):
            widget.enabled = result is not None
        ui.undoButton.enabled = bool(self._removedResults)
        hasSomething, isExporting = result is not None or bool(self._boxNodes()), "exportLabel" in self._jobs
        ui.exportButton.text = _("Cancel") if isExporting else _("Export DICOM…")
        ui.exportButton.enabled = hasSomething or isExporting
        ui.sendToDatabaseButton.enabled = hasSomething and not isExporting
        hasBars = result_nodes.errorBarsOf(result) is not None
        ui.showErrorBarsCheckBox.enabled = ui.toleranceSpinBox.enabled = hasBars
        if result is None:
            showText(ui.compareLabel, "")
        if result is None or not result_nodes.isInPlace(result):
            self.viewing.stop()
        elif self.viewing.kind and self.viewing.result is not result:
            self.onCompare(self.viewing.kind)
        self._showKind()

    def _showKind(self):
        """Check the button of the comparison, and take the keys that Slicer has while the panel is closed.

        They go before the button that has the focus. Without a comparison, the space bar presses that button.
        """
        for kind, button in self.compareButtons.items():
            button.checked = self.viewing.kind == kind
        for key, shortcut in self._keys.items():
            shortcut.enabled = self._isOpen and (key != SPACE or bool(self.viewing.kind))

    def onCompare(self, kind, on=True):
        """Start a comparison of the result, or end it. The views are fitted to the region of a result when it comes."""
        result, view = self._parameterNode.result, self._parameterNode.sliceView
        if on and result is not None:
            isOther = self.viewing.result is not result
            with showInputErrors(self.ui.compareLabel):
                self.viewing.show(kind, result, view.GetLayoutName() if view else "Red", fit=isOther)
                self.onErrorBars()
        else:
            self.viewing.stop()
        self._showKind()

    def onErrorBars(self, value=None):
        """Show or hide the error bars of the result, as the check box and the tolerance say."""
        ui, result, tolerance = self.ui, self._parameterNode.result, self.ui.toleranceSpinBox.value
        with showInputErrors(ui.compareLabel):
            if not ui.showErrorBarsCheckBox.checked or result_nodes.errorBarsOf(result) is None:
                self.viewing.hideErrorBars()
            else:
                self.viewing.showErrorBars(result, tolerance)
                if tolerance > 0:
                    text = _("{share:.1%} of the pixels have an error bar wider than {tolerance:g} {unit}.")
                    share, unit = result_nodes.widerShare(result, tolerance), result_nodes.unitOf(result)
                    showText(ui.compareLabel, text.format(share=share, tolerance=tolerance, unit=unit))
        self._showKind()

    def onRemoveResult(self):
        result, self._parameterNode.result = self._parameterNode.result, None
        self.viewing.stop()
        self._removedResults.append((result_nodes.remove(result), result))
        self._showResult()

    def onUndoResult(self):
        """Bring back the result that was removed last, and show it."""
        removal, result = self._removedResults.pop()
        removal.undo()
        self._parameterNode.result = result
        self.onCompare(IN_PLACE)
        self._showResult()

    def onExport(self):
        """Ask for a folder and start the export, or cancel the one that runs."""
        if "exportLabel" in self._jobs:
            self._jobs["exportLabel"].cancel()
        elif folder := qt.QFileDialog.getExistingDirectory(None, _("Folder for the DICOM series")):
            self.startExport(dicom_jobs.Export, folder)

    def startExport(self, kind, *folder):
        """Write the result and the boxes by `dicom_jobs.Export`, inside a folder, or by `dicom_jobs.SendToDatabase`."""
        chosen = self._parameterNode
        with showInputErrors(self.ui.exportLabel):
            volume = result_nodes.existingSource(chosen.result) if chosen.result else chosen.inputVolume
            if volume is not chosen.inputVolume and self._boxNodes():
                message = _("The result is one of '{name}', and the boxes are not. Choose '{name}' as the volume.")
                raise InputError(message, name=volume.GetName())
            boxes = box_nodes.boxesOf(slicer.mrmlScene, volume)
            self._jobs["exportLabel"] = newCommand(kind, chosen.result, volume, boxes, *folder)
        self._showResult()

    # Anomaly boxes.

    def _boxNodes(self):
        volume = self._parameterNode.inputVolume
        return box_nodes.boxesOf(slicer.mrmlScene, volume) if volume else []

    def _showBoxes(self):
        ui, table, nodes = self.ui, self.ui.boxesTable, self._boxNodes()
        table.blockSignals(True)
        table.setRowCount(len(nodes))
        for row, node in enumerate(nodes):
            finding, reader, certainty = box_nodes.wordsOf(node)
            for column, text in enumerate((finding, reader, "" if certainty is None else f"{certainty:.0%}")):
                item = table.item(row, column)
                if item is None or item.text() != text:  # else it would take what is being typed
                    table.setItem(row, column, qt.QTableWidgetItem(text))
        table.blockSignals(False)
        hasVolume = self._parameterNode.inputVolume is not None
        ui.removeBoxButton.enabled, ui.undoBoxButton.enabled = bool(nodes), bool(self._removedBoxes)
        ui.addBoxButton.enabled = hasVolume
        ui.loadReportButton.enabled = hasVolume and "boxLabel" not in self._jobs
        ui.sendBoxesButton.enabled = ui.fetchBoxesButton.enabled = hasVolume and "serverLabel" not in self._jobs

    def onRemoveBoxes(self):
        boxes = self._boxNodes()
        if removals := [nodes.Removal(boxes[row]) for row in self._chosenRows()]:
            self._removedBoxes.append(removals)

    def onUndoBoxes(self):
        """Bring back the boxes that were removed last."""
        for removal in self._removedBoxes.pop():
            removal.undo()
        self._showBoxes()

    def onBoxEdited(self, item):
        row, table = item.row(), self.ui.boxesTable
        label, reader, certainty = (table.item(row, column).text() for column in range(3))
        with showInputErrors(self.ui.boxLabel):
            box_nodes.describe(self._boxNodes()[row], label, reader, readShare(certainty))
        self.onChange()

    def onBoxChosen(self):
        """Show the handles of the chosen boxes."""
        rows = self._chosenRows()
        for row, node in enumerate(self._boxNodes()):
            display.showHandles(node, row in rows)

    def _chosenRows(self):
        return sorted({item.row() for item in self.ui.boxesTable.selectedItems()})

    def onLoadReport(self):
        kinds = f"DICOM SR (*.dcm);;{_('All files')} (*)"
        if path := qt.QFileDialog.getOpenFileName(None, _("Load boxes of a DICOM report"), "", kinds):
            self.startLoadingReport(path)

    def startLoadingReport(self, path):
        """Put the boxes of a DICOM Structured Report on the input volume."""
        with showInputErrors(self.ui.boxLabel):
            self._jobs["boxLabel"] = newCommand(dicom_jobs.LoadReport, path, self._parameterNode.inputVolume)
            showText(self.ui.boxLabel, _("Reading the report…"))
        self._showBoxes()

    def onSendBoxes(self):
        """Send the reader's boxes to the labelling server."""
        volume, reader = self._parameterNode.inputVolume, self._parameterNode.reader.strip()
        isDraft = self.ui.draftCheckBox.checked
        isEmpty = bool(reader) and not label_exchange.ownBoxes(volume, reader)
        question = _("You have drawn no box on this image. Submit that there is no finding?")
        if isEmpty and not isDraft and not slicer.util.confirmOkCancelDisplay(question, _("Send boxes")):
            return
        self._startExchange(label_exchange.SendBoxes, _("Sending the boxes…"), isDraft)

    def onFetchBoxes(self):
        """Fetch the reader's boxes from the labelling server."""
        volume, reader = self._parameterNode.inputVolume, self._parameterNode.reader.strip()
        question = _("The boxes of this reader were changed and not sent. Replace them by those of the server?")
        with showInputErrors(self.ui.serverLabel):
            isUnsent = label_exchange.isUnsent(volume, reader)
            if isUnsent and not slicer.util.confirmOkCancelDisplay(question, _("Fetch boxes")):
                return
            self._startExchange(label_exchange.FetchBoxes, _("Fetching the boxes…"))

    def _startExchange(self, kind, text, *options):
        chosen, address = self._parameterNode, self.ui.serverLineEdit.text.strip()
        with showInputErrors(self.ui.serverLabel):
            client = label_client.LabelClient(address, self.ui.tokenLineEdit.text)
            self._jobs["serverLabel"] = kind(client, chosen.inputVolume, chosen.reader, *options)
            setting("LabelServer", address)  # the token is never stored
            setting("Reader", chosen.reader.strip())
            showText(self.ui.serverLabel, text)
        self._showBoxes()


@contextmanager
def showInputErrors(label):
    """Show an `InputError` in a label instead of raising it; without one the label is empty."""
    showText(label, "")
    try:
        yield
    except InputError as error:
        showText(label, str(error))


def showText(label, text):
    """Show a text in a label; an empty label takes no space."""
    label.text = text
    label.visible = bool(text)
    label.updateGeometry()  # otherwise a form keeps the height of the old text


def trustText(report):
    """Return the trust line of a result for a label: a coloured dot, a word, and the reason."""
    words = {GREEN: _("green"), AMBER: _("amber"), RED: _("red")}
    color, reason = trustOf(report)
    return f"<span style='color: {COLORS[color]}'>●</span> <b>{words[color]}</b>&nbsp; {html.escape(reason)}"


def newClient():
    """Return the client of a worker process, which starts with the first request."""
    return worker_client.WorkerClient(worker_client.workerCommand(chosenPython()))


def setting(name, value=None):
    """Return one of the user's settings as text; store `value` first if there is one."""
    settings = slicer.app.userSettings()
    if value is not None:
        settings.setValue(f"SuperResolution/{name}", value)
    return str(settings.value(f"SuperResolution/{name}") or "")


def chosenPython():
    """Return the Python executable that the user's settings name; None means Slicer's own."""
    return setting("Python") or None


def newCommand(kind, *arguments):
    """Start a process that writes or reads DICOM; `kind` is its class."""
    return kind(*arguments, python=chosenPython())


def sliceViews():
    """Return pairs of a slice node and the interactor of its view, of all slice views of the window."""
    layout = slicer.app.layoutManager()
    widgets = [layout.sliceWidget(name) for name in layout.sliceViewNames()] if layout else []
    return [(widget.mrmlSliceNode(), widget.sliceView().interactor()) for widget in widgets]


def firstVolume():
    """Return the first volume of the scene that this module did not make, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        isOurs = node.GetNodeReferenceID(result_nodes.SOURCE) or node.GetNodeReferenceID(result_nodes.RESULT)
        if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not isOurs:
            return node
    return None


def readShare(text):
    """Read a certainty of the table, "80 %" or "0.8", as a number from 0 to 1; None if it is empty."""
    number = text.strip()
    if not number:
        return None
    try:
        return float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        message = _("The certainty is '{text}', expected a share such as 80 % or 0.8.")
        raise InputError(message.format(text=text)) from None


class SuperResolutionTest(ScriptedLoadableModuleTest):
    """The self test: enhance a synthetic image. Without the models it passes, and says that they are missing."""

    def runTest(self):
        slicer.mrmlScene.Clear(0)
        rows, columns = np.mgrid[0:96, 0:128]
        image = (2000 + 1500 * np.sin(rows / 9) * np.cos(columns / 7)).astype(np.int16)[None]
        volume = slicer.util.addVolumeFromArray(image, np.diag([-0.6, -0.6, 1.0, 1.0]), "drawn")
        box = drawing.addRegion(volume, [0, 1, 32, 64, 48, 80])
        logic = SuperResolutionLogic()
        try:
            result = logic.enhance(volume, box)
        except InputError as error:
            if not logic.enhancer.controller.panel().absence:
                raise
            # As in a Slicer that was just built: nothing more can be tested.
            logging.info("The models are not installed, so nothing was enhanced: %s", error)
            return
        finally:
            logic.enhancer.close()
        self.assertEqual(slicer.util.arrayFromVolume(result).shape, (1, 128, 128))  # noqa: PT009
        self.assertIs(result_nodes.sourceOf(result), volume)  # noqa: PT009
        self.delayDisplay(_("The test has passed."))
