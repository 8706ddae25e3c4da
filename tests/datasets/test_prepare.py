"""Preparing: resumed where it stopped, never over anything, nothing lost in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from monai_sr_bundle.datasets import prepare as module
from monai_sr_bundle.datasets.manifest import read_boxes, read_manifest
from monai_sr_bundle.datasets.prepare import prepare, summary
from monai_sr_bundle.datasets.radiograph import read_radiograph
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.working_folders import remove_abandoned

from tests.datasets.layouts import files_below, nih, picture, skipped, table

KILLED = """
import os, sys
from pathlib import Path
from monai_sr_bundle.images.working_folders import working_folder
with working_folder(Path(sys.argv[1])):
    os.kill(os.getpid(), 9)
"""


def stop_at(count: int):
    def progress(done: int, total: int) -> None:
        if done == count:
            raise KeyboardInterrupt

    return progress


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that were opened to be prepared."""
    names: list[str] = []

    def counted(path: Path):
        names.append(path.name)
        return read_radiograph(path)

    monkeypatch.setattr(module, "read_radiograph", counted)
    return names


def test_the_input_is_never_changed_and_progress_reaches_the_end(tmp_path: Path) -> None:
    folder = nih(tmp_path / "in")
    before, steps = files_below(folder), []
    manifest = prepare("nih", folder, tmp_path / "out", long_side=64, progress=lambda *step: steps.append(step))
    assert manifest == tmp_path / "out" / "manifest.csv"
    assert files_below(folder) == before
    assert steps == [(done, 6) for done in range(7)]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, read: list[str], workers: int
) -> None:
    folder = nih(tmp_path / "in")
    prepare("nih", folder, tmp_path / "whole", long_side=64)
    with pytest.raises(KeyboardInterrupt):
        prepare("nih", folder, tmp_path / "out", long_side=64, progress=stop_at(2), workers=workers)
    out = tmp_path / "out"
    assert not (out / "manifest.csv").exists()
    assert [path for path in out.rglob("*") if path.name.endswith(".part")] == []
    finished = {path: path.stat().st_mtime_ns for path in (out / "images").iterdir()}
    assert len((out / "prepare.jsonl").read_text().splitlines()) == 1 + 2

    read.clear()
    prepare("nih", folder, out, long_side=64)
    assert len(read) == 4
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert files_below(out) == files_below(tmp_path / "whole")


def test_a_journal_line_torn_by_a_crash_is_done_again(tmp_path: Path, read: list[str]) -> None:
    folder, out = nih(tmp_path / "in", patients=(1,)), tmp_path / "out"
    prepare("nih", folder, out)
    whole = files_below(out)
    (out / "manifest.csv").unlink()
    (out / "prepare.jsonl").write_bytes(whole["prepare.jsonl"][:-20])
    # A kill between the move of an image into its place and the end of the folder that it was written in.
    subprocess.run([sys.executable, "-c", KILLED, out / "images"], check=False)
    assert len(list((out / "images").iterdir())) == 3
    remove_abandoned.cache_clear()  # as in a new process
    read.clear()
    prepare("nih", folder, out)
    assert read == ["00000001_001.png"]
    assert files_below(out) == whole
    assert len(list((out / "images").iterdir())) == 2


def test_a_finished_run_is_checked_and_left_alone(tmp_path: Path, read: list[str]) -> None:
    folder, out = nih(tmp_path / "in"), tmp_path / "out"
    prepare("nih", folder, out)
    before = files_below(out)
    read.clear()
    prepare("nih", folder, out)
    assert read == []
    assert files_below(out) == before


def test_a_lost_file_is_written_again(tmp_path: Path) -> None:
    folder, out = nih(tmp_path / "in"), tmp_path / "out"
    prepare("nih", folder, out)
    before = files_below(out)
    (out / "images" / "00000002_000.png").unlink()
    prepare("nih", folder, out)
    assert files_below(out)["images/00000002_000.png"] == before["images/00000002_000.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("images/00000002_000.png", b"mine", r"00000002_000\.png: was changed after it was prepared"),
        ("prepare.jsonl", b"{}\nnot json\n", r"prepare\.jsonl: is damaged"),
    ],
)
def test_a_file_that_was_changed_is_not_overwritten(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    folder, out = nih(tmp_path / "in"), tmp_path / "out"
    prepare("nih", folder, out)
    (out / name).write_bytes(content)
    with pytest.raises(OutputError, match=message):
        prepare("nih", folder, out)
    assert (out / name).read_bytes() == content


def test_other_settings_or_another_input_need_another_folder(tmp_path: Path) -> None:
    folder, out = nih(tmp_path / "in"), tmp_path / "out"
    prepare("nih", folder, out, long_side=64)
    before = files_below(out)
    with pytest.raises(OutputError, match=r"was begun with other settings or files \(long_side\)"):
        prepare("nih", folder, out, long_side=32)
    with pytest.raises(OutputError, match=r"was begun with other settings or files \(images or options\)"):
        prepare("nih", folder, out, long_side=64, limit=2)
    assert files_below(out) == before


def test_a_folder_that_holds_anything_else_is_left_alone(tmp_path: Path) -> None:
    folder, out = nih(tmp_path / "in"), tmp_path / "out"
    table(out / "manifest.csv", "mine")
    with pytest.raises(OutputError, match=r"out: exists, and prepare did not begin it"):
        prepare("nih", folder, out)
    assert files_below(out) == {"manifest.csv": b"mine\n"}


def test_an_output_inside_the_input_or_a_file_is_refused(tmp_path: Path) -> None:
    folder = nih(tmp_path / "in")
    with pytest.raises(OutputError, match=r"lies in the input folder, which is never changed"):
        prepare("nih", folder, folder / "out")
    with pytest.raises(OutputError, match=r"BBox_List_2017\.csv is not a folder"):
        prepare("nih", nih(tmp_path / "other"), folder / "BBox_List_2017.csv" / "out")


def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out, replace = nih(tmp_path / "in"), tmp_path / "out", os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).suffix == ".png":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"\.png could not be written: the disk or your quota is full"):
        prepare("nih", folder, out)
    assert files_below(out).keys() == {"prepare.jsonl"}
    monkeypatch.undo()
    prepare("nih", folder, out)
    assert len(read_manifest(out)) == 6


