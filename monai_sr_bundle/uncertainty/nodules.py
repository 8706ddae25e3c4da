"""Nodules that are there and nodules that are not: what a method does to a lesion near the limit of its input.

A nodule is drawn into the truth before its resolution is reduced; the part of its contrast that comes back is measured.
A clean image is searched for nodules that the truth does not have. Task-based figures in the spirit of Kelkar, Zhang,
Granstedt, Li and Anastasio, J. Med. Imaging 8:065501, 2021: a higher PSNR need not help anyone to find anything.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

AMPLITUDE = 12.0 / 255.0
"""Of the drawn nodule, in units of the window."""
SIGMAS = (1.5, 2.5, 4.0)
"""High-resolution pixels; a nodule looks about three times as wide."""
THRESHOLD = 6.0 / 255.0
"""Contrast from which a blob counts as a nodule: half of a drawn one."""
FIELDS = ((0.3, 0.7, 0.2, 0.4), (0.3, 0.7, 0.6, 0.8))
"""Where nodules are drawn: shares of rows and columns, about the two lungs of a frontal radiograph."""
CHEST = (0.15, 0.85, 0.1, 0.9)
"""Shares of rows and columns away from edges of film and collimator and from markers."""


@dataclass(frozen=True)
class Nodule:
    """A Gaussian blob.

    Attributes:
        row, column: of its centre, in high-resolution pixels.
        sigma: its standard deviation.
    """

    row: float
    column: float
    sigma: float

    def drawn(self, shape: tuple[int, int]) -> np.ndarray:
        """``[rows, columns]`` of amplitude 1, cut off where it is invisible."""
        rows = np.arange(shape[0])[:, None] - self.row
        columns = np.arange(shape[1])[None, :] - self.column
        blob = np.exp(-0.5 * (rows**2 + columns**2) / self.sigma**2)
        return np.where(blob < 1e-3, 0.0, blob).astype(np.float32)


def places(name: str, shape: tuple[int, int]) -> list[tuple[float, float]]:
    """Where nodules are drawn into an image: one in each lung field, always the same for a name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return [
        (float(shape[0] * rng.uniform(top, bottom)), float(shape[1] * rng.uniform(left, right)))
        for top, bottom, left, right in FIELDS
    ]


def recovered_contrast(with_nodule: np.ndarray, without: np.ndarray, blob: np.ndarray) -> float:
    """The part of a nodule's contrast that comes back.

    Args:
        with_nodule, without: results from the truth with and without it.
        blob: what was added to the truth.

    Returns:
        1 where all of it is back, 0 where nothing.
    """
    return float(((with_nodule - without) * blob).sum() / np.square(blob).sum())


def contrast(image: np.ndarray, sigma: float) -> np.ndarray:
    """The contrast of a bright blob of a size, at every pixel.

    The normalised Laplacian of a Gaussian (Lindeberg, IJCV 1998), in units in which a Gaussian blob of this size has
    its own amplitude.
    """
    from scipy import ndimage  # of the extra [benchmark]

    response: np.ndarray = -2 * sigma**2 * ndimage.gaussian_laplace(image.astype(np.float64), sigma)
    return response


def exaggerated_blobs(made: np.ndarray, high: np.ndarray, sigma: float) -> np.ndarray:
    """Blobs of a size that a result shows with more than twice the contrast they have in the truth, if any.

    A local maximum of the result's contrast above `THRESHOLD` counts where that of the truth, within the blob, is below
    half of it.

    Returns:
        ``[n, 2]``, row and column of each.
    """
    found, nearby = contrast(made, sigma), _nearby(contrast(high, sigma), sigma)
    return np.argwhere(_peaks(found, sigma) & (nearby < 0.5 * found))


def false_nodules(made: np.ndarray, high: np.ndarray, sigma: float) -> np.ndarray:
    """Nodules of a size that a result has and the truth does not.

    Of the `exaggerated_blobs`, those that could be taken for a nodule and are none: in the truth the contrast, within
    the blob, is below `THRESHOLD`, and the blob, three times as wide as `sigma`, lies within the image. One that is cut
    by the border shows the filter's idea of what lies beyond.

    Returns:
        ``[n, 2]``, row and column of each.
    """
    places = exaggerated_blobs(made, high, sigma)
    absent = _nearby(contrast(high, sigma), sigma)[tuple(places.T)] < THRESHOLD
    whole = ((places >= 1.5 * sigma) & (places <= np.array(high.shape) - 1 - 1.5 * sigma)).all(axis=1)
    return np.asarray(places[absent & whole])


def in_chest(places: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Which of the ``[n, 2]`` places, row and column, lie in `CHEST` of an image of so many rows and columns."""
    first, last = np.reshape(CHEST, (2, 2)).T * [rows, columns]
    return np.asarray(((places >= first) & (places < last)).all(axis=1))


def seen(made: np.ndarray, high: np.ndarray, sigma: float) -> np.ndarray:
    """Which blobs of a size in the truth the result shows, within the blob, with a contrast above `THRESHOLD` too.

    Returns:
        ``[n]``, one for each blob of the truth.
    """
    return np.asarray(_nearby(contrast(made, sigma), sigma)[_peaks(contrast(high, sigma), sigma)] > THRESHOLD)


def _nearby(response: np.ndarray, sigma: float) -> np.ndarray:
    """The highest contrast within a blob of every pixel."""
    from scipy import ndimage

    highest: np.ndarray = ndimage.maximum_filter(response, 2 * int(np.ceil(sigma)) + 1)
    return highest


def _peaks(response: np.ndarray, sigma: float) -> np.ndarray:
    return (response == _nearby(response, sigma)) & (response > THRESHOLD)
