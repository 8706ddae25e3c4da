"""Padding of CT slices: the pixels around the circle that the scanner reconstructed."""

from __future__ import annotations

import numpy as np

AIR = -1000.0
"""HU of air, which takes the place of padding: at its own value it is an edge that no anatomy has."""
PADDING = -1024
"""Highest value of padding in HU; a CT stores it as the least number that its storage can hold, or less."""


def find_padding(hu: np.ndarray) -> np.ndarray:
    """Find the pixels that were not reconstructed: `PADDING` or less up to an edge of the slice, along both axes.

    Dark noise in the air around a patient is as low, but does not reach to the edges.

    Args:
        hu: ``[..., rows, columns]`` in HU.

    Returns:
        Booleans of the same shape.
    """
    low = np.asarray(hu) <= PADDING
    return _reaches_an_edge(low, -1) & _reaches_an_edge(low, -2)


def _reaches_an_edge(low: np.ndarray, axis: int) -> np.ndarray:
    from_start = np.logical_and.accumulate(low, axis)
    return np.asarray(from_start | np.flip(np.logical_and.accumulate(np.flip(low, axis), axis), axis))
