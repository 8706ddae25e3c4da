"""The client of the worker and its process, with real workers: answers, cancelling, and all that goes wrong."""

import json
import math
import ntpath
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from SuperResolutionLib import child_process as processes
from SuperResolutionLib import worker_client
from SuperResolutionLib.child_process import ChildProcess, environmentFor, pythonOfSlicer, removeStaleFolders
from SuperResolutionLib.worker_client import WorkerClient, _parseEvent, describeExit, workerCommand
from waiting import PATIENCE, waitFor

MODULE = Path(__file__).resolve().parents[2]
READY = json.dumps({"event": "ready", "version": "9", "protocol": 1, "backend": "onnx", "pid": 0})
SMALL = [0, 1, 8, 40, 8, 40]


@pytest.fixture
def start(workerPython, tmp_path, monkeypatch):
    """Makes workers, by default real ones, in a temporary folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    python, environment = workerPython
    clients = []

    def worker(*script):
        command = [python, *script] if script else workerCommand(python)
        clients.append(WorkerClient(command, environment))
        return clients[-1]

    yield worker
    for each in clients:
        each.close()
    assert [path for path in tmp_path.iterdir() if path.name.startswith("sr-")] == []


def until(worker, *names):
    """The first event with one of these names, and all events so far; polls as a timer would."""
    events, names = [], names or ("done", "failed")

    def answer():
        return next((event for event in events if event["event"] in names), None)

    return waitFor(answer, lambda: events.extend(worker.poll()), f"one of {names}"), events


def ask(worker, region=SMALL, **options):
    """The answer to a request for an enlarged region of a small film."""
    worker.enhance(film(), region=region, modality="CXR", **options)
    return until(worker)[0]


def film(side=64):
    row = np.arange(side)
    return ((np.sin(row / 3)[:, None] * np.cos(row / 5) + 1) * 100).astype(np.uint8)[None]


def volume():
    return np.repeat(film(160).astype(np.int16) * 5 - 900, 60, axis=0)


def test_what_the_worker_refuses_comes_as_it_says_it(worker):
    failed = ask(worker, region=[0, 1, 0, 900, 0, 16])
    assert (failed["event"], failed["kind"]) == ("failed", "input")
    assert "does not lie in the image of 64x64" in failed["message"]
    assert ask(worker)["event"] == "done"


def test_an_image_is_prepared_and_written_once_in_a_thread_and_forgotten_after_the_next(worker):
    threads = []

    def prepare(array):
        threads.append(threading.current_thread())
        return array + 1

    def images():
        return [name for name in os.listdir(worker.folder) if name.startswith("image")]

    for region in (SMALL, [0, 1, 0, 9, 0, 9]):
        ask(worker, region=region, key=("node", 1), prepare=prepare)
    (thread,) = threads
    assert thread is not threading.main_thread()
    np.testing.assert_array_equal(np.load(worker._images[-1].path), film() + 1)
    waitFor(lambda: len(images()) == 1)
    one = images()
    ask(worker, key=("node", 2))
    waitFor(lambda: len(images()) == 1)
    assert images() != one


def test_the_private_folder_is_for_this_user_alone_and_goes_at_the_end(start):
    worker = start()
    assert stat.S_IMODE(os.stat(worker.folder).st_mode) == 0o700
    ask(worker)
    worker.close()
    assert not os.path.exists(worker.folder)
    worker.close()
    with pytest.raises(RuntimeError, match="the worker was closed"):
        worker.ask("bundles")


def pid(worker):
    return worker._process.identity


def isGone(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    return False


def begin(worker):
    """Make a request that takes minutes, and wait until it has begun. Return the process."""
    worker.enhance(volume(), region=[0, 60, 0, 160, 0, 160], modality="CT")
    until(worker, "progress")
    return pid(worker)


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
    waitFor(lambda: not [name for name in os.listdir(worker.folder) if name.startswith("out")])


def test_cancel_does_not_wait_for_a_group_that_ignores_it_which_is_killed(start, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", math.inf)
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(sys.argv[1], flush=True)"
    worker = start("-c", code + "; time.sleep(10000)", READY)
    worker.ask("bundles")
    waitFor(lambda: worker._request.isSent, worker.poll)
    stubborn = pid(worker)
    worker.cancel()
    worker.poll()
    assert not isGone(stubborn)
    monkeypatch.setattr(processes, "PATIENCE", 0.0)
    waitFor(lambda: not worker._ending, worker.poll)
    waitFor(lambda: isGone(stubborn))


def test_a_crash_is_told_and_the_next_request_gets_a_fresh_worker(start):
    worker = start()
    os.kill(begin(worker), signal.SIGSEGV)
    failed, _ = until(worker, "failed")
    assert failed["kind"] == "crash"
    assert failed["message"].startswith("the worker was ended by SIGSEGV.")
    assert ask(worker)["event"] == "done"


def test_garbage_on_stdout_harms_nothing(start):
    code = (
        "import runpy, sys; print('hello\\n[1, 2]\\n{\"no\": 1}', flush=True)\n"
        "sys.stdout.buffer.write(b'\\xff\\xfe\\n')\n"
        'print(\'{"event": "done", "id": 77, "result": null}\', flush=True)\n'
        "sys.argv = ['worker', '--backend', 'onnx']; runpy.run_module('monai_sr_bundle.worker', run_name='__main__')"
    )
    worker = start("-c", code)
    worker.enhance(film(), region=SMALL, modality="CXR")
    done, events = until(worker)
    assert done["event"] == "done"
    assert {event["id"] for event in events} == {done["id"]}


def test_a_worker_that_never_gets_ready_is_given_up(start, monkeypatch):
    code = "import sys, time; print('loading', file=sys.stderr, flush=True); time.sleep(10000)"
    monkeypatch.setattr(worker_client, "READY_WITHIN", math.inf)
    worker = start("-c", code)
    worker.ask("bundles")
    waitFor(lambda: worker._process and worker._process.lastLines, worker.poll, "its first word")
    assert worker.poll() == []
    monkeypatch.setattr(worker_client, "READY_WITHIN", 0.0)
    failed, _ = until(worker)
    assert failed["kind"] == "installation"
    assert failed["message"].startswith("the worker was not ready within 0 seconds. Its last output: loading.")


SPEAK = "import sys; print(sys.argv[1], flush=True); "


@pytest.mark.parametrize(("script", "message"), [
    (("-I", "-S", "-m", "monai_sr_bundle.worker"),
     "monai-sr-bundle is not installed. Install it in the panel's section Installation."),
    (("-c", SPEAK + "input()", READY.replace("1,", "2,")),
     "monai-sr-bundle 9 speaks protocol 2, and this extension 1. Update the older of the two."),
    (("-c", SPEAK + "input(); sys.exit('first\\nsecond\\nthird\\nMemoryError: too much')", READY),
     "the worker has ended with code 1. Its last output: second | third | MemoryError: too much. Try again; if it "
     "happens again, report this message."),
])  # fmt: skip
def test_a_worker_that_cannot_answer_is_told_with_what_to_do(start, script, message):
    worker = start(*script)
    worker.ask("bundles")
    failed, _ = until(worker)
    assert failed["message"] == message


def test_a_python_that_is_not_there_is_told():
    worker = WorkerClient(["/nowhere/PythonSlicer", "-m", "x"], {})
    worker.ask("bundles")
    failed, _ = until(worker)
    assert failed["message"] == "/nowhere/PythonSlicer cannot be started (No such file or directory). Install it again."
    worker.close()


def test_an_image_or_a_folder_that_cannot_be_made_is_told_and_the_next_request_is_answered(start):
    def refuse(array):
        raise ValueError("'chest' holds 3 values that are not numbers. Replace them first.")

    def enhance(**options):
        answer = ask(worker, **options)
        return answer["event"], answer.get("kind"), answer.get("message")

    worker = start()
    assert enhance(prepare=refuse) == (
        "failed", "input", "'chest' holds 3 values that are not numbers. Replace them first."
    )  # fmt: skip
    open(os.path.join(worker.folder, "out4"), "x").close()  # the numbers are those of two images and two requests
    assert enhance() == (
        "failed", "output", f"no folder could be made in {worker.folder} (File exists). Make room there."
    )  # fmt: skip
    waitFor(lambda: not os.path.exists(os.path.join(worker.folder, "out4")), what="its removal, in a thread")
    shutil.rmtree(worker.folder)
    *kind, message = enhance()
    assert kind == ["failed", "output"]
    assert message.endswith("(No such file or directory). Make room there.")
    os.mkdir(worker.folder)
    assert enhance()[0] == "done"


def test_a_result_that_cannot_be_read_is_told_and_never_unpickled(tmp_path):
    np.save(tmp_path / "result.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("result.npy", "missing.npy"):
        event = _parseEvent(json.dumps({"event": "done", "id": 4, "result": str(tmp_path / name), "errorBars": None}))
        assert (event["event"], event["id"], event["kind"]) == ("failed", 4, "output")
        assert event["message"].startswith("the result could not be read (")


CLIENT = """
import sys, tempfile, time
sys.path.insert(0, sys.argv[1])
tempfile.tempdir = sys.argv[3]
import numpy as np
from SuperResolutionLib.worker_client import WorkerClient, workerCommand
from SuperResolutionLib.child_process import environmentFor
environment = {**environmentFor(sys.argv[2]), "PYTHONPATH": sys.argv[5]}
worker = WorkerClient(workerCommand(sys.argv[2]), environment)
worker.enhance(np.zeros((60, 160, 160), np.int16), region=[0, 60, 0, 160, 0, 160], modality="CT")
names = []
while "progress" not in names:
    names = [event["event"] for event in worker.poll()]
    assert "failed" not in names
    time.sleep(0.01)
