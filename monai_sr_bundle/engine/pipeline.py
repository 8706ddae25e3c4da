"""From stored pixels to stored pixels: predict, make consistent with the input, add error bars, round.

The networks' part of the way is the family's; here is what every family shares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from monai_sr_bundle.backends.backend import Backend
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.families.family import Extent, Inference, Volume
from monai_sr_bundle.images import unit
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.input_checks import crop_measured, slices_touch
from monai_sr_bundle.inferers.postprocessing import PostprocessingRecord
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.uncertainty.error_bars import error_bar_halo, error_scale

STRIP = 256
"""Rows of a result that are rounded at a time: the arithmetic is in float64, which the whole would need twice over."""


@dataclass(frozen=True)
class EnlargedRegion:
    """Pixels of an enlarged region.

    Attributes:
        pixels: ``[slices, rows, columns]`` in the storage of the input.
        half_width: error bars of the same shape, float32 modality values; None without.
        record: measurements of postprocessing.
    """

    pixels: np.ndarray
    half_width: np.ndarray | None
    record: PostprocessingRecord


def enlarge_image(
    image: Image,
    bundle: Bundle,
    backend: Backend,
    options: SamplerOptions,
    extent: Extent,
    *,
    padding: unit.Padding | None,
    error_factor: float | None,
    tile: int | None,
    progress: Callable[[float], None] | None,
) -> EnlargedRegion:
    """Enlarge a region of an image.

    Args:
        image: the whole image, checked.
        bundle, backend: loaded networks and their bundle.
        options: resolved by the bundle's family.
        extent: slices and region to enlarge.
        padding: padding of the image, which is air to the networks; None where it has none.
        error_factor: factor of a calibration; None for no error bars.
        tile: side of a tile; None for what fits into free memory.
        progress: called with the fraction that is done.

    Raises:
        OutOfMemoryError: even the smallest tile does not fit.
        MemoryError: the result does not fit.
        BundleError: a network gives values that are not finite.
    """
    family, window = bundle.family, unit.value_window(image, bundle.modality, bundle.window)
    scale_z, scale_y, scale_x = family.scale_zyx
    region = extent.region
    shape = scale_z * extent.slice_count, scale_y * region.rows, scale_x * region.columns
    pixels = np.empty(shape, dtype=image.pixels.dtype)
    half_width = None if error_factor is None else np.empty(shape, dtype=np.float32)
    # Error bars look a little beyond the region, to be those of the whole.
    extent = extent._replace(context=0 if error_factor is None else error_bar_halo(bundle))
    inner = region.relative_to(extent.region_with_context).scaled(scale_y).as_slices
    record, inference = PostprocessingRecord(), Inference(backend, options, tile, progress)
    volume = Volume(
        image.pixels if padding is None else unit.FilledSlices(padding),
        lambda stored: unit.from_stored(image, stored, window),
        unit.stored_limits(image, window),
        slices_touch(image),
    )
    for block in family.enlarge(volume, inference, extent, record):
        if not np.isfinite(block.high_res).all():
            raise BundleError(
                f"bundle {bundle.name} gave values for {image.path.name} that are not finite: its weights may be "
                "damaged. Nothing was written. Take another bundle, or train this one again."
            )
        if error_factor is not None and half_width is not None and block.low_res is not None:
            # Of the numbers that are stored, as the calibration was made.
            stored = unit.from_stored(image, unit.to_stored(image, block.high_res, window), window)
            factor = error_factor * (window[1] - window[0])
            whole = unit.from_stored(image, crop_measured(volume.pixels[extent.slices[0] + block.slice_index]), window)
            half_width[block.slice_index] = factor * error_scale(stored, block.low_res, bundle, backend, whole)[inner]
        high_res = block.high_res[inner]
        for row in range(0, len(high_res), STRIP):
            pixels[block.slice_index, row : row + STRIP] = unit.to_stored(image, high_res[row : row + STRIP], window)
    return EnlargedRegion(pixels, half_width, record)
