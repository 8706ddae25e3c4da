"""Radiographs as 8-bit grey: DICOM through its VOI window, pictures unchanged."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
from monai_sr_bundle.errors import InputError

if TYPE_CHECKING:
    from monai_sr_bundle.images.image import Image

BLANK_STD = 2.0
"""Smallest standard deviation, in grey levels of 255, of an image that is not blank."""


@dataclass(frozen=True)
class Radiograph:
    """A radiograph in memory.

    Attributes:
        grey: ``[rows, columns]`` float32 in 0..255, black is 0, not rounded.
        spacing_xy: millimetres along a row and down a column; None if unknown.
        spacing_source: origin of the spacing in words; empty without one.
        note: conversion to 8 bits in words; empty for 8-bit pictures.
    """

    grey: np.ndarray
    spacing_xy: tuple[float, float] | None = None
    spacing_source: str = ""
    note: str = ""

    @property
    def size_xy(self) -> tuple[int, int]:
        """Columns and rows."""
        rows, columns = self.grey.shape
        return columns, rows


def read_radiograph(path: Path) -> Radiograph:
    """Read a DICOM radiograph or a picture (PNG, JPEG, TIFF), recognised by content.

    The VOI window or table of a DICOM file is applied (of several, the first) and MONOCHROME1 is inverted; more than
    8 bits without a window are stretched from the lowest to the highest value.

    Raises:
        InputError: not readable as one grey radiograph, several frames, or almost blank.
    """
    from monai_sr_bundle.images.dicom_file import is_dicom
    from monai_sr_bundle.images.dicom_read import read_dicom
    from monai_sr_bundle.images.picture import read_picture

    image = read_dicom([path], path) if is_dicom(path) else read_picture(path)
    if image.pixels.shape[0] != 1:
        raise InputError(f"{path.name}: holds {image.pixels.shape[0]} frames, expected one radiograph. Split it.")
    values = image.slope * image.pixels[0].astype(np.float64) + image.intercept
    try:
        grey, note = _apply_voi(image, values)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise InputError(f"{path.name}: its VOI window or table cannot be applied ({error}). Correct it.") from error
    if image.black_is_high:
        grey = 255 - grey
    require_not_blank(float(grey.std()), path)
    grey = grey.astype(np.float32)
    if not image.grid.in_millimetres:
        return Radiograph(grey, note=note)
    x, y, _ = image.grid.spacing_xyz
    return Radiograph(grey, (x, y), image.grid.spacing_source, note)


def require_not_blank(deviation: float, path: Path) -> None:
    """Raise an InputError if the standard deviation of an image, in grey levels of 255, is that of a blank one."""
    if deviation < BLANK_STD:
        raise InputError(
            f"{path.name}: almost blank, its standard deviation is {deviation:.2f} of 255 grey levels, "
            f"expected {BLANK_STD:g} or more. Leave it out."
        )


def reduce_size(grey: np.ndarray, long_side: int) -> np.ndarray:
    """Reduce a picture to a long side of at most `long_side` pixels by Lanczos resampling, and round it.

    Args:
        grey: ``[rows, columns]`` float32 in 0..255.
        long_side: longest side in pixels; 0 keeps the size. Smaller pictures are not enlarged.

    Returns:
        ``[rows, columns]`` uint8.
    """
    rows, columns = grey.shape
    if 0 < long_side < max(rows, columns):
        scale = long_side / max(rows, columns)
        size = max(1, round(columns * scale)), max(1, round(rows * scale))
        grey = np.asarray(PIL.Image.fromarray(grey.astype(np.float32)).resize(size, PIL.Image.Resampling.LANCZOS))
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def encode_png(grey: np.ndarray) -> bytes:
    """Return an 8-bit grey PNG of ``[rows, columns]`` uint8."""
    stream = io.BytesIO()
    PIL.Image.fromarray(grey).save(stream, format="PNG")
    return stream.getvalue()


def _apply_voi(image: Image, values: np.ndarray) -> tuple[np.ndarray, str]:
    """Apply the VOI window or table (DICOM PS3.3 C.11.2); return values from 0 to 255, and the conversion in words."""
    from pydicom.pixels import apply_voi_lut

    header: Any = image.header[0] if image.format == "dicom" else {}
    if header.get("VOILUTSequence"):
        low, high = image.stored_range or (int(image.pixels.min()), int(image.pixels.max()))
        inputs = (image.slope * np.arange(low, high + 1, dtype=np.float64) + image.intercept).astype(np.int64)
        output = apply_voi_lut(inputs, header).astype(np.float64)
        output = 255 * (output - output.min()) / max(float(np.ptp(output)), 1.0)
        return output[image.pixels[0].astype(np.int64) - low], "VOI LUT of the file"
    if header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        # The range of a window's output depends on the bits stored; two values beyond any window give it.
        with np.errstate(over="ignore"):
            bottom, top = apply_voi_lut(np.array([[-1e12, 1e12]]), header)[0]
            output = apply_voi_lut(values, header)
        return 255 * (output - bottom) / (top - bottom), "VOI window of the file"
    if image.pixels.dtype == np.uint8 and image.bits == 8:
        return values, ""
    black, white = float(values.min()), float(values.max())
    stretched = (values - black) * (255 / (white - black)) if white > black else np.zeros_like(values)
    return stretched, f"no VOI window: {black:g} to {white:g} stretched to 0 to 255"
