"""Messages between a viewer and its worker: requests that are checked when they are read, and events of one line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TextIO

PROTOCOL = 1
"""Version of the protocol, raised whenever an older viewer would misunderstand an event."""
LONGEST_VALUE = 60
"""Letters of a value that a message repeats at most."""


class RequestError(ValueError):
    """A request that cannot be understood; the message says what was expected."""


class Events:
    """A stream of events, each flushed.

    Args:
        stream: stream that nothing else writes to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, event: str, **fields: Any) -> None:
        """Write one event.

        Raises:
            BrokenPipeError: the viewer has gone.
        """
        self._stream.write(json.dumps({"event": event, **fields}, allow_nan=False) + "\n")
        self._stream.flush()

    def fail(self, identity: int | str | None, kind: str, message: str) -> None:
        """Write one line on why a request has failed.

        Args:
            identity: id of the request; None if it has none, or if there was no request.
            kind: "protocol", "input", "bundle", "output", "memory", "interrupted", "installation" or "internal".
            message: sentences for the user.
        """
        self.write("failed", id=identity, kind=kind, message=" ".join(message.split()))


@dataclass(frozen=True)
class Request:
    """One request of a viewer.

    Its methods return the value of a key; those whose name ends in `_or_none` or `_or_auto` return None if it is
    missing or null. They raise RequestError for any other value, and the others for a missing one.

    Attributes:
        fields: unchecked keys and values.
    """

    fields: Mapping[str, Any]

    @classmethod
    def parse(cls, line: bytes) -> Request:
        """Read a request from a line.

        Raises:
            RequestError: the line is no JSON object.
        """
        try:
            fields = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise RequestError('the line is no JSON. Send one object a line, as {"do": "bundles"}.') from error
        if not isinstance(fields, dict):
            raise RequestError(f'the line is {_abbreviate(fields)}, expected an object, as {{"do": "bundles"}}.')
        return cls(fields)

    @property
    def identity(self) -> int | str | None:
        """The id, which the answer repeats; None if it is neither a whole number nor a text."""
        value = self.fields.get("id")
        return value if _is_whole(value) or isinstance(value, str) else None

    def text(self, key: str, choices: Sequence[str] = ()) -> str:
        """Return a text, one of `choices` if there are any."""
        value = self._required(key)
        if not isinstance(value, str) or not value or (choices and value not in choices):
            raise RequestError(f"{key} is {_abbreviate(value)}, expected {' or '.join(choices) or 'a text'}.")
        return value

    def text_or_none(self, key: str) -> str | None:
        """Return a text."""
        return None if self.fields.get(key) is None else self.text(key)

    def flag(self, key: str) -> bool:
        """Return true or false; false if it is missing."""
        value = self.fields.get(key, False)
        if not isinstance(value, bool):
            raise RequestError(f"{key} is {_abbreviate(value)}, expected true or false.")
        return value

    def whole_or_none(self, key: str) -> int | None:
        """Return a whole number."""
        return self._value_or_none(key, _is_whole, "a whole number")

    def whole_or_auto(self, key: str) -> int | Literal["auto"] | None:
        """Return a whole number or "auto"."""
        value: int | Literal["auto"] | None = self._value_or_none(
            key, lambda value: value == "auto" or _is_whole(value), 'a whole number or "auto"'
        )
        return value

    def number_or_none(self, key: str) -> float | None:
        """Return a finite number."""
        return self._value_or_none(key, _is_number, "a number")

    def wholes(self, key: str, count: int) -> tuple[int, ...]:
        """Return a list of `count` whole numbers."""
        return self._list(key, count, _is_whole, "whole numbers")

    def wholes_or_none(self, key: str, count: int) -> tuple[int, ...] | None:
        """Return a list of `count` whole numbers."""
        return None if self.fields.get(key) is None else self.wholes(key, count)

    def numbers_or_none(self, key: str, count: int) -> tuple[float, ...] | None:
        """Return a list of `count` finite numbers."""
        return None if self.fields.get(key) is None else self._list(key, count, _is_number, "numbers")

    def _value_or_none(self, key: str, fits: Callable[[Any], bool], expected: str) -> Any:
        value = self.fields.get(key)
        if value is not None and not fits(value):
            raise RequestError(f"{key} is {_abbreviate(value)}, expected {expected}.")
        return value

    def _list(self, key: str, count: int, fits: Callable[[Any], bool], expected: str) -> tuple[Any, ...]:
        value = self._required(key)
        if not isinstance(value, list) or len(value) != count or not all(map(fits, value)):
            raise RequestError(f"{key} is {_abbreviate(value)}, expected a list of {count} {expected}.")
        return tuple(value)

    def _required(self, key: str) -> Any:
        if key not in self.fields:
            raise RequestError(f"{key} is missing.")
        return self.fields[key]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # math.isfinite raises OverflowError for a huge whole number.
    return (isinstance(value, float) and math.isfinite(value)) or (_is_whole(value) and abs(value) < 2**63)


def _abbreviate(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
