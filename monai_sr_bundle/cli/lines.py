"""Lines for a terminal, which no name of a file breaks or steers."""

from __future__ import annotations

import logging


def one_line(text: object) -> str:
    """Return a text that stays on its line and cannot steer the terminal, whatever a file name holds."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in str(text))


def log_lines(level: int) -> None:
    """Write the log to stderr from a level on, a line for each message."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("monai-sr: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level)


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))
