"""The client of the worker and its process, with real workers: answers, cancelling, and all that goes wrong."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from SuperResolutionLib import child_process as processes
from SuperResolutionLib import worker_client
from SuperResolutionLib.child_process import ChildProcess, environmentFor, removeStaleFolders
from SuperResolutionLib.worker_client import WorkerClient, _parseEvent, workerCommand
from waiting import waitFor

HERE = Path(__file__).resolve().parent
READY = 'hello\n[1, 2]\n{"no": 1}\n{"event": "ready", "version": "9", "protocol": 1}'  # and what else libraries print
SPEAK = "import signal, subprocess, sys, time; print(sys.argv[1], flush=True); "
SMALL = [0, 1, 8, 40, 8, 40]


@pytest.fixture
def start(workerPython, tmp_path, monkeypatch):
    """Makes workers, by default real ones, in a temporary folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    clients, (python, environment) = [], workerPython

    def worker(*script, python=python):
        command = [python, *script] if script else workerCommand(python)
        clients.append(WorkerClient(command, environment))
        return clients[-1]

    yield worker
    for each in clients:
        each.close()
    assert [path for path in tmp_path.iterdir() if path.name.startswith("sr-")] == []


def answer(worker, names=("done", "failed")):
    """The first event with one of these names; polls as a timer would."""
    return waitFor(lambda: next((event for event in worker.poll() if event["event"] in names), None), what=f"{names}")


def ask(worker, region=SMALL, **options):
    """The answer to a request for an enlarged region of a small film."""
    worker.enhance(film(), region=region, modality="CXR", **options)
    return answer(worker)


def film(side=64):
    row = np.arange(side)
    return ((np.sin(row / 3)[:, None] * np.cos(row / 5) + 1) * 100).astype(np.uint8)[None]


def filesOf(worker, kind):
    return [name for name in os.listdir(worker.folder) if name.startswith(kind)]


