"""Write a file or a folder completely or not at all."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_sr_bundle.errors import OutputError

logger = logging.getLogger(__name__)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def staged(out: Path, *, overwrite: bool, needed_bytes: int | None = None) -> Iterator[Path]:
    """Give a temporary path beside `out`; move what was written there to `out` when the block succeeds.

    The temporary path has `out`'s name and lies in a hidden folder next to it, so that the move stays on one file
    system and is one step. After any exception, an interrupt included, nothing new is left and an older `out` is as
    it was. Missing parent folders are made, and removed again after a failure.

    Args:
        out: the file or folder to make; the block decides which by what it writes.
        overwrite: replace an older `out` of the same kind.
        needed_bytes: size of the result where it is known, for the message when the disk is full.

    Raises:
        OutputError: `out` exists; a folder cannot be made or written; a file would replace a folder or the other way
            round; the disk is full.
    """
    out = Path(os.path.abspath(out))
    require_free(out, overwrite=overwrite)
    with _as_output_error(out, needed_bytes), _parents(out.parent), _hidden_folder(out.parent) as hidden:
        temporary = hidden / out.name
        yield temporary
        require_free(out, overwrite=overwrite)
        _move(temporary, out, hidden)


def write_file(out: Path, data: bytes) -> Path:
    """Write a file completely or not at all, in the place of an older one.

    Raises:
        OutputError: as `staged`.
    """
    with staged(out, overwrite=True, needed_bytes=len(data)) as temporary:
        temporary.write_bytes(data)
    return out


def write_once(out: Path, data: bytes) -> None:
    """Write a file completely or not at all; nothing happens where it is there already with the same content.

    Raises:
        OutputError: it exists with other content; as `staged`.
    """
    with _as_output_error(out, len(data)):
        if out.exists():
            if out.read_bytes() == data:
                return
            raise OutputError(
                f"{out}: exists with other content and is never overwritten. Move it away, or choose another folder."
            )
    with staged(out, overwrite=False, needed_bytes=len(data)) as temporary:
        temporary.write_bytes(data)


def require_free(out: Path, *, overwrite: bool) -> None:
    """Raise OutputError if `out` exists and may not be replaced, or has a file where it needs a folder.

    For a check before hours of computing; `staged` does it again.
    """
    if os.path.lexists(out) and not overwrite:
        raise OutputError(f"{out} exists already. Choose another name, or pass --overwrite to replace it.")
    for parent in out.parents:
        if parent.is_dir():
            return
        if os.path.lexists(parent):
            raise OutputError(f"{out}: {parent} is not a folder. Choose another place for the result.")


def _move(temporary: Path, out: Path, hidden: Path) -> None:
    if temporary.is_dir() != out.is_dir() and os.path.lexists(out):
        old, new = ("folder", "file") if out.is_dir() else ("file", "folder")
        raise OutputError(f"{out} is a {old} and the result is a {new}. Choose another name, or remove it first.")
    if not out.is_dir():
        os.replace(temporary, out)
        return
    aside = Path(tempfile.mkdtemp(dir=hidden)) / out.name  # deleted with the hidden folder
    os.replace(out, aside)
    try:
        os.replace(temporary, out)
    except BaseException:
        os.replace(aside, out)
        raise


@contextmanager
def _as_output_error(out: Path, needed_bytes: int | None) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{out} could not be written: {_explained(_first(error), out, needed_bytes)}") from error


def _first(error: OSError) -> OSError:
    """The system's own error: pydicom raises another one on top of it, without its number and with a traceback."""
    first, cause = error, error.__cause__ or error.__context__
    while cause is not None:
        first = cause if isinstance(cause, OSError) else first
        cause = cause.__cause__ or cause.__context__
    return first


def _explained(error: OSError, out: Path, needed_bytes: int | None) -> str:
    if error.errno in _NO_ROOM:
        place = next(parent for parent in out.parents if parent.is_dir())
        free = shutil.disk_usage(place).free
        if error.errno == errno.EFBIG:
            reason = "the file is larger than this file system or your limit allows"
        else:
            reason = "the disk or your quota is full"
        needed = f"about {needed_bytes:,} bytes are" if needed_bytes else "its size is not known before; more is"
        return f"{reason} ({needed} needed, {free:,} bytes are free). Make room, or choose another place."
    reason = error.strerror or str(error)
    if error.errno in _NOT_ALLOWED:
        return f"{reason}. Choose a folder that you may write to."
    return f"{reason}. Check the place, or choose another one."


@contextmanager
def _parents(folder: Path) -> Iterator[None]:
    made: list[Path] = []
    try:
        for parent in [*reversed(folder.parents), folder]:
            if not parent.is_dir():
                try:
                    parent.mkdir()
                except FileExistsError:
                    if not parent.is_dir():
                        raise
                else:  # made by another process meanwhile, it is not ours to remove
                    made.append(parent)
        yield
    except BaseException:
        for parent in reversed(made):
            if not any(parent.iterdir()):
                parent.rmdir()
        raise


@contextmanager
def _hidden_folder(parent: Path) -> Iterator[Path]:
    hidden = Path(tempfile.mkdtemp(prefix=".monai-sr-", dir=parent))
    try:
        yield hidden
    finally:
        try:
            shutil.rmtree(hidden)
        except OSError as error:
            logger.warning("%s is left over and can be deleted: %s", hidden, error)
