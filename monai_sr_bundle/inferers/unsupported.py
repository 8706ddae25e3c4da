"""Damp faint blobs that the input does not support: what could be taken for a nodule and may be none.

Where a network holds a blob between the pixels of its input likely, the result shows it, and the interpolated input
hardly; as likely it was an edge or a crossing of vessels. Such a blob is brought down to a contrast that is not counted
as a nodule (`trust.nodules.THRESHOLD`), by a change that the reduction hardly sees.

A real nodule of that size is damped too: alone it stands out two to four times as far as in the interpolated input. And
the guard was fitted to the figures of `trust.nodules`, which look for blobs in the same way: what is fainter than they
count stays. For reductions that average, and a scale of at least 4; else the input shows such blobs.

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
MOST = 1.5
"""Times the contrast of the interpolated input that a blob may have, unless it is as faint as any may be. A Gaussian
blob of `SIGMA` that stands alone has three times, by its place among the pixels of the input 2.4 to 4 times."""
LEFT, FAINT, PLAIN = 5.25 / 255, 15 / 255, 21 / 255
"""Contrasts in units of the window: any blob may have the first, one up to the second is damped wholly, one from the
third on not at all, as it is a letter, a clip or a line."""
TRIFLE = 0.25 / 255
"""Contrast above what a blob may have that is not worth a change."""
ROUNDS = 6
"""A change moves the blobs beside it; a line of them, one beside the other, takes a few rounds."""
BESIDE = 2
"""High-resolution rows and columns around a blob's top that are no higher."""
RADIUS = 6
"""High-resolution pixels around a pixel that its contrast depends on."""
REACH = 6
"""High-resolution pixels around a blob that its change is kept to."""
TILE = 128
"""Low-resolution lines and columns that are searched at a time."""
BLOCK = 16
"""High-resolution lines that are multiplied at a time: the matrices are zero far from their diagonal."""
MANY = 4096
"""Blobs that are damped at a time, which bounds the memory too."""
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
        # In each round a change reaches from a blob, which is known by the contrasts `BESIDE` it: `alone`. What a round
        # does there to the next one fades: from two and a half times as far no bit has been seen to change. The two
        # low-resolution pixels are those that interpolation looks at beyond.
        alone = REACH + BESIDE + RADIUS
        return -(-5 * alone // (2 * self.degradation.scale)) + 2

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
            strength: the share of the excess that is damped, 0 to 1.

        Returns:
            `high`.
        """
        top, bottom, left, right = region or (0, low.shape[0], 0, low.shape[1])
        rows, columns, scale = bottom - top, right - left, self.degradation.scale
        above = np.empty((0, high.shape[1]), dtype=np.float32)
        # In tiles, which bounds the memory, and leaves more of it in the processor's cache.
        for first, last, begin, end in _parts(rows, self.margin) if strength else ():
            strip = high[scale * begin : scale * end].copy()
            # What the strip before has changed, as it was.
            strip[: len(above)] = above
            above = strip[scale * (max(0, last - self.margin) - begin) : scale * (last - begin)].copy()
            for start, stop, near, far in _parts(columns, self.margin):
                tile = strip[:, scale * near : scale * far].copy()
                self._damp(tile, low[top + begin : top + end, left + near : left + far], strength)
                inner = tile[scale * (first - begin) :, scale * (start - near) :]
                there = high[scale * first : scale * last, scale * start : scale * stop]
                there[:] = inner[: len(there), : there.shape[1]]
        if limits is not None:
            np.clip(high, *limits, out=high)
        return high

    def _damp(self, high: np.ndarray, low: np.ndarray, strength: float) -> None:
        scale = self.degradation.scale
        allowed = np.maximum(np.float32(LEFT), MOST * _contrast(low, scale))
        wide = np.pad(_contrast(high), BESIDE, constant_values=-np.inf)
        shown = wide[BESIDE:-BESIDE, BESIDE:-BESIDE]
        share = strength * ((PLAIN - shown) / (PLAIN - FAINT)).clip(0, 1)
        allowed += (1 - share) * (shown - allowed).clip(0)
        noticed = allowed + np.float32(TRIFLE)
        noticed[[0, -1]] = noticed[:, [0, -1]] = np.inf  # where a blob at the border has its top nobody knows
        changes, answers = _changes(self.degradation)
        for _ in range(ROUNDS):
            # All of them first: a change must not decide which of its neighbours is one.
            rows, columns = _highest(wide, np.flatnonzero(shown > noticed))
            if not len(rows):
                break
            excess = shown[rows, columns] - allowed[rows, columns]
            blobs = rows, columns, rows % scale * scale + columns % scale, excess
            high -= _together(blobs, changes, high.shape)
            shown -= _together(blobs, answers, high.shape)


def _parts(size: int, margin: int) -> Iterator[tuple[int, int, int, int]]:
    """Where the tiles along an axis begin and end, and where what they depend on does."""
    for first in range(0, size, TILE):
        last = min(first + TILE, size)
        yield first, last, max(0, first - margin), min(size, last + margin)


def _together(blobs: tuple[np.ndarray, ...], patches: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The sum of patches around their places; mirrored once beyond the borders.

    Args:
        blobs: rows, columns, which patch, and how many times it.

    Returns:
        `shape`, float32.
    """
    reach = patches.shape[1] // 2
    wide = np.zeros((shape[0] + 2 * reach, shape[1] + 2 * reach), dtype=np.float32)
    within = np.arange(2 * reach + 1)
    within = within[:, None] * wide.shape[1] + within
    for first in range(0, len(blobs[0]), MANY):
        rows, columns, which, amounts = (each[first : first + MANY, None, None] for each in blobs)
        added = amounts * patches[which[:, 0, 0]]
        # In this order, whatever overlaps.
        np.add.at(wide.reshape(-1), (rows * wide.shape[1] + columns + within).reshape(-1), added.reshape(-1))
    for lines in (wide, wide.T):
        lines[reach : 2 * reach] += lines[reach - 1 :: -1][:reach]
        lines[-2 * reach : -reach] += lines[: -reach - 1 : -1]
    return wide[reach:-reach, reach:-reach]


def _contrast(image: np.ndarray, scale: int = 1) -> np.ndarray:
    """The contrast of a bright blob of `SIGMA` at every pixel of an image, which is enlarged by interpolation first.

    The normalised Laplacian of a Gaussian (Lindeberg, IJCV 1998), in units in which a Gaussian blob of this size has
    its own amplitude; the image goes on mirrored beyond its borders.

    Returns:
        ``[scale * rows, scale * columns]`` float32.
    """
    of_rows, of_columns = (_filters(size, scale) for size in image.shape)
    # Sums of float32 hang on how many threads share them; of float64, rounded to float32 after, they do not.
    exact = image.astype(np.float64)
    smooth, curved = (_down(filters, exact) for filters in of_rows)
    found = _across(of_columns[1], smooth)
    found += _across(of_columns[0], curved)
    return found.astype(np.float32)


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


def _highest(wide: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of some pixels of an image that are no lower than any within `BESIDE` rows and columns.

    Args:
        wide: the image, with `BESIDE` pixels of -inf around it.
        pixels: counted along the lines of the image.

    Returns:
        Their rows and columns in the image.
    """
    width = wide.shape[1]
    rows, columns = np.divmod(pixels, width - 2 * BESIDE)
    places, shown = (rows + BESIDE) * width + columns + BESIDE, wide.reshape(-1)
    for step in (1, -1, width, -width):  # few are left to look at closely
        places = places[shown[places] >= shown[places + step]]
    steps = np.arange(-BESIDE, BESIDE + 1)
    around = (steps[:, None] * width + steps).reshape(-1)
    places = places[shown[places] == shown[places[:, None] + around].max(axis=1)]
    rows, columns = np.divmod(places, width)
    return rows - BESIDE, columns - BESIDE


@lru_cache(maxsize=8)
def _changes(degradation: Degradation) -> tuple[np.ndarray, np.ndarray]:
    """What the reduction does not see of a blob, of contrast 1 at its centre, and the contrasts of that.

    Returns:
        ``[scale * scale, 2 * reach + 1, 2 * reach + 1]`` float32 each, by the blob's place among the fine pixels of one
        of the input's; the reach is `REACH`, and `REACH + RADIUS`.
    """
    scale = degradation.scale
    project = DataConsistency(degradation, rounds=1)
    # Coarse pixels from the centre to the border, far enough for it not to matter.
    middle = 2 * project.margin - (-2 * (REACH + RADIUS) // scale)
    rows, columns = np.ogrid[: 2 * scale * middle, : 2 * scale * middle]
    changes, answers = [], []
    for row in range(scale * middle, scale * middle + scale):
        for column in range(scale * middle, scale * middle + scale):
            blob = np.exp(-0.5 * ((rows - row) ** 2 + (columns - column) ** 2) / SIGMA**2).astype(np.float32)
            project(blob, np.zeros((2 * middle, 2 * middle), dtype=np.float32))
            change = np.zeros_like(blob)
            kept = np.s_[row - REACH : row + REACH + 1, column - REACH : column + REACH + 1]
            change[kept] = blob[kept]
            change /= _contrast(change)[row, column]
            changes.append(change[kept])
            reach = REACH + RADIUS
            answers.append(_contrast(change)[row - reach : row + reach + 1, column - reach : column + reach + 1])
    return np.stack(changes), np.stack(answers)
