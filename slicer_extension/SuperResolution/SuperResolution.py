"""Super-resolution of chest radiographs and CT: the panel of the module, over SuperResolutionLib.

From Slicer's Python console:

    from SuperResolution import SuperResolutionLogic
    logic = SuperResolutionLogic()
    result = logic.enhance(slicer.util.getNode("chest"), slicer.util.getNode("R"))
"""

import logging
import os
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
    box_statistics,
    dicom_export,
    dicom_report,
    display,
    install,
    placing,
    result_nodes,
    volumes,
    worker_client,
)
from SuperResolutionLib.controller import Choice, resultText
from SuperResolutionLib.enhancer import BOX, SLICE, WHOLE, Enhancer
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.viewing import DIFFERENCE, FLICKER, OVER, REVEAL, SIDE_BY_SIDE, Viewing

TICK_MS = 20
FLICKER_MS = 400
BOX_PIXELS = 128
WHEEL_FOLDER = "WheelFolder"
"""Settings of the installation."""
REGION_KINDS = (BOX, SLICE, WHOLE)
"""As the items of the panel's list."""


class SuperResolution(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Super-Resolution")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Filtering")]
        self.parent.dependencies = ["CropVolume", "Markups"]
        self.parent.contributors = ["The monai-sr-bundle authors"]
        self.parent.helpText = _(
            "Draw a box on a chest radiograph or a chest CT, press Run, and compare: the region comes back finer, with "
            "error bars that say how far to trust it. Research only, not a medical device: detail finer than the "
            "source spacing is predicted, not measured. All work is done on this machine."
        )
        self.parent.acknowledgementText = _("The models and their training data are named on the cards of each bundle.")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer a drawn chest radiograph in Sample Data; where that module is not loaded, nobody asks for one."""
    try:
        import SampleData
    except ImportError:
        return
    here = Path(__file__).resolve().parent / "Resources"
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="SuperResolution",
        sampleName="DrawnChestRadiograph",
        thumbnailFileName=str(here / "Icons" / "SuperResolution.png"),
        uris=(here / "SampleData" / "DrawnChestRadiograph.nrrd").as_uri(),
        fileNames="DrawnChestRadiograph.nrrd",
        nodeNames="DrawnChestRadiograph",
        loadFileType="VolumeFile",
    )


@parameterNodeWrapper
class SuperResolutionParameterNode:
    """What the user chose; saved with the scene. `region` and its kin are named in the panel's .ui file."""

    inputVolume: slicer.vtkMRMLScalarVolumeNode
    regionKind: str = BOX
    region: slicer.vtkMRMLMarkupsROINode
    sliceView: slicer.vtkMRMLSliceNode
    bundle: str = ""
    texture: Annotated[float, WithinRange(0, 1)] = 0.0
    steps: Annotated[int, WithinRange(0, 1000)] = 0
    seed: Annotated[int, WithinRange(0, 2147483647)] = 0
    errorBars: bool = True
    live: bool = False
    result: slicer.vtkMRMLScalarVolumeNode
    tolerance: Annotated[float, WithinRange(0, 100000)] = 0.0
    reader: str = ""


class SuperResolutionLogic(ScriptedLoadableModuleLogic):
    """Volumes to the worker process, results into the scene; works without the panel.

    Args:
        python: of the environment that has monai-sr-bundle; Slicer's own where None.
    """

    def __init__(self, python=None):
        ScriptedLoadableModuleLogic.__init__(self)
        self.moduleName = "SuperResolution"
        self.enhancer = Enhancer(newClient(python), getattr(slicer, "dicomDatabase", None))

    def getParameterNode(self):
        return SuperResolutionParameterNode(ScriptedLoadableModuleLogic.getParameterNode(self))

    def enhance(self, volumeNode, regionNode=None, **options):
        """Enhance and wait; see `Enhancer.enhance`. Returns the result's volume node."""
        options.setdefault("idle", slicer.app.processEvents)
        return self.enhancer.enhance(volumeNode, regionNode, **options)

    def close(self):
        """End the worker process; it starts again when it is needed."""
        self.enhancer.close()


class SuperResolutionWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel. It shows what the controller says; a timer asks, so that nothing here waits."""

    def __init__(self, parent=None):
        self.logic = None
        self._parameterNode = None
        self._gui = None
        self._opened = False
        self._changed = self._boxesChanged = True
        self._shown = None
        self._bundleNames = ()
        self._filling = False
        self._marking = False
        self._measuring = box_statistics.Measuring()
        self._measured = None
        self._followed = set()
        self._export = None
        self._report = None
        self._installation = None
        # Last: without a parent it calls `setup`.
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/SuperResolution.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = SuperResolutionLogic(chosenPython())
        self.viewing = Viewing(slicer.app.applicationLogic(), rendererOf)
        self.compareButtons = {
            OVER: self.ui.overButton, SIDE_BY_SIDE: self.ui.sideBySideButton, REVEAL: self.ui.revealButton,
            FLICKER: self.ui.flickerButton, DIFFERENCE: self.ui.differenceButton,
        }  # fmt: skip
        self.ui.resultSelector.addAttribute("vtkMRMLScalarVolumeNode", "SuperResolution.Model")
        self.ui.wheelFolderLineEdit.text = setting(WHEEL_FOLDER)
        self.ui.boxesTable.setHorizontalHeaderLabels([_("Class"), _("Reader"), _("Certainty")])
        for label in (self.ui.toleranceLabel, self.ui.exportLabel, self.ui.boxLabel, self.ui.installProgressLabel):
            say(label, "")
        self._connect()
        self.timer = qt.QTimer()
        self.timer.setInterval(TICK_MS)
        self.timer.connect("timeout()", self.onTick)
        self.flickerTimer = qt.QTimer()
        self.flickerTimer.setInterval(FLICKER_MS)
        self.flickerTimer.connect("timeout()", self.onFlicker)
        self._useParameterNode(self.logic.getParameterNode())

    def _connect(self):
        ui = self.ui
        ui.regionKindComboBox.connect("currentIndexChanged(int)", self.onRegionKind)
        ui.bundleComboBox.connect("currentIndexChanged(int)", self.onBundle)
        for button, function in (
            (ui.wheelFolderButton, self.onWheelFolder), (ui.installButton, self.onInstall),
            (ui.cancelInstallButton, self.onCancelInstall), (ui.newRegionButton, self.onNewRegion),
            (ui.runButton, self.onRun), (ui.cancelButton, self.onCancel),
            (ui.removeButton, self.onRemoveResult), (ui.exportButton, self.onExport), (ui.addBoxButton, self.onAddBox),
            (ui.removeBoxButton, self.onRemoveBoxes), (ui.saveBoxesButton, self.onSaveBoxes),
            (ui.loadBoxesButton, self.onLoadBoxes), (ui.saveReportButton, self.onSaveReport),
            (ui.loadReportButton, self.onLoadReport),
        ):  # fmt: skip
            button.connect("clicked()", function)
        for kind, button in self.compareButtons.items():
            button.connect("clicked(bool)", lambda on, kind=kind: self.onCompare(kind, on))
        ui.showErrorBarsCheckBox.connect("clicked(bool)", self.onOverlay)
        ui.showMaskCheckBox.connect("clicked(bool)", self.onOverlay)
        ui.boxesTable.connect("itemChanged(QTableWidgetItem*)", self.onBoxEdited)
        ui.boxesTable.connect("itemSelectionChanged()", self.onBoxChosen)
        for event in (slicer.vtkMRMLScene.NodeAddedEvent, slicer.vtkMRMLScene.NodeRemovedEvent):
            self.addObserver(slicer.mrmlScene, event, self.onNodes)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)

    def cleanup(self):
        """The application ends, or the module is loaded again."""
        self.timer.stop()
        self.flickerTimer.stop()
        self.viewing.stop()
        for running in (self._export, self._report, self._installation):
            if running is not None:
                running.cancel()
        self._useParameterNode(None)
        self.removeObservers()
        self.logic.close()

    def enter(self):
        """The user opens the module: from now on the worker may be started."""
        self._opened = True
        if self._parameterNode is None:
            self._useParameterNode(self.logic.getParameterNode())
        if self._parameterNode.inputVolume is None:
            self._parameterNode.inputVolume = firstVolume()
        self._changed = True
        self.timer.start()

    def exit(self):
        """Work that has begun goes on."""

    # The parameter node and the nodes it names.

    def _useParameterNode(self, parameterNode):
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._gui)
            self.removeObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameters)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            # Not by `connectGui`, which in many Slicers does not return what `disconnectGui` asks for.
            named = {widget.property("SlicerParameterName"): widget for widget in vars(self.ui).values()}
            self._gui = parameterNode.connectParametersToGui({name: named[name] for name in named if name})
            self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameters)
            self.onParameters()

    def onParameters(self, caller=None, event=None):
        chosen = self._parameterNode
        self._follow(chosen.inputVolume, chosen.region, chosen.sliceView)
        kind = chosen.regionKind if chosen.regionKind in REGION_KINDS else BOX
        self.ui.regionKindComboBox.currentIndex = REGION_KINDS.index(kind)
        for widget, shown in (
            (self.ui.regionSelector, kind == BOX), (self.ui.newRegionButton, kind == BOX),
            (self.ui.sliceSelector, kind == SLICE),
        ):  # fmt: skip
            widget.enabled = shown
        self._changed = self._boxesChanged = True

    def _follow(self, *nodes):
        """Notice when a chosen node changes."""
        events = {
            "vtkMRMLScalarVolumeNode": (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent,
                                        slicer.vtkMRMLTransformableNode.TransformModifiedEvent),
            "vtkMRMLMarkupsROINode": (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLMarkupsNode.PointModifiedEvent,
                                      slicer.vtkMRMLTransformableNode.TransformModifiedEvent),
            "vtkMRMLSliceNode": (vtk.vtkCommand.ModifiedEvent,),
        }  # fmt: skip
        wanted = {(node, event) for node in nodes if node for event in events.get(node.GetClassName(), ())}
        for node, event in self._followed - wanted:
            self.removeObserver(node, event, self.onChosenNode)
        for node, event in wanted:
            if not self.hasObserver(node, event, self.onChosenNode):
                self.addObserver(node, event, self.onChosenNode)
        self._followed = wanted

    def onChosenNode(self, caller, event):
        self._changed = True

    def onNodes(self, caller, event):
        self._changed = self._boxesChanged = True

    def onSceneStartClose(self, caller, event):
        self.viewing.stop()
        self.onCancel()
        self._useParameterNode(None)
        self._follow()

    def onSceneEndClose(self, caller, event):
        if self._opened:
            self._useParameterNode(self.logic.getParameterNode())

    def onRegionKind(self, index):
        if self._parameterNode is not None:
            self._parameterNode.regionKind = REGION_KINDS[index]

    def onBundle(self, index):
        if self._parameterNode is not None and not self._filling and 0 <= index < len(self._bundleNames):
            self._parameterNode.bundle = self._bundleNames[index]

    def onNewRegion(self):
        """A box in the middle of the volume, on the slice that the view shows."""
        volume = self._parameterNode.inputVolume
        with self._told():
            volumes.check(volume)
            node = slicer.mrmlScene.AddNewNodeByClass(
                "vtkMRMLMarkupsROINode", slicer.mrmlScene.GenerateUniqueName("SR region")
            )
            try:
                placing.newRegion(node, volume, self._parameterNode.sliceView, BOX_PIXELS)
            except InputError:
                slicer.mrmlScene.RemoveNode(node)
                raise
            self._parameterNode.region = node

    # Installation.

    def onWheelFolder(self):
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder of wheels"))
        if folder:
            self.ui.wheelFolderLineEdit.text = folder

    def onInstall(self):
        """Look what would be installed; `_offer` asks."""
        wheelFolder = self.ui.wheelFolderLineEdit.text.strip()
        setting(WHEEL_FOLDER, wheelFolder)
        kind = "full" if self.ui.fullInstallCheckBox.checked else "base"
        self._installation = newPlan(kind, wheelFolder, install.Planning)
        self._showInstallation({"event": "step", "text": _("Looking at what is installed…")})

    def _offer(self, plan):
        """Say what would be installed, ask, and begin."""
        self._installation, told = None, ""
        if plan.problems or plan.isInstalled:
            told = plan.summary
        elif slicer.util.confirmOkCancelDisplay(plan.summary, _("Install the models")):
            self._installation = install.Installation(plan)
        self._showInstallation({"event": "step", "text": told})

    def onCancelInstall(self):
        self._installation.cancel()

    def _showInstallation(self, event):
        """What pip does; at the end the worker is asked again."""
        if event["event"] == "planned":
            self._offer(event["plan"])
            return
        say(self.ui.installProgressLabel, event.get("message") or event["text"])
        if event["event"] in ("done", "failed", "cancelled"):
            self._installation = None
        if event["event"] == "done":
            self.logic.enhancer.controller.absent("")
        running = self._installation is not None
        self.ui.installButton.enabled, self.ui.cancelInstallButton.enabled = not running, running

    # Running.

    def onTick(self):
        """Every `TICK_MS`: tell what was chosen, hear the worker, show what changed."""
        if self._parameterNode is None:
            return
        enhancer = self.logic.enhancer
        if self._changed:
            self._changed = False
            self._choose()
        for node in enhancer.step():
            self._newResult(node)
        if self._marking:
            self._showShare()
        if self._export is not None:
            self._showExport(self._export.step())
        if self._report is not None:
            self._showReport(self._report.step())
        if self._installation is not None:
            for event in self._installation.poll():
                self._showInstallation(event)
        if self._boxesChanged:
            self._boxesChanged = False
            self._showBoxes()
            self._showResult()
        self._showFigures()
        panel = enhancer.controller.panel()
        if panel != self._shown:
            self._show(panel)

    def _choose(self):
        chosen = self._parameterNode
        node = {BOX: chosen.region, SLICE: chosen.sliceView, WHOLE: None}[chosen.regionKind]
        choice = Choice(chosen.bundle, chosen.texture, chosen.steps, chosen.seed, chosen.errorBars, chosen.live)
        self.logic.enhancer.choose(chosen.inputVolume, chosen.regionKind, node, choice)

    def _show(self, panel):
        ui = self.ui
        if self._shown is None or panel.installed != self._shown.installed:
            ui.installCollapsibleButton.collapsed = panel.installed
            ui.installLabel.text = panel.absence or _("The models are installed.")
        ui.inputsCollapsibleButton.enabled = ui.modelCollapsibleButton.enabled = panel.installed
        names = tuple(name for name, *_rest in panel.bundles)
        if self._shown is None or panel.bundles != self._shown.bundles:
            self._filling = True
            ui.bundleComboBox.clear()
            for index, (name, title, description) in enumerate(panel.bundles):
                ui.bundleComboBox.addItem(title, name)
                ui.bundleComboBox.setItemData(index, description, qt.Qt.ToolTipRole)
            self._bundleNames, self._filling = names, False
        chosen = self._parameterNode.bundle
        if chosen in names and ui.bundleComboBox.currentIndex != names.index(chosen):
            ui.bundleComboBox.currentIndex = names.index(chosen)
        for label, text in (
            (ui.bundleLabel, panel.bundleText), (ui.subjectLabel, panel.subjectText),
            (ui.estimateLabel, panel.estimateText), (ui.messageLabel, panel.message),
        ):  # fmt: skip
            say(label, text)
        ui.messageLabel.styleSheet = "font-weight: bold; color: #b03000" if panel.messageIsError else ""
        ui.textureSlider.enabled = panel.textureEnabled
        ui.stepsSpinBox.enabled = ui.seedSpinBox.enabled = panel.stepsEnabled
        ui.runButton.enabled, ui.cancelButton.enabled = panel.canRun, panel.canCancel
        ui.progressBar.visible = panel.progress is not None
        if panel.progress is not None:
            ui.progressBar.value = round(1000 * panel.progress)
            ui.progressBar.format = panel.progressText
        self._shown = panel

    def onRun(self):
        self.logic.enhancer.controller.run()

    def onCancel(self):
        self.logic.enhancer.cancel()

    # The result.

    def _newResult(self, node):
        isFollowing = node is self._parameterNode.result  # in live mode; the views have its new voxels already
        self._parameterNode.result = node
        self._boxesChanged = True
        if isFollowing:
            self.onOverlay()
        else:
            self._compare(self.viewing.kind or OVER)

    def _showResult(self):
        ui, result = self.ui, self._parameterNode.result
        say(ui.resultLabel, resultText(result_nodes.reportOf(result)) if result else "")
        hasBars = result is not None and result_nodes.errorBarsOf(result) is not None
        for widget in (*self.compareButtons.values(), ui.removeButton, ui.exportButton):
            widget.enabled = result is not None
        for widget in (ui.showErrorBarsCheckBox, ui.showMaskCheckBox, ui.toleranceSpinBox):
            widget.enabled = hasBars
        if result is None:
            say(ui.toleranceLabel, "")
        if self.viewing.kind and self.viewing.result is not result:  # another one was selected, or it was removed
            if result is None:
                self.viewing.stop()
            else:
                self._compare(self.viewing.kind)
        self._showKind()

    def _showKind(self):
        for kind, button in self.compareButtons.items():
            button.checked = self.viewing.kind == kind
        if self.viewing.kind == FLICKER:
            self.flickerTimer.start()
        else:
            self.flickerTimer.stop()

    def _compare(self, kind):
        view = self._parameterNode.sliceView
        with self._told():
            self.viewing.show(kind, self._parameterNode.result, view.GetLayoutName() if view else "Red")
            self.onOverlay()

    def onCompare(self, kind, on):
        if on:
            self._compare(kind)
        else:
            self.viewing.stop()
        self._showKind()

    def onFlicker(self):
        self.viewing.tick()
        if self.viewing.kind != FLICKER:
            self._showKind()

    def onOverlay(self, on=None):
        """Error bars and trust mask as the check boxes say."""
        ui, result = self.ui, self._parameterNode.result
        self._marking = False
        say(ui.toleranceLabel, "")
        if result is None or result_nodes.errorBarsOf(result) is None:
            self.viewing.hideErrorBars()  # those of voxels that were there before
            return
        unit = result_nodes.reportOf(result)["consistency"]["unit"]
        tolerance = self._parameterNode.tolerance
        with self._told():
            if ui.showErrorBarsCheckBox.checked:
                self.viewing.showErrorBars(result, tolerance, unit)
            else:
                self.viewing.hideErrorBars()
            if ui.showMaskCheckBox.checked:
                self.viewing.showMask(result, tolerance)
                self._showShare()
            else:
                self.viewing.hideMask(result)
        self._showKind()

    def _showShare(self):
        """How much the trust mask marks; of a large result when all of it is marked, some ticks later."""
        text, self._marking = self.viewing.maskText(self._parameterNode.result)
        say(self.ui.toleranceLabel, text)

    def onRemoveResult(self):
        result = self._parameterNode.result
        self.viewing.stop()
        self._parameterNode.result = None
        self.logic.enhancer.remove(result)
        self._boxesChanged = True

    def onExport(self):
        """Ask for a folder and begin, or end what was begun."""
        if self._export is not None:
            self._export.cancel()
            return
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for the DICOM series"))
        if folder:
            self.startExport(folder)

    def startExport(self, folder):
        """Write the result as a DICOM series into a new folder of `folder`."""
        with self._told(self.ui.exportLabel):
            fileOf = dicomDatabase().fileForInstance
            self._export = newExport(self._parameterNode.result, folder, fileOf)
            self.ui.exportButton.text = _("Cancel export")

    def _showExport(self, isRunning):
        ended, ui = self._export, self.ui
        if isRunning:
            say(ui.exportLabel, f"{ended.fraction:.0%}")
        else:
            folder = Path(ended.written[0]).parent if ended.written else None
            say(ui.exportLabel, ended.message or f"{len(ended.written)} files in {folder}.")
            ui.exportButton.text = _("Export DICOM…")
            self._export = None

    # Anomaly boxes.

    def _boxNodes(self):
        volume = self._parameterNode.inputVolume
        return box_nodes.boxes(slicer.mrmlScene, volume) if volume else []

    def _showBoxes(self):
        table, nodes = self.ui.boxesTable, self._boxNodes()
        self._filling = True
        table.setRowCount(len(nodes))
        for row, node in enumerate(nodes):
            finding, reader, certainty = box_nodes.wordsOf(node)
            for column, text in enumerate((finding, reader, "" if certainty is None else f"{certainty:.0%}")):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        self._filling = False
        self._measured = self._chosenBox(nodes)  # in the row of one that was removed there may be another
        isFree, hasVolume = self._report is None, self._parameterNode.inputVolume is not None
        for button, isOffered in (
            (self.ui.removeBoxButton, bool(nodes)), (self.ui.saveBoxesButton, bool(nodes)),
            (self.ui.addBoxButton, hasVolume), (self.ui.loadBoxesButton, hasVolume),
            (self.ui.saveReportButton, bool(nodes) and isFree), (self.ui.loadReportButton, hasVolume and isFree),
        ):  # fmt: skip
            button.enabled = isOffered

    def onAddBox(self):
        chosen = self._parameterNode
        with self._told(self.ui.boxLabel):
            if not chosen.reader.strip():
                raise InputError("Enter the reader first: every box says who drew it.")
            bounds = placing.middleOf(chosen.inputVolume, chosen.sliceView, BOX_PIXELS // 4)
            display.showHandles(box_nodes.addBox(chosen.inputVolume, bounds, "Finding", chosen.reader, 0.5), True)

    def onRemoveBoxes(self):
        nodes = self._boxNodes()
        for row in self._chosenRows():
            box_nodes.removeBox(nodes[row])

    def onBoxEdited(self, item):
        if self._filling:
            return
        row, table = item.row(), self.ui.boxesTable
        label, reader, certainty = (table.item(row, column).text() for column in range(3))
        with self._told(self.ui.boxLabel):
            box_nodes.describe(self._boxNodes()[row], label, reader, asShare(certainty))
        self._boxesChanged = True

    def onBoxChosen(self):
        """The chosen box can be moved by hand and is measured."""
        nodes = self._boxNodes()
        self._measured = self._chosenBox(nodes)
        for node in nodes:
            display.showHandles(node, node is self._measured)
        self._measuring = box_statistics.Measuring()

    def _chosenBox(self, nodes):
        rows = self._chosenRows()
        return nodes[rows[0]] if rows and rows[0] < len(nodes) else None

    def _showFigures(self):
        """Figures inside the chosen box, before and after; they follow the box and the result."""
        if self._measuring.step(self._measured, self._parameterNode.result):
            rows = self._measuring.rows
            say(self.ui.boxLabel, asTable(rows) if rows else self._measuring.message)

    def _chosenRows(self):
        return sorted({item.row() for item in self.ui.boxesTable.selectedItems()})

    def onSaveBoxes(self):
        path = qt.QFileDialog.getSaveFileName(
            None, _("Save boxes"), "boxes" + box_nodes.SUFFIX, f"Markups (*{box_nodes.SUFFIX})"
        )
        if path:
            with self._told(self.ui.boxLabel):
                box_nodes.saveBoxes(self._boxNodes(), path)

    def onLoadBoxes(self):
        path = qt.QFileDialog.getOpenFileName(None, _("Load boxes"), "", f"Markups (*{box_nodes.SUFFIX})")
        if path:
            with self._told(self.ui.boxLabel):
                box_nodes.loadBoxes(path, self._parameterNode.inputVolume)

    def onSaveReport(self):
        path = qt.QFileDialog.getSaveFileName(
            None, _("Save boxes as a DICOM report"), "boxes" + dicom_report.SUFFIX, f"DICOM SR (*{dicom_report.SUFFIX})"
        )
        if path:
            self.startSavingReport(path, os.path.exists(path))  # the dialog has asked whether to replace it

    def onLoadReport(self):
        path = qt.QFileDialog.getOpenFileName(None, _("Load boxes of a DICOM report"), "", "DICOM SR (*.dcm);;All (*)")
        if path:
            self.startLoadingReport(path)

    def startSavingReport(self, path, overwrite=False):
        """Write the boxes of the input volume as a DICOM Structured Report."""
        with self._told(self.ui.boxLabel):
            arguments = self._boxNodes(), self._parameterNode.inputVolume, path, dicomDatabase(), overwrite
            self._report = newReport(dicom_report.SaveReport, *arguments)
            say(self.ui.boxLabel, _("Writing the report…"))
        self._boxesChanged = True

    def startLoadingReport(self, path):
        """Put the boxes of a DICOM Structured Report on the input volume."""
        with self._told(self.ui.boxLabel):
            self._report = newReport(dicom_report.LoadReport, path, self._parameterNode.inputVolume, dicomDatabase())
            say(self.ui.boxLabel, _("Reading the report…"))
        self._boxesChanged = True

    def _showReport(self, isRunning):
        if not isRunning:
            say(self.ui.boxLabel, self._report.message or self._report.told)
            self._report, self._boxesChanged = None, True

    def _told(self, label=None):
        return Told(label or self.ui.messageLabel)


class Told:
    """Shows an `InputError` as words in a label instead of raising it, and empties the label where all went well."""

    def __init__(self, label):
        self._label = label

    def __enter__(self):
        say(self._label, "")

    def __exit__(self, kind, error, trace):
        if isinstance(error, InputError):
            say(self._label, str(error))
            return True
        return False


def say(label, text):
    """Words in a label, which takes no room without."""
    label.text = text
    label.visible = bool(text)
    label.updateGeometry()  # a form keeps the height of the old words otherwise


def asTable(rows):
    """Rows of words and numbers as a label shows them, in columns."""
    lines = (
        f"<tr><td>{name}</td>"
        + "".join(f"<td align='right'>&nbsp;&nbsp;&nbsp;{text}</td>" for text in numbers)
        + "</tr>"
        for name, *numbers in rows
    )
    return f"<table>{''.join(lines)}</table>"


def newClient(python=None):
    """The worker process of a logic, not yet started."""
    return worker_client.Worker(worker_client.workerCommand(python))


def setting(name, value=None):
    """One of the user's settings, a text; what is given is kept for the next time."""
    settings = slicer.app.userSettings()
    if value is not None:
        settings.setValue(f"SuperResolution/{name}", value)
    return str(settings.value(f"SuperResolution/{name}") or "")


