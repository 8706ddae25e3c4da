"""Hidden folders for half-written results and unpacked images, which say who made them.

A process that is killed cannot remove its folder, which may hold a patient's images. Its name therefore says which
process on which machine made it, and the next process that works in the same place removes it when its maker is gone.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

import psutil

logger = logging.getLogger(__name__)

PREFIX = ".monai-sr-"
OLDER = ".monai-sr.older"
"""Folder inside a working folder for a folder that is being replaced, which goes back where a kill left nothing."""
FOREIGN_SECONDS = 7 * 24 * 3600.0
"""Age at which a folder is removed whose maker cannot be looked for, as it ran on another machine or in a container."""
_NAME = re.compile(
    rf"{re.escape(PREFIX)}(?P<machine>[0-9a-f]{{8}})-(?P<boot>[0-9a-f]{{8}})-(?P<processes>[0-9a-f]{{8}})-(?P<pid>\d+)-"
    r"(?P<start>\d+)-\w+"
)


@contextmanager
def working_folder(parent: Path) -> Iterator[Path]:
    """Make a hidden folder that only this user may open, and remove it at the end of the `with` block.

    Folders that killed processes left in `parent` are removed first, once for each parent.
    """
    remove_abandoned(parent)
    pid = os.getpid()
    folder = parent / f"{PREFIX}{'-'.join(_this_machine())}-{pid}-{_start_of(pid)}-{uuid4().hex}"
    os.mkdir(folder, 0o700)  # not by `tempfile`, which tries for ever on Windows where it may not write
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            logger.warning("%s is left over and can be deleted: %s", folder, error)


@lru_cache(maxsize=1024)
def remove_abandoned(parent: Path) -> None:
    """Remove the folders of this kind in `parent` whose processes have ended; only this user's, and no links."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if not match or not entry.is_dir(follow_symlinks=False):
                continue
            status = entry.stat(follow_symlinks=False)
            mine = sys.platform == "win32" or status.st_uid == os.getuid()
            if mine and _is_gone(match, time.time() - status.st_mtime):
                _put_back(Path(entry.path, OLDER), parent)
                shutil.rmtree(entry.path, ignore_errors=True)
                logger.warning("%s was left by a process that was killed, and is removed.", entry.path)


def _put_back(older: Path, parent: Path) -> None:
    for folder in older.iterdir() if older.is_dir() and not older.is_symlink() else ():
        if not os.path.lexists(parent / folder.name):
            os.replace(folder, parent / folder.name)
            logger.warning("%s was being replaced by a process that was killed, and is put back.", parent / folder.name)


def _is_gone(match: re.Match[str], age_seconds: float) -> bool:
    machine, boot, processes = _this_machine()
    if match["machine"] == machine and match["boot"] != boot:
        return True
    if (match["machine"], match["processes"]) != (machine, processes):
        return age_seconds > FOREIGN_SECONDS
    return _start_of(int(match["pid"])) != int(match["start"])


@lru_cache(maxsize=1)
def _this_machine() -> tuple[str, str, str]:
    """Return digests of the machine, of its last start, and of the processes that can be seen from here."""
    texts = [socket.gethostname(), "", ""]
    for index, file in ((0, "/etc/machine-id"), (1, "/proc/sys/kernel/random/boot_id")):
        with suppress(OSError):
            texts[index] += Path(file).read_text(encoding="ascii", errors="replace")
    with suppress(OSError):
        texts[2] = os.readlink("/proc/self/ns/pid")
    machine, boot, processes = (hashlib.sha256(text.encode()).hexdigest()[:8] for text in texts)
    return machine, boot, processes


def _start_of(pid: int) -> int:
    """Return when a process started, as its system counts; -1 if there is no such process."""
    with suppress(OSError, IndexError, ValueError):  # ticks since the machine's start, which no clock changes
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return int(stat.rpartition(")")[2].split()[19])
    try:
        return int(psutil.Process(pid).create_time() * 100)
    except psutil.Error:
        return -1
