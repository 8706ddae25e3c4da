"""The state of a file when it was read, to notice a change: its place on the disk, its size and time of last change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_sr_bundle.errors import InputError


@dataclass(frozen=True)
class FileState:
    """A file as it was when it was read; an overwritten or replaced one has another state."""

    path: Path
    device: int
    inode: int
    size: int
    changed_ns: int


def file_states(paths: Iterable[Path]) -> tuple[FileState, ...]:
    """Return the present states of files.

    Raises:
        InputError: a file cannot be found.
    """
    return tuple(map(_state, paths))


def require_unchanged(states: Sequence[FileState]) -> None:
    """Refuse files that are no longer those that were read.

    Raises:
        InputError: a file was overwritten, replaced or removed.
    """
    for state in states:
        if _state(state.path) != state:
            raise InputError(
                f"{state.path.name}: was changed while it was in use, so the pixels and the file would not belong "
                "together. Leave the files in place until all is written, and start again."
            )


def _state(path: Path) -> FileState:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(
            f"{path.name}: cannot be found any more ({error.strerror}). Leave the files in place until all is written."
        ) from error
    return FileState(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