def isGone(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    return False


def begin(worker):
    """Make a request that takes minutes, and wait until it has begun. Return the id of the process."""
    volume = np.repeat(film(160).astype(np.int16) * 5 - 900, 60, axis=0)
    worker.enhance(volume, region=[0, 60, 0, 160, 0, 160], modality="CT")
    answer(worker, ["progress"])
    return worker._process._popen.pid


def test_an_image_is_prepared_and_written_once_and_forgotten_after_the_next(worker):
    prepare = mock.Mock(side_effect=lambda array: array + 1)
    for region in (SMALL, [0, 1, 0, 9, 0, 9]):
        ask(worker, region=region, key=("node", 1), prepare=prepare)
    prepare.assert_called_once()
    (first,) = filesOf(worker, "image")
    np.testing.assert_array_equal(np.load(os.path.join(worker.folder, first)), film() + 1)
    ask(worker, key=("node", 2))
    (second,) = filesOf(worker, "image")
    assert second != first


def test_cancel_ends_a_launcher_with_what_it_has_launched_and_a_fresh_process_answers(start, tmp_path):
    launcher, note = tmp_path / "launcher.py", tmp_path / "pid"
    launcher.write_text(
        "import subprocess, sys; launched = subprocess.Popen([sys.executable, *sys.argv[2:]])\n"
        "open(sys.argv[1], 'w').write(str(launched.pid)); sys.exit(launched.wait())"
    )
    worker = start(str(launcher), str(note), *workerCommand()[1:])
    begin(worker)
    launched = int(note.read_text())
    worker.cancel()
    assert worker.poll() == []
    assert ask(worker)["event"] == "done"
    assert int(note.read_text()) != launched
    waitFor(lambda: isGone(launched), worker.poll)
    waitFor(lambda: not filesOf(worker, "out"))


def test_cancel_does_not_wait_for_a_group_that_ignores_it_which_is_killed(start, monkeypatch):
    """The kill does not wait for a process outside of the group either, which keeps the pipes open."""
    monkeypatch.setattr(processes, "PATIENCE", math.inf)
    other = "subprocess.Popen([sys.executable, '-c', 'open(0).read()'], start_new_session=True)"
    worker = start("-c", f"{SPEAK}{other}; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(10000)", READY)
    worker.ask("bundles")
    waitFor(lambda: worker._isSent, worker.poll)
    stubborn = worker._process._popen.pid
    worker.cancel()
    worker.poll()
    assert not isGone(stubborn)
    monkeypatch.setattr(processes, "PATIENCE", 0.0)
    waitFor(lambda: not worker.isEnding, worker.poll)
    waitFor(lambda: isGone(stubborn))


@pytest.mark.parametrize(("limit", "firstLine", "kind"), [
    ("READY_WITHIN", "loading", "installation"), ("SILENT_WITHIN", READY, "crash"),
])  # fmt: skip
def test_a_worker_that_is_silent_is_given_up(start, monkeypatch, limit, firstLine, kind):
    worker = start("-c", SPEAK + "print('waiting', file=sys.stderr, flush=True); time.sleep(10000)", firstLine)
    worker.ask("bundles")
    waitFor(lambda: worker._process and worker._process.lastLines and worker._isSent == (kind == "crash"), worker.poll)
    assert worker.poll() == []
    monkeypatch.setattr(worker_client, limit, 0.0)
    failed = answer(worker)
    assert failed["kind"] == kind
    assert failed["message"] == "the worker does not answer. Its last output: waiting. Try again, or restart Slicer."
    waitFor(lambda: not worker.isEnding, worker.poll)


@pytest.mark.parametrize(("script", "options", "message"), [
    (("-m", "x"), {"python": "/nowhere/PythonSlicer"},
     "/nowhere/PythonSlicer cannot be started (No such file or directory). Install it again."),
    (("-I", "-S", "-m", "monai_sr_bundle.worker"), {},
     "monai-sr-bundle is not installed. Install it in the panel's section Installation."),
    (("-c", SPEAK + "input()", READY.replace("1}", "2}")), {},
     "monai-sr-bundle 9 does not fit this extension. Update the older of the two."),
    (("-c", SPEAK + "input(); sys.exit('first\\nsecond\\nthird\\nMemoryError: too much')", READY), {},
     "the worker has ended with code 1. Its last output: second | third | MemoryError: too much. Try again; if it "
     "happens again, report this message."),
    (("-c", SPEAK + "input(); sys.exit(137)", READY), {},  # so a launcher tells that its program was killed
     "the system has ended the worker, most often because memory ran out (signal 9). Choose a smaller region, or close "
     "other programs."),
])  # fmt: skip
def test_a_worker_that_cannot_answer_is_told_with_what_to_do(start, script, options, message):
    worker = start(*script, **options)
    worker.ask("bundles")
    assert answer(worker)["message"] == message


def test_a_refusal_a_full_disk_and_a_crash_are_told_and_the_next_request_is_answered(start):
    worker, refuse = start(), mock.Mock(side_effect=ValueError("'chest' holds 3 values that are not numbers."))
    assert ask(worker, prepare=refuse)["message"] == "'chest' holds 3 values that are not numbers."
    assert "does not lie in the image of 64x64" in ask(worker, region=[0, 1, 0, 900, 0, 16])["message"]
    shutil.rmtree(worker.folder, ignore_errors=True)  # at the same time as the last result
    assert "No such file or directory" in ask(worker)["message"]
    os.mkdir(worker.folder)
    os.kill(begin(worker), signal.SIGSEGV)
    assert answer(worker)["message"].startswith("the worker has ended with code -11. Its last output: ")
    assert ask(worker)["event"] == "done"


def test_a_result_that_cannot_be_read_is_told_and_never_unpickled(tmp_path):
    np.save(tmp_path / "result.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("result.npy", "missing.npy"):
        event = _parseEvent(json.dumps({"event": "done", "id": 4, "result": str(tmp_path / name), "errorBars": None}))
        assert (event["event"], event["id"]) == ("failed", 4)
        assert event["message"].startswith("the result could not be read (")


VIEWER = """
import sys, tempfile
here, python, tempfile.tempdir, repository = sys.argv[1:]
sys.path[:0] = [here, here + "/../.."]
from SuperResolutionLib.child_process import environmentFor
from SuperResolutionLib.worker_client import WorkerClient, workerCommand
from test_worker_client import begin
worker = WorkerClient(workerCommand(python), {**environmentFor(python), "PYTHONPATH": repository})
print(begin(worker), worker.folder, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("isKilled", [False, True])
def test_a_viewer_that_does_not_close_leaves_no_worker_and_its_folder_to_the_next(
    workerPython, repository, tmp_path, monkeypatch, isKilled
):
    command = [sys.executable, "-c", VIEWER, HERE, workerPython[0], tmp_path, repository]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as viewer:
        number, folder = viewer.stdout.readline().split()
        if isKilled:
            viewer.kill()
    waitFor(lambda: isGone(int(number)), what="the end of the worker, which has nobody to tell its progress")
    assert os.path.isdir(folder) == isKilled
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = os.path.basename(processes.makeFolder())
    theirs = f"sr-{viewer.pid}-000000-x"  # of a computer with the same home, where this number is nobody's
    (tmp_path / theirs).mkdir()
    removeStaleFolders()
    waitFor(lambda: not os.path.isdir(folder), what="the removal of the folder")
    assert sorted(os.listdir(tmp_path)) == sorted([mine, theirs])


def test_poll_leaves_to_other_threads_whatever_takes_time(start, monkeypatch):
    """While an image is written, a region is enlarged, cancelled, read and removed, and another worker starts."""
    callers = {}
    slow = [(np, "save"), (np, "load"), (shutil, "rmtree"), (subprocess.Popen, "wait")]

    def watch(function):
        def watched(*arguments, **options):
            callers.setdefault(function.__name__, set()).add(threading.current_thread())
            return function(*arguments, **options)

        return watched

    with monkeypatch.context() as patch:
        for owner, name in slow:
            patch.setattr(owner, name, watch(getattr(owner, name)))
        worker = start()
        begin(worker)
        worker.cancel()
        assert ask(worker)["event"] == "done"
        waitFor(lambda: not filesOf(worker, "out"), worker.poll)
    assert set(callers) == {"save", "load", "rmtree"}
    assert threading.main_thread() not in set.union(*callers.values())


def test_another_python_is_not_given_what_the_launcher_has_set_for_slicer(monkeypatch, tmp_path):
    for name in processes.SLICER_VARIABLES:
        monkeypatch.setenv(name, "/nowhere")  # with this PYTHONHOME no Python starts
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    other = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    code = "import os; print([os.environ.get(name) for name in ('QT_PLUGIN_PATH', 'HTTPS_PROXY', 'OMP_WAIT_POLICY')])"
    child = ChildProcess([other, "-c", code], environmentFor(other), str(tmp_path))
    waitFor(lambda: child.isOver)
    assert child.lines() == ["[None, 'http://proxy:1', 'PASSIVE']"]
    assert environmentFor("C:/Slicer/bin/PythonSlicer.exe")["PYTHONHOME"] == "/nowhere"


def test_the_python_of_slicer_is_its_launcher(monkeypatch, tmp_path):
    launcher = tmp_path / "PythonSlicer"
    launcher.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert workerCommand()[0] == str(launcher)
