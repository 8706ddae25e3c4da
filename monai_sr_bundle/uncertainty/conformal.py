"""Conformal risk control: a factor for the scale of errors that holds its promise on images like those it was made of.

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
"""Factors that are tried, rising; two neighbours differ by 1.7 %."""


def outside(error: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The share of an image's pixels whose error is larger than their error bar, for every factor.

    Args:
        error: absolute, of any shape.
        scale: of the same shape, above 0.

    Returns:
        ``[len(FACTORS)]`` float64, falling.
    """
    ratio = (error / scale).ravel()
    within = np.searchsorted(np.sort(ratio), FACTORS, side="right")
    return 1.0 - within / ratio.size


def least_patients(alpha: float) -> int:
    """Patients without which no factor can keep the promise: those whose correction alone is within alpha."""
    return math.ceil(1 / alpha) - 1


def controlling_factor(losses: np.ndarray, alpha: float) -> float:
    """The smallest factor that keeps the expected share of pixels outside at most `alpha`.

    Args:
        losses: ``[patients, len(FACTORS)]``, of `outside`, mean over the images of each.
        alpha: above 0 and below 1.

    Raises:
        ValueError: no factor does: too few patients, or a scale that says nothing of the errors.
    """
    count = len(losses)
    corrected = (losses.sum(axis=0) + 1) / (count + 1)
    good = np.flatnonzero(corrected <= alpha)
    if not good.size:
        raise ValueError(
            f"no factor up to {FACTORS[-1]:g} keeps the share of pixels outside their error bars within {alpha:g} on "
            f"{count} patients; the largest one leaves {corrected[-1]:.3g}, expected at least {least_patients(alpha)} "
            "patients and errors that follow their scale."
        )
    return float(FACTORS[good[0]])
