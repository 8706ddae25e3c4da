"""Data consistency: change an enlarged image as little as is needed for its reduction to be the input.

The range-null space decomposition of Wang et al., "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space
Model", ICLR 2023, https://arxiv.org/abs/2212.00490, for reductions of two matrices, ``low = R @ high @ C.T``. What the
input says of the image is taken from the input; only what it does not say (the null space) is the network's. Where the
input is exact, no image comes out further from the truth than it was.

Only numpy; every backend and every door goes through here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from monai_sr_bundle.degradation import Degradation

REACH = 6
"""Low-resolution pixels beyond which the inverse is cut off: there it has fallen to a thousandth."""
BLOCK = 16
"""Low-resolution lines that are multiplied at a time: the matrices are zero far from their diagonal."""
NOTICED, CERTAIN = 0.3, 0.5
"""Probabilities of an artifact up to which an input pixel is followed, and from which it is not."""
Limits = tuple[float, float]


class ResidualStats:
    """RMS and maximum of what a reduced result lacks of the input, added slice by slice.

    Attributes:
        count: residuals that were added.
        maximum: the largest absolute value of them; not a number where one was added.
    """

    def __init__(self) -> None:
        self.count, self.maximum, self._squares = 0, 0.0, 0.0

    def add(self, residual: np.ndarray) -> None:
        self._squares += float(np.square(residual, dtype=np.float64).sum())
        self.count += residual.size
        # np.maximum, unlike max(), lets a not-a-number through.
        self.maximum = float(np.maximum(self.maximum, np.abs(residual).max(initial=0.0)))

    @property
    def rms(self) -> float:
        """Not a number where nothing was added."""
        return math.sqrt(self._squares / self.count) if self.count else math.nan


@dataclass(frozen=True)
class DataConsistency:
    """The projection onto the images that a degradation reduces to the input.

    Attributes:
        degradation: its linear, noise-free part counts.
        softness: how little the input's rounding is believed, 0 for not at all: what is added to the diagonal of
            ``R @ R.T``, in units of its mean.
        rounds: of projecting and clipping to what the storage can hold, in turn.
    """

    degradation: Degradation
    softness: float = 0.05
    rounds: int = 3

    @property
    def margin(self) -> int:
        """Low-resolution pixels around a region that its result depends on."""
        return _influence(self.degradation, self.softness, self.rounds)

    @property
    def spread(self) -> int:
        """Low-resolution pixels beyond which a high-resolution pixel is not seen: as far as an artifact soils them."""
        middle = 2 * REACH
        seen = np.abs(self.degradation.matrix(self.degradation.scale * 4 * REACH)[middle])
        cells = np.flatnonzero(seen > 1e-3 * seen.max()) // self.degradation.scale
        return int(np.abs(cells - middle).max())

    def followed(self, artifacts: np.ndarray) -> np.ndarray:
        """How much each input pixel is to be followed: not where an artifact is, nor where it can be seen from.

        In between, less and less, so that a result does not hang on the last bits of a probability.

        Args:
            artifacts: ``[rows, columns]``, how probable it is that a pixel holds what was put on the image. Less than
                `spread` from where it was cut off, the result is not that of the whole.

        Returns:
            ``[rows, columns]`` float32, 0 to 1.
        """
        widest = artifacts.astype(np.float32)
        for axis in (0, 1):
            shifted = np.pad(widest, [(self.spread, self.spread) if other == axis else (0, 0) for other in (0, 1)])
            widest = np.lib.stride_tricks.sliding_window_view(shifted, 2 * self.spread + 1, axis).max(axis=-1)
        # Both ends as float32, so that exactly what is above `NOTICED` is followed less.
        return ((CERTAIN - widest) / (np.float32(CERTAIN) - np.float32(NOTICED))).clip(0, 1)

    def __call__(
        self,
        high: np.ndarray,
        low: np.ndarray,
        region: tuple[int, int, int, int] | None = None,
        limits: Limits | None = None,
        followed: np.ndarray | None = None,
    ) -> np.ndarray:
        """Project an enlarged image, in place.

        Args:
            high: ``[scale * rows, scale * columns]`` float32 of the region; changed.
            low: ``[rows, columns]`` float32, the whole input.
            region: ``(row_start, row_stop, column_start, column_stop)`` of the input that `high` covers, all of it if
                None. Less than `margin` from where it was cut off, the result is not that of the whole.
            limits: the smallest and largest number that the storage can hold; any if None.
            followed: how much each input pixel of the region is to be followed, as from `followed`; wholly if None.

        Returns:
            `high`.
        """
        _, (of_rows, of_columns) = self._placed(low, region)
        for _ in range(self.rounds):
            missing = self.missing(high, low, region)
            if followed is not None:
                missing *= followed
            change = np.empty((len(missing), high.shape[1]), dtype=np.float32)
            for block in of_columns:
                change[:, block.high] = missing[:, block.near] @ block.restore.T
            for block in of_rows:
                high[block.high] += block.restore @ change[block.near]
            if limits is not None:
                np.clip(high, *limits, out=high)
        return high

    def missing(self, high: np.ndarray, low: np.ndarray, region: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """What the reduction of an enlarged image lacks of the input.

        Args:
            high, low, region: as above; nothing is changed.

        Returns:
            ``[rows, columns]`` float32 of the region.
        """
        (top, bottom, left, right), (of_rows, of_columns) = self._placed(low, region)
        wanted = low[top:bottom, left:right].astype(np.float32)
        return np.asarray(wanted - _reduced(of_columns, _reduced(of_rows, high).T).T)

    def _placed(
        self, low: np.ndarray, region: tuple[int, int, int, int] | None
    ) -> tuple[tuple[int, int, int, int], tuple[tuple[_Block, ...], tuple[_Block, ...]]]:
        rows, columns = low.shape
        top, bottom, left, right = region or (0, rows, 0, columns)
        of_rows = _blocks(self.degradation, self.softness, rows, top, bottom)
        return (top, bottom, left, right), (of_rows, _blocks(self.degradation, self.softness, columns, left, right))


@dataclass(frozen=True)
class _Block:
    """Some neighbouring low-resolution lines, counted from the start of the region, and what concerns them.

    Attributes:
        low, high: these lines, and the high-resolution lines of the same place.
        near, near_high: the lines within `REACH`, in either resolution.
        reduce: makes `low` of `near_high`.
        restore: makes what `high` lacks of what is missing in `near`.
    """

    low: slice
    high: slice
    near: slice
    near_high: slice
    reduce: np.ndarray
    restore: np.ndarray


def _reduced(blocks: tuple[_Block, ...], high: np.ndarray) -> np.ndarray:
    low = np.empty((blocks[-1].low.stop, high.shape[1]), dtype=np.float32)
    for block in blocks:
        low[block.low] = block.reduce @ high[block.near_high]
    return low


@lru_cache(maxsize=8)
def _blocks(degradation: Degradation, softness: float, size: int, start: int, stop: int) -> tuple[_Block, ...]:
    """The low-resolution lines from `start` to `stop` of an axis of `size`."""
    scale = degradation.scale

    def part(first: int, last: int, fine: int, offset: int) -> slice:
        return slice(fine * (first - offset), fine * (last - offset))

    blocks = []
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        near = (max(start, first - REACH), min(stop, last + REACH))
        # A line as good as the whole one: where it was cut is too far to change a number that is kept.
        begin, end = max(0, first - 4 * REACH), min(size, last + 4 * REACH)
        reduction, restoration = _line(degradation, softness, end - begin)
        blocks.append(
            _Block(
                low=part(first, last, 1, start),
                high=part(first, last, scale, start),
                near=part(*near, 1, start),
                near_high=part(*near, scale, start),
                reduce=reduction[part(first, last, 1, begin), part(*near, scale, begin)],
                restore=restoration[part(first, last, scale, begin), part(*near, 1, begin)],
            )
        )
    return tuple(blocks)


@lru_cache(maxsize=32)
def _influence(degradation: Degradation, softness: float, rounds: int) -> int:
    """Low-resolution pixels beyond which a change no longer comes through, but for the last bits of float32."""
    middle = 6 * REACH
    reduction, restoration = _line(degradation, softness, 2 * middle)
    through = np.linalg.matrix_power(np.eye(len(restoration)) - restoration @ reduction, rounds)
    seen = np.abs(through[degradation.scale * middle :][: degradation.scale]).max(axis=0)
    cells = np.flatnonzero(seen > np.finfo(np.float32).eps) // degradation.scale
    return int(np.abs(cells - middle).max())


@lru_cache(maxsize=32)
def _line(degradation: Degradation, softness: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The reduction to `size` pixels, and its softened inverse, float64."""
    reduction = degradation.matrix(degradation.scale * size)
    inner = degradation.matrix(degradation.scale * 4 * REACH)[2 * REACH]
    gram = reduction @ reduction.T + softness * (inner @ inner) * np.eye(size)
    restoration = np.linalg.solve(gram, reduction).T
    places = np.arange(size)
    # Pixel by pixel, so that a result does not depend on where a block begins.
    restoration[np.abs(np.repeat(places, degradation.scale)[:, None] - places) > REACH] = 0
    # Sums of float32 hang on how many threads share them; of float64, rounded to float32 after, they do not.
    return reduction, restoration
