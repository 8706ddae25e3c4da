"""Data consistency: change an enlarged image as little as is needed for its reduction to be the input.

The range-null space decomposition of Wang et al., "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space
Model", ICLR 2023, https://arxiv.org/abs/2212.00490, for reductions of two matrices, ``low = R @ high @ C.T``. What the
input says of the image is taken from the input; only what it does not say (the null space) is the network's. Where the
input is exact, no image comes out further from the truth than it was. Where a network removed an artifact, the input is
not followed, and a report says where, how many, and a sentence for the reader.

Only numpy; every backend and every interface goes through here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.unit import largest_around

REACH = 6
"""Low-resolution pixels beyond which the inverse is cut off: there it has fallen to a thousandth."""
BLOCK = 16
"""Low-resolution lines that are multiplied at a time: the matrices are zero far from their diagonal."""
SOFTNESS = 0.05
"""Distrust of the input's rounding: what is added to the diagonal of ``R @ R.T``, in units of its mean."""
ROUNDS = 3
"""Rounds of projecting and clipping to what the storage can hold."""
NOTICED, CERTAIN = 0.3, 0.5
"""Probabilities of an artifact up to which an input pixel is followed, and from which it is not."""
Limits = tuple[float, float]


class ResidualStats:
    """RMS and maximum of the input minus the reduced result, added slice by slice.

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
        degradation: the degradation; its linear, noise-free part counts.
    """

    degradation: Degradation

    @property
    def margin(self) -> int:
        """Low-resolution pixels around a region that its result depends on."""
        return _radius_of_influence(self.degradation)

    @property
    def spread(self) -> int:
        """Low-resolution pixels over which the reduction spreads a high-resolution pixel, and so an artifact."""
        middle = 2 * REACH
        weights = np.abs(self.degradation.matrix(self.degradation.scale * 4 * REACH)[middle])
        cells = np.flatnonzero(weights > 1e-3 * weights.max()) // self.degradation.scale
        return int(np.abs(cells - middle).max())

    def input_weight(self, artifact_probability: np.ndarray) -> np.ndarray:
        """Return the weight of every input pixel in the projection: 0 where an artifact is or can be seen from.

        The weight falls gradually, so that a result does not depend on the last bits of a probability.

        Args:
            artifact_probability: ``[rows, columns]``, 0 to 1. Less than `spread` from where the array was cut off, the
                weights are not those of the whole image.

        Returns:
            ``[rows, columns]`` float32, 0 to 1.
        """
        largest = largest_around(artifact_probability.astype(np.float32), self.spread)
        # Both ends as float32, so that exactly what is above `NOTICED` has a smaller weight.
        return ((CERTAIN - largest) / (np.float32(CERTAIN) - np.float32(NOTICED))).clip(0, 1)

    def __call__(
        self,
        high_res: np.ndarray,
        low_res: np.ndarray,
        region: Region | None = None,
        limits: Limits | None = None,
        weight: np.ndarray | None = None,
    ) -> np.ndarray:
        """Project an enlarged image, in place.

        Args:
            high_res: ``[scale * rows, scale * columns]`` float32 of the region; changed.
            low_res: ``[rows, columns]`` float32, the whole input.
            region: part of the input that `high_res` covers. Default: all of it. Less than `margin` from where it was
                cut off, the result is not that of the whole.
            limits: smallest and largest number that the storage can hold. Default: any.
            weight: weight of every input pixel of the region, as from `input_weight`. Default: 1.

        Returns:
            `high_res`.
        """
        row_blocks, column_blocks = self._blocks_of(low_res.shape, region)
        for _ in range(ROUNDS):
            residual = self.residual(high_res, low_res, region)
            if weight is not None:
                residual *= weight
            # high_res += R⁺ residual C⁺ᵀ, block by block.
            change = np.empty((len(residual), high_res.shape[1]), dtype=np.float32)
            for block in column_blocks:
                change[:, block.high_res] = residual[:, block.neighbours] @ block.restore.T
            for block in row_blocks:
                high_res[block.high_res] += block.restore @ change[block.neighbours]
            if limits is not None:
                np.clip(high_res, *limits, out=high_res)
        return high_res

    def limit(self, texture: np.ndarray, largest: float, shape: tuple[int, int], region: Region) -> np.ndarray:
        """Change texture as little as is needed for its reduction to be nowhere above a limit, in place.

        Args:
            texture: ``[scale * rows, scale * columns]`` float32 of the region, what was added to an image; changed.
            largest: largest absolute value of the reduced texture.
            shape: rows and columns of the whole input.
            region: part of the input that `texture` covers. Less than `margin` and `spread` from where it was cut off,
                the result is not that of the whole.

        Returns:
            `texture`.
        """
        allowed = np.zeros(shape, dtype=np.float32)
        allowed[region.as_slices] = self.reduce(texture, shape, region).clip(-largest, largest)
        return self(texture, allowed, region)

    def residual(self, high_res: np.ndarray, low_res: np.ndarray, region: Region | None = None) -> np.ndarray:
        """Return the input minus the reduced image, ``[rows, columns]`` float32 of the region.

        Args:
            high_res, low_res, region: see `__call__`; nothing is changed.
        """
        part = low_res if region is None else low_res[Region(*region).as_slices]
        return np.asarray(part.astype(np.float32) - self.reduce(high_res, low_res.shape, region))

    def reduce(self, high_res: np.ndarray, shape: tuple[int, ...], region: Region | None = None) -> np.ndarray:
        """Return the reduced image, ``[rows, columns]`` float32 of the region.

        Args:
            high_res, region: see `__call__`; nothing is changed.
            shape: rows and columns of the whole input.
        """
        row_blocks, column_blocks = self._blocks_of(shape, region)
        return _reduce(column_blocks, _reduce(row_blocks, high_res).T).T

    def _blocks_of(
        self, shape: tuple[int, ...], region: Region | None
    ) -> tuple[tuple[_Block, ...], tuple[_Block, ...]]:
        rows, columns = shape
        region = Region(*region) if region else Region.whole(rows, columns)
        row_blocks = _blocks(self.degradation, rows, region.top, region.bottom)
        return row_blocks, _blocks(self.degradation, columns, region.left, region.right)


