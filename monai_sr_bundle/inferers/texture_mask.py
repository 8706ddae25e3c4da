"""Pixels that show no patient, in which no texture is drawn: beyond the exposed field, and at letters."""

from __future__ import annotations

import numpy as np
from monai_sr_bundle.images.unit import largest_around, reaches_an_edge

BLACK, WHITE = 0.02, 0.98
"""Up to and from which value a run of pixels that begins at an edge of the image is its frame or air, in the window."""
STEP = 0.4
"""Least step to the brightest value within one pixel that is a letter's: anatomy is never as steep."""
BRIGHT = 0.03
"""Farthest from the brightest value of the image that a letter is, which compression may darken."""
AROUND = 2
"""Pixels around a letter that belong to it."""


def find_untextured(image: np.ndarray) -> np.ndarray:
    """Find the pixels in which nothing is drawn.

    Args:
        image: ``[rows, columns]`` in units of the window, the whole image.

    Returns:
        Booleans of the same shape.
    """
    beyond = np.zeros(image.shape, dtype=bool)
    for frame in (image <= BLACK, image >= WHITE):
        beyond |= reaches_an_edge(frame, 0) | reaches_an_edge(frame, 1)
    highest, lowest = largest_around(image, 1), -largest_around(-image, 1)
    letters = (highest - lowest > STEP) & (highest >= max(WHITE, float(image.max())) - BRIGHT)
    return beyond | largest_around(letters, AROUND)
