"""Damp faint blobs that the input does not support: what could be taken for a nodule and may be none.

A small nodule that stands alone still shows when its image is reduced and interpolated again. A faint blob that stands
out several times more in the result than there is what the network holds likely between the pixels of the input, as
likely an edge or a crossing of vessels as a blob. It is brought down to a contrast at which nobody takes it for a
nodule, by a change that the reduction does not see.

Only numpy; every backend and every door goes through here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.inferers.consistency import DataConsistency, Limits
from monai_sr_bundle.inferers.interpolate import cubic_taps

SIGMA = 1.5
"""Standard deviation of the blobs, in high-resolution pixels."""
MOST = 3.0
"""Times the contrast of the interpolated input that a blob may have. A Gaussian blob of `SIGMA` has four times, at the
least lucky place among the pixels of the input."""
LEFT, FAINT, PLAIN = 4 / 255, 12 / 255, 18 / 255
"""Contrasts in units of the window: any blob may have the first, one up to the second is damped wholly, one from the
third on not at all, as it is a letter, a clip or a line."""
ROUNDS = 2
"""A change moves the blobs beside it; after the second round little is left to do."""
RADIUS = 6
"""High-resolution pixels around a pixel that its contrast depends on."""
REACH = 8
"""High-resolution pixels around a blob that its change is kept to."""
STRIP = 64
"""Low-resolution lines that are searched at a time."""
BLOCK = 16
"""High-resolution lines that are multiplied at a time: the matrices are zero far from their diagonal."""
_Filter: TypeAlias = tuple[tuple[slice, slice, np.ndarray], ...]
"""A matrix in blocks: the lines it makes, of which lines, by which weights."""


@dataclass(frozen=True)
class UnsupportedBlobs:
    """What damps them.

    Attributes:
        degradation: between result and input; its linear, noise-free part counts.
    """

    degradation: Degradation

    @property
    def margin(self) -> int:
        """Low-resolution pixels around a region that its result depends on."""
        # In each round a change reaches from a blob, which is known by the contrasts within two pixels. The two
        # low-resolution pixels are those that interpolation looks at beyond.
        return -(-ROUNDS * (REACH + 2 + RADIUS) // self.degradation.scale) + 2

    def damp(
        self,
        high: np.ndarray,
        low: np.ndarray,
        region: tuple[int, int, int, int] | None = None,
        limits: Limits | None = None,
        strength: float = 1.0,
    ) -> np.ndarray:
        """Damp the blobs of an enlarged image, in place.

        Args:
            high: ``[scale * rows, scale * columns]`` float32 of the region, in units of the window; changed.
            low: ``[rows, columns]`` float32, the whole input.
            region: ``(row_start, row_stop, column_start, column_stop)`` of the input that `high` covers, all of it if
                None. Less than `margin` from where it was cut off, the result is not that of the whole.
            limits: the smallest and largest number that the storage can hold; any if None.
            strength: 0 changes nothing, 1 is as described.

        Returns:
            `high`.
        """
        top, bottom, left, right = region or (0, low.shape[0], 0, low.shape[1])
        scale = self.degradation.scale
        for _ in range(ROUNDS if strength else 0):
            # All of them first: a change must not decide which of its neighbours is one.
            for row, column, excess in [*self._found(high, low[top:bottom, left:right])]:
                blob = _unseen_blob(self.degradation, row % scale, column % scale)
                lines, of_lines = _overlap(row, high.shape[0])
                across, of_columns = _overlap(column, high.shape[1])
                high[lines, across] -= np.float32(strength * excess) * blob[of_lines, of_columns]
        if limits is not None:
            np.clip(high, *limits, out=high)
        return high

    def _found(self, high: np.ndarray, low: np.ndarray) -> Iterator[tuple[int, int, float]]:
        """Row, column and excess of contrast of each such blob, in strips, which bounds the memory."""
        scale = self.degradation.scale
        beside = 2 + -(-(RADIUS + 2) // scale)
        for first in range(0, len(low), STRIP):
            last = min(first + STRIP, len(low))
            begin, end = max(0, first - beside), min(len(low), last + beside)
            allowed = np.maximum(LEFT, MOST * _contrast(low[begin:end], scale))
            shown = _contrast(high[scale * begin : scale * end])
            inside = slice(scale * (first - begin), scale * (last - begin))
            rows, columns = np.nonzero(shown[inside] > allowed[inside])
            rows += inside.start
            highest = _highest(shown, rows, columns)
            rows, columns = rows[highest], columns[highest]
            contrasts = shown[rows, columns]
            excess = (contrasts - allowed[rows, columns]) * ((PLAIN - contrasts) / (PLAIN - FAINT)).clip(0, 1)
            yield from zip((scale * begin + rows).tolist(), columns.tolist(), excess.tolist(), strict=True)


def _contrast(image: np.ndarray, scale: int = 1) -> np.ndarray:
    """The contrast of a bright blob of `SIGMA` at every pixel of an image, which is enlarged by interpolation first.

    The normalised Laplacian of a Gaussian (Lindeberg, IJCV 1998), in units in which a Gaussian blob of this size has
    its own amplitude; the image goes on mirrored beyond its borders.

    Returns:
        ``[scale * rows, scale * columns]`` float64.
    """
    of_rows, of_columns = (_filters(size, scale) for size in image.shape)
    # Of float64: such sums do not hang on how many threads share them.
    smooth, curved = (_down(filters, image.astype(np.float64)) for filters in of_rows)
    found = _across(of_columns[1], smooth)
    found += _across(of_columns[0], curved)
    return found


def _down(blocks: _Filter, image: np.ndarray) -> np.ndarray:
    made = np.empty((blocks[-1][0].stop, image.shape[1]))
    for lines, near, weights in blocks:
        made[lines] = weights @ image[near]
    return made


def _across(blocks: _Filter, image: np.ndarray) -> np.ndarray:
    made = np.empty((image.shape[0], blocks[-1][0].stop))
    for lines, near, weights in blocks:
        made[:, lines] = image[:, near] @ weights.T
    return made


@lru_cache(maxsize=8)
def _filters(size: int, scale: int) -> tuple[_Filter, _Filter]:
    """A Gaussian, and its curvature, along an axis of `size` that is interpolated first."""
    steps = np.arange(-RADIUS, RADIUS + 1)
    smooth = np.exp(-0.5 * steps**2 / SIGMA**2)
    smooth /= smooth.sum()
    curved = 2 * (1 - steps**2 / SIGMA**2) * smooth
    fine = scale * size
    taps, weights = cubic_taps(size, scale)

    def blocks(kernel: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
        for first in range(0, fine, BLOCK):
            lines = np.arange(first, min(first + BLOCK, fine))
            mirrored = (lines[:, None] + steps) % (2 * fine)
            mirrored = np.minimum(mirrored, 2 * fine - 1 - mirrored)
            near = taps[mirrored]
            matrix = np.zeros((len(lines), near.max() + 1 - near.min()))
            np.add.at(
                matrix, (np.arange(len(lines))[:, None, None], near - near.min()), kernel[:, None] * weights[mirrored]
            )
            yield slice(first, first + len(lines)), slice(int(near.min()), int(near.max()) + 1), matrix

    return tuple(blocks(smooth)), tuple(blocks(curved))


def _highest(shown: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Which of these pixels are no lower than any within two rows and columns."""
    around = np.pad(shown, 2, constant_values=-np.inf)
    window = np.lib.stride_tricks.sliding_window_view(around, (5, 5))[rows, columns]
    return np.asarray(shown[rows, columns] == window.max(axis=(1, 2)))


def _overlap(at: int, size: int) -> tuple[slice, slice]:
    """The pixels within `REACH` that there are, along an axis; and the same of a blob's change."""
    first, last = max(0, at - REACH), min(size, at + REACH + 1)
    return slice(first, last), slice(first - at + REACH, last - at + REACH)


@lru_cache(maxsize=64)
def _unseen_blob(degradation: Degradation, row: int, column: int) -> np.ndarray:
    """What the reduction does not see of a blob at this place among the fine pixels of one of the input's.

    Returns:
        ``[2 * REACH + 1, 2 * REACH + 1]`` float32 around its centre, of contrast 1 there.
    """
    scale = degradation.scale
    project = DataConsistency(degradation, rounds=1)
    middle = scale * 2 * project.margin
    row, column = middle + row, middle + column
    rows, columns = np.ogrid[: 2 * middle, : 2 * middle]
    blob = np.exp(-0.5 * ((rows - row) ** 2 + (columns - column) ** 2) / SIGMA**2).astype(np.float32)
    project(blob, np.zeros((4 * project.margin, 4 * project.margin), dtype=np.float32))
    blob /= np.float32(_contrast(blob)[row, column])
    return blob[row - REACH : row + REACH + 1, column - REACH : column + REACH + 1]