print(worker._process.identity, worker.folder, flush=True)
time.sleep(float(sys.argv[4]))
"""


@pytest.fixture
def client(workerPython, repository, tmp_path):
    """Starts a viewer that lives for some seconds after its worker has begun."""

    def start(seconds):
        words = [str(MODULE), workerPython[0], str(tmp_path), str(seconds), str(repository)]
        child = subprocess.Popen([sys.executable, "-c", CLIENT, *words], stdout=subprocess.PIPE, text=True)
        number, folder = child.stdout.readline().split()
        return child, int(number), folder

    return start


def test_a_viewer_that_is_killed_leaves_no_worker_and_the_next_removes_its_folder(client, tmp_path, monkeypatch):
    child, number, folder = client(10000)
    child.kill()
    child.wait()
    waitFor(lambda: isGone(number), what="the end of the worker, which has nobody to tell its progress")
    assert os.path.isdir(folder)
    (tmp_path / "sr-notes").mkdir()
    (tmp_path / f"sr-{os.getpid()}-mine").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with monkeypatch.context() as other:  # a computer with the same home, where this number is nobody's
        other.setattr(processes.socket, "gethostname", lambda: "other")
        theirs = os.path.basename(processes.makeFolder())
        os.rename(tmp_path / theirs, tmp_path / (theirs := theirs.replace(str(os.getpid()), str(child.pid))))
    removeStaleFolders()
    waitFor(lambda: not os.path.isdir(folder), what="the removal of the folder")
    assert sorted(os.listdir(tmp_path)) == sorted([f"sr-{os.getpid()}-mine", "sr-notes", theirs])


def test_a_viewer_that_ends_without_closing_removes_all(client):
    child, number, folder = client(0)
    assert child.wait(PATIENCE) == 0
    assert not os.path.exists(folder)
    waitFor(lambda: isGone(number))


def test_poll_leaves_to_other_threads_whatever_takes_time(start, monkeypatch):
    """While an image is written, a region is enlarged, cancelled, read and removed, and another worker starts."""
    callers = {}

    def watch(owner, name):
        function = getattr(owner, name)

        def watched(*arguments, **options):
            callers.setdefault(name, set()).add(threading.current_thread())
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, watched)

    for owner, name in (
        (np, "save"), (np, "load"), (shutil, "rmtree"), (subprocess.Popen, "wait"), (threading.Thread, "join"),
    ):  # fmt: skip
        watch(owner, name)
    worker = start()
    begin(worker)
    worker.cancel()
    worker.enhance(volume(), region=[0, 1, 0, 32, 0, 32], modality="CT")
    assert until(worker)[0]["event"] == "done"
    waitFor(lambda: not [name for name in os.listdir(worker.folder) if name.startswith("out")], worker.poll)
    assert set(callers) >= {"save", "load", "rmtree"}
    assert {name: threading.main_thread() in threads for name, threads in callers.items()} == dict.fromkeys(
        callers, False
    )


def test_a_signal_is_known_also_if_a_launcher_tells_it_as_a_code():
    for code in (-9, 137):
        assert "most often because memory ran out (signal 9). Choose a smaller" in describeExit(code, [])
    assert "was ended by SIGABRT" in describeExit(134, [])
    assert "has ended with code 3" in describeExit(3, [])


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
    assert workerCommand()[0] == str(launcher)


def test_the_packages_of_a_python_are_in_one_place_however_windows_spells_its_path(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "D:/data")
    monkeypatch.setattr(os, "path", ntpath)
    assert processes.packagesOf(r"C:\Slicer\bin\PythonSlicer.EXE") == processes.packagesOf(
        "c:/slicer/bin/PythonSlicer.exe"
    )
