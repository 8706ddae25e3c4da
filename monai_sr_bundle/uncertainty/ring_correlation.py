"""Fourier ring correlation of an image with the truth, patch by patch.

A scan for hallucinations as in "sFRC for assessing hallucinations in medical image restoration" (arXiv 2603.04673); the
ring correlation is that of Saxton and Baumeister, J. Microscopy 1982.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

PATCH = 48
STRIDE = 24
HALF = 0.5
"""Correlation below which a frequency does not agree."""
LEAST_STD = 0.02
"""Least standard deviation of a patch of the truth, in units of the window; flatter ones hold nothing to agree on."""


def cut_offs(super_res: np.ndarray, high_res: np.ndarray) -> np.ndarray:
    """Return the frequency up to which each patch of a result agrees with the truth.

    Args:
        super_res, high_res: ``[rows, columns]``, result and truth, in units of the window.

    Returns:
        Cycles per pixel, 0 to 0.5, one number for every patch that is not flat.

    Raises:
        ValueError: the two shapes differ.
    """
    if super_res.shape != high_res.shape:
        raise ValueError(f"the result has shape {super_res.shape} and the truth {high_res.shape}, expected the same.")
    frequencies = []
    for top in range(0, high_res.shape[0] - PATCH + 1, STRIDE):
        for left in range(0, high_res.shape[1] - PATCH + 1, STRIDE):
            patch = (slice(top, top + PATCH), slice(left, left + PATCH))
            if high_res[patch].std() > LEAST_STD:
                frequencies.append(_cut_off(super_res[patch], high_res[patch]))
    return np.array(frequencies)


def _cut_off(super_res: np.ndarray, high_res: np.ndarray) -> float:
    rings, count, window = _rings()
    result_spectrum, true_spectrum = (np.fft.fft2((patch - patch.mean()) * window) for patch in (super_res, high_res))

    def sum_rings(values: np.ndarray) -> np.ndarray:
        return np.bincount(rings.ravel(), values.ravel(), count)[1 : PATCH // 2 + 1]

    power = sum_rings(np.abs(result_spectrum) ** 2) * sum_rings(np.abs(true_spectrum) ** 2)
    correlation = sum_rings((result_spectrum * true_spectrum.conj()).real) / np.sqrt(np.maximum(power, 1e-30))
    smooth = np.convolve(np.pad(correlation, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    below = np.flatnonzero(smooth < HALF)
    return float((below[0] if below.size else len(smooth)) / PATCH)


@lru_cache(maxsize=1)
def _rings() -> tuple[np.ndarray, int, np.ndarray]:
    frequency = np.fft.fftfreq(PATCH, 1 / PATCH)
    rings = np.rint(np.hypot(frequency[:, None], frequency[None, :])).astype(int)
    hann = np.hanning(PATCH)
    return rings, int(rings.max()) + 1, np.outer(hann, hann)
