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
        difference: method minus reference.
        p_value: p-value of the two-sided paired t-test; not-a-number for one image or equal differences.
        better: images in which the method is better.
    """

    difference: Mean
    p_value: float
    better: int

    @property
    def count(self) -> int:
        return self.difference.count

    @classmethod
    def of(cls, values: Sequence[float], reference: Sequence[float], *, lower_is_better: bool = False) -> Paired:
        """Compare one figure per image of two methods; needs SciPy.

        Raises:
            ValueError: no image has the figure from both.
        """
        from scipy.stats import ttest_rel

        ours, theirs = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
        both = np.isfinite(ours) & np.isfinite(theirs)
        difference = ours[both] - theirs[both]
        # The variance of equal differences is rounding, and so would be the test.
        varies = len(difference) > 1 and float(np.ptp(difference)) > 1e-12
        p_value = float(ttest_rel(ours[both], theirs[both]).pvalue) if varies else math.nan
        better = int((difference < 0).sum() if lower_is_better else (difference > 0).sum())
        return cls(Mean.of(difference.tolist()), p_value, better)
