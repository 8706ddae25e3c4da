"""The end of a command: its exit code, and the sentence that says why."""

from __future__ import annotations

import signal
from typing import NoReturn

from monai_sr_bundle.errors import OutOfMemoryError, SuperResolutionError

MEANINGS = {
    0: "all done",
    1: "a mistake of this program",
    2: "wrong usage",
    3: "an input cannot be used",
    4: "a bundle cannot be used",
    5: "a result cannot be written",
    6: "not enough memory",
    130: "interrupted (143 by SIGTERM)",
}
EXIT_CODES = (
    f"Exit codes: {'; '.join(f'{code} {meaning}' for code, meaning in MEANINGS.items())}. "
    "With several images, the code of the first that failed."
)


class Terminated(KeyboardInterrupt):
    """SIGTERM as an exception, so that temporary files are removed before the process ends."""


def raise_terminated(number: int, frame: object) -> NoReturn:
    """Raise `Terminated`; a signal handler. A second signal is ignored, so that nothing interrupts the removal."""
    signal.signal(number, signal.SIG_IGN)
    raise Terminated


def explain_end(error: BaseException) -> tuple[str, int]:
    """Return the message and the exit code for the error or signal that ended a command."""
    if isinstance(error, SuperResolutionError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError):
        return (
            "not enough memory. Choose a smaller region with --roi, or use another machine.",
            OutOfMemoryError.exit_code,
        )
    if isinstance(error, Terminated):
        return "stopped by SIGTERM; no partial files remain.", 128 + signal.SIGTERM
    return "interrupted; no partial files remain.", 128 + signal.SIGINT
