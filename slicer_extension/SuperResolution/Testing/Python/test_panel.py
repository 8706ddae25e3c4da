"""The panel, clicked as a user does: real widgets, the real scene, a real worker process."""

import re
import sys
import types
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import phantom_volumes
import pydicom
import pytest
import shiboken6
import slicer
from dicomfiles import FILM_OF_2000
from opened_panel import Opened, Shared
from PySide6 import QtTest, QtWidgets
from pythonqt import qt
from SuperResolutionLib import box_nodes, dicom_jobs, display, nodes, region, result_nodes, volumes, worker_client
from SuperResolutionLib.errors import InputError
from test_install import drawBundle

FLOW = "chest_xray_residual_flow_x4"  # A bundle that draws texture


@pytest.fixture
def chest(application):
    """A drawn chest of 12 bits as a radiograph of one slice."""
    image = ((phantom_volumes.FINE[:1].astype(np.float32) + 1024) * 1.5).astype(np.int16)
    return application.addVolume(image, np.diag([-0.6, -0.6, 1.0, 1.0]), modality="DX")


@pytest.fixture
def withBox(panel, application, chest):
    """The panel with a chest and a box of 32 by 32 pixels."""
    panel.chosen.inputVolume, panel.chosen.region = chest, application.addRoi(chest, [0, 1, 40, 72, 50, 82])
    panel.settle()
    return panel


@pytest.fixture
def fittedView(module, monkeypatch, red, chest):
    """A slice view of the panel that shows the chest, fitted to it."""
    red.show(chest)
    monkeypatch.setattr(module, "sliceViews", lambda: [(red.node, red.interactor)])
    return red


def edgeAt(view, row, column):
    """Place on the screen of an edge between pixels of the chest."""
    return view.xy((-0.6 * (column - 0.5), -0.6 * (row - 0.5), 0))


@pytest.fixture
def lungs(application):
    """A label map, which is no image."""
    return application.addVolume(np.ones((1, 4, 4), np.uint8), np.eye(4), "lungs", "vtkMRMLLabelMapVolumeNode")


def test_a_region_is_drawn_on_the_image_and_the_estimate_follows(lungs, chest, panel, fittedView):
    panel.settle()
    assert panel.chosen.inputVolume is chest  # the first image
    assert panel.ui.messageLabel.text.startswith("No region is chosen.")
    assert panel.ui.messageLabel.palette.windowText() == panel.ui.subjectLabel.palette.windowText()  # also if dark
    assert not panel.ui.runButton.enabled
    panel.ui.drawRegionButton.click()
    fittedView.drag(edgeAt(fittedView, 40, 50), edgeAt(fittedView, 72, 82))
    panel.settle()
    assert not panel.ui.drawRegionButton.checked
    assert panel.ui.subjectLabel.text == "32 x 32 pixels → 128 x 128 pixels. Pixels of 0.6 x 0.6 mm."
    estimate = r"About [\d.]+ s and [\d.]+ [MG]B of memory \([\d.]+ GB are free\)"
    assert re.fullmatch(estimate, panel.ui.estimateLabel.text)
    assert panel.ui.messageLabel.text == ""
    assert panel.ui.runButton.enabled
    box = panel.chosen.region
    panel.ui.drawRegionButton.click()
    fittedView.drag(edgeAt(fittedView, 60, 60), edgeAt(fittedView, 60, 60))  # a click
    panel.settle()
    assert panel.chosen.region is box  # drawn again, not added
    assert panel.ui.subjectLabel.text.startswith("128 x 128 pixels → 512 x 512 pixels.")
    for isAdjusted in (True, False):
        panel.ui.adjustRegionButton.click()
        assert box.GetDisplayNode().GetHandlesInteractive() == isAdjusted


