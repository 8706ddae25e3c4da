"""Recovered and false nodules: the effect of a method on a lesion near the limit of its input.

A nodule is drawn into the truth before its resolution is reduced; the part of its contrast that comes back is measured.
A result is searched for nodules that the truth does not have. Task-based figures in the spirit of Kelkar, Zhang,
Granstedt, Li and Anastasio, J. Med. Imaging 8:065501, 2021: a higher PSNR need not help anyone to find anything.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

AMPLITUDE = 12.0 / 255.0
"""Amplitude of the nodule that is drawn, in units of the window."""
SIGMAS = (1.5, 2.5, 4.0)
"""Standard deviations of the nodules in high-resolution pixels; a nodule looks about three times as wide."""
THRESHOLD = 6.0 / 255.0
"""Contrast from which a blob counts as a nodule: half of `AMPLITUDE`."""
FIELDS = ((0.3, 0.7, 0.2, 0.4), (0.3, 0.7, 0.6, 0.8))
"""Top, bottom, left and right of the two lung fields of a frontal radiograph, as shares of rows and columns."""
CHEST = (0.15, 0.85, 0.1, 0.9)
"""Top, bottom, left and right of the chest, away from edges of film and collimator and from markers."""


@dataclass(frozen=True)
class Nodule:
    """A Gaussian blob.

    Attributes:
        row, column: position of its centre, in high-resolution pixels.
        sigma: standard deviation, in high-resolution pixels.
    """

    row: float
    column: float
    sigma: float

    def draw(self, shape: tuple[int, int]) -> np.ndarray:
        """Return the blob as ``[rows, columns]`` with amplitude 1, zero where it is invisible."""
        rows = np.arange(shape[0])[:, None] - self.row
        columns = np.arange(shape[1])[None, :] - self.column
        blob = np.exp(-0.5 * (rows**2 + columns**2) / self.sigma**2)
        return np.where(blob < 1e-3, 0.0, blob).astype(np.float32)


def nodule_positions(name: str, shape: tuple[int, int]) -> list[tuple[float, float]]:
    """Return the row and column of a nodule in each lung field of an image, always the same for a name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return [
        (float(shape[0] * rng.uniform(top, bottom)), float(shape[1] * rng.uniform(left, right)))
        for top, bottom, left, right in FIELDS
    ]


def recovered_contrast(with_nodule: np.ndarray, without: np.ndarray, blob: np.ndarray) -> float:
    """Return the part of a nodule's contrast that comes back, 1 for all of it and 0 for nothing.

    Args:
        with_nodule, without: results of the truth with and without the nodule.
        blob: image that was added to the truth.
    """
    return float(((with_nodule - without) * blob).sum() / np.square(blob).sum())


def contrast(image: np.ndarray, sigma: float) -> np.ndarray:
    """Return the contrast of a bright blob of a given size at every pixel.

    The normalised Laplacian of a Gaussian (Lindeberg, IJCV 1998), in units in which a Gaussian blob of this size has
    its own amplitude.
    """
    from scipy import ndimage  # of the extra [benchmark]

    response: np.ndarray = -2 * sigma**2 * ndimage.gaussian_laplace(image.astype(np.float64), sigma)
    return response


def exaggerated_blobs(super_res: np.ndarray, high_res: np.ndarray, sigma: float) -> np.ndarray:
    """Find blobs of a size that a result shows with more than twice their contrast in the truth, if they have any.

    A local maximum of the result's contrast above `THRESHOLD` counts where that of the truth, within the blob, is below
    half of it.

    Returns:
        ``[n, 2]``, row and column of each.
    """
    result_contrast = contrast(super_res, sigma)
    true_contrast = _maximum_within_blob(contrast(high_res, sigma), sigma)
    return np.argwhere(_peaks(result_contrast, sigma) & (true_contrast < 0.5 * result_contrast))


def false_nodules(super_res: np.ndarray, high_res: np.ndarray, sigma: float) -> np.ndarray:
    """Find nodules of a size that a result has and the truth does not.

    These are the `exaggerated_blobs` that could be taken for a nodule: in the truth the contrast, within the blob, is
    below `THRESHOLD`, and the blob, three times as wide as `sigma`, lies within the image. A blob that is cut by the
    border shows the filter's idea of the pixels beyond.

    Returns:
        ``[n, 2]``, row and column of each.
    """
    centres = exaggerated_blobs(super_res, high_res, sigma)
    is_absent = _maximum_within_blob(contrast(high_res, sigma), sigma)[tuple(centres.T)] < THRESHOLD
    is_inside = ((centres >= 1.5 * sigma) & (centres <= np.array(high_res.shape) - 1 - 1.5 * sigma)).all(axis=1)
    return np.asarray(centres[is_absent & is_inside])


def in_chest(centres: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return which of the ``[n, 2]`` centres, row and column, lie in `CHEST` of an image of this size."""
    first, last = np.reshape(CHEST, (2, 2)).T * [rows, columns]
    return np.asarray(((centres >= first) & (centres < last)).all(axis=1))


def find_visible_blobs(super_res: np.ndarray, high_res: np.ndarray, sigma: float) -> np.ndarray:
    """Return which blobs of a size in the truth have a contrast above `THRESHOLD` in the result too.

    Returns:
        ``[n]`` bool, one for each blob of the truth.
    """
    peaks = _peaks(contrast(high_res, sigma), sigma)
    return np.asarray(_maximum_within_blob(contrast(super_res, sigma), sigma)[peaks] > THRESHOLD)


def _maximum_within_blob(response: np.ndarray, sigma: float) -> np.ndarray:
    """Return the highest contrast within a blob around every pixel."""
    from scipy import ndimage

    highest: np.ndarray = ndimage.maximum_filter(response, 2 * int(np.ceil(sigma)) + 1)
    return highest


def _peaks(response: np.ndarray, sigma: float) -> np.ndarray:
    return (response == _maximum_within_blob(response, sigma)) & (response > THRESHOLD)
