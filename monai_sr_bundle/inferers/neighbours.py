"""A slice with its neighbours: what a network of several slices sees of a volume.

Only numpy; training pairs, the engine and MONAI's workflows all go through here.
"""

from __future__ import annotations

import numpy as np


def neighbours(index: int, count: int, slices: int) -> list[int]:
    """Indices of a slice and as many others on either side, in order; beyond an end of the volume, the end slice again.

    Args:
        index: of the slice, from 0.
        count: slices of the volume.
        slices: that are wanted, an odd number.
    """
    return [min(max(near, 0), count - 1) for near in range(index - slices // 2, index + slices // 2 + 1)]


def stacked(image: np.ndarray, slices: int) -> np.ndarray:
    """A slice as a network of several slices takes it.

    Args:
        image: ``[rows, columns]``, which is taken for its own neighbours, or ``[n, rows, columns]`` around the slice.
        slices: that are wanted, an odd number.

    Returns:
        ``[slices, rows, columns]`` around the same slice.
    """
    stack = image.reshape(-1, *image.shape[-2:])
    return stack if len(stack) == slices else stack[neighbours(len(stack) // 2, len(stack), slices)]


def middle(stack: np.ndarray) -> np.ndarray:
    """The slice that stands between its neighbours: ``[n, rows, columns]`` to ``[rows, columns]``."""
    return np.asarray(stack[len(stack) // 2])
