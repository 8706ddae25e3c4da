"""A process that runs in the environment it needs, and that may end at any moment."""

import shutil
import sys

from SuperResolutionLib import child_process as processes
from SuperResolutionLib.child_process import ChildProcess, environmentFor, pythonOfSlicer
from SuperResolutionLib.worker_client import workerCommand
from waiting import waitFor


def test_what_has_ended_is_sent_nothing_and_ended_without_harm(tmp_path):
    code = "import sys; print(repr(sys.stdin.read()))"
    child = ChildProcess([sys.executable, "-c", code], environmentFor(sys.executable), str(tmp_path))
    child.closeInput()
    waitFor(lambda: child.isOver)
    assert child.lines() == ["''"]
    child.send("too late")
    child.closeInput()
    child.end()
    assert child.pursue()
    assert child.returnCode == 0
    missing = ChildProcess(["/nowhere/python"], {}, str(tmp_path))
    missing.end()
    assert missing.pursue()


def test_another_python_is_not_given_what_the_launcher_has_set_for_slicer(monkeypatch, tmp_path):
    for name in processes.SLICER_VARIABLES:
        monkeypatch.setenv(name, "/nowhere")  # with this PYTHONHOME no Python starts
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    other = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    code = "import os; print([os.environ.get(name) for name in ('QT_PLUGIN_PATH', 'HTTPS_PROXY', 'OMP_WAIT_POLICY')])"
    child = ChildProcess([other, "-c", code], environmentFor(other), str(tmp_path))
    waitFor(lambda: child.isOver)
    assert child.lines() == ["[None, 'http://proxy:1', 'PASSIVE']"]
    assert not set(processes.SLICER_VARIABLES) & set(environmentFor(other))
    for launcher in ("/opt/Slicer/bin/PythonSlicer", "C:/Slicer/bin/PythonSlicer.exe"):
        assert environmentFor(launcher)["PYTHONHOME"] == "/nowhere"


def test_the_python_of_slicer_is_its_launcher_where_there_is_one(monkeypatch, tmp_path):
    assert pythonOfSlicer() == sys.executable
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text("#!/bin/sh\n")
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pythonOfSlicer() == str(launcher)
    assert workerCommand()[:3] == [str(launcher), "-m", "monai_sr_bundle.worker"]
