"""Squares of pixels as channels and back, in numpy and in the order of PyTorch's `pixel_unshuffle`."""

from __future__ import annotations

import numpy as np


def unshuffle(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Turn squares of pixels into channels.

    Args:
        pixels: ``[B, 1, factor * rows, factor * columns]``.
        factor: pixels along each side of a square.

    Returns:
        ``[B, factor**2, rows, columns]``.
    """
    batch, _, rows, columns = pixels.shape
    parted = pixels.reshape(batch, rows // factor, factor, columns // factor, factor)
    return np.ascontiguousarray(parted.transpose(0, 2, 4, 1, 3)).reshape(
        batch, factor * factor, rows // factor, columns // factor
    )


def shuffle(cells: np.ndarray, factor: int) -> np.ndarray:
    """Turn channels back into squares of pixels; the inverse of `unshuffle`."""
    batch, _, rows, columns = cells.shape
    parted = cells.reshape(batch, factor, factor, rows, columns).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(parted).reshape(batch, 1, factor * rows, factor * columns)
