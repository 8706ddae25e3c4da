"""Signs that an image is not what the models expect: one sentence each, which the user is told; none refuses the image.

They are read from the file's own header and from the pixels. What cannot be enlarged at all, such as a screenshot in
colour, is refused by the readers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForProcessing

from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.nifti import AIR_HU
from monai_sr_bundle.images.provenance import describes_result

SMALLEST_PIXEL_MM, LARGEST_EXTENT_MM = 0.02, 1500.0
"""Finer pixels than any detector or scanner has, even enlarged four times; a wider image than any of a chest."""
DIGITIZED_FILM = "DF"
"""Conversion Type (0008,0064) of a film that was scanned."""
LATERAL_VIEWS = ("LL", "RL", "LAT", "LATERAL")
"""View Position (0018,5101) of lateral films; the last two are not DICOM's own, but common."""
FRONTAL_FILM = np.array([[-3, 0, 0, -3], [-1, 0, 0, -1], [-2, 2, 2, -2], [-1, 5, 5, -1]], dtype=np.float64)
"""The mean frontal film in 4 x 4 fields, rounded: dark beside neck and arms, bright at heart and abdomen."""
INVERTED = -0.35
"""Correlation with `FRONTAL_FILM` below which a film looks inverted.

Of 377 whole training films none lies below it, and of their negatives all but one; of 205 parts of films, which hold
any region of a chest, four lie below.
"""


def check_content(image: Image, modality: str) -> tuple[str, ...]:
    """Return a sentence for each sign that an image is not what the models expect.

    Args:
        image: image to enlarge, of at least `unit.SMALLEST_SIDE` pixels along each side.
        modality: modality of the bundle, "CXR", "CT" or "any", for an image that does not state its own.
    """
    own_modality = modality if image.modality == "unknown" else image.modality
    return (*_check_header(image, modality), *_check_spacing(image), *_check_values(image, own_modality))


def _check_header(image: Image, modality: str) -> Iterator[str]:
    if describes_result(image.derivation):
        yield "This is a result of super-resolution: detail that was predicted is enlarged again. Take the original."
    if image.format != "dicom" or not image.header:
        return
    header: Dataset = image.header[0]
    if header.get("BurnedInAnnotation") == "YES":
        yield "Text is burned into the pixels: it is enlarged like anatomy, and may name the patient."
    if header.SOPClassUID == CTImageStorage:
        return
    if "Secondary Capture" in header.SOPClassUID.name and header.get("ConversionType") != DIGITIZED_FILM:
        yield "This is a Secondary Capture, such as a screenshot: its grey levels may have been cut for display."
    if modality != "CXR":
        return
    if header.SOPClassUID == DigitalXRayImageStorageForProcessing or (
        header.get("PresentationIntentType") == "FOR PROCESSING"
    ):
        yield "The film is FOR PROCESSING, as the detector measured it; the model knows films FOR PRESENTATION alone."
    orientation = header.get("PatientOrientation") or [""]
    if str(header.get("ViewPosition") or "").upper() in LATERAL_VIEWS or orientation[0] in ("A", "P"):
        yield "This is a lateral view; the model knows frontal films alone."


def _check_spacing(image: Image) -> Iterator[str]:
    if not image.grid.in_millimetres:
        return
    x, y, _ = image.grid.spacing_xyz
    _, rows, columns = image.pixels.shape
    if min(x, y) < SMALLEST_PIXEL_MM or max(columns * x, rows * y) > LARGEST_EXTENT_MM:
        yield (
            f"The pixel spacing cannot be right: {y:.4g} x {x:.4g} mm make an image of {rows * y:.4g} x "
            f"{columns * x:.4g} mm. Measure nothing in it, or correct it with --spacing-mm."
        )


def _check_values(image: Image, modality: str) -> Iterator[str]:
    middle = image.pixels[len(image.pixels) // 2]
    extremes = [image.slope * float(end) + image.intercept for end in (middle.min(), middle.max())]
    if modality == "CT" and min(extremes) > AIR_HU:
        yield (
            f"Nothing in the middle slice is as dark as air ({AIR_HU:g} HU or less): its numbers are no HU, or this is "
            "no chest CT."
        )
    elif modality == "CXR" and min(extremes) <= AIR_HU:
        yield f"Its values go down to {min(extremes):.4g}, as those of CT do: it may be no radiograph."
    elif modality == "CXR" and image.format != "nifti" and _looks_inverted(image):
        yield (
            "Black and white look exchanged: air is bright, and bone is dark. Correct Photometric Interpretation "
            "(0028,0004), or invert the picture."
        )


def _looks_inverted(image: Image) -> bool:
    rows, columns = (side - side % 4 for side in image.pixels.shape[1:])
    fields = image.pixels[0, :rows, :columns].reshape(4, rows // 4, 4, columns // 4).mean(axis=(1, 3), dtype=np.float64)
    if fields.std() == 0:
        return False
    sign = -1 if image.black_is_high != (image.slope < 0) else 1
    return bool(sign * np.corrcoef(fields.ravel(), FRONTAL_FILM.ravel())[0, 1] < INVERTED)
