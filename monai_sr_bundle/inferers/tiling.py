"""Large images in pieces, with the result of the whole: every tile sees as far as the network looks.

A volume is enlarged slice by slice, and a network of several slices sees each with its neighbours.

Only numpy; training pairs, every backend and every interface go through here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from monai_sr_bundle.errors import BundleError, OutOfMemoryError
from monai_sr_bundle.images.geometry import Region

logger = logging.getLogger(__name__)

LARGEST_TILE = 256
SMALLEST_TILE = 64
LEAST_PIXELS = 20_481
"""Pixels of every window that is not the whole image. PyTorch gives smaller ones to another convolution (`use_mkldnn`
in ATen/native/Convolution.cpp), whose sums differ in the last bit; a result must not depend on the free memory."""
LEAST_SIDE = 144
"""Least side of those windows, as far as the image reaches: about the square root of `LEAST_PIXELS`."""
Predict = Callable[[np.ndarray], np.ndarray]
"""``[1, C, rows, columns]`` float32 to ``[1, D, scale * rows, scale * columns]``; MemoryError if it does not fit."""


class Tile(NamedTuple):
    """One piece: `window` is what the network sees, `inner` the part of it whose result is kept (low-res pixels)."""

    window: Region
    inner: Region


def tiles(shape: tuple[int, int], region: Region, tile: int, halo: int, grid: int = 1) -> Iterator[Tile]:
    """Cut a region of an image into tiles.

    Args:
        shape: rows, columns of the image.
        region: ``(row_start, row_stop, column_start, column_stop)`` to be covered.
        tile: side of the kept part.
        halo: pixels seen around it, as far as the image reaches; more where the window would be too small.
        grid: windows start at multiples of it and end at multiples of it or at the image's end.
    """
    rows, columns = shape
    row_start, row_stop, column_start, column_stop = region
    for top in range(row_start, row_stop, tile):
        bottom = min(top + tile, row_stop)
        for left in range(column_start, column_stop, tile):
            right = min(left + tile, column_stop)
            down = _widened(top - halo, bottom + halo, LEAST_SIDE, rows, grid)
            across = _widened(left - halo, right + halo, -(-LEAST_PIXELS // (down.stop - down.start)), columns, grid)
            down = _widened(down.start, down.stop, -(-LEAST_PIXELS // (across.stop - across.start)), rows, grid)
            yield Tile(Region(down.start, down.stop, across.start, across.stop), Region(top, bottom, left, right))


def _widened(start: int, stop: int, least: int, size: int, grid: int) -> slice:
    """Return the range within an axis of `size`, on the grid, with at least `least` pixels if the axis has them."""
    start, stop = max(0, start), min(size, stop)
    start = max(0, min(start, start - (least - (stop - start)) // 2, size - least))
    stop = max(stop, min(size, start + least))
    return slice(start - start % grid, min(size, stop + -stop % grid))


def window_ranges(tile: int, halo: int, grid: int, least: int) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """Return ranges of rows and columns such that each window of `tiles` lies in one of them.

    Args:
        tile, halo, grid: see `tiles`.
        least: smallest side of an image.

    Returns:
        The smallest and largest number of rows, and of columns, of square windows, and of the wide and tall ones that
        thin images have.
    """
    widest = 2 * (grid - 1)  # what the grid adds
    most = max(tile + 2 * halo, LEAST_SIDE) + widest
    thin, long = -(-LEAST_PIXELS // (most - widest)), max(most, -(-LEAST_PIXELS // least) + widest)
    return {
        "square": ((least, most), (least, most)),
        "wide": ((least, thin), (most, long)),
        "tall": ((most, long), (least, thin)),
    }


def fitting_tile(free_bytes: int, memory_per_pixel: int, halo: int) -> int:
    """Return the largest tile side that leaves three quarters of the free memory to others.

    Args:
        free_bytes: free memory of the device.
        memory_per_pixel: bytes the network needs per low-resolution pixel of the window.
        halo: pixels around a tile.

    Returns:
        Between `SMALLEST_TILE` and `LARGEST_TILE`, a power of two.
    """
    tile = LARGEST_TILE
    while tile > SMALLEST_TILE and (tile + 2 * halo) ** 2 * memory_per_pixel > free_bytes / 4:
        tile //= 2
    return tile


def infer_tiled(
    image: np.ndarray,
    predict: Predict,
    *,
    scale: int,
    halo: int,
    tile: int,
    grid: int = 1,
    region: Region | None = None,
    progress: Callable[[float], None] | None = None,
    channels: int = 1,
) -> tuple[np.ndarray, int]:
    """Enlarge an image tile by tile; halve the tile when memory runs out.

    The result equals that of the whole image, bit for bit where the backend convolves windows of any size in the same
    order, as long as `halo` is at least the network's receptive radius and `grid` is its grid.

    Args:
        image: ``[rows, columns]`` or ``[C, rows, columns]`` float32.
        predict: the network.
        scale: output pixels per input pixel.
        halo: at least the network's receptive radius, in input pixels.
        tile: side of a tile in input pixels.
        grid: the network's grid, in input pixels: moved by a multiple of it, an image gives the same result moved. More
            than 1 for networks that pool.
        region: ``(row_start, row_stop, column_start, column_stop)`` to enlarge; the whole image if None.
        progress: called with the fraction of the region that is done.
        channels: channels of the network's result. Default 1.

    Returns:
        ``[channels, scale * region rows, scale * region columns]`` float32, and the tile side that fitted.

    Raises:
        BundleError: the network enlarges by another factor.
        OutOfMemoryError: even a tile of `SMALLEST_TILE` does not fit.
        MemoryError: the result does not fit.
    """
    *_, rows, columns = image.shape
    image = image.reshape(1, -1, rows, columns)
    region = Region(*region) if region else Region.whole(rows, columns)
    result = np.empty((channels, scale * region.rows, scale * region.columns), dtype=np.float32)
    while True:
        try:
            pieces = list(tiles((rows, columns), region, tile, halo, grid))
            for done, (window, inner) in enumerate(pieces, start=1):
                enlarged = predict(np.ascontiguousarray(image[..., *window.as_slices], dtype=np.float32))[0]
                if enlarged.shape != (channels, scale * window.rows, scale * window.columns):
                    raise BundleError(
                        f"the network made {enlarged.shape[2]}x{enlarged.shape[1]} pixels of "
                        f"{window.columns}x{window.rows}, expected {scale} times as many along each side, in "
                        f"{len(enlarged)} channels, expected {channels}. "
                        "The bundle's scale is not that of its network."
                    )
                core = enlarged[:, *inner.relative_to(window).scaled(scale).as_slices]
                result[:, *inner.relative_to(region).scaled(scale).as_slices] = core
                if progress is not None:
                    progress(done / len(pieces))
            return result, tile
        except MemoryError as error:
            if tile <= SMALLEST_TILE:
                raise OutOfMemoryError(
                    f"a tile of {tile}x{tile} pixels does not fit into memory. Close other programs, choose a smaller "
                    "region with --roi, or use another machine."
                ) from error
            tile = max(SMALLEST_TILE, tile // 2)
            logger.warning("memory ran out; going on with tiles of %d pixels", tile)


def neighbours(index: int, count: int, slices: int) -> list[int]:
    """Return the indices of a slice and of as many others on either side, in order.

    Beyond an end of the volume it is the end slice again.

    Args:
        index: number of the slice, from 0.
        count: number of slices of the volume.
        slices: number of slices to return, odd.
    """
    return [min(max(each, 0), count - 1) for each in range(index - slices // 2, index + slices // 2 + 1)]


def stacked(image: np.ndarray, slices: int) -> np.ndarray:
    """Return a slice as a network of several slices takes it.

    Args:
        image: ``[rows, columns]``, which is taken for its own neighbours, or ``[n, rows, columns]`` around the slice.
        slices: number of slices to return, odd.

    Returns:
        ``[slices, rows, columns]`` around the same slice.
    """
    stack = image.reshape(-1, *image.shape[-2:])
    return stack if len(stack) == slices else stack[neighbours(len(stack) // 2, len(stack), slices)]


def middle(stack: np.ndarray) -> np.ndarray:
    """Return the slice between its neighbours: ``[n, rows, columns]`` to ``[rows, columns]``."""
    return np.asarray(stack[len(stack) // 2])