def test_a_journal_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path_open = Path.open

    def refuse(self: Path, mode: str = "r", **options: object):
        if mode == "a":
            raise OSError(28, "No space left on device")
        return path_open(self, mode, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match=r"prepare\.jsonl: cannot be written \(No space left on device\)"):
        prepare("nih", nih(tmp_path / "in"), tmp_path / "out")


def test_unreadable_images_are_listed_and_the_summary_counts_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = nih(tmp_path / "in", patients=(1, 2))
    broken = folder / "images_002" / "images" / "00000001_001.png"
    broken.write_bytes(broken.read_bytes()[:300])
    prepare("nih", folder, tmp_path / "out")
    assert skipped(tmp_path / "out")["images_002/images/00000001_001.png"].startswith("00000001_001.png: ")
    assert summary(tmp_path / "out") == (
        f"3 images of 2 patients (train 1, val 2, test 0); 1 skipped, see {tmp_path / 'out' / 'skipped.csv'}"
    )
    assert summary(tmp_path / "out") in caplog.text


def test_when_every_image_fails_nothing_is_left_behind(tmp_path: Path) -> None:
    for name in ("a_1.png", "b_1.png"):
        picture(tmp_path / "in" / name).write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    with pytest.raises(InputError, match=r"none of 2 images can be prepared \(2 skipped, first a_1\.png: a_1\.png: "):
        prepare("folder", tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_to_prepare_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    table(tmp_path / "in" / "notes.csv", "a")
    with pytest.raises(InputError, match=r"nothing to prepare as 'folder' \(1 skipped, first notes\.csv: not a pict"):
        prepare("folder", tmp_path / "in", tmp_path / "out")


def test_boxes_are_cut_at_the_border_and_lost_ones_are_listed(tmp_path: Path) -> None:
    folder = nih(tmp_path / "in", patients=(1,), images=1)
    table(
        folder / "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,",
        "00000001_000.png,Mass,1000,0,100,512,,,",
        "00000001_000.png,Nodule,1100,0,10,10,,,",
    )
    prepare("nih", folder, tmp_path / "out", long_side=64)
    ((box,),) = read_boxes(tmp_path / "out").values()
    assert (box.finding, box.x_min, box.x_max, box.y_max) == ("Mass", 62.5, 64.0, 32.0)
    (reason,) = skipped(tmp_path / "out").values()
    assert reason == "box 'Nodule' (x 1100 to 1110, y 0 to 10) is empty or outside the image; the image is kept"


def test_a_limit_takes_the_first_images(tmp_path: Path) -> None:
    prepare("nih", nih(tmp_path / "in"), tmp_path / "out", limit=2)
    assert len(read_manifest(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("mimic", {}, r"source 'mimic' is unknown, expected one of nih, vindr, openi, ct, folder"),
        ("openi", {"official_split": True}, r"official_split is an option of nih, vindr, not of openi"),
        ("nih", {"official_split": True}, r"train_val_list\.txt: the official split needs this list"),
        ("nih", {"patient_from": "x"}, r"patient_from is an option of folder, not of nih"),
        ("nih", {"long_side": -1}, r"long_side is -1, expected 0 or more"),
        ("nih", {"workers": 0}, r"workers is 0, expected 1 or more"),
        ("nih", {"limit": 0}, r"limit is 0, expected 1 or more"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path: Path, source: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(source, nih(tmp_path / "in"), tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nih", {}, r"holds no Data_Entry_2017\*\.csv"),
        ("vindr", {}, r"holds neither annotations/annotations_train\.csv nor train\.csv"),
        ("openi", {}, r"holds neither XML reports with images nor indiana_projections\.csv"),
        ("folder", {"patient_from": "("}, r"the patient pattern '\(' is no regular expression"),
        ("ct", {"min_slices": 1}, r"min_slices is 1, expected 2 or more"),
    ],
)
def test_a_folder_that_its_source_cannot_use_is_refused(
    tmp_path: Path, source: str, options: dict, message: str
) -> None:
    picture(tmp_path / "in" / "a.png")
    with pytest.raises(InputError, match=message):
        prepare(source, tmp_path / "in", tmp_path / "out", **options)
    with pytest.raises(InputError, match=r"gone: is no folder"):
        prepare(source, tmp_path / "gone", tmp_path / "out")
