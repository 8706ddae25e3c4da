"""Differences between two methods on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from monai_sr_bundle.metrics.mean import Mean


@dataclass(frozen=True)
class Paired:
    """The difference of a method to a reference, over the images where both have the figure.

    Attributes:
        difference: method minus reference, with its interval over images or patients.
        p_value: p-value of the two-sided paired t-test over the same; not-a-number for one, or equal differences.
        better: images in which the method is better.
    """

    difference: Mean
    p_value: float
    better: int

    @property
    def count(self) -> int:
        return self.difference.count

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        reference: Sequence[float],
        patients: Sequence[str] | None = None,
        *,
        lower_is_better: bool = False,
    ) -> Paired:
        """Compare one figure per image of two methods; needs SciPy.

        Args:
            values, reference: the figure of the method and of the reference, one per image.
            patients: patient of each image, for an interval and a test over patients, whose images are not independent.
                Default: over images.
            lower_is_better: whether a low figure is good. Default False.

        Raises:
            ValueError: no image has the figure from both.
        """
        from scipy.stats import ttest_1samp

        difference = np.subtract(values, reference, dtype=np.float64)
        both = np.isfinite(difference)
        tested = difference[both]
        if patients is not None:
            _, index = np.unique(np.asarray(patients)[both], return_inverse=True)
            tested = np.bincount(index, tested) / np.bincount(index)
        # The variance of equal differences is rounding, and so would be the test.
        varies = len(tested) > 1 and float(np.ptp(tested)) > 1e-12
        p_value = float(ttest_1samp(tested, 0.0).pvalue) if varies else math.nan
        better = int((difference < 0).sum() if lower_is_better else (difference > 0).sum())
        return cls(Mean.of(difference.tolist(), patients), p_value, better)
