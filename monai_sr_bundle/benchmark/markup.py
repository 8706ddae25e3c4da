"""Words on the way into an HTML page; everything from outside passes through `text`."""

from __future__ import annotations

import html
from typing import Any


def text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def shown_name(value: Any) -> str:
    # bdi keeps a right-to-left character in a name from turning round the words beside it.
    return f"<bdi>{text(value)}</bdi>"


def breakable(value: Any) -> str:
    """A long name of a bundle, which may go on in the next line after an underscore or a colon."""
    return text(value).replace("_", "_<wbr>").replace(":", ":<wbr>")


def counted(number_of: int, word: str) -> str:
    return f"{number_of} {word}{'s' * (number_of != 1)}"
