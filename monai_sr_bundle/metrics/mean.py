"""Means over images with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Mean:
    """A mean over images with its 95 % interval.

    Attributes:
        mean, standard_deviation: over images.
        low, high: percentile bootstrap interval of the mean over images or patients, 10,000 resamples, seed 0.
        count: images.
    """

    mean: float
    standard_deviation: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float], patients: Sequence[str] | None = None) -> Mean:
        """Average one figure per image; images without the figure (not-a-number) are left out.

        Args:
            values: one figure per image.
            patients: patient of each image. The interval is then over patients, each drawn with all of their images.
                Default: over images.

        Raises:
            ValueError: no image has the figure.
        """
        numbers = np.asarray(values, dtype=np.float64)
        is_measured = np.isfinite(numbers)
        if not is_measured.any():
            raise ValueError("no image has this figure, expected at least one.")
        groups = None if patients is None else tuple(np.asarray(patients)[is_measured].tolist())
        return _mean(tuple(numbers[is_measured].tolist()), groups)


@lru_cache(maxsize=4096)  # tables, page and plots ask for the same ones
def _mean(values: tuple[float, ...], groups: tuple[str, ...] | None) -> Mean:
    numbers = np.array(values)
    if groups is None:
        means = numbers[_picks(len(numbers))].mean(axis=1)
    else:
        _, index = np.unique(groups, return_inverse=True)
        sums, counts = np.bincount(index, numbers), np.bincount(index)
        picks = _picks(len(sums))
        means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    deviation = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    return Mean(float(numbers.mean()), deviation, float(low), float(high), len(numbers))


@lru_cache(maxsize=8)
def _picks(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
