"""What every reader gives and every writer takes: stored numbers, what they mean, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from monai_sr_bundle.geometry import Grid

Modality = Literal["CXR", "CT", "unknown"]
Format = Literal["dicom", "nifti", "png", "jpeg", "tiff", "array"]


@dataclass(frozen=True)
class Image:
    """One radiograph (one slice) or one volume, as stored.

    Attributes:
        pixels: ``[slices, rows, columns]``, the *stored* numbers in their own type (uint8, uint16, int16, float32).
        grid: where the samples lie.
        modality: "CXR", "CT", or "unknown" when the file does not tell (a PNG, a flat NIfTI).
        format: how the file was written.
        path: the file, folder or zip it came from, for messages.
        slope, intercept: value = slope * stored + intercept; the value is HU for CT.
        stored_range: lowest and highest number the storage may hold (0 to 4095 for 12 bits); None for floats.
        bits: bits stored per sample, for display.
        black_is_high: MONOCHROME1; the largest number is shown black.
        header: whatever the writer of this format needs to write the result (source datasets, NIfTI header, tags).
        notes: one sentence each: what the reader found that the user should know.
    """

    pixels: np.ndarray
    grid: Grid
    modality: Modality
    format: Format
    path: Path
    slope: float = 1.0
    intercept: float = 0.0
    stored_range: tuple[int, int] | None = None
    bits: int = 32
    black_is_high: bool = False
    header: Any = None
    notes: tuple[str, ...] = field(default=())
