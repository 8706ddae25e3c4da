"""The square of an image that a preview magnifies: lung where there is lung, else what has the most structure.

Letters, lead markers, the table, padding and the edges of the exposed field have more contrast than anatomy. So a
square is judged by the middle of its cells, which a few hard edges do not change, and squares with many empty or hard
cells are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

CELLS = 8
"""Cells along a side of the square."""
BORDER = 0.06
"""Share of an image along each edge that no square reaches into."""
HARD = 0.12
"""Step from a pixel to its surroundings, in parts of the window, that is steeper than those of anatomy on a film."""
SPOILT = 0.1
"""Largest share of cells of a square that may be empty or hard."""
LEAST_LUNG = 0.75
"""Share of cells of a square that are lung, in a CT that has such squares."""
AIR_HU, THINNEST_LUNG_HU = -400.0, -960.0
"""Mean HU of a cell below which it is air or lung; that of lung is above the second one."""
LUNGS = ((0.45, 0.15), (0.29, 0.08))
"""Position of the lungs in a whole film: mean and width along the rows, and, from either side, along the columns."""

Square = tuple[int, int, int]


def find_detail_region(
    values: np.ndarray,
    window: tuple[float, float],
    scale_yx: tuple[int, int] = (1, 1),
    *,
    hu: bool = False,
    whole_film: bool = False,
) -> Square:
    """Find the square to magnify; `(top, left, side)` in pixels of the result.

    Args:
        values: ``[rows, columns]``, a slice of the input or of the part of it that was enlarged.
        window: values shown black and white.
        scale_yx: result pixels per pixel of `values` along rows and columns. Default: 1.
        hu: whether the values are HU of a CT. Default False.
        whole_film: whether this is a whole frontal film, whose lungs are where they usually are. Default False.
    """
    rows, columns = values.shape
    scale_y, scale_x = scale_yx
    step = math.lcm(scale_y, scale_x)  # of the result, so that the square holds whole pixels of the source
    shortest = min(rows * scale_y, columns * scale_x)
    side = min(max(shortest // 6, 32), 256, max(shortest // 2, step))
    side = min(max(side // step, 1) * step, rows * scale_y, columns * scale_x)
    size = max(1, side // scale_y), max(1, side // scale_x)
    values = values.astype(np.float32)
    cell = tuple(max(1, length // CELLS) for length in size)
    if min(rows // cell[0], columns // cell[1]) < CELLS:
        return _middle((rows, columns), size, scale_yx)
    low, high = window
    grey = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
    structure = _cells(np.square(_mean(grey, 1) - _mean(grey, max(cell))), cell, np.mean)
    spoilt = _cells(grey, cell, np.ptp) <= 1e-6
    if not hu:
        spoilt |= _cells(np.abs(grey - _mean(grey, 2)), cell, np.max) > HARD
    score = np.sqrt(np.median(_squares(structure), axis=(2, 3)))
    if hu:
        body, lung = (_squares(mask).mean(axis=(2, 3)) for mask in _find_body(_cells(values, cell, np.mean)))
        score = score * (lung > LEAST_LUNG if (lung > LEAST_LUNG).any() else body == 1)
    elif whole_film:
        score = score * _lung_prior(score.shape, structure.shape)
    inside = _inside(score.shape, structure.shape)
    for allowed in (inside & (_squares(spoilt).mean(axis=(2, 3)) <= SPOILT), inside):
        best = np.where(allowed, score, 0)
        if best.any():
            y, x = np.unravel_index(int(best.argmax()), best.shape)
            return int(y) * cell[0] * scale_y, int(x) * cell[1] * scale_x, side
    return _middle((rows, columns), size, scale_yx)


def _middle(shape: tuple[int, int], size: tuple[int, int], scale_yx: tuple[int, int]) -> Square:
    top, left = ((length - side) // 2 * scale for length, side, scale in zip(shape, size, scale_yx, strict=True))
    return top, left, size[0] * scale_yx[0]


def _mean(values: np.ndarray, reach: int) -> np.ndarray:
    """Return the mean over `reach` pixels to every side, repeating the edge."""
    for axis in (0, 1):
        padded = np.pad(values, [(reach + 1, reach) if each == axis else (0, 0) for each in (0, 1)], mode="edge")
        total = np.moveaxis(padded.cumsum(axis=axis, dtype=np.float64), axis, 0)
        width = 2 * reach + 1
        values = np.moveaxis((total[width:] - total[:-width]) / width, 0, axis)
    return values


def _cells(values: np.ndarray, cell: tuple[int, ...], reduce: Callable[..., np.ndarray]) -> np.ndarray:
    rows, columns = (length // each for length, each in zip(values.shape, cell, strict=True))
    blocks = values[: rows * cell[0], : columns * cell[1]].reshape(rows, cell[0], columns, cell[1])
    return np.asarray(reduce(blocks.swapaxes(1, 2).reshape(rows, columns, -1), axis=2))


def _squares(cells: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(cells, (CELLS, CELLS))


def _inside(shape: tuple[int, ...], cells: tuple[int, ...]) -> np.ndarray:
    """Return which squares stay away from the edges of the image."""
    lines = []
    for count, total in zip(shape, cells, strict=True):
        border = min(round(BORDER * total), (count - 1) // 2)
        lines.append((np.arange(count) >= border) & (np.arange(count) < count - border))
    return np.asarray(lines[0][:, None] & lines[1])


def _lung_prior(shape: tuple[int, ...], cells: tuple[int, ...]) -> np.ndarray:
    """Return how likely each square of a whole frontal film lies in a lung, 1 at most."""
    y, x = ((np.arange(count) + CELLS / 2) / total for count, total in zip(shape, cells, strict=True))
    (row, row_width), (column, column_width) = LUNGS
    across = np.exp(-0.5 * ((np.minimum(x, 1 - x) - column) / column_width) ** 2)
    return np.asarray(np.exp(-0.5 * ((y - row) / row_width) ** 2)[:, None] * across)


def _find_body(hu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells are of the largest body, and which of these are lung: air with something in it."""
    air = hu < AIR_HU
    outside = _connected(air, _frame(air.shape) & air)
    bodies, largest = ~outside, np.zeros_like(air)
    while bodies.any():
        first = np.zeros_like(air)
        first[np.unravel_index(int(bodies.argmax()), air.shape)] = True
        body = _connected(bodies, first)
        bodies &= ~body
        if body.sum() > largest.sum():
            largest = body
    return largest, largest & air & (hu > THINNEST_LUNG_HU)


def _frame(shape: tuple[int, ...]) -> np.ndarray:
    frame = np.ones(shape, dtype=bool)
    frame[1:-1, 1:-1] = False
    return frame


def _connected(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return the part of a mask that is joined to the seeds along rows and columns."""
    region, count = seeds & mask, -1
    while region.sum() != count:
        count = region.sum()
        grown = region.copy()
        grown[1:] |= region[:-1]
        grown[:-1] |= region[1:]
        grown[:, 1:] |= region[:, :-1]
        grown[:, :-1] |= region[:, 1:]
        region = grown & mask
    return np.asarray(region)
