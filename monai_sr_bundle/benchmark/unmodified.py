"""Measures of an enlarged image without a known truth: noise, edges, padding, agreement with the input, flicker.

All places are chosen on the input, so that they are the same for every method and factor. Lengths are in pixels of
the input, values in grey levels or HU.

- Noise: the spread in flat blocks of tissue, as Christianson et al., "Automated technique to measure noise in clinical
  CT examinations", AJR 205(1), 2015; after the trend is taken away, as in noise power spectra by IEC 62220-1.
- Edges: the edge spread function of ISO 12233: pixels in bins of a quarter of an input pixel across an edge whose
  course is fitted first; its 10-90 % distance, and how far it passes beyond its two plateaus.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.images.unit import NEAR_PADDING, largest_around
from monai_sr_bundle.inferers.postprocessing import enlarge_bicubic

BLOCK = 8
"""Side of a block in input pixels."""
FLATTEST, UP_TO = 0.2, 1.5
"""A block is flat up to `UP_TO` times the spread that the flattest share of the blocks in tissue has at most.

The quietest blocks alone would be those where the noise of the input happens to be small, and where a method with a
noise of its own would look noisier than it is.
"""
REACH, PLATEAU, HALF_LENGTH = 6.0, 3.0, 3.0
"""Input pixels that an edge is seen on both sides, of which those beyond `PLATEAU` are flat; and half its length."""
BINS = 4
"""Bins of the edge spread function per input pixel, as in ISO 12233."""
CANDIDATES, MOST_EDGES, LEAST_EDGES = 600, 60, 3
"""Strongest gradients that are examined; edges of an image that are measured, at most and at least."""
STRAIGHT, LEAST_RADIUS = 0.25, 5.0
"""Bounds of the course of an edge in input pixels: RMS about its fit, and radius of its curve."""
UNEVEN, PASSING = 0.12, 0.25
"""Bounds of an edge spread function in parts of its step: spread of a plateau, and overshoot."""


@dataclass(frozen=True)
class Edge:
    """A short, nearly straight edge of an image, and the plateaus on its two sides.

    Attributes:
        centre: row and column.
        normal: unit vector of rows and columns from the dark to the bright side.
        course: coefficients of the polynomial, highest power first, that gives the edge's position along the normal for
            each position along the edge.
        dark, bright: values of the plateaus.
    """

    centre: tuple[float, float]
    normal: tuple[float, float]
    course: np.ndarray
    dark: float
    bright: float


# Noise


def spreads(image: np.ndarray, side: int) -> np.ndarray:
    """Return the standard deviation inside each block of ``[rows, columns]`` after its plane is taken away.

    Args:
        image: values; what is left beyond whole blocks is ignored.
        side: side of a block in pixels.

    Returns:
        One number a block, row after row.
    """
    blocks = _blocks(np.asarray(image, dtype=np.float64), side)
    blocks = blocks - blocks.mean(axis=(1, 2), keepdims=True)
    ramp = np.arange(side) - (side - 1) / 2
    squares = (blocks**2).sum(axis=(1, 2))
    for axis in (1, 2):
        squares -= (blocks.sum(axis=axis) @ ramp) ** 2 / (side * (ramp**2).sum())
    return np.asarray(np.sqrt(np.maximum(squares, 0) / (side**2 - 3)))


def find_flat_blocks(image: np.ndarray, usable: np.ndarray, tissue: tuple[float, float]) -> np.ndarray:
    """Choose the blocks of an input that hold little but noise.

    Args:
        image: ``[rows, columns]``.
        usable: pixels that may be looked at, booleans of the same shape.
        tissue: lowest and highest mean of a block.

    Returns:
        Booleans, one a block of `BLOCK`, row after row; none where there is no such tissue.
    """
    spread = spreads(image, BLOCK)
    inside = find_blocks(image, usable, tissue) & (spread > 0)
    if not inside.any():
        return inside
    return np.asarray(inside & (spread <= UP_TO * np.quantile(spread[inside], FLATTEST)))


def find_blocks(image: np.ndarray, usable: np.ndarray, values: tuple[float, float]) -> np.ndarray:
    """Return the blocks of usable pixels alone whose mean lies between two values, as `find_flat_blocks` does."""
    means = _blocks(np.asarray(image, dtype=np.float64), BLOCK).mean(axis=(1, 2))
    whole = _blocks(usable, BLOCK).all(axis=(1, 2))
    return np.asarray(whole & (means >= values[0]) & (means <= values[1]))


def measure_spread(enlarged: np.ndarray, scale: int, blocks: np.ndarray) -> float:
    """Return the median spread in chosen blocks of a result, or of its change to the next slice; NaN without any."""
    return float(np.median(spreads(enlarged, scale * BLOCK)[blocks])) if blocks.any() else np.nan


# Edges


def find_edges(image: np.ndarray, usable: np.ndarray, least_step: float) -> list[Edge]:
    """Find strong, nearly straight edges between flat sides on the bicubic enlargement of an input.

    Args:
        image: ``[rows, columns]``.
        usable: pixels that may be looked at, booleans of the same shape.
        least_step: least difference of the sides.

    Returns:
        Edges that do not overlap, the steepest first, at most `MOST_EDGES`.
    """
    margin = int(np.ceil(np.hypot(REACH + 1, HALF_LENGTH + 1)))
    if min(image.shape) <= 2 * margin:
        return []
    from scipy.ndimage import gaussian_filter

    gradient = np.gradient(gaussian_filter(np.asarray(image, dtype=np.float64), 1, mode="constant", truncate=3))
    steepness = np.hypot(*gradient)
    steepness[~usable | _frame(image.shape, margin)] = 0
    enlarged = enlarge_bicubic(image, BINS)
    edges: list[Edge] = []
    free = largest_around(~usable, margin) == 0
    for position in np.argsort(steepness, axis=None)[::-1][:CANDIDATES]:
        row, column = divmod(int(position), image.shape[1])
        if len(edges) == MOST_EDGES or steepness[row, column] == 0:
            break
        if not free[row, column]:
            continue
        normal = gradient[0][row, column], gradient[1][row, column]
        length = float(np.hypot(*normal))
        edge = _fit_edge(enlarged, Edge((row, column), (normal[0] / length, normal[1] / length), np.zeros(1), 0, 0))
        if edge is not None and edge.bright - edge.dark >= least_step:
            edges.append(edge)
            free[max(0, row - BLOCK) : row + BLOCK + 1, max(0, column - BLOCK) : column + BLOCK + 1] = False
    return edges


def edge_spread(enlarged: np.ndarray, scale: int, edge: Edge) -> tuple[np.ndarray, np.ndarray]:
    """Return the edge spread function: distances from the edge in input pixels, ascending, and the values there.

    Args:
        enlarged: ``[scale * rows, scale * columns]``.
        scale: pixels per input pixel.
        edge: the edge.
    """
    distance, along, values = _pixels_around(enlarged, scale, edge)
    return _mean_in_bins(distance - np.polyval(edge.course, along), values)


def measure_edges(enlarged: np.ndarray, image: np.ndarray, edges: list[Edge]) -> tuple[float, float]:
    """Measure the edges of a result.

    Args:
        enlarged: ``[scale * rows, scale * columns]``.
        image: the input, ``[rows, columns]``.
        edges: see `find_edges`.

    Returns:
        The median 10-90 % distance in input pixels, at most as far as edges are seen; and the mean of how far a result
        passes beyond the plateaus of an edge, beyond what the pixels of the input do. Not numbers with fewer than
        `LEAST_EDGES`.
    """
    if len(edges) < LEAST_EDGES:
        return np.nan, np.nan
    scale = len(enlarged) // len(image)
    repeated = np.asarray(image).repeat(scale, axis=0).repeat(scale, axis=1)
    widths, passing = [], []
    for edge in edges:
        distance, values = edge_spread(enlarged, scale, edge)
        widths.append(_width(distance, (values - edge.dark) / (edge.bright - edge.dark)))
        beyond = _overshoot(distance, values, edge) - _overshoot(*edge_spread(repeated, scale, edge), edge)
        passing.append(max(0.0, beyond))
    return float(np.median(widths)), float(np.mean(passing))


def _fit_edge(enlarged: np.ndarray, start: Edge) -> Edge | None:
    """Return an edge with its course and plateaus, from an enlargement by `BINS`; None where it is no good edge."""
    distance, along, values = _pixels_around(enlarged, BINS, start)
    dark, bright = (float(np.median(values[side * distance > PLATEAU])) for side in (-1, 1))
    if bright <= dark:
        return None
    strips = np.arange(-HALF_LENGTH, HALF_LENGTH + 1)
    crossings = []
    for strip in strips:
        in_strip = np.abs(along - strip) <= 0.5
        positions, heights = _mean_in_bins(distance[in_strip], values[in_strip])
        crossings.append(_find_crossing(positions, (heights - dark) / (bright - dark), 0.5))
    if not np.all(np.abs(crossings) < PLATEAU):
        return None
    course = np.polyfit(strips, crossings, 2)
    residual = np.sqrt(np.mean((np.polyval(course, strips) - crossings) ** 2))
    if residual > STRAIGHT or abs(course[0]) > 0.5 / LEAST_RADIUS or abs(course[-1]) > 1:
        return None
    positions, heights = _mean_in_bins(distance - np.polyval(course, along), values)
    sides = [heights[side * positions > PLATEAU] for side in (-1, 1)]
    dark, bright = (float(np.median(side)) for side in sides)
    edge = Edge(start.centre, start.normal, course, dark, bright)
    step = bright - dark
    if step <= 0 or max(side.std() for side in sides) > UNEVEN * step:
        return None
    return None if _overshoot(positions, heights, edge) > PASSING * step else edge


def _pixels_around(enlarged: np.ndarray, scale: int, edge: Edge) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distance along the normal, position along the edge, and value of the pixels around an edge."""
    half = np.hypot(REACH + 1, HALF_LENGTH)
    first = [max(0, int((centre - half + 0.5) * scale)) for centre in edge.centre]
    last = [int((centre + half + 0.5) * scale) + 1 for centre in edge.centre]
    part = np.asarray(enlarged[first[0] : last[0], first[1] : last[1]], dtype=np.float64)
    rows, columns = (
        (start + np.arange(size) + 0.5) / scale - 0.5 - centre
        for start, size, centre in zip(first, part.shape, edge.centre, strict=True)
    )
    distance = edge.normal[0] * rows[:, None] + edge.normal[1] * columns[None]
    along = edge.normal[1] * rows[:, None] - edge.normal[0] * columns[None]
    within_reach = (np.abs(along) <= HALF_LENGTH + 0.5) & (np.abs(distance) <= REACH + 1)
    return distance[within_reach], along[within_reach], part[within_reach]


