"""What an enlargement will take on this machine, told before it is begun: seconds and bytes.

Seconds are those of a small image that is really enlarged, times how many more pixels the network will look at. Nothing
is known beforehand of a machine, its load or its threads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from monai_sr_bundle.backends.backend import Cascade, Opened, enlarge, result_margin
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.inferers.process import Draw
from monai_sr_bundle.inferers.slices import stacked
from monai_sr_bundle.inferers.through_plane import STRIP_BYTES
from monai_sr_bundle.inferers.tiled import fitting_tile, infer_tiled, tiles
from monai_sr_bundle.trust.error_bars import HALO, error_scale

SIDE = 96
"""Of the small image: below 0.1 s for a fast network, and no window of it is cut."""
PER_PIXEL = 12
"""Bytes of a pixel of the slice that is worked on: as float32 twice, and what the reduction and the rounding copy."""
BARS_PER_PIXEL = 12
"""More of them where it has error bars: it is unshuffled, joined with the input and seen by a network."""


@dataclass(frozen=True)
class Extent:
    """What is to be enlarged.

    Attributes:
        shape: slices, rows, columns of the image.
        slices: first slice and the one after the last.
        region: ``(row_start, row_stop, column_start, column_stop)``.
    """

    shape: tuple[int, int, int]
    slices: tuple[int, int]
    region: tuple[int, int, int, int]


def needed_bytes(
    extent: Extent, itemsize: int, bundle: Bundle, backend: Opened, *, error_bars: bool
) -> tuple[int, int]:
    """Memory that an enlargement takes beside the image itself.

    Args:
        extent: of the image.
        itemsize: bytes of a stored pixel.
        bundle, backend: that enlarge.
        error_bars: are made, too.

    Returns:
        Bytes of the result with its error bars, which cannot be less; and bytes at the most, the network's included.
    """
    scale_z, scale_y, scale_x = bundle.scale_zyx
    top, bottom, left, right = extent.region
    planes = extent.slices[1] - extent.slices[0]
    per_slice = scale_y * (bottom - top) * scale_x * (right - left)
    pixels = scale_z * planes * per_slice
    result = pixels * (itemsize + (4 if error_bars else 0))
    tile = fitting_tile(backend.free_bytes(), bundle.memory_per_pixel, bundle.halo)
    window = bundle.memory_per_pixel * (tile + 2 * bundle.halo) ** 2
    if bundle.enlarges_slices:
        # A strip twice: as the network made it, and what consistency adds.
        return result, result + window + 2 * min(4 * pixels, STRIP_BYTES)
    wide = _widened(extent, bundle, Draw(), error_bars=error_bars)
    seen = scale_y * (wide[1] - wide[0]) * scale_x * (wide[3] - wide[2])
    return result, result + window + seen * (PER_PIXEL + (BARS_PER_PIXEL if error_bars else 0))


class Speed:
    """How fast this machine enlarges, measured once for each bundle and way to draw."""

    def __init__(self) -> None:
        self._measured: dict[tuple[str, int, bool, bool], float] = {}

    def seconds(self, extent: Extent, bundle: Bundle, backend: Opened, draw: Draw, *, error_bars: bool) -> float:
        """Seconds that an enlargement will take.

        Args:
            extent: of the image.
            bundle, backend: that enlarge.
            draw: of a diffusion model or a flow.
            error_bars: are made, too.

        Raises:
            OutOfMemoryError: not even the small image fits.
        """
        steps = _steps(bundle, draw)
        if steps > 2:  # all steps take as long as each other
            first, second = (self._seconds_of_small(bundle, backend, draw, n, error_bars) for n in (1, 2))
            small = first + max(second - first, 0.0) * (steps - 1)
        else:
            small = self._seconds_of_small(bundle, backend, draw, steps, error_bars)
        more = _looked_at(extent, bundle, backend, draw, error_bars=error_bars) / SIDE**2
        return small * more * (draw.samples if steps else 1)

    def _seconds_of_small(self, bundle: Bundle, backend: Opened, draw: Draw, steps: int, error_bars: bool) -> float:
        key = (str(bundle.folder), steps, error_bars, bool(steps))
        if key not in self._measured:
            few = replace(draw, steps=steps, samples=1) if steps else draw
            # The first run also pays for what is done once.
            self._measured[key] = min(_run_small(bundle, backend, few, error_bars) for _ in range(2))
        return self._measured[key]


def _run_small(bundle: Bundle, backend: Opened, draw: Draw, error_bars: bool) -> float:
    image = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)
    began = time.perf_counter()
    if bundle.enlarges_slices:
        assert not isinstance(backend, Cascade), "open_bundle has refused it"
        infer_tiled(image, backend, scale=(bundle.scale, 1), halo=bundle.halo, tile=SIDE)
    else:
        made, _ = enlarge(stacked(image, bundle.slices), bundle, backend, draw=draw)
        if error_bars:
            error_scale(made, image, bundle, backend)
    return time.perf_counter() - began


def _steps(bundle: Bundle, draw: Draw) -> int:
    """Of the sampler; 0 where nothing is drawn."""
    if bundle.diffusion is None or not draw.texture:
        return 0
    return draw.steps or int(bundle.diffusion.get("training_steps", 1))


def _looked_at(extent: Extent, bundle: Bundle, backend: Opened, draw: Draw, *, error_bars: bool) -> int:
    """Low-resolution pixels in all windows together."""
    count, rows, columns = extent.shape
    top, bottom, left, right = extent.region
    first, last = extent.slices
    tile = fitting_tile(backend.free_bytes(), bundle.memory_per_pixel, bundle.halo)
    if bundle.enlarges_slices:
        coronal = _area((count, columns), (first, last, left, right), tile, bundle.halo)
        sagittal = _area((count, rows), (first, last, top, bottom), tile, bundle.halo)
        return (bottom - top) * coronal + (right - left) * sagittal
    if isinstance(backend, Cascade):  # all parts but the last enlarge the whole
        return (last - first) * _area((rows, columns), (0, rows, 0, columns), tile, bundle.halo, bundle.grid)
    wide = _widened(extent, bundle, draw, error_bars=error_bars)
    steps, cell = _steps(bundle, draw), 1
    if steps and backend.denoiser is not None:
        # Whatever can reach the region in all steps together; tiles and halo are counted in cells.
        cell = backend.denoiser.cell
        reach = bundle.halo * (steps * (2 if bundle.is_flow else 1) + 2)
        size = rows, columns = -(-rows // cell), -(-columns // cell)
        top, left = (max(0, start // cell - reach) for start in wide[::2])
        bottom, right = (min(most, -(-stop // cell) + reach) for stop, most in zip(wide[1::2], size, strict=True))
        wide = (top, bottom, left, right)
    return (last - first) * cell**2 * _area((rows, columns), wide, tile, bundle.halo, bundle.grid)


def _area(shape: tuple[int, int], region: tuple[int, int, int, int], tile: int, halo: int, grid: int = 1) -> int:
    windows = (piece.window for piece in tiles(shape, region, tile, halo, grid))
    return sum((high.stop - high.start) * (wide.stop - wide.start) for high, wide in windows)


def _widened(extent: Extent, bundle: Bundle, draw: Draw, *, error_bars: bool) -> tuple[int, int, int, int]:
    """The region with what its result depends on beside the halo of the network."""
    margin = result_margin(bundle) + (HALO if error_bars else 0)
    _, rows, columns = extent.shape
    top, bottom, left, right = extent.region
    return max(0, top - margin), min(rows, bottom + margin), max(0, left - margin), min(columns, right + margin)
