"""Refuse an image that does not fit into the memory, before it is asked for."""

from __future__ import annotations

import sys

import psutil
from monai_sr_bundle.errors import OutOfMemoryError


def free_memory() -> int:
    """Return the bytes that this process can still take: of the machine, and below its own limit (`ulimit -v`)."""
    free = int(psutil.virtual_memory().available)
    if sys.platform == "win32":
        return free
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return free
    return max(0, min(free, limit - int(psutil.Process().memory_info().vms)))


def require_memory(name: str, needed: int, what: str) -> None:
    """Refuse what does not fit into the free memory.

    Args:
        name: name of the file.
        needed: bytes.
        what: subject of the message, such as "its 512 x 512 x 300 pixels".

    Raises:
        OutOfMemoryError: they are more than are free.
    """
    free = free_memory()
    if needed > free:
        raise OutOfMemoryError(
            f"{name}: {what} need {needed:,} bytes of memory, and {free:,} are free. Close other programs, or use "
            "another machine; a file that is much smaller than this is damaged."
        )
