"""Thin slices whose means are the thick ones that they were made of. Only numpy; every interface goes through here."""

from __future__ import annotations

import numpy as np


def residual_of_means(thin: np.ndarray, thick: np.ndarray) -> np.ndarray:
    """Return the thick slices minus the means of the thin ones.

    Args:
        thin: ``[scale * slices, ...]`` float32.
        thick: ``[slices, ...]`` float32.

    Returns:
        ``[slices, ...]`` float32.
    """
    scale = len(thin) // len(thick)
    total = thin[0::scale].copy()
    for part in range(1, scale):
        total += thin[part::scale]
    return np.asarray(thick - total / np.float32(scale))


def consistent_slices(thin: np.ndarray, thick: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """Change thin slices as little as is needed for their means to be the thick ones, in place.

    For a box as slice profile this is the projection: every thin slice gets the difference of its thick slice and the
    mean (Wang et al., "DDNM", ICLR 2023, with the mean as the operator and repetition as its inverse).

    Args:
        thin, thick: see `residual_of_means`; `thin` is changed.
        limits: the smallest and largest number that the storage can hold; any if None. What a slice at its limit
            cannot take goes to the others of its group.

    Returns:
        `thin`.
    """
    scale = len(thin) // len(thick)
    if limits is None:
        residual = residual_of_means(thin, thick)
        for part in range(scale):
            thin[part::scale] += residual
        return thin
    low, high = np.float32(limits[0]), np.float32(limits[1])
    np.clip(thin, low, high, out=thin)
    # With every round that leaves something over, one slice more of the group has come to its limit.
    for _ in range(scale):
        residual = residual_of_means(thin, thick)
        free = [np.where(residual > 0, thin[part::scale] < high, thin[part::scale] > low) for part in range(scale)]
        share = residual * np.float32(scale) / np.maximum(sum(free), 1).astype(np.float32)
        for part in range(scale):
            thin[part::scale] += np.where(free[part], share, np.float32(0))
        np.clip(thin, low, high, out=thin)
    return thin
