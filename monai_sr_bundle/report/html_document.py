"""The frame of every HTML page: one style sheet inside, no script, no network, and an escape for text from outside.

The page's own policy forbids it scripts and connections, should a string ever slip through unescaped.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any


def escape(value: Any) -> str:
    """Return text that is safe inside an element or a quoted attribute."""
    return html.escape(str(value), quote=True)


def escape_name(value: Any) -> str:
    """Return a name as HTML; `bdi` keeps a right-to-left character in it from reversing the words that follow."""
    return f"<bdi>{escape(value)}</bdi>"


def embed_png(png: bytes, alt: str) -> str:
    """Return an image element that holds a PNG."""
    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}" alt="{escape(alt)}">'


def count_words(count: int, word: str) -> str:
    """Return a count with its noun: "1 image", "2 images"."""
    return f"{count} {word}{'s' * (count != 1)}"


def html_document(kind: str, title: str, header: str, main: str, *, footer: str = "", style: str = "") -> str:
    """Return a whole page.

    Args:
        kind: class of the page in `page.css`, "report" or "comparison".
        title: text of the browser's title bar.
        header, main, footer: HTML of the parts of the page; `header` holds the heading and stands after the badge.
        style: CSS of this page alone.
    """
    css = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{css}{style}</style>
</head>
<body class="{kind}">
<header>
<p class="badge">Not for diagnosis</p>
{header}
</header>
<main>
{main}
</main>
{footer}</body>
</html>
"""
