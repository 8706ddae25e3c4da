"""The errors a user can meet, one class per exit code of `monai-sr`.

A message names the file, what was found, what was expected and what to do next.
"""

import sys
import traceback
from pathlib import Path
from types import TracebackType


class SuperResolutionError(Exception):
    """Anything the user can act on; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(SuperResolutionError, ValueError):
    """The input cannot be read, or reading it on would be dishonest."""

    exit_code = 3


class UsageError(InputError):
    """An option has a value that no image and no bundle allows."""

    exit_code = 2


class BundleError(SuperResolutionError):
    """The bundle is unknown, broken, or made for something else."""

    exit_code = 4


class OutputError(SuperResolutionError, OSError):
    """The result cannot be written; nothing half-written is left behind."""

    exit_code = 5


class InternalError(SuperResolutionError):
    """A mistake of this program, or of a library that it uses."""

    @classmethod
    def of(cls, name: str, error: BaseException) -> "InternalError":
        """Say where a mistake happened with a file.

        The text of the exception is left out: it may quote values of a header, a patient's name among them.

        Args:
            name: name of the file.
            error: the exception, with its traceback.
        """
        frames = traceback.extract_tb(error.__traceback__)
        own_frames = [frame for frame in frames if "monai_sr_bundle" in Path(frame.filename).parts]
        position = "".join(
            f" in {Path(frame.filename).name}, line {frame.lineno}" for frame in (own_frames or frames)[-1:]
        )
        missing = f" ({error.name})" if isinstance(error, ModuleNotFoundError) else ""
        return cls(
            f"{name}: a mistake of this program, {type(error).__name__}{missing}{position}. The input is unchanged. "
            "Please report this line, without the image."
        )


class OutOfMemoryError(SuperResolutionError, MemoryError):
    """Even the smallest tile does not fit into memory."""

    exit_code = 6


def shorten_tracebacks() -> None:
    """Let MONAI's command line end an error of this module with its sentence alone; MONAI wraps it in sixty lines."""
    previous = sys.excepthook
    if previous.__module__ == __name__:
        return

    def show(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, SuperResolutionError):
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        if cause is None:
            previous(kind, error, frames)
        else:
            sys.stderr.write(f"{cause}\n")

    if Path(sys.argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py"):
        sys.excepthook = show
