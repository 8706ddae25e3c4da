"""Folders of killed processes are removed by the next one in the same place, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from monai_sr_bundle.errors import OutputError
from monai_sr_bundle.images import working_folders
from monai_sr_bundle.images.staging import require_free
from monai_sr_bundle.images.working_folders import FOREIGN_SECONDS, PREFIX, working_folder

HOLDING = """
import sys, time
from pathlib import Path
from monai_sr_bundle.images.working_folders import working_folder
with working_folder(Path(sys.argv[1])) as folder:
    (folder / "patient.dcm").write_bytes(b"pixels")
    print(folder, flush=True)
    time.sleep(600)
"""

REPLACING = """
import os, signal, sys
from pathlib import Path
from monai_sr_bundle.images.staging import staged

moves = 0

def kill(event, arguments):
    global moves
    moves += event == "os.rename"
    if event == "os.rename" and moves == 2:  # the older folder is aside, the newer one not yet in its place
        os.kill(os.getpid(), signal.SIGKILL)

with staged(Path(sys.argv[1]), overwrite=True) as folder:
    folder.mkdir()
    sys.addaudithook(kill)
"""


@pytest.fixture(autouse=True)
def _as_a_new_process() -> None:
    working_folders.remove_abandoned.cache_clear()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that holds a working folder in `tmp_path`, and that folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()


def renamed(folder: Path, part: int, value: str) -> Path:
    """The folder under a name in which one part, of machine, boot, processes, pid and start, is another."""
    parts = folder.name.removeprefix(PREFIX).split("-")
    parts[part] = value
    return folder.rename(folder.with_name(PREFIX + "-".join(parts)))


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one_in_the_same_place(tmp_path, holder, caplog):
    process, left = holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (left / "patient.dcm").exists()
    with working_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []
    assert "left by a process that was killed" in caplog.text


def test_a_folder_that_a_killed_process_was_replacing_is_put_back(tmp_path, caplog):
    result = tmp_path / "result"
    result.mkdir()
    (result / "older.dcm").write_bytes(b"pixels")
    killed = subprocess.run([sys.executable, "-c", REPLACING, str(result)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not result.exists()
    with working_folder(tmp_path):
        assert (result / "older.dcm").read_bytes() == b"pixels"
    assert list(tmp_path.iterdir()) == [result]
    assert "is put back" in caplog.text


def test_what_a_killed_process_was_replacing_is_back_before_anything_is_computed_for_its_place(tmp_path):
    result = tmp_path / "result"
    result.mkdir()
    subprocess.run([sys.executable, "-c", REPLACING, str(result)], check=False)
    assert not result.exists()
    with pytest.raises(OutputError, match="exists already"):
        require_free(result, overwrite=False)


def test_the_folder_of_a_process_that_still_runs_stays(tmp_path, holder):
    _, held = holder
    with working_folder(tmp_path):
        pass
    assert (held / "patient.dcm").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of processes in /proc are Linux's")
@pytest.mark.parametrize("name", ["über", "a) b (c"])
def test_a_process_may_have_any_name(name):
    code = f"open('/proc/self/comm', 'w').write({name!r}); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="latin-1")
        assert working_folders._start_of(process.pid) == int(stat.rpartition(")")[2].split()[19])
        process.communicate(b"\n")


def test_a_folder_is_for_its_user_alone_and_gone_after_an_error(tmp_path):
    def fail() -> None:
        with working_folder(tmp_path) as folder:
            assert folder.stat().st_mode & 0o077 == 0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", [0, 2])
def test_the_folder_of_another_machine_or_container_stays_for_a_week(tmp_path, holder, part):
    process, left = holder
    process.kill()
    process.wait()
    left = renamed(left, part, "0" * 8)
    working_folders.remove_abandoned(tmp_path)
    assert left.exists()
    old = time.time() - FOREIGN_SECONDS - 60
    os.utime(left, (old, old))
    working_folders.remove_abandoned.cache_clear()
    working_folders.remove_abandoned(tmp_path)
    assert not left.exists()


def test_a_folder_from_before_the_machine_was_started_again_is_removed(tmp_path, holder):
    _, left = holder
    left = renamed(left, 1, "0" * 8)
    working_folders.remove_abandoned(tmp_path)
    assert not left.exists()


def test_a_process_with_the_same_number_as_the_maker_is_not_taken_for_it(tmp_path, holder):
    _, left = holder
    left = renamed(left, 4, "1")
    working_folders.remove_abandoned(tmp_path)
    assert not left.exists()


def test_a_link_with_such_a_name_and_other_hidden_folders_stay(tmp_path, holder):
    process, left = holder
    process.kill()
    process.wait()
    target = tmp_path / "mine"
    left.rename(target)
    (tmp_path / left.name).symlink_to(target)
    (tmp_path / f"{PREFIX}abcdef").mkdir()
    working_folders.remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine", left.name, f"{PREFIX}abcdef"}
    assert (target / "patient.dcm").exists()
