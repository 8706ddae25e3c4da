"""NIfTI: a DICOM image as one file, without patient, for programs that open a file; the handedness of a file's axes."""

from __future__ import annotations

import nibabel
import numpy as np
from monai_sr_bundle.images.files import Source
from monai_sr_bundle.images.geometry import ras_from_lps
from monai_sr_bundle.images.image import Image


def is_left_handed(source: Source) -> bool:
    """Return whether an image is a NIfTI file that states left-handed axes; Slicer has its slices in reverse."""
    if source.format != "nifti":
        return False
    header = nibabel.load(source.files[0]).header
    if header["sform_code"] > 0:
        return bool(np.linalg.det(header.get_sform()) < 0)
    return bool(header["qform_code"] > 0 and np.linalg.det(header.get_qform()) < 0)


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
