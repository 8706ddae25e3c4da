"""Where an image stops agreeing with the truth: Fourier ring correlation, patch by patch.

A scan for hallucinations as in "sFRC for assessing hallucinations in medical image restoration" (arXiv 2603.04673); the
ring correlation is that of Saxton and Baumeister, J. Microscopy 1982.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

PATCH = 48
STRIDE = 24
HALF = 0.5
"""The correlation below which a frequency does not count as seen."""
LEAST_STD = 0.02
"""Of a patch of the truth, in units of the window; flatter ones hold nothing to agree on."""


def cut_offs(made: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The frequency up to which each patch of a result agrees with the truth.

    Args:
        made, high: ``[rows, columns]``, result and truth, in units of the window.

    Returns:
        Cycles per pixel, 0 to 0.5, one number for every patch that is not flat.

    Raises:
        ValueError: two shapes.
    """
    if made.shape != high.shape:
        raise ValueError(f"the result has shape {made.shape} and the truth {high.shape}, expected the same.")
    found = []
    for top in range(0, high.shape[0] - PATCH + 1, STRIDE):
        for left in range(0, high.shape[1] - PATCH + 1, STRIDE):
            place = (slice(top, top + PATCH), slice(left, left + PATCH))
            if high[place].std() > LEAST_STD:
                found.append(_cut_off(made[place], high[place]))
    return np.array(found)


def _cut_off(made: np.ndarray, high: np.ndarray) -> float:
    rings, count, window = _rings()
    one, other = (np.fft.fft2((patch - patch.mean()) * window) for patch in (made, high))

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(rings.ravel(), values.ravel(), count)[1 : PATCH // 2 + 1]

    power = summed(np.abs(one) ** 2) * summed(np.abs(other) ** 2)
    correlation = summed((one * other.conj()).real) / np.sqrt(np.maximum(power, 1e-30))
    smooth = np.convolve(np.pad(correlation, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    below = np.flatnonzero(smooth < HALF)
    return float((below[0] if below.size else len(smooth)) / PATCH)


@lru_cache(maxsize=1)
def _rings() -> tuple[np.ndarray, int, np.ndarray]:
    frequency = np.fft.fftfreq(PATCH, 1 / PATCH)
    rings = np.rint(np.hypot(frequency[:, None], frequency[None, :])).astype(int)
    hann = np.hanning(PATCH)
    return rings, int(rings.max()) + 1, np.outer(hann, hann)