def test_drawing_ends_with_the_button_the_panel_and_the_volume(chest, panel, fittedView):
    panel.settle()
    for end in (panel.ui.drawRegionButton.click, panel.widget.exit, lambda: slicer.mrmlScene.RemoveNode(chest)):
        panel.ui.drawRegionButton.click()
        assert panel.ui.drawRegionButton.checked
        end()
        panel.widget.onTick()
        assert not panel.ui.drawRegionButton.checked
        fittedView.drag(edgeAt(fittedView, 40, 50), edgeAt(fittedView, 72, 82))
        assert panel.chosen.region is None


def test_run_brings_the_result_of_the_engine_into_the_scene_and_into_view(withBox, chest, runPython, tmp_path):
    before = chest.GetImageData().GetMTime()
    result = withBox.run()
    assert result.GetName() == f"{chest.GetName()} x4, chest_xray_blind, 32x32 at 50 40"
    assert result_nodes.sourceOf(result) is chest
    assert chest.GetImageData().GetMTime() == before
    assert withBox.ui.resultLabel.text == ""
    withBox.ui.detailsButton.click()
    assert "Enlarged x4 by chest_xray_blind" in withBox.ui.resultLabel.text
    assert re.match(r"<span style='color: #\w{6}'>●</span> <b>(green|amber)</b>&nbsp; .", withBox.ui.trustLabel.text)
    assert withBox.ui.inPlaceButton.checked
    assert withBox.ui.resultSelector.currentNode() is result
    np.save(tmp_path / "in.npy", slicer.util.arrayFromVolume(chest))
    code = (
        "import numpy as np\n"
        "from monai_sr_bundle.engine.session import enhance\n"
        "from monai_sr_bundle.images.from_array import image_from_array\n"
        "image = image_from_array(np.load('in.npy'), 'CXR')\n"
        "done = enhance(image, spacing_mm=(0.6, 0.6), roi=(50, 40, 82, 72), backend='onnx', error_bars=True)\n"
        "np.save('out.npy', done.image.pixels); np.save('bars.npy', done.error_bars.half_width)"
    )
    runPython("-c", code, cwd=tmp_path)
    for node, name in ((result, "out.npy"), (result_nodes.errorBarsOf(result), "bars.npy")):
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), np.load(tmp_path / name))


def test_removing_a_result_leaves_the_scene_as_it_was_and_undo_brings_it_back(withBox, application, red, chest):
    red.show(chest)
    display.colors(application.scene, "ErrorBars")  # these stay in the scene
    before, layers = application.nodeIds(), red.composite.GetForegroundVolumeID()
    result, ui = withBox.run(), withBox.ui
    for _ in range(2):  # as by a double click
        ui.removeButton.click()
    assert application.nodeIds() == before
    assert red.composite.GetForegroundVolumeID() == layers
    assert ui.trustLabel.text == ui.resultLabel.text == ""
    for _ in range(2):
        ui.undoButton.click()
    assert withBox.chosen.result is result
    assert result_nodes.errorBarsOf(result) is not None
    assert red.composite.GetForegroundVolumeID() == result.GetID()


def test_keys_compare_run_and_rest_while_the_panel_is_closed(withBox, red, chest):
    red.show(chest)
    ui, viewing, clicks = withBox.ui, withBox.widget.viewing, []
    ui.runButton.connect("clicked()", lambda: clicks.append(1))
    assert not withBox.pressKey("R")
    withBox.until(lambda: withBox.chosen.result is not None, "a result")
    withBox.settle()
    for key, kind in (("3", "difference"), ("1", "inPlace")):
        withBox.pressKey(key)
        assert viewing.kind == kind
    zoom = red.node.GetFieldOfView()
    for focus, isOriginal in ((None, True), (ui.removeButton, False), (ui.showErrorBarsCheckBox, True)):
        withBox.pressKey("Space", focus)
        assert viewing.isOriginal == isOriginal
    assert red.node.GetFieldOfView() == zoom
    assert withBox.chosen.result is not None  # no button was pressed
    withBox.pressKey("Space", focus=ui.readerLineEdit)
    assert (ui.readerLineEdit.text, viewing.isOriginal) == (" ", True)
    for signal, isOriginal in ((ui.originalButton.released, False), (ui.originalButton.pressed, True)):
        signal.emit()
        assert viewing.isOriginal == isOriginal
    withBox.widget.exit()
    assert withBox.pressKey("Space")  # it is Slicer's again
    assert withBox.pressKey("R")
    assert (viewing.isOriginal, clicks) == (False, [1])
    withBox.widget.enter()
    withBox.widget.compareButtons["inPlace"].click()  # ends the comparison
    withBox.pressKey("Space", focus=ui.detailsButton)
    assert (ui.detailsButton.checked, viewing.kind) == (True, "")
    assert not withBox.pressKey("R")
    withBox.widget.cleanup()
    assert withBox.pressKey("R")
    assert clicks == [1, 1]


