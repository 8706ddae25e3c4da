"""Files that appear complete or not at all, and that are never replaced by something else."""

from __future__ import annotations

import os
from pathlib import Path

from monai_sr_bundle.errors import OutputError


def write_once(path: Path, data: bytes) -> None:
    """Write `data` to `path` through a neighbouring temporary file; nothing happens where it is already there.

    Raises:
        OutputError: `path` exists with other content, or the folder cannot be written (no space, no permission).
    """
    part = path.with_name(f".{path.name}.part")
    try:
        if path.exists():
            if path.read_bytes() == data:
                return
            raise OutputError(
                f"{path}: exists with other content and is never overwritten. Move it away, or choose another folder."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}). Choose another folder.") from error
