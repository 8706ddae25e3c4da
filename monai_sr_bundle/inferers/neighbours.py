"""A slice with its neighbours, as a network of several slices sees a volume.

Only numpy; training pairs, the engine and MONAI's workflows all go through here.
"""

from __future__ import annotations

import numpy as np


def neighbours(index: int, count: int, slices: int) -> list[int]:
    """Return the indices of a slice and of as many others on either side, in order.

    Beyond an end of the volume it is the end slice again.

    Args:
        index: number of the slice, from 0.
        count: number of slices of the volume.
        slices: number of slices to return, odd.
    """
    return [min(max(each, 0), count - 1) for each in range(index - slices // 2, index + slices // 2 + 1)]


def stacked(image: np.ndarray, slices: int) -> np.ndarray:
    """Return a slice as a network of several slices takes it.

    Args:
        image: ``[rows, columns]``, which is taken for its own neighbours, or ``[n, rows, columns]`` around the slice.
        slices: number of slices to return, odd.

    Returns:
        ``[slices, rows, columns]`` around the same slice.
    """
    stack = image.reshape(-1, *image.shape[-2:])
    return stack if len(stack) == slices else stack[neighbours(len(stack) // 2, len(stack), slices)]


def middle(stack: np.ndarray) -> np.ndarray:
    """Return the slice between its neighbours: ``[n, rows, columns]`` to ``[rows, columns]``."""
    return np.asarray(stack[len(stack) // 2])