def test_boxes_snap_to_their_own_volume_also_after_undo(withBox, application, chest):
    addBox(withBox)
    (box,) = box_nodes.boxesOf(application.scene, chest)
    withBox.chosen.inputVolume = application.addVolume(slicer.util.arrayFromVolume(chest) * 1, np.eye(4), "other")
    removal = nodes.Removal(box)
    withBox.settle()
    removal.undo()
    withBox.settle()
    box.SetSize(20.3, 19.3, 1)
    box.InvokeEvent(slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent)
    assert box.GetSize() == pytest.approx((20.4, 19.2, 1))  # 34 and 32 pixels of 0.6 mm


def test_windows_are_chosen_dragged_and_shown(withBox, red, chest, application):
    red.show(chest)
    combo, display = withBox.ui.windowComboBox, chest.GetDisplayNode()
    display.AddWindowLevelPreset(1000, 500)
    withBox.widget._windows = []
    withBox.widget._showWindows()
    assert combo.itemText(1) == "file: 1000 / 500"
    withBox.widget.onWindow(1)
    assert (display.GetWindow(), display.GetLevel(), combo.currentIndex) == (1000, 500, 1)
    withBox.ui.dragWindowButton.click()
    red.drag((40, 40), (100, 80))
    assert combo.currentIndex == 0
    assert combo.itemText(0) == f"{display.GetWindow():.0f} / {display.GetLevel():.0f}" != "1000 / 500"
    withBox.ui.dragWindowButton.click()
    interaction = application.logic.GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    red.moveMouse(*edgeAt(red, 40.5, 50.5))
    assert withBox.ui.readoutLabel.text.startswith("column 50, row 40; ")


def test_a_ct_series_is_enhanced_in_the_window_of_its_files(panel, loadDicom):
    panel.chosen.inputVolume = loadDicom("CT")
    panel.settle()
    assert panel.ui.windowComboBox.itemText(1) == "file: 1500 / -600"
    panel.widget.onWindow(1)
    panel.widget.setRegion([1, 3, 8, 24, 8, 24])
    display = panel.run().GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel()) == (1500, -600)


def test_cancel_ends_the_work_at_once_and_leaves_the_scene(withBox, application):
    before = application.nodeIds()
    withBox.chosen.bundle, withBox.chosen.texture, withBox.chosen.steps = FLOW, 1.0, 64
    withBox.settle()
    withBox.ui.runButton.click()
    withBox.until(lambda: re.fullmatch(r"\d+%, .+ left", withBox.ui.progressBar.format), "progress and the time left")
    assert not withBox.ui.runButton.enabled
    withBox.ui.cancelButton.click()
    assert withBox.worker._request is None
    withBox.settle()
    assert withBox.ui.messageLabel.text == "Canceled. The scene was not changed."
    assert application.nodeIds() == before


def test_texture_is_generated_with_the_seed_of_the_panel(withBox):
    withBox.ui.bundleComboBox.activated.emit(withBox.ui.bundleComboBox.findData(FLOW))
    withBox.chosen.texture, withBox.chosen.steps = 1.0, 2
    withBox.settle()
    assert withBox.ui.seedSpinBox.enabled
    for seed in (7, 8):
        withBox.ui.seedSpinBox.value = seed
        assert result_nodes.reportOf(withBox.run())["provenance"]["seed"] == seed