@dataclass(frozen=True)
class _Block:
    """Neighbouring low-resolution lines, counted from the start of the region, and the matrices for them.

    Attributes:
        low_res, high_res: the lines, and the high-resolution lines at the same position.
        neighbours, high_res_neighbours: the lines within `REACH`, in either resolution.
        reduce: matrix from `high_res_neighbours` to `low_res`.
        restore: matrix from the residual in `neighbours` to the change of `high_res`.
    """

    low_res: slice
    high_res: slice
    neighbours: slice
    high_res_neighbours: slice
    reduce: np.ndarray
    restore: np.ndarray


def _reduce(blocks: tuple[_Block, ...], high_res: np.ndarray) -> np.ndarray:
    low_res = np.empty((blocks[-1].low_res.stop, high_res.shape[1]), dtype=np.float32)
    for block in blocks:
        low_res[block.low_res] = block.reduce @ high_res[block.high_res_neighbours]
    return low_res


@lru_cache(maxsize=8)
def _blocks(degradation: Degradation, size: int, start: int, stop: int) -> tuple[_Block, ...]:
    """Return the blocks of the low-resolution lines from `start` to `stop` of an axis of `size`."""
    scale = degradation.scale

    def lines(first: int, last: int, factor: int, offset: int) -> slice:
        return slice(factor * (first - offset), factor * (last - offset))

    blocks = []
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        neighbours = (max(start, first - REACH), min(stop, last + REACH))
        # As good as the matrices of the whole axis: its cut ends are too far away to change a number that is used.
        begin, end = max(0, first - 4 * REACH), min(size, last + 4 * REACH)
        reduction, restoration = _matrices(degradation, end - begin)
        blocks.append(
            _Block(
                low_res=lines(first, last, 1, start),
                high_res=lines(first, last, scale, start),
                neighbours=lines(*neighbours, 1, start),
                high_res_neighbours=lines(*neighbours, scale, start),
                reduce=reduction[lines(first, last, 1, begin), lines(*neighbours, scale, begin)],
                restore=restoration[lines(first, last, scale, begin), lines(*neighbours, 1, begin)],
            )
        )
    return tuple(blocks)


@lru_cache(maxsize=32)
def _radius_of_influence(degradation: Degradation) -> int:
    """Return the low-resolution pixels beyond which a change has no effect, but for the last bits of float32."""
    middle = 6 * REACH
    reduction, restoration = _matrices(degradation, 2 * middle)
    null_space = np.linalg.matrix_power(np.eye(len(restoration)) - restoration @ reduction, ROUNDS)
    effect = np.abs(null_space[degradation.scale * middle :][: degradation.scale]).max(axis=0)
    cells = np.flatnonzero(effect > np.finfo(np.float32).eps) // degradation.scale
    return int(np.abs(cells - middle).max())


