"""What travels between a viewer and its worker: requests that are checked as they are read, events of one line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

PROTOCOL = 1
"""Raised whenever an older viewer would misunderstand what is said."""
SHOWN = 60
"""Letters of a value that a message repeats."""


class RequestError(ValueError):
    """A request that cannot be understood; the message says what was expected."""


class Events:
    """Where events leave, each flushed.

    Args:
        stream: that nothing else writes to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def tell(self, event: str, **fields: Any) -> None:
        """Write one event.

        Raises:
            BrokenPipeError: whoever read has gone.
        """
        self._stream.write(json.dumps({"event": event, **fields}, allow_nan=False) + "\n")
        self._stream.flush()

    def fail(self, identity: int | str | None, kind: str, message: str) -> None:
        """Say in one line why there is no other answer to a request.

        Args:
            identity: of the request; None where it has none, or where there was no request.
            kind: "protocol", "input", "bundle", "output", "memory", "interrupted", "installation" or "internal".
            message: for the reader.
        """
        self.tell("failed", id=identity, kind=kind, message=" ".join(message.split()))


@dataclass(frozen=True)
class Request:
    """One object that came in.

    Attributes:
        fields: not yet checked; the methods check what they give.
    """

    fields: Mapping[str, Any]

    @classmethod
    def of(cls, line: bytes) -> Request:
        """Read a line.

        Raises:
            RequestError: no JSON object.
        """
        try:
            fields = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise RequestError('the line is no JSON. Send one object a line, as {"do": "bundles"}.') from error
        if not isinstance(fields, dict):
            raise RequestError(f'the line is {_shown(fields)}, expected an object, as {{"do": "bundles"}}.')
        return cls(fields)

    @property
    def identity(self) -> int | str | None:
        """Its id, for the answer; None where it has none that is a whole number or a text."""
        found = self.fields.get("id")
        return found if _is_whole(found) or isinstance(found, str) else None

    def text(self, key: str, known: Sequence[str] = ()) -> str:
        """A text, one of `known` if that is not empty.

        Raises:
            RequestError: missing or other.
        """
        found = self._required(key)
        if not isinstance(found, str) or not found or (known and found not in known):
            raise RequestError(f"{key} is {_shown(found)}, expected {' or '.join(known) or 'a text'}.")
        return found

    def text_or_none(self, key: str) -> str | None:
        """As `text`; None where it is missing or null."""
        return None if self.fields.get(key) is None else self.text(key)

    def flag(self, key: str) -> bool:
        """True or false; false where it is missing.

        Raises:
            RequestError: anything else.
        """
        found = self.fields.get(key, False)
        if not isinstance(found, bool):
            raise RequestError(f"{key} is {_shown(found)}, expected true or false.")
        return found

    def whole_or_none(self, key: str) -> int | None:
        """A whole number; None where it is missing or null.

        Raises:
            RequestError: anything else.
        """
        found = self.fields.get(key)
        if found is None or _is_whole(found):
            return found
        raise RequestError(f"{key} is {_shown(found)}, expected a whole number.")

    def number_or_none(self, key: str) -> float | None:
        """A finite number; None where it is missing or null.

        Raises:
            RequestError: anything else.
        """
        found = self.fields.get(key)
        if found is None or _is_number(found):
            return found
        raise RequestError(f"{key} is {_shown(found)}, expected a number.")

    def wholes(self, key: str, count: int) -> tuple[int, ...]:
        """A list of so many whole numbers.

        Raises:
            RequestError: missing or other.
        """
        found = self._required(key)
        if not isinstance(found, list) or len(found) != count or not all(map(_is_whole, found)):
            raise RequestError(f"{key} is {_shown(found)}, expected a list of {count} whole numbers.")
        return tuple(found)

    def wholes_or_none(self, key: str, count: int) -> tuple[int, ...] | None:
        """As `wholes`; None where it is missing or null."""
        return None if self.fields.get(key) is None else self.wholes(key, count)

    def numbers_or_none(self, key: str, count: int) -> tuple[float, ...] | None:
        """A list of so many finite numbers; None where it is missing or null.

        Raises:
            RequestError: anything else.
        """
        found = self.fields.get(key)
        if found is None:
            return None
        if not isinstance(found, list) or len(found) != count or not all(map(_is_number, found)):
            raise RequestError(f"{key} is {_shown(found)}, expected a list of {count} numbers.")
        return tuple(found)

    def _required(self, key: str) -> Any:
        if key not in self.fields:
            raise RequestError(f"{key} is missing.")
        return self.fields[key]


def _is_whole(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool)


def _is_number(found: Any) -> bool:
    # Of a whole number without end, math.isfinite makes an OverflowError.
    return (isinstance(found, float) and math.isfinite(found)) or (_is_whole(found) and abs(found) < 2**63)


def _shown(found: Any) -> str:
    text = json.dumps(found)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
