"""Conformal risk control: the factor of an error scale whose error bars hold on images like those of the calibration.

Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control", ICLR 2024, https://arxiv.org/abs/2208.02814.
The loss of a patient is the share of the pixels outside their error bars; it falls as the factor grows. Where patients
are exchangeable, the smallest factor whose corrected mean loss is at most alpha keeps the expected loss of the next one
at most alpha.

A site needs to share nothing but its curve of losses, a number per factor.
"""

from __future__ import annotations

import math

import numpy as np

FACTORS = np.geomspace(0.05, 50.0, 401)
"""Candidate factors, rising; two neighbours differ by 1.7 %."""


def measure_miscoverage(error: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the share of an image's pixels whose error is larger than their error bar, for every factor.

    Args:
        error: absolute errors, any shape.
        scale: error scale of the same shape, above 0.

    Returns:
        ``[len(FACTORS)]`` float64, falling.
    """
    ratio = (error / scale).ravel()
    within = np.searchsorted(np.sort(ratio), FACTORS, side="right")
    return 1.0 - within / ratio.size


def bound_of_loss(mean: float, count: int) -> float:
    """Return the bound of the next patient's expected loss where a factor keeps the mean of some patients at a level.

    Args:
        mean: the level, chosen before the losses were known.
        count: number of patients.
    """
    return (count * mean + 1) / (count + 1)


def controlling_factor(loss_sum: np.ndarray, count: int, alpha: float, *, corrected: bool = True) -> float:
    """Return the smallest factor that keeps the expected share of pixels outside at most `alpha`.

    Args:
        loss_sum: ``[len(FACTORS)]``, sum over the patients of `measure_miscoverage`, averaged over the images of each.
        count: number of patients.
        alpha: accepted share, above 0 and below 1.
        corrected: False to keep the mean loss of these patients at most `alpha`, without the correction for their
            number; the next patient's expected loss is then bounded by `bound_of_loss` alone.

    Raises:
        ValueError: no factor does; there are too few patients, or the scale says nothing of the errors.
    """
    bounds = (loss_sum + 1) / (count + 1) if corrected else loss_sum / count
    valid_indices = np.flatnonzero(bounds <= alpha)
    if not valid_indices.size:
        least = math.ceil(1 / alpha) - 1  # of fewer patients, the correction alone exceeds alpha
        raise ValueError(
            f"no factor up to {FACTORS[-1]:g} keeps the share of pixels outside their error bars within {alpha:g} on "
            f"{count} patients; the largest one leaves {bounds[-1]:.3g}, expected at least {least} "
            "patients and errors that follow their scale."
        )
    return float(FACTORS[valid_indices[0]])
