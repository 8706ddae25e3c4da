"""Completely or not at all: what is left on the disk after success, failure, interrupt and a full disk."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from monai_sr_bundle.errors import OutputError
from monai_sr_bundle.images.staging import require_free, staged


def test_a_file_appears_only_when_the_block_is_done(tmp_path: Path):
    out = tmp_path / "result.nii.gz"
    with staged(out, overwrite=False) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.name == "result.nii.gz"
        assert not out.exists()
    assert out.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["result.nii.gz"]


def test_a_folder_appears_whole(tmp_path: Path):
    out = tmp_path / "series"
    with staged(out, overwrite=False) as temporary:
        temporary.mkdir()
        (temporary / "0001.dcm").write_bytes(b"one")
        assert not out.exists()
    assert [file.name for file in out.iterdir()] == ["0001.dcm"]
    assert os.listdir(tmp_path) == ["series"]


def test_parents_are_made(tmp_path: Path):
    with staged(tmp_path / "a" / "b" / "result.png", overwrite=False) as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "a" / "b" / "result.png").read_bytes() == b"new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_a_failure(tmp_path: Path, error: type[BaseException]):
    def fail() -> None:
        with staged(tmp_path / "a" / "b" / "result.png", overwrite=False) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_parent_that_another_process_makes_meanwhile_is_used_and_stays(tmp_path: Path, monkeypatch, fails: bool):
    make = Path.mkdir

    def beaten(self: Path, *args, **keywords) -> None:
        make(self)
        make(self, *args, **keywords)

    monkeypatch.setattr(Path, "mkdir", beaten)
    out = tmp_path / "shared" / "result.txt"
    with suppress(KeyError), staged(out, overwrite=False) as temporary:
        temporary.write_text("whole")
        if fails:
            raise KeyError
    assert out.parent.is_dir()
    assert out.exists() == (not fails)


def test_parents_that_were_there_stay_after_a_failure(tmp_path: Path):
    (tmp_path / "mine").mkdir()

    def fail() -> None:
        with staged(tmp_path / "mine" / "made" / "result.png", overwrite=False):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path) == ["mine"]
    assert os.listdir(tmp_path / "mine") == []


def test_an_older_file_is_replaced_only_on_request(tmp_path: Path):
    out = tmp_path / "result.png"
    out.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"result\.png exists already.*--overwrite"), staged(out, overwrite=False):
        pass
    assert out.read_bytes() == b"old"
    with staged(out, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
    assert out.read_bytes() == b"new"


def test_an_older_folder_is_replaced_as_a_whole(tmp_path: Path):
    out = tmp_path / "series"
    out.mkdir()
    (out / "old.dcm").write_bytes(b"old")
    with staged(out, overwrite=True) as temporary:
        temporary.mkdir()
        (temporary / "new.dcm").write_bytes(b"new")
    assert os.listdir(out) == ["new.dcm"]
    assert os.listdir(tmp_path) == ["series"]


def test_an_older_result_survives_an_interrupt(tmp_path: Path):
    out = tmp_path / "series"
    out.mkdir()
    (out / "old.dcm").write_bytes(b"old")

    def interrupt() -> None:
        with staged(out, overwrite=True) as temporary:
            temporary.mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert os.listdir(out) == ["old.dcm"]
    assert os.listdir(tmp_path) == ["series"]


def test_an_older_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path, monkeypatch):
    out = tmp_path / "series"
    out.mkdir()
    (out / "old.dcm").write_bytes(b"old")
    really = os.replace

    def stubborn(source: Path, target: Path) -> None:
        if Path(source).parent.name.startswith(".monai-sr-") and target == out:
            raise KeyboardInterrupt
        really(source, target)

    monkeypatch.setattr(os, "replace", stubborn)

    def replace_series() -> None:
        with staged(out, overwrite=True) as temporary:
            temporary.mkdir()

    with pytest.raises(KeyboardInterrupt):
        replace_series()
    assert os.listdir(out) == ["old.dcm"]
    assert os.listdir(tmp_path) == ["series"]


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path):
    out = tmp_path / "result.png"

    def race() -> None:
        with staged(out, overwrite=False) as temporary:
            temporary.write_bytes(b"ours")
            out.write_bytes(b"theirs")

    with pytest.raises(OutputError, match="exists already"):
        race()
    assert out.read_bytes() == b"theirs"


def test_a_file_never_replaces_a_folder_nor_a_folder_a_file(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")

    def write_file() -> None:
        with staged(tmp_path / "folder", overwrite=True) as temporary:
            temporary.write_bytes(b"new")

    def write_folder() -> None:
        with staged(tmp_path / "file", overwrite=True) as temporary:
            temporary.mkdir()

    with pytest.raises(OutputError, match="is a folder and the result is a file"):
        write_file()
    with pytest.raises(OutputError, match="is a file and the result is a folder"):
        write_folder()
    assert (tmp_path / "folder").is_dir()
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path):
    target, out = tmp_path / "target.png", tmp_path / "link.png"
    target.write_bytes(b"mine")
    out.symlink_to(target)
    with staged(out, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"mine"
    assert not out.is_symlink()
    assert out.read_bytes() == b"new"


def test_a_broken_link_counts_as_existing(tmp_path: Path):
    out = tmp_path / "link.png"
    out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="exists already"):
        require_free(out, overwrite=False)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"result\.png: .*file is not a folder"):
        require_free(tmp_path / "file" / "sub" / "result.png", overwrite=False)


def test_a_folder_that_nobody_may_write_to_is_told():
    # Not even root can make a folder here, so this holds for every user.
    with (
        pytest.raises(OutputError, match=r"/proc/result\.png could not be written: .*(Choose|Check)"),
        staged(Path("/proc/result.png"), overwrite=False),
    ):
        pass


def test_missing_rights_are_told(tmp_path: Path, monkeypatch):
    def refuse(*_args: object, **_options: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with (
        pytest.raises(OutputError, match=r"Permission denied\. Choose a folder that you may write to"),
        staged(tmp_path / "made" / "result.png", overwrite=False),
    ):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("needed", "told"), [(12345, "about 12,345 bytes are needed"), (None, "more is needed")])
def test_a_full_disk_is_told_with_needed_and_free_bytes(tmp_path: Path, needed: int | None, told: str):
    def fill() -> None:
        with staged(tmp_path / "result.png", overwrite=False, needed_bytes=needed) as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"no room for this")

    with pytest.raises(OutputError, match=rf"the disk or your quota is full \(.*{told}, [\d,]+ bytes are free"):
        fill()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("explicit", [True, False])
def test_a_full_disk_is_told_in_one_line_through_another_librarys_error(tmp_path: Path, explicit: bool):
    def fill() -> None:
        with staged(tmp_path / "result.dcm", overwrite=False) as temporary:
            temporary.symlink_to("/dev/full")
            try:
                temporary.write_bytes(b"no room for this")
            except OSError as error:
                raise OSError("With tag (7FE0,0010)\nTraceback ...") from (error if explicit else None)

    with pytest.raises(OutputError, match="the disk or your quota is full") as told:
        fill()
    assert "\n" not in str(told.value)


def test_a_file_over_the_size_limit_is_told_and_removed(tmp_path: Path):
    """A real refusal by the kernel, in a process of its own because the limit cannot be raised again."""
    program = f"""
from pathlib import Path
from monai_sr_bundle.images.staging import staged
with staged(Path({str(tmp_path / "made" / "result.png")!r}), overwrite=False, needed_bytes=1000000) as temporary:
    temporary.write_bytes(bytes(1000000))
"""
    ended = subprocess.run(
        [sys.executable, "-B", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert "OutputError" in ended.stderr
    assert "larger than this file system or your limit allows (about 1,000,000 bytes are needed" in ended.stderr
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_cleaned_up_is_told(tmp_path: Path, monkeypatch, caplog):
    def refuse(_path: Path) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr("shutil.rmtree", refuse)
    with staged(tmp_path / "result.png", overwrite=False) as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "result.png").read_bytes() == b"new"
    assert "is left over and can be deleted" in caplog.text
