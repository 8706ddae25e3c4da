"""Estimate the seconds and bytes that an enlargement takes on this machine, before it begins.

A small image is really enlarged, and its seconds are multiplied by how many more pixels the network will process:
nothing is known beforehand about a machine, its load or its threads. What drawing takes for the whole image, of which
only a region is enlarged, is measured apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from monai_sr_bundle.engine.session import Session
from monai_sr_bundle.families.family import (
    Extent,
    Inference,
    InPlaneFamily,
    ModelFamily,
    Networks,
    SampledFamily,
    Volume,
)
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.inferers.processes import DiffusionProcess
from monai_sr_bundle.inferers.sampler import needed_regions
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.inferers.tiling import tiles
from monai_sr_bundle.uncertainty.error_bars import error_bar_halo, error_scale

SIDE, LARGER_SIDE = 96, 192
"""Sides of the small image, and of the one that replaces it if a pass takes less than `QUICK_SECONDS`: copies that stay
in the processor's cache are cheaper than those of real images. Each is a single tile."""
QUICK_SECONDS = 0.15
NOISE_SIDE = 512
"""Side of the image whose noise is timed."""
SEVERAL_STEPS = 4
"""Steps of a sampler that are timed, as well as one step, to measure the time of each."""


def needed_bytes(extent: Extent, itemsize: int, session: Session, *, error_bars: bool) -> tuple[int, int]:
    """Return the memory that an enlargement takes in addition to the image itself.

    Args:
        extent: slices and region to enlarge.
        itemsize: bytes of a stored pixel.
        session: the opened bundle.
        error_bars: whether error bars are computed too.

    Returns:
        The bytes of the result with its error bars, a lower bound; and an upper bound, which includes the network's.
    """
    family = session.bundle.family
    scale_z, scale_y, scale_x = family.scale_zyx
    region = extent.region
    pixels = scale_z * extent.slice_count * scale_y * region.rows * scale_x * region.columns
    result = pixels * (itemsize + (4 if error_bars else 0))
    window = family.memory_per_pixel * (family.fitting_tile(session.backend) + 2 * family.halo) ** 2
    return result, result + window + result_bytes(
        family, extent._replace(context=error_bar_halo(session.bundle) if error_bars else 0)
    )


def result_bytes(family: ModelFamily, extent: Extent) -> int:
    """Return the bytes of working memory beside the result and one window of the network."""
    if not isinstance(family, InPlaneFamily):
        # The thin slices of one thick slice, and what consistency adds.
        return 2 * 4 * family.scale * extent.region.rows * extent.region.columns
    per_pixel = 12  # float32 twice, and what the reduction and the rounding copy
    per_pixel_with_error_bars = 12 if extent.context else 0  # unshuffled, joined with the input, seen by a network
    computed = _computed_region(family, extent)
    return family.scale**2 * computed.rows * computed.columns * (per_pixel + per_pixel_with_error_bars)


