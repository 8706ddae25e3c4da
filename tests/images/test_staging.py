"""Results are written completely or not at all, also after a failure, an interrupt or on a full disk."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
from monai_sr_bundle.cli.enlarging import require_disk_space, require_writable
from monai_sr_bundle.datasets.make_manifest import write_once
from monai_sr_bundle.errors import OutputError
from monai_sr_bundle.images.staging import require_free, staged, write_file


def stage(out: Path, content: object = b"new", error: type[BaseException] | None = None, **options) -> None:
    """Write a file of these bytes, or a folder of these names, and raise the error, if any, before it is complete."""
    with staged(out, **{"overwrite": False, **options}) as temporary:
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            temporary.mkdir()
            for name in content:
                (temporary / name).write_bytes(b"new")
        if error:
            raise error


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """An older folder of one file."""
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "old.dcm").write_bytes(b"old")
    return tmp_path / "series"


def test_a_file_appears_only_when_the_block_is_done_and_parents_are_made(tmp_path: Path):
    out = tmp_path / "a" / "b" / "result.nii.gz"
    with staged(out, overwrite=False) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.name == "result.nii.gz"
        assert not out.exists()
    assert out.read_bytes() == b"new"
    assert os.listdir(out.parent) == ["result.nii.gz"]


def test_a_folder_appears_whole(tmp_path: Path):
    out = tmp_path / "series"
    with staged(out, overwrite=False) as temporary:
        temporary.mkdir()
        (temporary / "0001.dcm").write_bytes(b"one")
        assert not out.exists()
    assert [file.name for file in out.iterdir()] == ["0001.dcm"]
    assert os.listdir(tmp_path) == ["series"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_after_a_failure_nothing_is_left_but_the_parents_that_were_there(tmp_path: Path, error: type[BaseException]):
    (tmp_path / "mine").mkdir()
    with pytest.raises(error):
        stage(tmp_path / "mine" / "new" / "b" / "result.png", b"half", error)
    assert os.listdir(tmp_path) == ["mine"]
    assert os.listdir(tmp_path / "mine") == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_parent_that_another_process_makes_meanwhile_is_used_and_stays(tmp_path: Path, monkeypatch, fails: bool):
    mkdir = Path.mkdir

    def mkdir_twice(self: Path, *args, **keywords) -> None:
        mkdir(self)
        mkdir(self, *args, **keywords)

    monkeypatch.setattr(Path, "mkdir", mkdir_twice)
    out = tmp_path / "shared" / "result.txt"
    with suppress(KeyError), staged(out, overwrite=False) as temporary:
        temporary.write_text("whole")
        if fails:
            raise KeyError
    assert out.parent.is_dir()
    assert out.exists() == (not fails)


def test_an_older_file_is_replaced_only_on_request(tmp_path: Path):
    out = tmp_path / "result.png"
    out.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"result\.png exists already.*--overwrite \(in Python overwrite=True\)"):
        stage(out)
    assert out.read_bytes() == b"old"
    stage(out, overwrite=True)
    assert out.read_bytes() == b"new"


@pytest.mark.parametrize(("error", "content"), [(None, ["new.dcm"]), (KeyboardInterrupt, ["old.dcm"])])
def test_an_older_folder_is_replaced_as_a_whole_or_stays(tmp_path: Path, series: Path, error, content: list[str]):
    with suppress(KeyboardInterrupt):
        stage(series, ["new.dcm"], error, overwrite=True)
    assert os.listdir(series) == content
    assert os.listdir(tmp_path) == ["series"]


def test_an_older_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path, series: Path, monkeypatch):
    replace = os.replace

    def interrupt(source: Path, target: Path) -> None:
        if Path(source).parent.name.startswith(".monai-sr-") and target == series:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stage(series, ["new.dcm"], overwrite=True)
    assert os.listdir(series) == ["old.dcm"]
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


def test_a_file_never_replaces_a_folder_nor_a_folder_a_file(tmp_path: Path, series: Path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(OutputError, match="is a folder and the result is a file"):
        stage(series, overwrite=True)
    with pytest.raises(OutputError, match="is a file and the result is a folder"):
        stage(tmp_path / "file", [], overwrite=True)
    assert os.listdir(series) == ["old.dcm"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path):
    target, out = tmp_path / "target.png", tmp_path / "link.png"
    target.write_bytes(b"mine")
    out.symlink_to(target)
    stage(out, overwrite=True)
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


def test_missing_rights_are_an_error_with_what_to_do(tmp_path: Path, monkeypatch):
    mkdir = os.mkdir

    def refuse_hidden(path: str | os.PathLike[str], mode: int = 0o777) -> None:
        if Path(path).name.startswith("."):
            raise PermissionError(13, "Permission denied")
        mkdir(path, mode)

    monkeypatch.setattr("os.mkdir", refuse_hidden)
    with pytest.raises(OutputError, match=r"Permission denied\. Choose a folder that you may write to"):
        stage(tmp_path / "new" / "result.png")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("needed", "words"), [(12345, "about 12,345 bytes are needed"), (None, "more is needed")])
def test_a_full_disk_is_told_with_needed_and_free_bytes(tmp_path: Path, needed: int | None, words: str):
    def fill() -> None:
        with staged(tmp_path / "result.png", overwrite=False, needed_bytes=needed) as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"no room for this")

    with pytest.raises(OutputError, match=rf"the disk or your quota is full \(.*{words}, [\d,]+ bytes are free"):
        fill()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("explicit", [True, False])
def test_a_full_disk_is_told_in_one_line_below_two_errors_of_another_library(tmp_path: Path, explicit: bool):
    def fill() -> None:
        with staged(tmp_path / "result.dcm", overwrite=False) as temporary:
            temporary.symlink_to("/dev/full")
            try:
                try:
                    temporary.write_bytes(b"no room for this")
                except OSError as error:
                    raise ValueError from (error if explicit else None)
            except ValueError as error:
                raise OSError("With tag (7FE0,0010)\nTraceback ...") from error

    with pytest.raises(OutputError, match="the disk or your quota is full") as error_info:
        fill()
    assert "\n" not in str(error_info.value)


def test_a_file_beyond_the_limit_of_its_size_is_told(tmp_path: Path):
    def grow() -> None:
        with staged(tmp_path / "result.png", overwrite=False):
            raise OSError(errno.EFBIG, "File too large")

    with pytest.raises(OutputError, match="written: the file is larger than this file system or your limit allows"):
        grow()


def test_a_whole_file_replaces_an_older_one_and_a_full_disk_is_told_with_its_size(tmp_path: Path, monkeypatch):
    out = tmp_path / "report.html"
    write_file(out, b"older")
    write_file(out, b"newer")
    assert out.read_bytes() == b"newer"
    monkeypatch.setattr(Path, "write_bytes", _refuse_for_lack_of_room)
    with pytest.raises(OutputError, match="about 7 bytes are needed"):
        write_file(out, b"another")
    assert out.read_bytes() == b"newer"


def test_a_file_that_is_written_once_is_never_another(tmp_path: Path, monkeypatch):
    out = tmp_path / "new" / "card.md"
    write_once(out, b"first")
    write_once(out, b"first")
    with pytest.raises(OutputError, match=r"card\.md: exists with other content and is never overwritten"):
        write_once(out, b"second")
    assert out.read_bytes() == b"first"
    with pytest.raises(OutputError, match=rf"{tmp_path.name} could not be written: Is a directory"):
        write_once(tmp_path, b"first")
    monkeypatch.setattr(Path, "write_bytes", _refuse_for_lack_of_room)
    with pytest.raises(OutputError, match="about 5 bytes are needed"):
        write_once(tmp_path / "other.md", b"first")
    assert not (tmp_path / "other.md").exists()


def _refuse_for_lack_of_room(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_temporary_folder_that_cannot_be_removed_is_logged(tmp_path: Path, monkeypatch, caplog):
    def refuse(_path: Path) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr("shutil.rmtree", refuse)
    stage(tmp_path / "result.png")
    assert (tmp_path / "result.png").read_bytes() == b"new"
    assert "is left over and can be deleted" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="the umask is one of POSIX")
def test_files_and_folders_obey_the_umask_of_their_user(tmp_path: Path):
    before = os.umask(0o077)
    try:
        write_file(tmp_path / "new" / "preview.png", b"a patient's picture")
        stage(tmp_path / "series", ["0001.dcm"])
    finally:
        os.umask(before)
    written = list(tmp_path.rglob("*"))
    assert len(written) == 4
    assert {path.name: path.stat().st_mode & 0o077 for path in written} == dict.fromkeys((p.name for p in written), 0)


def test_a_folder_that_cannot_be_written_is_refused_before_a_result_is_computed(tmp_path: Path):
    require_writable(tmp_path / "new" / "result.png")
    assert os.listdir(tmp_path) == []
    message = r"result\.png: the result cannot be written, because no file can be made in /proc \(.*Nothing was"
    with pytest.raises(OutputError, match=message):
        require_writable(Path("/proc/new/result.png"))


def test_a_result_that_does_not_fit_onto_the_disk_is_refused_before_it_is_computed(tmp_path: Path):
    require_disk_space(tmp_path / "new" / "result.png", 1000)
    with pytest.raises(OutputError, match=r"result\.png: the result needs up to about 9,[0,]+ bytes, .* has [\d,]+"):
        require_disk_space(tmp_path / "new" / "result.png", 9 * 10**18)