def dicomDatabase():
    """Slicer's DICOM database.

    Raises:
        InputError: there is none.
    """
    database = getattr(slicer, "dicomDatabase", None)
    if database is None:
        raise InputError("Slicer has no DICOM database open. Open the DICOM module once, and try again.")
    return database


def chosenPython():
    """The Python that has monai-sr-bundle, where the user's settings name one; None means Slicer's own."""
    return setting("Python") or None


def newPlan(kind, wheelFolder, make=install.planInstallation):
    """What an installation into that Python would do; by `install.Planning`, without waiting for it."""
    return make(kind, chosenPython(), wheelFolder or None)


def newExport(resultNode, folder, fileOf):
    """The process that writes a result as DICOM."""
    return dicom_export.Export(resultNode, folder, fileOf, chosenPython())


def newReport(kind, *arguments):
    """Start the process that writes or reads boxes as a DICOM report; `kind` is its class in `dicom_report`."""
    return kind(*arguments, python=chosenPython())


def rendererOf(viewName):
    """The renderer of a slice view, or None where the layout has no such view."""
    layout = slicer.app.layoutManager()
    widget = layout.sliceWidget(viewName) if layout else None
    return widget.sliceView().renderWindow().GetRenderers().GetFirstRenderer() if widget else None


def firstVolume():
    """The first volume of the scene that is no result, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        ours = node.GetNodeReferenceID(result_nodes.SOURCE) or node.GetNodeReferenceID(result_nodes.RESULT)
        if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not ours:
            return node
    return None


def asShare(text):
    """A certainty as it is written in the table, "80 %" or "0.8", as a number from 0 to 1; None where it is empty."""
    number = text.strip()
    if not number:
        return None
    try:
        return float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        raise InputError(f"The certainty is '{text}', expected a share such as 80 % or 0.8.") from None


class SuperResolutionTest(ScriptedLoadableModuleTest):
    """The self test: a drawn image through the worker and back into the scene. It needs monai-sr-bundle installed."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)

    def runTest(self):
        self.setUp()
        self.test_enhanceARegion()

    def test_enhanceARegion(self):
        rows, columns = np.mgrid[0:96, 0:128]
        drawn = (2000 + 1500 * np.sin(rows / 9) * np.cos(columns / 7)).astype(np.int16)[None]
        volume = slicer.util.addVolumeFromArray(drawn, np.diag([-0.6, -0.6, 1.0, 1.0]), "drawn")
        before = slicer.mrmlScene.GetNumberOfNodes()
        box = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "SR region")
        placing.newRegion(box, volume, None, 32)
        logic = SuperResolutionLogic()
        try:
            result = logic.enhance(volume, box)
        finally:
            logic.close()
        self.assertEqual(slicer.util.arrayFromVolume(result).shape, (1, 128, 128))  # noqa: PT009
        self.assertIs(result_nodes.sourceOf(result), volume)  # noqa: PT009
        logging.info(resultText(result_nodes.reportOf(result)))
        result_nodes.remove(result)
        box_nodes.removeBox(box)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)  # noqa: PT009
        self.delayDisplay("The test has passed.")
