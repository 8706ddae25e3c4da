"""The image that readers return and writers take: stored numbers, their meaning and their positions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.file_state import FileState
from monai_sr_bundle.images.geometry import Grid

Modality = Literal["CXR", "CT", "unknown"]
Format = Literal["dicom", "nifti", "png", "jpeg", "tiff", "array"]
Layout = Literal["file", "folder", "zip"]
MODALITIES = {"CXR": ("CR", "DX", "RG", "RF", "DR", "XR"), "CT": ("CT",)}
"""Values of Modality (0008,0060) that each may have in a file; the last two of radiographs are not DICOM's own."""

AIR_HU = -500.0
"""Highest minimum of an image that is taken to be CT: no other modality stores air, and every chest CT has some."""


@dataclass(frozen=True)
class Image:
    """One radiograph (one slice) or one volume, as stored.

    Attributes:
        pixels: ``[slices, rows, columns]``, the *stored* numbers in their own type (uint8, uint16, int16, float32).
        grid: positions of the samples.
        modality: "CXR", "CT", or "unknown" if the file does not state it (a PNG, a flat NIfTI).
        format: format of the file.
        path: file, folder or zip it came from, for messages.
        slope, intercept: value = slope * stored + intercept; the value is HU for CT.
        stored_range: lowest and highest number the storage may hold (0 to 4095 for 12 bits); None for floats.
        bits: bits stored per sample, for display.
        black_is_high: MONOCHROME1; the largest number is shown black.
        header: source data sets, NIfTI header or tags, as the writer of this format needs them.
        notes: remarks of the reader for the user, one sentence each.
        derivation: description, in the file, of how it was made from another image; empty if it has none.
        padding: lowest and highest stored number that the file says are padding; None where it says nothing.
        kernel: Convolution Kernel (0018,1210) of a CT, its first value; empty where nothing says it.
        files: files it was read from; empty for an array.
        file_states: states of the files, or of their zip, when it was read.
        layout: storage of the image and of its result: one file, a folder of files, or a zip of them.
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
    header: Any = field(default=None, repr=False)  # names the patient
    notes: tuple[str, ...] = field(default=())
    derivation: str = ""
    padding: tuple[int, int] | None = None
    kernel: str = ""
    files: tuple[Path, ...] = ()
    file_states: tuple[FileState, ...] = ()
    layout: Layout = "file"


def named_modality(image: Image) -> str:
    """Return the Modality (0008,0060) that a DICOM file names; "unknown" for OT (other), none, and other files."""
    named = str(image.header[0].get("Modality") or "").upper() if image.format == "dicom" and image.header else ""
    return "unknown" if named in ("", "OT", "SC", "UNKNOWN") else named


def require_finite(pixels: np.ndarray, path: Path) -> None:
    """Raise an error if an image has values that are no numbers.

    Raises:
        InputError: NaN or infinite values.
    """
    wrong = pixels.size - int(np.isfinite(pixels).sum()) if pixels.dtype.kind == "f" else 0
    if wrong:
        raise InputError(
            f"{path.name}: {wrong:,} of {pixels.size:,} values are NaN or infinite, expected numbers. "
            "Replace them with the value of the background first."
        )
