"""The errors a user can meet, one class per exit code of `monai-sr`.

A message names the file, what was found, what was expected and what to do next.
"""

import re
import sys
import traceback
from numbers import Integral
from pathlib import Path
from reprlib import Repr
from types import TracebackType

LONGEST_QUOTE = 200
"""Characters of a value from a file, or of a path, that a message repeats at most."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LISTS = Repr()
_LISTS.maxlist = _LISTS.maxtuple = _LISTS.maxdict = 20
_LISTS.maxlevel, _LISTS.maxstring, _LISTS.maxlong, _LISTS.maxother = 3, 80, 80, 80
_LONG_WORD = re.compile(rf"\S{{{LONGEST_QUOTE + 1},}}")


def quote(value: object) -> str:
    """Return a value from a file for a message: one line of `LONGEST_QUOTE` characters, its middle left out."""
    # A text of some bytes may describe a list of lists that is too long to be written out.
    text = _LISTS.repr(value) if isinstance(value, list | tuple | dict | set) else _as_text(value)
    return _shorten(" ".join(_CONTROL.sub(" ", text).split()))


def _as_text(value: object) -> str:
    try:
        return str(value)
    except ValueError:  # Python prints no whole number of more than 4300 digits
        return "a very large number"


def _shorten(text: str) -> str:
    end = LONGEST_QUOTE // 3
    return text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - end - 3]}...{text[-end:]}"


class SuperResolutionError(Exception):
    """Anything the user can act on; `exit_code` is what the command line returns.

    The message is one line, whatever a file's values hold; of a word of theirs it keeps `LONGEST_QUOTE` characters.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(_LONG_WORD.sub(lambda word: _shorten(word[0]), _CONTROL.sub(" ", message)))


class InputError(SuperResolutionError, ValueError):
    """The input cannot be read, or reading it on would be dishonest."""

    exit_code = 3


class UsageError(InputError):
    """An option has a value that no image and no bundle allows."""

    exit_code = 2


def require_count(name: str, value: object) -> int:
    """Return an option that is a whole number above 0, or raise UsageError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise UsageError(f"{name} is {quote(value)}, expected a whole number above 0. Correct it, or leave it out.")
    return int(value)


def require_bool(name: str, value: object) -> bool:
    """Return an option that is True or False, or raise UsageError: MONAI reads `false` as a text."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {quote(value)}, expected True or False. Write the word with a capital letter.")
    return value


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
