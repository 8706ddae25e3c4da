"""What an enlargement will take on this machine, told before it begins: seconds and bytes.

Seconds are those of a small image that is really enlarged, times how many more pixels the network will look at. Nothing
is known beforehand of a machine, its load or its threads.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from monai_sr_bundle.engine.session import Session
from monai_sr_bundle.families.family import Extent
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.uncertainty.error_bars import HALO, error_scale

SIDE, LARGER_SIDE = 96, 192
"""Sides of the small image, and of the one that takes its place where one pass takes less than `QUICK_SECONDS`: copies
that stay in the processor's cache are cheaper than those of real images. No window of either is cut."""
QUICK_SECONDS = 0.15
SEVERAL_STEPS = 4
"""Steps of a sampler that are tried beside one, to tell what each takes."""


def needed_bytes(extent: Extent, itemsize: int, session: Session, *, error_bars: bool) -> tuple[int, int]:
    """Return the memory that an enlargement takes beside the image itself.

    Args:
        extent: what is to be enlarged.
        itemsize: bytes of a stored pixel.
        session: the opened bundle.
        error_bars: whether error bars are made too.

    Returns:
        Bytes of the result with its error bars, which cannot be less; and bytes at the most, the network's included.
    """
    family = session.bundle.family
    scale_z, scale_y, scale_x = family.scale_zyx
    slices, region = extent.slices[1] - extent.slices[0], extent.region
    pixels = scale_z * slices * scale_y * region.rows * scale_x * region.columns
    result = pixels * (itemsize + (4 if error_bars else 0))
    window = family.memory_per_pixel * (family.fitting_tile(session.backend) + 2 * family.halo) ** 2
    return result, result + window + family.result_bytes(extent, HALO if error_bars else 0)


class Speed:
    """How fast this machine enlarges, measured once for each bundle and number of steps."""

    def __init__(self) -> None:
        self._measured: dict[tuple[str, int, bool], tuple[float, int]] = {}

    def seconds(self, extent: Extent, session: Session, options: SamplerOptions, *, error_bars: bool) -> float:
        """Return the seconds that an enlargement will take.

        Args:
            extent: what is to be enlarged.
            session: the opened bundle.
            options: sampler options, resolved by the bundle's family.
            error_bars: whether error bars are made too.

        Raises:
            OutOfMemoryError: not even the small image fits.
        """
        family = session.bundle.family
        context = HALO if error_bars else 0
        in_one_pass, in_all_steps = family.count_pixels(extent, session.backend, options, context)
        steps = family.steps(options)
        once, side = self._seconds_a_pixel(session, options, min(steps, 1), error_bars)
        if not steps:
            return once * in_one_pass
        tried = family.valid_steps(SEVERAL_STEPS)
        several, _ = self._seconds_a_pixel(session, options, tried, error_bars, side)
        step = min(max(several - once, 0.0) / (tried - 1), once)
        return (options.samples or 1) * ((once - step) * in_one_pass + step * in_all_steps)

    def _seconds_a_pixel(
        self, session: Session, options: SamplerOptions, steps: int, error_bars: bool, side: int | None = None
    ) -> tuple[float, int]:
        """Measure on an image of this side, or of one that suits; return that side too."""
        key = (str(session.bundle.folder), steps, error_bars)
        if key not in self._measured:
            tried = replace(options, steps=steps, samples=1) if steps else options
            for each in (side,) if side else (SIDE, LARGER_SIDE):
                # The first run also pays for what is done once.
                seconds = min(_run_trial(session, tried, error_bars, each) for _ in range(2))
                self._measured[key] = seconds / each**2, each
                if seconds > QUICK_SECONDS:
                    break
        return self._measured[key]


def _run_trial(session: Session, options: SamplerOptions, error_bars: bool, side: int) -> float:
    image = np.random.default_rng(0).random((side, side), dtype=np.float32)
    began = time.perf_counter()
    high_res = session.bundle.family.enlarge_trial(image, session.backend, options)
    if error_bars:
        error_scale(high_res, image, session.bundle, session.backend)
    return time.perf_counter() - began