def _mean_in_bins(distance: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean distance and value of each bin that holds a pixel, up to `REACH`."""
    within_reach = np.abs(distance) <= REACH
    index = np.floor((distance[within_reach] + REACH) * BINS).astype(int)
    count = np.bincount(index)
    filled = count > 0
    means = [np.bincount(index, weights=each[within_reach])[filled] / count[filled] for each in (distance, values)]
    return means[0], means[1]


def _width(distance: np.ndarray, height: np.ndarray) -> float:
    """Return the distance between 10 and 90 % of a step from 0 to 1, next to its middle."""
    middle = _find_crossing(distance, height, 0.5)
    below = _find_crossing(-(distance[::-1] - middle), 1 - height[::-1], 0.9, first_from=0.0)
    above = _find_crossing(distance - middle, height, 0.9, first_from=0.0)
    return above + below if np.isfinite(above + below) else 2 * REACH


def _find_crossing(distance: np.ndarray, height: np.ndarray, level: float, first_from: float | None = None) -> float:
    """Return where a function rises through a level: the crossing next to 0, or the first one from a distance on."""
    rises = np.flatnonzero((height[:-1] < level) & (height[1:] >= level))
    share = (level - height[rises]) / (height[rises + 1] - height[rises])
    crossings = distance[rises] + share * (distance[rises + 1] - distance[rises])
    if first_from is not None:
        crossings = crossings[crossings >= first_from]
    return float(crossings[np.abs(crossings).argmin()]) if len(crossings) else np.nan


def _overshoot(distance: np.ndarray, values: np.ndarray, edge: Edge) -> float:
    """Return how far an edge spread function passes beyond the plateaus beside the edge; below 0 if it does not."""
    bright = values[(distance > 0) & (distance <= PLATEAU)].max() - edge.bright
    dark = edge.dark - values[(distance < 0) & (distance >= -PLATEAU)].min()
    return float(max(bright, dark))


# Padding, and agreement with the input


def measure_near_padding(enlarged: np.ndarray, image: np.ndarray, padding: np.ndarray) -> float:
    """Return by how much the brightest pixel of a result near padding is above all of the source around it.

    Args:
        enlarged: ``[scale * rows, scale * columns]``.
        image: the input, ``[rows, columns]``.
        padding: its padding, booleans of the same shape.

    Returns:
        The largest difference of a pixel at most `NEAR_PADDING` input pixels from padding to the brightest pixel of
        the source, but padding, at most as far from it; not a number without padding.
    """
    near_padding = largest_around(padding, NEAR_PADDING) & ~padding
    if not near_padding.any():
        return np.nan
    scale = len(enlarged) // len(image)
    brightest = enlarged.reshape(len(image), scale, image.shape[1], scale).max(axis=(1, 3))
    return float((brightest - largest_around(np.where(padding, image.min(), image), NEAR_PADDING))[near_padding].max())


def measure_disagreement(enlarged: np.ndarray, image: np.ndarray, usable: np.ndarray) -> float:
    """Return the RMS of the result, reduced by antialiased bicubic interpolation, minus the input; else NaN.

    Args:
        enlarged: ``[scale * rows, scale * columns]``.
        image: the input, ``[rows, columns]``.
        usable: pixels that are compared, but those of the frame, booleans of the same shape.
    """
    compared = usable & ~_frame(image.shape, NEAR_PADDING)
    reduced = Degradation("bicubic_antialias", len(enlarged) // len(image)).reduce(enlarged)
    return float(np.sqrt(np.mean((reduced - image)[compared] ** 2))) if compared.any() else np.nan


def _blocks(image: np.ndarray, side: int) -> np.ndarray:
    rows, columns = (length // side for length in image.shape)
    blocks = image[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return blocks.swapaxes(1, 2).reshape(-1, side, side)


def _frame(shape: tuple[int, ...], width: int) -> np.ndarray:
    frame = np.ones(shape, dtype=bool)
    frame[width:-width, width:-width] = False
    return frame
