"""CT volumes in Hounsfield units, from DICOM or NIfTI, and as NIfTI files."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from monai_sr_bundle.datasets.radiograph import require_not_blank
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.geometry import ras_from_lps, spacing_xyz

if TYPE_CHECKING:
    from monai_sr_bundle.images.image import Image

HU_RANGE = (-1024, 3071)
"""Range of 12-bit CT in HU; padding below and metal above are clipped to it."""


@dataclass(frozen=True)
class Volume:
    """A CT in memory.

    Attributes:
        hu: ``[columns, rows, slices]`` int16 within `HU_RANGE`, in the order of the source.
        affine: ``[4, 4]``, index ``(x, y, z)`` to RAS millimetres (NIfTI).
        manufacturer, kernel: from the DICOM header; empty when unknown.
    """

    hu: np.ndarray
    affine: np.ndarray
    manufacturer: str = ""
    kernel: str = ""

    @property
    def spacing_xyz(self) -> tuple[float, float, float]:
        """Millimetres along columns, rows and slices."""
        return spacing_xyz(self.affine)


def read_volume(files: Sequence[Path]) -> Volume:
    """Read a NIfTI volume whose values are Hounsfield units, or the slices of one CT series.

    Raises:
        InputError: not readable, no spacing in millimetres, almost blank, or values that cannot be a chest CT.
    """
    from monai_sr_bundle.images.dicom_read import read_dicom
    from monai_sr_bundle.images.nifti import is_nifti, read_nifti

    if is_nifti(files[0]):
        image, header = read_nifti(files[0]), {}
    else:
        image = read_dicom(files, files[0].parent)
        header = image.header[0]
    kernel = header.get("ConvolutionKernel") or ""
    return Volume(
        _hounsfield(image),
        ras_from_lps(image.grid.affine),
        str(header.get("Manufacturer") or ""),
        kernel if isinstance(kernel, str) else " ".join(kernel),
    )


def encode_nifti(volume: Volume) -> bytes:
    """Return the bytes of a `.nii.gz` file; the same volume gives the same bytes."""
    import nibabel

    image = nibabel.Nifti1Image(volume.hu, volume.affine)
    image.header.set_xyzt_units("mm")
    # The affine may be sheared (gantry tilt), which only the sform can hold.
    image.set_sform(volume.affine, code="scanner")
    image.set_qform(None, code="unknown")
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _hounsfield(image: Image) -> np.ndarray:
    if not image.grid.in_millimetres:
        raise InputError(
            f"{image.path.name}: the spacing of its pixels is unknown, expected millimetres. Leave it out."
        )
    values = image.slope * image.pixels.astype(np.float32).transpose(2, 1, 0) + image.intercept
    low, high = float(values.min()), float(values.max())
    # In grey levels of a display from -1000 to 1000 HU, so that it is comparable with a radiograph.
    require_not_blank(float(np.clip(values, -1000, 1000).std()) * 255 / 2000, image.path)
    if low > -200 or high < 0:
        raise InputError(
            f"{image.path.name}: values from {low:g} to {high:g} are not the Hounsfield units of a chest, "
            "which has air below -200 and tissue above 0. Apply slope and intercept first."
        )
    return np.clip(np.rint(values), *HU_RANGE).astype(np.int16)
