"""The privacy section of a study."""

from __future__ import annotations

from dataclasses import dataclass

from monai_sr_bundle.errors import InputError


@dataclass(frozen=True)
class Privacy:
    """What protects the differences that leave a site. Nothing, by default."""


def parse_privacy(content: object) -> Privacy:
    """Return the privacy section of a study's text.

    Args:
        content: its keys; None if the text has no such section.

    Raises:
        InputError: a key is unknown or out of bounds.
    """
    if content:
        raise InputError(f"privacy is {content!r}, expected no keys.")
    return Privacy()