def test_what_is_typed_in_the_table_of_boxes_is_kept_and_no_key_begins_it(withBox):
    addBox(withBox)
    table = withBox.ui.boxesTable
    QtTest.QTest.keyClicks(table, "3")
    assert not table.findChildren(QtWidgets.QLineEdit)
    table.setCurrentCell(0, 0)
    table.editItem(table.item(0, 0))
    (editor,) = table.findChildren(QtWidgets.QLineEdit)
    editor.selectAll()
    QtTest.QTest.keyClicks(editor, "Nodu")
    withBox.widget.onChange()  # as after a result or another parameter
    withBox.widget.onTick()
    QtTest.QTest.keyClicks(editor, "le")
    QtTest.QTest.keyClick(editor, qt.Qt.Key_Return)
    withBox.settle()
    assert table.item(0, 0).text() == "Nodule"


def test_boxes_of_another_volume_than_that_of_the_result_are_not_left_out_in_silence(withBox, chest, application):
    withBox.run()
    array = slicer.util.arrayFromVolume(chest)
    withBox.chosen.inputVolume = application.addVolume(array, np.diag([-0.6, -0.6, 1.0, 1.0]), "other", modality="DX")
    withBox.settle()
    addBox(withBox)
    withBox.ui.sendToDatabaseButton.click()
    assert withBox.ui.exportLabel.text.startswith(f"The result is one of '{chest.GetName()}', and the boxes are not.")


def test_a_volume_without_spacing_says_that_nothing_is_in_millimetres(chest, withBox):
    chest.SetAttribute(volumes.SPACING_SOURCE, volumes.UNKNOWN)
    chest.Modified()
    withBox.settle()
    assert withBox.ui.subjectLabel.text.endswith("The spacing is unknown: nothing can be measured in millimetres.")
    withBox.run()
    assert volumes.spacingZyx(withBox.chosen.result) is None


def test_what_an_image_is_is_asked_where_its_file_does_not_say_it(application, panel):
    ui, answer = panel.ui, panel.ui.modalityComboBox
    panel.chosen.inputVolume = application.addVolume(phantom_volumes.COARSE, phantom_volumes.GRID)
    ui.regionKindComboBox.activated.emit(2)
    panel.settle()
    assert answer.currentIndex == -1
    assert ui.messageLabel.text.endswith("does not say whether it is a radiograph or a CT. Choose it under 'This is'.")
    assert not ui.runButton.enabled
    answer.activated.emit(answer.findText("a CT"))
    panel.settle()
    assert answer.currentText == "a CT"
    assert "For chest CT." in ui.bundleLabel.text
    assert ui.runButton.enabled


def test_a_volume_that_goes_while_its_result_is_computed_gets_none(withBox, chest, monkeypatch):
    with monkeypatch.context() as silent:
        silent.setattr(withBox.worker, "poll", list)
        withBox.ui.runButton.click()
        withBox.until(lambda: withBox.ui.cancelButton.enabled, "the job to run")
        slicer.mrmlScene.RemoveNode(chest)
    words = "'chest' was removed while its result was computed, so "
    withBox.until(lambda: withBox.ui.messageLabel.text.startswith(words), "a word on it")
    assert withBox.chosen.result is None


def test_a_result_whose_source_was_changed_or_removed_stays_and_says_what_it_cannot(withBox, chest, red):
    red.show(chest)
    result = withBox.run()
    chest.SetSpacing(0.3, 0.3, 1)  # as the Volumes module does
    withBox.settle()
    assert withBox.widget.viewing.kind == ""
    withBox.ui.sideBySideButton.click()
    assert "so it is not in place any more" in withBox.ui.compareLabel.text
    slicer.mrmlScene.RemoveNode(chest)
    withBox.settle()
    assert withBox.chosen.result is result
    assert withBox.widget.viewing.kind == ""
    for button in withBox.widget.compareButtons.values():
        button.click()
        assert "is no longer in the scene. Load it, and enhance it again." in withBox.ui.compareLabel.text
    withBox.ui.sendToDatabaseButton.click()
    assert "is no longer in the scene" in withBox.ui.exportLabel.text
    withBox.ui.removeButton.click()
    withBox.settle()
    assert withBox.chosen.result is None


