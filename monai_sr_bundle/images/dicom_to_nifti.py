"""A DICOM image as NIfTI: the same stored numbers, scaling and position, without the DICOM header."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
from monai_sr_bundle.images.geometry import ras_from_lps
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.nifti import Header, NiftiHeader
from nibabel.spatialimages import HeaderDataError

INVERTED_NOTE = (
    "MONOCHROME1: its high values are dark. NIfTI cannot say so; its numbers are turned over, so that high is bright."
)

_MILLIMETRE, _SCANNER = 2, 1  # xyzt_units; qform_code and sform_code (nifti1.h)
_LONGEST_AXIS = 32_767  # of NIfTI-1


def dicom_to_nifti(image: Image) -> Image:
    """Return a DICOM image, or its enlargement, as an image that `write_nifti` writes.

    Values stay `slope * stored + intercept`: HU of CT, grey values of radiographs. Those of MONOCHROME1 are turned over
    within their bits, as SimpleITK does. The position is the DICOM's, in RAS; a radiograph, which has none, lies at the
    origin. Where the spacing is unknown the file states neither.

    Args:
        image: image with `format` "dicom" of a file, folder or zip.
    """
    slices, rows, columns = image.pixels.shape
    kind = nibabel.Nifti2Header if max(image.pixels.shape) > _LONGEST_AXIS else nibabel.Nifti1Header
    raw: Header = kind()
    raw.set_data_dtype(image.pixels.dtype)
    raw.set_data_shape((columns, rows, slices))
    raw["scl_slope"], raw["scl_inter"] = image.slope, image.intercept
    if image.grid.in_millimetres:
        raw["xyzt_units"] = _MILLIMETRE
        ras = ras_from_lps(image.grid.affine)
        raw.set_sform(ras, _SCANNER)
        try:
            raw.set_qform(ras, _SCANNER, strip_shears=False)
        except HeaderDataError:  # axes that are not at right angles have no quaternion; the sform holds them
            raw["qform_code"] = 0
    pixels = image.pixels
    if image.black_is_high and image.stored_range is not None:
        low, high = image.stored_range
        pixels = pixels.dtype.type(low + high) - pixels
    header = NiftiHeader(raw, np.asarray(image.grid.affine))
    return replace(image, pixels=pixels, black_is_high=False, format="nifti", layout="file", header=header)
