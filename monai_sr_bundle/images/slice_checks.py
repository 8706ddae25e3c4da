"""Whether thin slices can be made of an image's slices, and what the file tells of their thickness."""

from __future__ import annotations

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.dicom_geometry import normal, numbers
from monai_sr_bundle.images.image import Image

FEWEST_SLICES = 4
"""That a cubic interpolation between two slices looks at."""
THICKNESS_SHARE = 0.05
"""Thickness and distance of slices may differ by this much: headers round both."""


def check_slices(image: Image, bundle: str) -> tuple[str, ...]:
    """Refuse an image whose slices cannot be enlarged; uneven slices the readers have refused.

    Args:
        image: the image to enlarge along its slices.
        bundle: the bundle's name, for messages.

    Returns:
        One sentence for each thing that the reader of the result must know.

    Raises:
        InputError: a radiograph or another single slice, fewer than `FEWEST_SLICES`, the frames of one DICOM file, or
            a DICOM series of unknown pixel spacing.
    """
    slices = image.pixels.shape[0]
    if slices < FEWEST_SLICES:
        found = "a single slice or a radiograph" if slices == 1 else f"{slices} slices"
        raise InputError(
            f"{image.path.name}: {found}, but bundle {bundle} makes thin slices of thick ones, expected a volume of at "
            f"least {FEWEST_SLICES} slices. Pass the whole series, or name a bundle that enlarges in the plane."
        )
    if image.format != "dicom":
        return ()
    if len(image.header) != slices:
        raise InputError(
            f"{image.path.name}: {slices} frames in one DICOM file, but bundle {bundle} writes a file for each new "
            "slice, expected a series of single slices. Split the file, or convert it to NIfTI."
        )
    if not image.grid.in_millimetres:
        raise InputError(
            f"{image.path.name}: new slices need positions in millimetres, and the source's pixel spacing is unknown. "
            "Enlarge within the slices only, or pass --spacing-mm ROW COLUMN."
        )
    found_mm = [value[0] for header in image.header if (value := numbers(header, "SliceThickness", 1)) and value[0] > 0]
    if not found_mm:
        return ()
    apart = abs(float(normal(image.header[0]) @ image.grid.affine[:3, 2]))
    thinnest, thickest = min(found_mm), max(found_mm)
    told = f"The slices are {thickest:.4g} mm thick and lie {apart:.4g} mm apart"
    if thickest > (1 + THICKNESS_SHARE) * thinnest:
        return (f"The slices are between {thinnest:.4g} and {thickest:.4g} mm thick; the bundle takes them as equal.",)
    if thickest < (1 - THICKNESS_SHARE) * apart:
        return (f"{told}: nothing between them was measured, and the new slices there are guessed.",)
    if thickest > (1 + THICKNESS_SHARE) * apart:
        return (f"{told}: they overlap, and the bundle takes each as the mean over its own step alone.",)
    return ()