def count_pixels(family: ModelFamily, extent: Extent, networks: Networks, options: SamplerOptions) -> tuple[int, int]:
    """Return the low-resolution pixels in all windows of one pass, and in those of all sampler steps."""
    _, rows, columns = extent.shape
    tile, computed = family.fitting_tile(networks), _computed_region(family, extent)
    steps = sampler_steps(family, options)
    if not steps:
        return extent.slice_count * _window_area((rows, columns), computed, tile, family.halo, family.grid), 0
    assert isinstance(family, SampledFamily)  # no other one has steps
    cell, reach = family.denoiser(networks).cell, family.process.halo or family.halo
    size = -(-rows // cell), -(-columns // cell)
    cells = Region(computed.top // cell, -(-computed.bottom // cell), computed.left // cell, -(-computed.right // cell))
    condition, *each_step = (Region(*region).grown(0, *size) for region in needed_regions(cells, steps, reach))
    once = _window_area(size, condition, tile, family.halo, family.grid)
    stepped = sum(_window_area(size, region, tile, reach, family.grid) for region in each_step)
    pixels = extent.slice_count * cell**2
    return pixels * once, pixels * stepped


def _computed_region(family: ModelFamily, extent: Extent) -> Region:
    margin = family.margin if isinstance(family, InPlaneFamily) else 0
    return extent.region.grown(extent.context + margin, *extent.shape[1:])


def _window_area(shape: tuple[int, int], region: Region, tile: int, halo: int, grid: int) -> int:
    """Return the pixels in all windows that cover a region of an image."""
    return sum(window.rows * window.columns for window, _ in tiles(shape, region, tile, halo, grid))


def sampler_steps(family: ModelFamily, options: SamplerOptions) -> int:
    """Return the number of sampler steps; 0 where nothing is drawn."""
    sampling = family.sampling(options)
    return sampling.steps if sampling else 0


def valid_steps(family: ModelFamily, least: int) -> int:
    """Return the smallest number of sampler steps that a family takes and that is at least `least`."""
    process = getattr(family, "process", None)
    if not isinstance(process, DiffusionProcess):
        return least
    most = process.training_steps
    return next((steps for steps in range(least, most) if most % steps == 0), most)


def time_trial(session: Session, options: SamplerOptions, error_bars: bool, side: int) -> float:
    """Enlarge a small square image and return the seconds that it took.

    Args:
        session: the opened bundle.
        options: sampler options, resolved by the bundle's family.
        error_bars: whether error bars are computed too.
        side: pixels along each side of the image.

    Raises:
        OutOfMemoryError: not even the small image fits.
    """
    image = np.random.default_rng(0).random((side, side), dtype=np.float32)
    start = time.perf_counter()
    high_res = session.bundle.family.enlarge_array(Volume(image[None]), Inference(session.backend, options))[0]
    if error_bars:
        error_scale(high_res, image, session.bundle, session.backend)
    return time.perf_counter() - start


def time_noise(session: Session, options: SamplerOptions) -> float:
    """Return the seconds per pixel of the whole image that its noise takes, however small the region.

    The noise of all pixels is drawn, so that a place has the same noise in every region.

    Args:
        session: the opened bundle, of a family with a sampler.
        options: sampler options, resolved by the bundle's family.
    """
    family = session.bundle.family
    assert isinstance(family, InPlaneFamily)  # no other one draws
    seconds = []
    for side in (SIDE, NOISE_SIDE):
        image = np.random.default_rng(0).random((side, side), dtype=np.float32)
        trials = []
        for _ in range(2):  # the first run includes work that is done only once
            start = time.perf_counter()
            family.enlarge_slice(image, Inference(session.backend, options), region=Region(0, 1, 0, 1))
            trials.append(time.perf_counter() - start)
        seconds.append(min(trials))
    return max(seconds[1] - seconds[0], 0.0) / (NOISE_SIDE**2 - SIDE**2)


class Speed:
    """The speed of this machine, measured once for each bundle, scale and number of steps.

    Args:
        measure: function that returns the seconds of a small image, with the arguments of `time_trial`.
        measure_noise: function that returns the seconds of a pixel of the whole image, as `time_noise`.
    """

    def __init__(
        self,
        measure: Callable[[Session, SamplerOptions, bool, int], float] = time_trial,
        measure_noise: Callable[[Session, SamplerOptions], float] = time_noise,
    ) -> None:
        self._measure_seconds, self._measure_noise = measure, measure_noise
        self._measured: dict[tuple[str, int, int, bool], tuple[float, int]] = {}
        self._noise_seconds: dict[tuple[str, int], float] = {}

    def seconds(self, extent: Extent, session: Session, options: SamplerOptions, *, error_bars: bool) -> float:
        """Return the seconds that an enlargement will take.

        Args:
            extent: slices and region to enlarge.
            session: the opened bundle.
            options: sampler options, resolved by the bundle's family.
            error_bars: whether error bars are computed too.

        Raises:
            OutOfMemoryError: not even the small image fits.
        """
        family = session.bundle.family
        extent = extent._replace(context=error_bar_halo(session.bundle) if error_bars else 0)
        in_one_pass, in_all_steps = count_pixels(family, extent, session.backend, options)
        steps = sampler_steps(family, options)
        one_step, side = self._measure_seconds_per_pixel(session, options, min(steps, 1), error_bars)
        if not steps:
            return one_step * in_one_pass
        several_steps = valid_steps(family, SEVERAL_STEPS)
        several, _ = self._measure_seconds_per_pixel(session, options, several_steps, error_bars, side)
        step = min(max(several - one_step, 0.0) / (several_steps - 1), one_step)
        key = str(session.bundle.folder), session.bundle.scale
        if key not in self._noise_seconds:
            few = replace(options, steps=valid_steps(family, 1), samples=1)
            self._noise_seconds[key] = self._measure_noise(session, few)
        whole_image = extent.slice_count * extent.shape[1] * extent.shape[2]
        networks = (one_step - step) * in_one_pass + step * in_all_steps
        return (options.samples or 1) * (networks + self._noise_seconds[key] * whole_image)

    def _measure_seconds_per_pixel(
        self, session: Session, options: SamplerOptions, steps: int, error_bars: bool, side: int | None = None
    ) -> tuple[float, int]:
        """Return the seconds per pixel of an image, and its side; choose the side if it is None."""
        key = (str(session.bundle.folder), session.bundle.scale, steps, error_bars)
        if key not in self._measured:
            trial_options = replace(options, steps=steps, samples=1) if steps else options
            for trial_side in (side,) if side else (SIDE, LARGER_SIDE):
                # The first run includes work that is done only once.
                seconds = min(self._measure_seconds(session, trial_options, error_bars, trial_side) for _ in range(2))
                self._measured[key] = seconds / trial_side**2, trial_side
                if seconds > QUICK_SECONDS:
                    break
        return self._measured[key]
