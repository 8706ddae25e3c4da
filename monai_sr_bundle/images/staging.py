"""Write a file or a folder completely or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_sr_bundle.errors import OutputError
from monai_sr_bundle.images.working_folders import OLDER, remove_abandoned, working_folder

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the system's errors for a full disk, a used up quota and a file that is too large."""
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def staged(out: Path, *, overwrite: bool, needed_bytes: int | None = None) -> Iterator[Path]:
    """Yield a temporary path next to `out`; move the file or folder written there to `out` when the block succeeds.

    The temporary path has `out`'s name and lies in a hidden folder next to it, so that the move stays on one file
    system and is one step. After any exception, an interrupt included, no new file is left and an older `out` is
    unchanged. Missing parent folders are made, and removed again after a failure.

    Args:
        out: file or folder to make; the block decides which by what it writes.
        overwrite: replace an older `out` of the same kind.
        needed_bytes: size of the result if it is known, for the message about a full disk.

    Raises:
        OutputError: `out` exists; a folder cannot be made or written; a file would replace a folder or a folder a
            file; the disk is full.
    """
    out = Path(os.path.abspath(out))
    require_free(out, overwrite=overwrite)
    with as_output_error(out, needed_bytes), _make_parents(out.parent), working_folder(out.parent) as hidden:
        temporary = hidden / out.name
        yield temporary
        require_free(out, overwrite=overwrite)
        _move(temporary, out, hidden)


def write_file(out: Path, data: bytes) -> Path:
    """Write a file completely or not at all, replacing an older one.

    Raises:
        OutputError: the file cannot be written; see `staged`.
    """
    with staged(out, overwrite=True, needed_bytes=len(data)) as temporary:
        temporary.write_bytes(data)
    return out


def require_free(out: Path, *, overwrite: bool) -> None:
    """Raise OutputError if `out` exists and may not be replaced, or has a file where it needs a folder.

    Call it before hours of computing; `staged` checks it too. What a killed process was replacing is put back first.
    """
    remove_abandoned(out.parent)
    if os.path.lexists(out) and not overwrite:
        replacing = "pass --overwrite (in Python overwrite=True) to replace it"
        raise OutputError(f"{out} exists already. Choose another name, or {replacing}.")
    for parent in out.parents:
        if parent.is_dir():
            return
        if os.path.lexists(parent):
            raise OutputError(f"{out}: {parent} is not a folder. Choose another folder for the result.")


def _move(temporary: Path, out: Path, hidden: Path) -> None:
    if temporary.is_dir() != out.is_dir() and os.path.lexists(out):
        old, new = ("folder", "file") if out.is_dir() else ("file", "folder")
        raise OutputError(f"{out} is a {old} and the result is a {new}. Choose another name, or remove it first.")
    if not out.is_dir():
        os.replace(temporary, out)
        return
    aside = hidden / OLDER / out.name  # deleted with the hidden folder
    aside.parent.mkdir()
    os.replace(out, aside)
    try:
        os.replace(temporary, out)
    except BaseException:
        os.replace(aside, out)
        raise


@contextmanager
def as_output_error(out: Path, needed_bytes: int | None) -> Iterator[None]:
    """Explain why a file could not be written, and how many bytes it needed."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{out} could not be written: {_explain(_find_system_error(error), out, needed_bytes)}"
        ) from error


def _find_system_error(error: OSError) -> OSError:
    """Return the system's error below pydicom's, which has no error number and quotes a traceback."""
    system_error, cause = error, error.__cause__ or error.__context__
    while cause is not None:
        system_error = cause if isinstance(cause, OSError) else system_error
        cause = cause.__cause__ or cause.__context__
    return system_error


def _explain(error: OSError, out: Path, needed_bytes: int | None) -> str:
    if error.errno in NO_ROOM:
        free = shutil.disk_usage(next(parent for parent in out.parents if parent.is_dir())).free
        reason = "the disk or your quota is full"
        if error.errno == errno.EFBIG:
            reason = "the file is larger than this file system or your limit allows"
        needed = f"about {needed_bytes:,} bytes are" if needed_bytes else "the size is unknown in advance; more is"
        return f"{reason} ({needed} needed, {free:,} bytes are free). Make room, or choose another folder."
    reason = error.strerror or str(error)
    if error.errno in _NOT_ALLOWED:
        return f"{reason}. Choose a folder that you may write to."
    return f"{reason}. Check the folder, or choose another one."


@contextmanager
def _make_parents(folder: Path) -> Iterator[None]:
    new_folders: list[Path] = []
    try:
        for parent in [*reversed(folder.parents), folder]:
            if not parent.is_dir():
                try:
                    parent.mkdir()
                except FileExistsError:
                    if not parent.is_dir():
                        raise
                else:  # a folder that another process made meanwhile is not removed
                    new_folders.append(parent)
        yield
    except BaseException:
        for parent in reversed(new_folders):
            if not any(parent.iterdir()):
                parent.rmdir()
        raise