def test_the_choice_is_saved_with_the_scene_and_found_again(withBox, chest, application, tmp_path):
    withBox.chosen.texture, withBox.chosen.reader = 0.25, "A. Reader"
    result = withBox.run()
    names = chest.GetName(), withBox.chosen.region.GetName(), result.GetName()
    old, text = withBox.chosen, withBox.ui.trustLabel.text
    application.saveScene(tmp_path / "scene.mrb")
    application.loadScene(tmp_path / "scene.mrb")
    withBox.settle()
    assert not old._parameterGUIs  # the choice in the closed scene is left alone
    chosen = withBox.chosen
    assert (chosen.inputVolume.GetName(), chosen.region.GetName(), chosen.result.GetName()) == names
    assert (withBox.ui.textureSlider.value, withBox.ui.readerLineEdit.text) == (0.25, "A. Reader")
    assert withBox.ui.trustLabel.text == text
    withBox.ui.textureSlider.value = 0.5
    assert chosen.texture == 0.5


def test_boxes_are_drawn_named_and_removed_and_come_back(withBox, chest, application, fittedView):
    before, ui, table = application.nodeIds(), withBox.ui, withBox.ui.boxesTable
    ui.addBoxButton.click()
    assert ui.boxLabel.text == "Enter the reader first: every box names its reader."
    assert not ui.addBoxButton.checked
    assert application.nodeIds() == before
    ui.readerLineEdit.text = "A. Reader"
    ui.addBoxButton.click()
    fittedView.drag(edgeAt(fittedView, 40, 50), edgeAt(fittedView, 60, 80))
    withBox.settle()
    assert [table.item(0, column).text() for column in range(3)] == ["Finding", "A. Reader", "50%"]
    (node,) = box_nodes.boxesOf(application.scene, chest)
    assert node.GetDisplayNode().GetHandlesInteractive()  # what was added can be moved
    table.item(0, 0).setText("Nodule")
    for text, certainty, cell in (("80 %", 0.8, "80%"), ("sure", 0.8, "80%"), ("", None, ""), ("0.7", 0.7, "70%")):
        table.item(0, 2).setText(text)
        withBox.settle()
        expected = "The certainty is 'sure', expected a share such as 80 % or 0.8." if text == "sure" else ""
        assert ui.boxLabel.text == expected
        assert (box_nodes.wordsOf(node), table.item(0, 2).text()) == (("Nodule", "A. Reader", certainty), cell)
    addBox(withBox)
    table.selectRow(0)
    one, other = box_nodes.boxesOf(application.scene, chest)
    assert (one.GetDisplayNode().GetHandlesInteractive(), other.GetDisplayNode().GetHandlesInteractive()) == (1, 0)
    ui.removeBoxButton.click()
    withBox.settle()
    assert (table.rowCount, box_nodes.boxesOf(application.scene, chest)) == (1, [other])
    for _ in range(2):  # as by a double click
        ui.undoBoxButton.click()
    withBox.settle()
    assert set(box_nodes.boxesOf(application.scene, chest)) == {one, other}
    assert box_nodes.wordsOf(one) == ("Nodule", "A. Reader", 0.7)
    np.testing.assert_allclose(box_nodes.toBoxes(one, chest)[0].xyxy, (50, 40, 80, 60), atol=2e-3)


def addBox(panel):
    """Add an anomaly box as a drag on the image does."""
    panel.chosen.reader = "A. Reader"
    panel.widget.addBox([0, 1, 60, 92, 64, 96])
    panel.settle()


