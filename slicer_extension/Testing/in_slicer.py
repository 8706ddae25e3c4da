"""The extension in a real Slicer: its module opens, installs what it needs from a folder, passes its self test, and a
radiograph from DICOM goes through its buttons and comes back out of a saved scene.

    Slicer --testing --no-splash --additional-module-paths MODULES --python-script in_slicer.py WHEELS

MODULES is the folder of the installed module, WHEELS a folder of wheels for Slicer's Python. Slicer ends with code 0
where all of it holds.

It has not been run in Slicer yet, only on the stand-ins of test_in_slicer.py.
"""

import sys
import tempfile
import time
import traceback
from pathlib import Path

import slicer

PATIENCE = 900.0  # seconds for an installation: the machine of a continuous integration is slow


def tell(text):
    print(f"in_slicer: {text}", flush=True)


def until(holds, what):
    limit = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < limit, f"{what}: not within {PATIENCE:g} s"
        slicer.app.processEvents()
        time.sleep(0.01)


def runAll(wheels):
    """Check the extension in the order in which a user meets it; an AssertionError says what does not work."""
    import SuperResolution

    slicer.util.selectModule("SuperResolution")
    panel = slicer.util.getModuleWidget("SuperResolution")
    until(lambda: panel._shownPanel is not None, "the panel asks whether the models are installed")
    panel.ui.wheelFolderLineEdit.text = wheels
    slicer.util.confirmOkCancelDisplay = lambda text, *words, **options: tell(text) or True
    panel.ui.installButton.click()
    until(lambda: panel._installation is None, "the installation")
    tell(panel.ui.installProgressLabel.text)
    until(lambda: panel._shownPanel.installed and panel.ui.bundleComboBox.count > 1, "the panel offers models")
    SuperResolution.SuperResolutionTest().runTest()
    tell("the self test has passed")
    from DICOMLib import DICOMUtils
    from SuperResolutionLib.child_process import packagesOf, pythonOfSlicer

    sys.path.append(packagesOf(pythonOfSlicer()))
    from monai_sr_bundle.datasets.phantom import write_phantom_dicom

    with tempfile.TemporaryDirectory() as folder, DICOMUtils.TemporaryDICOMDatabase() as database:
        (Path(folder) / "film").mkdir()
        write_phantom_dicom(Path(folder) / "film" / "film.dcm", size=256, spacing_mm=1.6)
        slicer.mrmlScene.Clear(0)
        DICOMUtils.importDicom(f"{folder}/film", database)
        [volume] = [node for patient in database.patients() for node in DICOMUtils.loadPatientByUID(patient)]
        useFilm(panel, slicer.mrmlScene.GetNodeByID(volume), Path(folder), slicer.dicomDatabase)


def useFilm(panel, film, folder, database):
    """Enhanced, compared, marked with a box, exported, sent, saved with the scene and removed, by the panel."""
    from SuperResolutionLib import result_nodes

    def result():
        return panel._parameterNode.result if panel._parameterNode is not None else None

    panel._parameterNode.inputVolume = film
    panel.setRegion([0, 1, 64, 192, 64, 192])
    until(lambda: panel.ui.runButton.enabled, "Run is offered")
    panel.ui.runButton.click()
    until(lambda: result() is not None, "a result")
    tell(panel.ui.subjectLabel.text)
    for kind, button in panel.compareButtons.items():
        if panel.viewing.kind != kind:
            button.click()
        slicer.app.processEvents()
        assert panel.viewing.kind == kind, f"{kind}: {panel.ui.messageLabel.text}"
    panel.ui.showErrorBarsCheckBox.click()
    assert not panel.ui.messageLabel.text, panel.ui.messageLabel.text
    tell("compared, with error bars")

    panel.ui.readerLineEdit.text = "A. Reader"
    panel.addBox([0, 1, 100, 132, 100, 132])
    panel.startSavingReport(str(folder / "boxes.dcm"))
    until(lambda: panel._report is None, "boxes as DICOM SR")
    tell(panel.ui.boxLabel.text)
    until(lambda: panel.ui.removeBoxButton.enabled, "a box in the table")
    panel.ui.boxesTable.selectRow(0)
    panel.ui.removeBoxButton.click()
    assert panel._boxNodes() == []
    panel.startLoadingReport(str(folder / "boxes.dcm"))
    until(lambda: panel._report is None, "boxes out of DICOM SR")
    assert len(panel._boxNodes()) == 1, panel.ui.boxLabel.text

    panel.startExport(str(folder))
    until(lambda: panel._export is None, "the export")
    tell(panel.ui.exportLabel.text)
    assert list((folder / result().GetName()).glob("*.dcm")), panel.ui.exportLabel.text

    study = database.fileValue(database.fileForInstance(film.GetAttribute("DICOM.instanceUIDs")), "0020,000D")
    before = set(database.seriesForStudy(study))
    panel.ui.sendToDatabaseButton.click()
    until(lambda: panel._export is None, "the result and the boxes in the DICOM database")
    tell(panel.ui.exportLabel.text)
    assert len(set(database.seriesForStudy(study)) - before) == 2, panel.ui.exportLabel.text

    name, shape = result().GetName(), slicer.util.arrayFromVolume(result()).shape
    assert slicer.util.saveScene(str(folder / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(folder / "scene.mrb"))
    until(lambda: result() is not None, "the result out of the saved scene")
    assert (result().GetName(), slicer.util.arrayFromVolume(result()).shape) == (name, shape)
    assert result_nodes.errorBarsOf(result()) is not None
    assert len(panel._boxNodes()) == 1
    panel.ui.removeButton.click()
    assert result_nodes.resultsOf(panel._parameterNode.inputVolume) == []
    tell("saved, loaded and removed")


def main(wheels):
    """Return the exit code."""
    try:
        runAll(wheels)
    except BaseException:
        traceback.print_exc()
        return 1
    tell("all of it holds")
    return 0


if __name__ == "__main__":
    slicer.util.exit(main(sys.argv[1]))
