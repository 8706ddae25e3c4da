"""Nodules that are drawn into an original before its resolution is reduced, and the contrast that a result recovers."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

AMPLITUDE = 12.0 / 255.0
"""Amplitude of a nodule, in units of the window."""
FIELDS = ((0.3, 0.7, 0.2, 0.4), (0.3, 0.7, 0.6, 0.8))
"""Top, bottom, left and right of the two lung fields of a frontal radiograph, as shares of rows and columns."""


def choose_positions(name: str, shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Choose the row and column of four nodules in each lung field, always the same for a name.

    Each lies in a quarter of the field, away from the others.

    Args:
        name: name of the image.
        shape: rows and columns of the original.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    positions = []
    for top, bottom, left, right in FIELDS:
        for row, column in np.ndindex(2, 2):
            share = (row + rng.uniform(0.25, 0.75)) / 2, (column + rng.uniform(0.25, 0.75)) / 2
            positions.append(
                (int(shape[0] * (top + share[0] * (bottom - top))), int(shape[1] * (left + share[1] * (right - left))))
            )
    return positions


def draw_nodules(positions: Sequence[tuple[int, int]], sigma: float, shape: tuple[int, int]) -> np.ndarray:
    """Draw Gaussian blobs of amplitude 1 and a standard deviation in pixels: ``[nodules, rows, columns]`` float32."""
    down, across = (
        np.exp(-0.5 * ((np.arange(side) - np.array(centres)[:, None]) / sigma) ** 2)
        for side, centres in zip(shape, zip(*positions, strict=True), strict=True)
    )
    return np.asarray(down[:, :, None] * across[:, None, :], dtype=np.float32)


def recovered_contrast(with_nodule: np.ndarray, without: np.ndarray, nodule: np.ndarray) -> float:
    """Return the recovered part of a nodule's contrast, 1 for all of it and 0 for nothing.

    Args:
        with_nodule, without: results of the original with and without the nodule.
        nodule: image that was added to the original.
    """
    return float(((with_nodule - without) * nodule).sum() / np.square(nodule).sum())