def test_the_logic_works_from_a_script_without_the_panel(module, application, chest, worker):
    module.newClient = lambda: Shared(worker)
    box = application.addRoi(chest, [0, 1, 40, 72, 50, 82])
    logic = module.SuperResolutionLogic()
    result = logic.enhance(slicer.util.getNode("chest"), slicer.util.getNode("R"))
    assert result_nodes.extentOf(result) == [0, 1, 40, 72, 50, 82]
    before = application.nodeIds()
    with pytest.raises(InputError, match="'chest' was changed while its result was computed, so "):
        logic.enhance(chest, box, idle=lambda: slicer.util.arrayFromVolumeModified(chest))
    with pytest.raises(InputError, match="is not installed"):
        logic.enhance(chest, bundle="chest_xray_of_tomorrow")
    assert application.nodeIds() == before


def test_slicers_self_test_passes_with_a_reason_without_the_models(module, application, bare, monkeypatch, caplog):
    monkeypatch.delenv("PYTHONPATH", raising=False)  # by which that Python would have them
    module.newClient = lambda: worker_client.WorkerClient(worker_client.workerCommand(bare))
    with caplog.at_level("INFO"):
        slicer.selfTests["SuperResolution"]()
    assert "The models are not installed, so nothing was enhanced: " in caplog.text


def test_work_goes_on_while_the_panel_is_closed_and_the_timer_rests_without_any(withBox, module):
    widget = withBox.widget
    withBox.until(lambda: widget.timer.interval == module.IDLE_MS, "a panel that has nothing to do")
    withBox.ui.runButton.click()
    assert widget.timer.interval == module.TICK_MS
    widget.exit()
    withBox.until(lambda: not widget.timer.active, "the end of the work")
    assert withBox.chosen.result is not None
    widget.enter()
    assert widget.timer.active


def test_compare_buttons_show_one_comparison_at_a_time_of_the_selected_result(withBox, red, application, chest):
    red.show(chest)
    result, ui, buttons = withBox.run(), withBox.ui, withBox.widget.compareButtons
    for kind, checked in (("difference", ["difference"]), ("difference", [])):
        buttons[kind].click()
        assert [name for name, button in buttons.items() if button.checked] == checked
    application.move(chest, np.eye(4) + np.eye(4, k=3) * 30)
    ui.showErrorBarsCheckBox.click()
    assert buttons["inPlace"].checked
    assert result.GetTransformNodeID() == chest.GetTransformNodeID() is not None
    assert red.composite.GetForegroundVolumeID() == result.GetID()
    assert red.composite.GetNthLayerVolumeID(3) == result_nodes.errorBarsOf(result).GetID()
    bars = slicer.util.arrayFromVolume(result_nodes.errorBarsOf(result))
    for tolerance in (20.0, 90.0):
        ui.toleranceSpinBox.value = tolerance
        text = f"{(bars > tolerance).mean():.1%} of the pixels have an error bar wider than {tolerance:g} grey levels."
        assert ui.compareLabel.text == text
        assert result_nodes.errorBarsOf(result).GetDisplayNode().GetLowerThreshold() == tolerance
    region.placeBox(withBox.chosen.region, chest, [0, 1, 40, 72, 60, 92])
    second = withBox.run()
    assert red.composite.GetForegroundVolumeID() == second.GetID() != result.GetID()
    withBox.chosen.result = result
    withBox.settle()
    assert red.composite.GetForegroundVolumeID() == result.GetID()
    withBox.widget.exit()
    withBox.until(lambda: not withBox.widget.timer.active, "a panel that rests")
    application.scene.RemoveNode(result)  # as the Data module does, while this one is closed
    withBox.until(lambda: withBox.widget.viewing.kind == "", "the end of the comparison")


@pytest.fixture
def fromDicom(panel, application, openDatabase):
    """The panel with a radiograph of 2000 x 2000 pixels that was loaded from DICOM."""
    panel.chosen.inputVolume = openDatabase(FILM_OF_2000).load(application)
    panel.settle()
    panel.widget.setRegion([0, 1, 0, 128, 0, 128])
    return panel


