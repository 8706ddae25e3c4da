"""The lines for a terminal and the JSON lines for another program."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.cli import enlarging
from monai_sr_bundle.cli.lines import one_line
from monai_sr_bundle.datasets.phantom import write_phantom_png
from PIL import Image

ROOT = Path(__file__).parents[2]


def enhance(*words):
    return main(["enhance", "--backend", "onnx", *map(str, words)])


def test_a_message_stays_on_its_line_and_does_not_steer_the_terminal():
    assert one_line("a\nb\tc") == "a b c"
    assert one_line("\x1b[2Jchest\udcff.png") == "?[2Jchest?.png"
    assert one_line("Thorax Größe 4×") == "Thorax Größe 4×"


def test_a_file_name_that_is_no_text_is_shown_and_done(tmp_path, capsys):
    name = os.fsdecode(b"chest\xff\x1b[31m.png")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / name)
    assert enhance(tmp_path / name, f"{tmp_path}/out/") == 0
    assert "chest??[31m.png: 16 x 16 pixels" in capsys.readouterr().out
    assert os.listdir(tmp_path / "out") == [os.fsdecode(b"chest\xff\x1b[31m_sr.png")]


def test_each_image_of_a_folder_is_named(tmp_path, capsys):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        write_phantom_png(tmp_path / "in" / name, size=32)
    (tmp_path / "in" / "bad.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:60])
    (tmp_path / "in" / "sub" / "bad.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:60])
    assert enhance(tmp_path / "in", f"{tmp_path}/out/") == 3
    out, err = capsys.readouterr()
    lines = [line.split(":")[0] for line in out.splitlines() if line.startswith(("a", "sub"))]
    assert lines == ["a.png", "sub/b.png"]
    assert "error: bad.png: " in err
    assert "error: sub/bad.png: " in err  # which of the two
    assert enhance(tmp_path / "in", f"{tmp_path}/out/", "--overwrite", "--progress", "json") == 3
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["name"] for event in events if event["event"] == "finished"] == ["a.png", "sub/b.png"]
    assert [event["name"] for event in events if event["event"] == "failed"] == ["bad.png", "sub/bad.png"]


def test_the_bar_is_for_terminals_and_is_taken_away_before_an_error(film, tmp_path, monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    assert enhance(film, tmp_path / "out.png") == 0
    assert "left" in screen.getvalue()  # the time left

    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(enlarging.files, "write", stop)
    assert enhance(film, tmp_path / "out2.png") == 130
    message = "monai-sr: error: interrupted; no partial files remain.\n"
    # Where the bar was, there are blanks, and the message begins at the left edge.
    assert screen.getvalue().endswith("\r" + message)


@pytest.mark.parametrize("progress", ["json", "none"])
def test_an_interrupt_is_told_in_one_line(film, tmp_path, capsys, monkeypatch, progress):
    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(enlarging.files, "write", stop)
    assert enhance(film, tmp_path / "out" / "film.png", "--progress", progress) == 130
    out, err = capsys.readouterr()
    message = "interrupted; no partial files remain."
    event = {"event": "failed", "input": None, "name": None, "message": message, "exit_code": 130}
    if progress == "json":
        assert (json.loads(out.splitlines()[-1]), err) == (event, "")
    else:
        assert err == f"monai-sr: error: {message}\n"  # and nothing of a bar, for this is no terminal
    assert os.listdir(tmp_path) == ["film.png"]


def test_an_error_before_the_first_image_is_a_json_line_too(tmp_path, capsys):
    assert enhance(tmp_path / "nowhere.png", tmp_path / "out.png", "--progress", "json") == 3
    listed, failed, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert listed == {"event": "listed", "images": 0, "processes": 1}
    assert (failed["event"], failed["input"], failed["exit_code"]) == ("failed", str(tmp_path / "nowhere.png"), 3)
    assert "nowhere.png: does not exist" in failed["message"]
    assert (summary["event"], summary["failed"]) == ("summary", 1)


def test_an_interrupt_of_any_command_ends_without_a_traceback(capsys, monkeypatch):
    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("monai_sr_bundle.shipped_bundles.all_bundles", stop)
    assert main(["bundles"]) == 130
    assert capsys.readouterr().err == "monai-sr: error: interrupted; no partial files remain.\n"


def test_warnings_are_lines_with_the_name_of_the_program_which_quiet_hides_and_no_file_name_breaks(film, tmp_path):
    (tmp_path / "in").mkdir()
    film.rename(tmp_path / "in" / "film.png")
    (tmp_path / "in" / "\x1b]0;title\x07\nnotes.txt").write_text("no image")
    warning = "1 file(s) are not images of a kind that is read, and are left out: ?]0;title? notes.txt"
    for options, expected in (((), f"monai-sr: in: {warning}\n"), (("--quiet",), "")):
        words = ["enhance", "in", "out/", "--backend", "onnx", "--overwrite", *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "monai_sr_bundle", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == expected


def test_a_reader_that_goes_away_ends_the_command_quietly():
    command = [sys.executable, "-u", "-m", "monai_sr_bundle", "bundles"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait(timeout=600) == 141
    running.stderr.close()