@lru_cache(maxsize=32)
def _matrices(degradation: Degradation, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the reduction to `size` pixels, and its softened inverse, float64."""
    reduction = degradation.matrix(degradation.scale * size)
    inner_row = degradation.matrix(degradation.scale * 4 * REACH)[2 * REACH]
    gram = reduction @ reduction.T + SOFTNESS * (inner_row @ inner_row) * np.eye(size)
    restoration = np.linalg.solve(gram, reduction).T
    positions = np.arange(size)
    # Pixel by pixel, so that a result does not depend on where a block begins.
    restoration[np.abs(np.repeat(positions, degradation.scale)[:, None] - positions) > REACH] = 0
    # Sums in float32 depend on how many threads share them; sums in float64, rounded to float32 after, do not.
    return reduction, restoration


@dataclass(frozen=True)
class ArtifactReport:
    """The artifacts (letters, lines) that a network has removed from an image, on the pixels of the input.

    Attributes:
        artifact_mask: ``[slices, rows, columns]`` bool, True where an artifact was removed.
        agreement_mask: bool of the same shape, True where the result agrees with the input: neither at an artifact, nor
            around it.
        count: number of connected areas of `artifact_mask`, in all slices together; 0 only if the result agrees with
            the input everywhere.
        share: share of the pixels that were removed.
    """

    artifact_mask: np.ndarray
    agreement_mask: np.ndarray
    count: int
    share: float

    @classmethod
    def from_probability(cls, probability: np.ndarray, input_weight: np.ndarray) -> ArtifactReport:
        """Make the report from the artifact probability and the weight of the input in data consistency.

        Args:
            probability, input_weight: ``[slices, rows, columns]``, 0 to 1.
        """
        # Every pixel that is not wholly followed counts, not only the certain ones: nothing goes without a word.
        artifact_mask, agreement_mask = probability > NOTICED, input_weight == 1
        # In a region beside an artifact, that is the edge from which the artifact can be seen.
        areas = [mask if mask.any() else ~agrees for mask, agrees in zip(artifact_mask, agreement_mask, strict=True)]
        return cls(artifact_mask, agreement_mask, sum(count_areas(area) for area in areas), float(np.mean(areas)))

    @property
    def agreement_share(self) -> float:
        """Share of the pixels for which agreement with the input is stated."""
        return float(self.agreement_mask.mean())

    @property
    def sentence(self) -> str:
        """A sentence for the reader of the result; empty where nothing was removed."""
        if not self.count:
            return ""
        marks = f"{self.count} burned-in marks (letters or lines) were"
        if self.count == 1:
            marks = "1 burned-in mark (a letter or a line) was"
        return (
            f"{marks} detected and removed ({percent(self.share)} of the image). It may have been anatomy or a device: "
            f"look at the original there. Agreement with the input is stated for {percent(self.agreement_share)} of "
            "its pixels."
        )


def percent(share: float) -> str:
    """Return a share from 0 to 1 in percent; if it would be rounded to 0 or 100, "under 0.1 %" or "over 99.9 %"."""
    if 0 < share < 0.001:
        return "under 0.1 %"
    return "over 99.9 %" if 0.999 < share < 1 else f"{100 * share:.3g} %"


def count_areas(mask: np.ndarray) -> int:
    """Return the number of areas of ``[rows, columns]`` bool whose pixels touch, also at corners."""
    edges = np.pad(mask.astype(bool), ((0, 0), (1, 1)))
    # Runs of pixels within a row, from a start to before an end, counted through all rows.
    changes, width = np.flatnonzero(edges[:, 1:] != edges[:, :-1]), mask.shape[1] + 1
    starts, ends = changes[::2], changes[1::2]
    # The runs of the next row that touch a run follow one another.
    first = np.searchsorted(ends, starts + width)
    touching = np.searchsorted(starts, ends + width, side="right") - first
    runs = np.arange(len(starts))
    upper = np.repeat(runs, touching)
    lower = np.arange(len(upper)) + np.repeat(first - np.cumsum(touching) + touching, touching)
    # Each run belongs to one with a smaller number, or to itself: then it stands for an area.
    area = runs.copy()
    while len(upper):
        np.minimum.at(area, np.maximum(upper, lower), np.minimum(upper, lower))
        while not np.array_equal(area, area[area]):
            area = area[area]
        upper, lower = area[upper], area[lower]
        apart = upper != lower
        upper, lower = upper[apart], lower[apart]
    return int((area == runs).sum())
