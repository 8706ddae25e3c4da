"""An image from a bare array, for callers in Python and for the worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.geometry import Grid
from monai_sr_bundle.images.image import Image


def image_from_array(array: np.ndarray, modality: str = "unknown") -> Image:
    """Return an image of a bare array, for callers in Python.

    Args:
        array: ``[rows, columns]`` or ``[slices, rows, columns]``; uint8, uint16 or int16 as stored, or float32.
        modality: "CXR", "CT" (then the numbers are HU) or "unknown".

    Raises:
        InputError: another number of axes or another type.
    """
    pixels = np.asarray(array)
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim != 3 or pixels.dtype not in (np.uint8, np.uint16, np.int16, np.float32):
        raise InputError(
            f"the array is {pixels.dtype} with shape {np.shape(array)}, expected uint8, uint16, int16 or float32 of "
            "shape [rows, columns] or [slices, rows, columns]."
        )
    if modality not in ("CXR", "CT", "unknown"):
        raise InputError(f"modality is {modality!r}, expected 'CXR', 'CT' or 'unknown'.")
    integer = np.issubdtype(pixels.dtype, np.integer)
    limits = (int(np.iinfo(pixels.dtype).min), int(np.iinfo(pixels.dtype).max)) if integer else None
    slices, rows, columns = pixels.shape
    return Image(
        pixels=pixels,
        grid=Grid((slices, rows, columns), np.eye(4), are_frames=True),
        modality=modality,  # type: ignore[arg-type]
        format="array",
        path=Path("array"),
        stored_range=limits,
        bits=8 * pixels.dtype.itemsize,
    )
