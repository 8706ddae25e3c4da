"""The process that enlarges images: what becomes of it, and of those who wait, when an image takes too long."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from labelling import enhancing
from labelling.enhancing import Enhancer
from labelling.errors import RefusedError, ServerError, StoppedError


def sleep_for(task, out):
    """Stand in for the enlarging: `task` is the seconds and a file for the number of this process."""
    seconds, file = task
    Path(file).write_text(str(os.getpid()))
    time.sleep(seconds)
    return file


@pytest.fixture
def enhancer(monkeypatch):
    monkeypatch.setattr(enhancing, "_enhance", sleep_for)
    monkeypatch.setattr(enhancing, "LONGEST_SECONDS", 20)
    started = Enhancer()
    yield started
    started.close()


def run(enhancer, seconds, file, folder):
    with enhancer.enhance((seconds, str(file)), folder) as name:
        return name


def test_an_image_that_takes_too_long_ends_with_its_process_and_the_one_behind_it_does_not(enhancer, tmp_path):
    answers = {}

    def enlarge_slowly():
        try:
            run(enhancer, 600, tmp_path / "slow", tmp_path)
        except ServerError as error:
            answers["slow"] = str(error)

    slow = threading.Thread(target=enlarge_slowly)
    slow.start()
    while not (tmp_path / "slow").exists():
        time.sleep(0.01)
    assert run(enhancer, 0, tmp_path / "behind", tmp_path) == str(tmp_path / "behind")
    slow.join()
    assert "took longer than 20 s" in answers["slow"]
    number = int((tmp_path / "slow").read_text())
    assert number != int((tmp_path / "behind").read_text())
    gone = [psutil.Process(number)] if psutil.pid_exists(number) else []
    assert psutil.wait_procs(gone, timeout=60)[1] == []


def test_nobody_who_waits_starts_a_process_after_the_end(enhancer, tmp_path):
    answers = []

    def enlarge(seconds, name):
        try:
            run(enhancer, seconds, tmp_path / name, tmp_path)
        except RefusedError as error:
            answers.append(type(error))

    first = threading.Thread(target=enlarge, args=(600, "first"))
    first.start()
    while not (tmp_path / "first").exists():
        time.sleep(0.01)
    second = threading.Thread(target=enlarge, args=(0, "second"))
    second.start()
    enhancer.close()
    first.join()
    second.join()
    assert answers == [ServerError, StoppedError]
    assert not (tmp_path / "second").exists()


def test_a_process_that_dies_is_replaced(enhancer, tmp_path):
    run(enhancer, 0, tmp_path / "first", tmp_path)
    psutil.Process(int((tmp_path / "first").read_text())).kill()
    with pytest.raises(ServerError, match="was ended, perhaps for lack of memory"):
        run(enhancer, 0, tmp_path / "second", tmp_path)
    assert run(enhancer, 0, tmp_path / "third", tmp_path) == str(tmp_path / "third")


def test_a_process_that_waits_leaves_ctrl_c_to_the_server(enhancer, tmp_path, capfd):
    run(enhancer, 0, tmp_path / "first", tmp_path)
    number = int((tmp_path / "first").read_text())
    os.kill(number, signal.SIGINT)  # a terminal sends it to all processes of a command
    run(enhancer, 0, tmp_path / "second", tmp_path)
    assert int((tmp_path / "second").read_text()) == number
    assert capfd.readouterr().err == ""
