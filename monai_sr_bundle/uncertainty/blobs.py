"""Blobs that a result shows, against those of the original: the free-response operating characteristic (FROC).

A blob is a local extremum of the scale-normalised Laplacian of a Gaussian (Lindeberg, "Feature detection with automatic
scale selection", IJCV 30(2), 1998), bright or dark. A result is searched at every threshold: each gives a share of the
original's blobs that are found, and a number of false ones. So no threshold decides which method is better (Chakraborty
and Winter, "Free-response methodology", Radiology 174(3), 1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SIGMAS = (1.0, 1.5, 2.0)
"""Standard deviations of the blobs in high-resolution pixels; a blob looks about three times as wide."""
TRUE_CONTRAST, NO_CONTRAST = 6.0 / 255.0, 3.0 / 255.0
"""Contrast from which the original has a blob, and below which it has none, in units of the window."""
THRESHOLDS = np.arange(4, 121) / (4 * 255.0)
"""Contrasts at which a result is searched: quarters of a grey level from 1 to 30."""
FALSE_PER_IMAGE = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False blobs per image at which sensitivities are averaged, as in the LUNA16 challenge (Setio et al., MedIA 2017)."""


class BlobCounts(NamedTuple):
    """Blobs of one image at one size and sign.

    Attributes:
        true: blobs of the original.
        detected: blobs of the original that the result shows at each of `THRESHOLDS`, or more clearly.
        false: blobs of the result at each threshold where the original has none.
    """

    true: int
    detected: np.ndarray
    false: np.ndarray


def measure_contrast(image: np.ndarray, sigma: float) -> np.ndarray:
    """Return the contrast of a bright blob at every pixel; that of a dark one is negative.

    Args:
        image: ``[rows, columns]``.
        sigma: standard deviation of the blob in pixels.

    Returns:
        The normalised Laplacian of a Gaussian, in units in which a Gaussian blob of this size has its own amplitude.
    """
    from scipy import ndimage  # of the extra [benchmark]

    response: np.ndarray = -2 * sigma**2 * ndimage.gaussian_laplace(image.astype(np.float64), sigma)
    return response


def find_blobs(contrast: np.ndarray, sigma: float, threshold: float) -> np.ndarray:
    """Find the bright blobs: local maxima of at least a contrast that the border of the image does not cut.

    Args:
        contrast: from `measure_contrast`; its negative for dark blobs.
        sigma: standard deviation of the blobs in pixels.
        threshold: least contrast.

    Returns:
        Booleans of the same shape.
    """
    is_blob = (contrast == _maximum_within_blob(contrast, sigma)) & (contrast >= threshold)
    border = int(np.ceil(1.5 * sigma))
    is_inside = np.zeros_like(is_blob)
    is_inside[border:-border, border:-border] = True
    return np.asarray(is_blob & is_inside)


def count_blobs(super_res: np.ndarray, high_res: np.ndarray, sigma: float, *, dark: bool = False) -> BlobCounts:
    """Count the blobs of a result that are the original's, and those that are not, at every threshold.

    Args:
        super_res, high_res: result and original, ``[rows, columns]`` in units of the window.
        sigma: standard deviation of the blobs in pixels.
        dark: dark blobs instead of bright ones.
    """
    sign = -1 if dark else 1
    contrast, true_contrast = (sign * measure_contrast(image, sigma) for image in (super_res, high_res))
    is_true = find_blobs(true_contrast, sigma, TRUE_CONTRAST)
    is_false = find_blobs(contrast, sigma, THRESHOLDS[0]) & (_maximum_within_blob(true_contrast, sigma) < NO_CONTRAST)
    return BlobCounts(
        int(is_true.sum()),
        _count_above(_maximum_within_blob(contrast, sigma)[is_true]),
        _count_above(contrast[is_false]),
    )


def froc(counts: Sequence[BlobCounts]) -> tuple[np.ndarray, np.ndarray]:
    """Return the false blobs per image and the sensitivity, over all images together, at each of `THRESHOLDS`."""
    true = sum(each.true for each in counts)
    detected, false = (np.sum([getattr(each, name) for each in counts], axis=0) for name in ("detected", "false"))
    return false / len(counts), detected / true if true else np.full(len(THRESHOLDS), np.nan)


def mean_sensitivity(counts: Sequence[BlobCounts]) -> float:
    """Return the mean sensitivity at `FALSE_PER_IMAGE`; between two thresholds the curve is a line."""
    false, sensitivity = froc(counts)
    # The curve begins at no blob at all; below the lowest threshold no more is found.
    false, sensitivity = np.append(0.0, false[::-1]), np.append(0.0, sensitivity[::-1])
    return float(np.interp(FALSE_PER_IMAGE, false, sensitivity).mean())


def _count_above(contrasts: np.ndarray) -> np.ndarray:
    return len(contrasts) - np.searchsorted(np.sort(contrasts), THRESHOLDS)


def _maximum_within_blob(contrast: np.ndarray, sigma: float) -> np.ndarray:
    """Return the highest contrast within a blob around every pixel."""
    from scipy import ndimage

    highest: np.ndarray = ndimage.maximum_filter(contrast, 2 * int(np.ceil(sigma)) + 1)
    return highest
