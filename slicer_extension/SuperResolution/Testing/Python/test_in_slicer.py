"""The script that the job for Slicer itself runs (Testing/in_slicer.py), on the stand-ins for its application."""

import contextlib
import runpy
import sys
import types
from pathlib import Path

import pytest
import slicer
from dicomfiles import Database
from opened_panel import Shared
from SuperResolutionLib import compare

SCRIPT = Path(__file__).resolve().parents[3] / "Testing" / "in_slicer.py"


@pytest.fixture
def main(application, module, worker, workerPython, sliceView, repository, monkeypatch):
    """The script's main function, and what it asks of Slicer: its window, its modules and its DICOM module."""
    panels = []

    def selectModule(name):
        panels.append(getattr(module, f"{name}Widget")())
        panels[-1].enter()

    def importDicom(folder, database):
        monkeypatch.setattr(slicer, "dicomDatabase", Database(Path(folder), "", workerPython), raising=False)

    def loadPatientByUID(patient):
        volume = slicer.dicomDatabase.load(application, "film")
        for name in ("Red", compare.BEFORE, compare.AFTER):
            sliceView(name).show(volume)
        return [volume.GetID()]

    database = contextlib.nullcontext(types.SimpleNamespace(patients=lambda: ["patient"]))
    utils = types.SimpleNamespace(
        importDicom=importDicom, loadPatientByUID=loadPatientByUID, TemporaryDICOMDatabase=lambda: database
    )
    monkeypatch.setitem(sys.modules, "DICOMLib", types.SimpleNamespace(DICOMUtils=utils))
    monkeypatch.setattr(module, "newClient", lambda python=None: Shared(worker))
    monkeypatch.setattr(module, "chosenPython", lambda: workerPython[0])
    for name, function in (
        ("selectModule", selectModule), ("getModuleWidget", lambda name: panels[-1]),
        ("saveScene", lambda path: application.saveScene(path) or True), ("loadScene", application.loadScene),
    ):  # fmt: skip
        monkeypatch.setattr(slicer.util, name, function, raising=False)
    confirm = slicer.util.confirmOkCancelDisplay
    yield runpy.run_path(str(SCRIPT))["main"]
    slicer.util.confirmOkCancelDisplay = confirm  # the script answers by itself
    for panel in panels:
        panel.cleanup()


def test_all_of_it_holds(main, tmp_path, capsys):
    code, output = main(str(tmp_path)), capsys.readouterr()
    assert code == 0, output
    for words in ("The models are installed. Nothing is missing.", "compared, with error bars", "all of it holds"):
        assert words in output.out


def test_a_failure_is_its_exit_code(main, monkeypatch, capsys):
    monkeypatch.delattr(slicer.util, "selectModule")
    assert main("") == 1
    assert "selectModule" in capsys.readouterr().err
