"""The references of a result: itself, reduced to the size of the input, and bicubic interpolation of the input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from monai_sr_bundle.families.family import InPlaneFamily, ModelFamily
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.inferers.postprocessing import cubic_taps, enlarge_bicubic


def reduce_result(family: ModelFamily, high_res_slice: Callable[[int], np.ndarray], index: int) -> np.ndarray:
    """Reduce a result to the input's size.

    Args:
        family: the family that made it.
        high_res_slice: gives a slice of the result, ``[rows, columns]`` float32.
        index: slice of the input.

    Returns:
        ``[rows, columns]``, neither clipped nor rounded.
    """
    if isinstance(family, InPlaneFamily):
        high_res = high_res_slice(index)
        shape = tuple(side // family.scale for side in high_res.shape)
        return family.data_consistency.reduce(high_res, shape)
    parts = [high_res_slice(family.scale * index + part) for part in range(family.scale)]
    return np.asarray(np.mean(parts, axis=0, dtype=np.float64))


def interpolate_source(
    family: ModelFamily,
    low_res_slice: Callable[[int], np.ndarray],
    index: int,
    slices: tuple[int, int],
    region: Region,
) -> np.ndarray:
    """Return one slice of the bicubic (along slices: cubic) interpolation of an input.

    Args:
        family: the family that enlarges it.
        low_res_slice: gives a whole slice of the input, ``[rows, columns]`` float32.
        index: slice of the result, counted from the first one of `slices`.
        slices: first slice of the input, and the one after the last.
        region: rows and columns.
    """
    first, last = slices
    if not isinstance(family, InPlaneFamily):
        return cubic_slice(
            lambda thick: low_res_slice(first + thick)[region.as_slices], last - first, index, family.scale
        )
    # As a network does, it sees beyond the border of the region.
    whole = low_res_slice(first + index)
    widened = region.grown(4, *whole.shape)
    enlarged = enlarge_bicubic(whole[widened.as_slices], family.scale)
    return enlarged[region.relative_to(widened).scaled(family.scale).as_slices]


def cubic_slice(slice_of: Callable[[int], np.ndarray], slices: int, index: int, scale: int) -> np.ndarray:
    """Return one thin slice by cubic interpolation along the slices (Keys 1981, a = -0.75, `align_corners=False`).

    Args:
        slice_of: gives a slice of the volume, ``[rows, columns]`` float32.
        slices: number of slices of the volume.
        index: number of the thin slice, from 0 to ``scale * slices - 1``.
        scale: thin slices per slice of the volume.

    Returns:
        ``[rows, columns]`` float32.
    """
    source_index, weight = cubic_taps(slices, scale)
    thin = np.zeros((), dtype=np.float32)
    for k in range(4):
        thin = thin + weight[index, k].astype(np.float32) * slice_of(int(source_index[index, k]))
    return np.asarray(thin)
