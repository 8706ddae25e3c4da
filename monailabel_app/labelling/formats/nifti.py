"""A DICOM image as one NIfTI file, without patient, for programs that open a file."""

from __future__ import annotations

import nibabel
import numpy as np
from monai_sr_bundle.images.geometry import ras_from_lps
from monai_sr_bundle.images.image import Image


def to_nifti(image: Image) -> bytes:
    """Return an image as uncompressed NIfTI: modality values (HU), the axes of the image, its place in the patient.

    The numbers of MONOCHROME1 are turned over within their bits, as NIfTI cannot say that high ones are dark.
    """
    pixels = image.pixels.astype(np.float32)
    if image.black_is_high and image.stored_range is not None:
        pixels = sum(image.stored_range) - pixels
    values = pixels * image.slope + image.intercept
    whole = np.rint(values)
    if np.array_equal(values, whole) and np.abs(whole).max() <= np.iinfo(np.int16).max:
        values = whole.astype(np.int16)
    file = nibabel.Nifti1Image(values.transpose(2, 1, 0), ras_from_lps(image.grid.affine))
    file.header.set_xyzt_units("mm")
    return file.to_bytes()  # type: ignore[no-any-return]
