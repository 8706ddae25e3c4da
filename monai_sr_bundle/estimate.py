"""What an enlargement will take on this machine, told before it is begun: seconds and bytes.

Seconds are those of a small image that is really enlarged, times how many more pixels the network will look at. Nothing
is known beforehand of a machine, its load or its threads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from monai_sr_bundle.backends.backend import Backend, enlarge, result_margin
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.inferers.flow import process_of
from monai_sr_bundle.inferers.process import Draw
from monai_sr_bundle.inferers.sampling import Region, needed_regions
from monai_sr_bundle.inferers.slices import stacked
from monai_sr_bundle.inferers.through_plane import STRIP_BYTES
from monai_sr_bundle.inferers.tiled import fitting_tile, infer_tiled, tiles
from monai_sr_bundle.trust.error_bars import HALO, error_scale

SIDE, LARGER = 96, 192
"""Of the small image, and of the one that takes its place where one pass takes less than `QUICK`: copies that stay in
the processor's cache are cheaper than those of real images. No window of either is cut."""
QUICK = 0.15
"""Seconds."""
SEVERAL = 4
"""Steps that are taken of it, beside one, to tell what each takes."""
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
    region: Region


def needed_bytes(
    extent: Extent, itemsize: int, bundle: Bundle, backend: Backend, *, error_bars: bool
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
    wide = _widened(extent, bundle, error_bars=error_bars)
    seen = scale_y * (wide[1] - wide[0]) * scale_x * (wide[3] - wide[2])
    return result, result + window + seen * (PER_PIXEL + (BARS_PER_PIXEL if error_bars else 0))


class Speed:
    """How fast this machine enlarges, measured once for each bundle and way to draw."""

    def __init__(self) -> None:
        self._measured: dict[tuple[str, int, bool], tuple[float, int]] = {}

    def seconds(self, extent: Extent, bundle: Bundle, backend: Backend, draw: Draw, *, error_bars: bool) -> float:
        """Seconds that an enlargement will take.

        Args:
            extent: of the image.
            bundle, backend: that enlarge.
            draw: of a diffusion model or a flow.
            error_bars: are made, too.

        Raises:
            OutOfMemoryError: not even the small image fits.
        """
        looked_at, stepped = _looked_at(extent, bundle, backend, draw, error_bars=error_bars)
        steps = _steps(bundle, draw)
        once, side = self._seconds_a_pixel(bundle, backend, draw, min(steps, 1), error_bars)
        if not steps:
            return once * looked_at
        few = _several(bundle)
        several, _ = self._seconds_a_pixel(bundle, backend, draw, few, error_bars, side)
        step = min(max(several - once, 0.0) / (few - 1), once)
        return draw.samples * ((once - step) * looked_at + step * stepped)

    def _seconds_a_pixel(
        self, bundle: Bundle, backend: Backend, draw: Draw, steps: int, error_bars: bool, side: int | None = None
    ) -> tuple[float, int]:
        """On an image of this side, or of one that suits; and that side."""
        key = (str(bundle.folder), steps, error_bars)
        if key not in self._measured:
            few = replace(draw, steps=steps, samples=1) if steps else draw
            for each in (side,) if side else (SIDE, LARGER):
                # The first run also pays for what is done once.
                took = min(_run_small(bundle, backend, few, error_bars, each) for _ in range(2))
                self._measured[key] = took / each**2, each
                if took > QUICK:
                    break
        return self._measured[key]


def _run_small(bundle: Bundle, backend: Backend, draw: Draw, error_bars: bool, side: int) -> float:
    image = np.random.default_rng(0).random((side, side), dtype=np.float32)
    began = time.perf_counter()
    if bundle.enlarges_slices:
        infer_tiled(image, backend, scale=(bundle.scale, 1), halo=bundle.halo, tile=side)
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


def _several(bundle: Bundle) -> int:
    """`SEVERAL` steps, or the next number that divides those of training: others are refused."""
    most = int((bundle.diffusion or {}).get("training_steps", SEVERAL))
    return next((steps for steps in range(SEVERAL, most) if most % steps == 0), most)


def _looked_at(extent: Extent, bundle: Bundle, backend: Backend, draw: Draw, *, error_bars: bool) -> tuple[int, int]:
    """Low-resolution pixels in all windows of one pass together, and in those of all steps of a sampler."""
    count, rows, columns = extent.shape
    top, bottom, left, right = extent.region
    first, last = extent.slices
    tile = fitting_tile(backend.free_bytes(), bundle.memory_per_pixel, bundle.halo)
    steps = _steps(bundle, draw)
    if bundle.enlarges_slices:
        coronal = _area((count, columns), (first, last, left, right), tile, bundle.halo)
        sagittal = _area((count, rows), (first, last, top, bottom), tile, bundle.halo)
        return (bottom - top) * coronal + (right - left) * sagittal, 0
    wide = _widened(extent, bundle, error_bars=error_bars)
    if not steps or backend.denoiser is None or bundle.diffusion is None:
        return (last - first) * _area((rows, columns), wide, tile, bundle.halo, bundle.grid), 0
    cell, halo = backend.denoiser.cell, process_of(bundle.diffusion).halo or bundle.halo
    size = -(-rows // cell), -(-columns // cell)
    inside = (wide[0] // cell, -(-wide[1] // cell), wide[2] // cell, -(-wide[3] // cell))
    of_condition, *of_steps = (_cut(region, size) for region in needed_regions(inside, steps, halo))
    once = _area(size, of_condition, tile, bundle.halo, bundle.grid)
    stepped = sum(_area(size, region, tile, halo, bundle.grid) for region in of_steps)
    return (last - first) * cell**2 * once, (last - first) * cell**2 * stepped


def _cut(region: Region, size: tuple[int, int]) -> Region:
    top, bottom, left, right = region
    return max(0, top), min(size[0], bottom), max(0, left), min(size[1], right)


def _area(shape: tuple[int, int], region: Region, tile: int, halo: int, grid: int = 1) -> int:
    windows = (piece.window for piece in tiles(shape, region, tile, halo, grid))
    return sum((high.stop - high.start) * (wide.stop - wide.start) for high, wide in windows)


def _widened(extent: Extent, bundle: Bundle, *, error_bars: bool) -> Region:
    """The region with what its result depends on beside the halo of the network."""
    margin = result_margin(bundle) + (HALO if error_bars else 0)
    top, bottom, left, right = extent.region
    return _cut((top - margin, bottom + margin, left - margin, right + margin), extent.shape[1:])