def test_a_result_and_its_boxes_leave_as_dicom_and_boxes_come_back(fromDicom, application, tmp_path):
    result, ui, source = fromDicom.run(), fromDicom.ui, fromDicom.chosen.inputVolume
    addBox(fromDicom)
    (box,) = box_nodes.boxesOf(application.scene, source)
    (exported,) = box_nodes.toBoxes(box, source)
    fromDicom.widget.startExport(dicom_jobs.Export, tmp_path)
    fromDicom.until(lambda: not fromDicom.widget._jobs, "the export")
    folder = tmp_path / result.GetName()
    assert ui.exportLabel.text == f"2 files in {folder}."
    (report,) = folder.rglob("boxes.dcm")
    (film,) = set(folder.rglob("*.dcm")) - {report}
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(result)[0], pydicom.dcmread(film).pixel_array)
    ui.boxesTable.selectRow(0)
    ui.removeBoxButton.click()
    fromDicom.widget.startLoadingReport(str(report))
    fromDicom.until(lambda: not fromDicom.widget._jobs, "the boxes")
    assert ui.boxLabel.text == "Boxes read: 1, from boxes.dcm."
    (box,) = box_nodes.boxesOf(application.scene, source)
    (reloaded,) = box_nodes.toBoxes(box, source)
    np.testing.assert_allclose(reloaded.xyxy, exported.xyxy, atol=2e-3)
    assert (reloaded.tracking_uid, *box_nodes.wordsOf(box)) == (exported.tracking_uid, "Finding", "A. Reader", 0.5)


def test_a_radiograph_gives_one_result_whichever_reader_has_inverted_it(panel, application, openDatabase):
    database = openDatabase(
        "image = 2000 + 1500 * np.sin(np.mgrid[0:48, 0:40][0] / 7)\n"
        "dicom_files.radiograph(folder / 'film.dcm', image.astype(np.uint16))"
    )
    pixels = []
    for byDcmtk in (False, True):
        volume = database.load(application, byDcmtk=byDcmtk)
        volume.SetSpacing(0.1, 0.2, 1)
        panel.chosen.inputVolume, panel.chosen.regionKind = volume, "whole"
        result = panel.run()
        assert panel.ui.subjectLabel.text.endswith("Pixels of 0.2 x 0.1 mm (detector plane).")
        pixels.append(slicer.util.arrayFromVolume(result).astype(int))
    np.testing.assert_array_equal(pixels[0], 4095 - pixels[1])


def test_what_cannot_be_done_with_dicom_is_told_and_nothing_is_written(fromDicom, tmp_path, monkeypatch):
    fromDicom.run()
    widget, ui, path = fromDicom.widget, fromDicom.ui, tmp_path / "sr.dcm"
    path.write_text("no report")
    before = sorted(tmp_path.iterdir())
    widget.startLoadingReport(path)
    fromDicom.until(lambda: not widget._jobs, "the refusal")
    assert ui.boxLabel.text == "sr.dcm: is not a DICOM file, expected a Structured Report."
    monkeypatch.setattr(slicer.dicomDatabase, "fileForInstance", lambda uid: "")
    widget.startExport(dicom_jobs.Export, tmp_path)
    widget.startLoadingReport(path)
    for label in (ui.exportLabel, ui.boxLabel):
        assert label.text.startswith("1 of 1 DICOM files of 'chest' are no longer where they were.")
    assert not widget._jobs
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("isClosed", [False, True])
def test_an_export_that_is_canceled_or_whose_panel_is_closed_leaves_nothing(fromDicom, tmp_path, isClosed):
    fromDicom.run()
    before, widget = sorted(tmp_path.iterdir()), fromDicom.widget
    widget.startExport(dicom_jobs.Export, tmp_path)
    if isClosed:
        fromDicom.until(lambda: widget._jobs["exportLabel"]._process, "its process")
        for shortcut in widget._keys.values():
            shiboken6.delete(shortcut)  # as Slicer's main window does when it closes, before the modules end
        widget.cleanup()
    else:
        fromDicom.ui.exportButton.click()
        fromDicom.until(lambda: not widget._jobs, "the end of the export")
        assert fromDicom.ui.exportLabel.text == "Canceled. Nothing was written."
    assert sorted(tmp_path.iterdir()) == before


