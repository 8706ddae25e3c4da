"""A process that is started, heard, answered and ended by threads, in every order in which they may come to it."""

import shutil
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from SuperResolutionLib import child_process as processes
from SuperResolutionLib.child_process import ChildProcess, environmentFor, pythonOfSlicer
from SuperResolutionLib.worker_client import workerCommand
from waiting import PATIENCE, waitFor


@pytest.fixture
def run(tmp_path):
    """Starts Python code as a process, which ends with the test."""
    running = []

    def start(code):
        running.append(ChildProcess([sys.executable, "-c", code], environmentFor(sys.executable), str(tmp_path)))
        return running[-1]

    yield start
    for each in running:
        each.endAndWait()


@pytest.fixture
def gate():
    """An event that a test sets; at its end in any case."""
    event = threading.Event()
    yield event
    event.set()


def test_a_first_line_is_answered_before_its_starter_goes_on(run, gate, monkeypatch):
    """A process that is ready at once: the thread that starts it stands still after it has begun to read."""

    class Held(threading.Thread):
        def start(self):
            super().start()
            if threading.current_thread() is not threading.main_thread():
                gate.wait(PATIENCE)

    monkeypatch.setattr(processes, "threading", SimpleNamespace(Thread=Held))
    child = run("print('ready'); print(input())")
    lines = []
    waitFor(lambda: lines, lambda: lines.extend(child.lines()), "the first line")
    assert lines == ["ready"]
    child.send("an answer")
    gate.set()
    waitFor(lambda: child.isOver)
    assert child.lines() == ["an answer"]


@pytest.fixture
def held(gate, monkeypatch):
    """Processes begin when the gate opens."""

    def begin(*arguments, **options):
        gate.wait(PATIENCE)
        return subprocess.Popen(*arguments, **options)

    names = {name: getattr(subprocess, name) for name in ("PIPE", "DEVNULL")}
    monkeypatch.setattr(processes, "subprocess", SimpleNamespace(Popen=begin, **names))


def test_what_is_to_be_killed_before_it_has_begun_is_killed_when_it_begins(run, gate, held, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", -1.0)
    child = run("import time; time.sleep(10000)")
    child.end()
    assert not child.pursue()
    assert child.identity is None
    gate.set()
    waitFor(child.pursue)
    assert child.returnCode == -signal.SIGKILL


def test_input_that_is_closed_before_it_has_begun_is_closed_then_and_what_has_ended_is_sent_nothing(run, gate, held):
    child = run("import sys; print(repr(sys.stdin.read()))")
    child.closeInput()
    gate.set()
    waitFor(lambda: child.isOver)
    assert child.lines() == ["''"]
    child.send("too late")
    child.closeInput()
    child.end()
    assert child.pursue()
    assert child.returnCode == 0


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
