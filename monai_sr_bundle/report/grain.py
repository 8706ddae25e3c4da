"""Grain: the variation of a result where the interpolated input varies least, to see if noise has become structure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BLOCK = 6
"""Side of a block in pixels of the input: wide enough for strands, small enough to lie inside one tissue."""
EVENEST = 0.25
"""Share of the blocks that are compared: those in which the interpolated input varies least."""
FEWEST = 16
"""Blocks that are compared at least."""
SOFT_TISSUE_HU = -300.0
"""Mean HU above which a block of a CT lies in tissue; air and lung have other grain."""
MORE = 1.1
"""Variation of a result in parts of the interpolated input's, from which on it is said to be more."""


class Grain(NamedTuple):
    """Standard deviations in the evenest blocks around their smooth trend, root mean square over the blocks.

    Attributes:
        result, interpolation: standard deviations of both images, in modality values.
    """

    result: float
    interpolation: float


def measure_grain(
    result: np.ndarray, interpolated: np.ndarray, scale_yx: tuple[int, int], *, hu: bool = False
) -> Grain | None:
    """Measure the grain of a result and of the interpolated input in the same blocks.

    Args:
        result, interpolated: ``[rows, columns]`` modality values of the same slice.
        scale_yx: result pixels per input pixel along rows and columns.
        hu: whether the values are HU of a CT, of which soft tissue alone is compared. Default False.

    Returns:
        The grain; None where there are too few blocks that are neither flat nor, in a CT, air.
    """
    block = (BLOCK * scale_yx[0], BLOCK * scale_yx[1])
    remove_trend = _trend_remover(block)
    means, deviations = [], []
    for values in (interpolated, result):
        blocks = _blocks(values, block)
        means.append(blocks.mean(axis=1))
        deviations.append((blocks @ remove_trend).std(axis=1))
    smallest = 1e-6 * max(float(np.ptp(interpolated)), 1e-12)
    usable = deviations[0] > smallest
    if hu:
        usable &= means[0] > SOFT_TISSUE_HU
    count = int(EVENEST * usable.sum())
    if count < FEWEST:
        return None
    evenest = np.argsort(np.where(usable, deviations[0], np.inf))[:count]
    of_interpolation, of_result = (float(np.sqrt(np.mean(each[evenest] ** 2))) for each in deviations)
    return Grain(of_result, of_interpolation)


def describe_more_grain(grain: Grain | None, interpolation: str) -> tuple[str, ...]:
    """Return a sentence where a result varies more than the interpolated input; none where it does not.

    Args:
        grain: result of `measure_grain`.
        interpolation: name of the interpolation.
    """
    if grain is None or grain.result <= MORE * grain.interpolation:
        return ()
    times = grain.result / grain.interpolation
    return (
        f"In the evenest parts the result varies {times:.3g} times as much as {interpolation} does: grain of the input "
        "may have become structure that looks like tissue.",
    )


def _blocks(values: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """Return the blocks as rows, ``[blocks, pixels of a block]`` float32."""
    rows, columns = (length // side for length, side in zip(values.shape, block, strict=True))
    whole = values[: rows * block[0], : columns * block[1]].astype(np.float32)
    return whole.reshape(rows, block[0], columns, block[1]).swapaxes(1, 2).reshape(-1, block[0] * block[1])


def _trend_remover(block: tuple[int, int]) -> np.ndarray:
    """Return the symmetric matrix that takes a quadratic trend away from the pixels of a block."""
    y, x = (each.ravel() for each in np.meshgrid(*(np.linspace(-1, 1, side) for side in block), indexing="ij"))
    basis, _ = np.linalg.qr(np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=1))
    return np.asarray(np.eye(len(x)) - basis @ basis.T, dtype=np.float32)