def test_some_slices_of_a_stack_are_not_exported_as_a_series(source, result):
    with pytest.raises(InputError, match="shows 3 of the 5 slices of its source. A series is written of all of them"):
        dicom_jobs.optionsOf(result)


@pytest.fixture
def uninstalled(module, application, chest, bare, monkeypatch, tmp_path):
    """A panel whose Python has no models, of a user who has chosen nothing yet."""
    slicer.app.userSettings().clear()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("PYTHONPATH", raising=False)  # by which that Python would have them
    monkeypatch.setattr(module, "chosenPython", lambda: bare)
    panel = Opened(module, worker_client.WorkerClient(worker_client.workerCommand(bare)))
    panel.until(lambda: panel.widget._shownPanel.absence, "the panel to say so")
    yield panel
    panel.close()
    panel.worker._worker.close()


def test_without_the_models_the_panel_offers_to_install_them_and_nothing_changes_unasked(uninstalled, tmp_path):
    ui, widget = uninstalled.ui, uninstalled.widget

    def install(source, isCanceled=False):
        ui.wheelFolderLineEdit.text = str(source)
        ui.installButton.click()
        assert ui.cancelInstallButton.enabled
        assert not ui.installButton.enabled
        if isCanceled:
            ui.cancelInstallButton.click()
        uninstalled.until(lambda: widget._installation is None, "the end of the installation")
        return ui.installProgressLabel.text

    assert not ui.installCollapsibleButton.collapsed
    assert ui.installLabel.text.startswith("monai-sr-bundle is not installed.")
    assert not ui.inputsCollapsibleButton.enabled
    assert not ui.runButton.enabled
    assert install(tmp_path, isCanceled=True) == "Nothing was changed."
    assert re.fullmatch(".* has no wheel of monai-sr-bundle.* Nothing was changed.", install(tmp_path))
    drawBundle(tmp_path / "wheels")
    slicer.app.asked, slicer.app.answer = [], False
    assert install(tmp_path / "wheels") == "Nothing was changed."
    (question,) = slicer.app.asked
    assert question.startswith(f"2 packages would be installed from {tmp_path / 'wheels'} into ")


def test_while_models_are_exchanged_no_worker_runs_of_which_files_are_open_and_then_a_new_one_is_asked(withBox):
    ui, worker, before = withBox.ui, withBox.worker, withBox.worker._process
    slicer.app.asked, slicer.app.answer = [], True
    assert ui.runButton.enabled
    going = Mock(step=lambda: going.text == "", question="?", text="", isInstalled=False)
    withBox.widget._installation = going
    withBox.widget._showInstallation()
    withBox.until(lambda: before.isOver and ui.messageLabel.text == "The models are being installed.", "its end")
    withBox.settle()
    assert worker._process is None
    assert not ui.runButton.enabled
    going.text, going.isInstalled = "They are installed.", True
    withBox.until(lambda: ui.runButton.enabled, "the new worker")
    assert worker._process not in (None, before)
    assert ui.bundleComboBox.count > 1


def test_the_panel_works_at_once_after_reload(panel, module, monkeypatch):
    monkeypatch.setattr(type(panel.widget.parent), "isEntered", True, raising=False)  # as of an open module in Slicer
    panel.close()
    panel.widget = module.SuperResolutionWidget(panel.widget.parent)
    panel.widget.setup()
    panel.ui = panel.widget.ui
    assert panel.widget.timer.active


def test_a_drawn_radiograph_is_offered_once_slicer_has_started(application, module, monkeypatch):
    register = Mock()
    logic = types.SimpleNamespace(registerCustomSampleDataSource=register)
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=logic))
    slicer.app.startupCompleted.emit()
    entry = register.call_args.kwargs
    assert Path(entry["thumbnailFileName"]).is_file()
    file = url2pathname(urlsplit(entry["uris"]).path)
    volume = application.loadVolume(file, "DX")
    assert slicer.util.arrayFromVolume(volume).shape[0] == 1
    assert np.ptp(slicer.util.arrayFromVolume(volume)) > 1000
