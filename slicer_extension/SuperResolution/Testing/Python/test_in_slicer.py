"""The script that the job for Slicer itself runs (Testing/in_slicer.py), on the stand-ins for its application."""

import runpy
from pathlib import Path

import slicer
from SuperResolutionLib import compare

SCRIPT = Path(__file__).resolve().parents[3] / "Testing" / "in_slicer.py"


def test_it_uses_the_panel_and_a_failure_is_its_exit_code(
    application, module, panel, workerPython, sliceView, monkeypatch, capsys
):
    def loadVolume(path):
        volume = application.loadVolume(path, "")  # a file says no modality
        for name in ("Red", compare.BEFORE, compare.AFTER):
            sliceView(name).show(volume)
        return volume

    main = runpy.run_path(str(SCRIPT))["main"]
    monkeypatch.setattr(module, "chosenPython", lambda: workerPython[0])
    for name, function in (
        ("selectModule", lambda name: None), ("getModuleWidget", lambda name: panel.widget),
        ("loadVolume", loadVolume), ("confirmOkCancelDisplay", None),
    ):  # fmt: skip
        monkeypatch.setattr(slicer.util, name, function, raising=False)
    code, output = main(""), capsys.readouterr()
    assert code == 0, output
    assert "The models are installed. Nothing is missing." in output.out
    monkeypatch.delattr(slicer.util, "selectModule")
    assert main("") == 1
    assert "selectModule" in capsys.readouterr().err
