"""Checks of an image before its slices are made thinner, and remarks on their thickness."""

from __future__ import annotations

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.dicom_geometry import normal, numbers
from monai_sr_bundle.images.image import Image

FEWEST_SLICES = 3
"""Number of slices that a network needs to see a change from slice to slice."""
THICKNESS_SHARE = 0.05
"""Largest relative difference between thickness and distance that counts as rounding in the header."""


def check_slices(image: Image, bundle: str) -> tuple[str, ...]:
    """Raise an error if thin slices cannot be made of an image; the readers have refused uneven slices.

    Args:
        image: image to enlarge along its slices.
        bundle: name of the bundle, for messages.

    Returns:
        Remarks for the reader of the result, one sentence each.

    Raises:
        InputError: a radiograph or another single slice, fewer than `FEWEST_SLICES`, the frames of one DICOM file, or
            a DICOM series of unknown pixel spacing.
    """
    slices = image.pixels.shape[0]
    if slices < FEWEST_SLICES:
        input_kind = "a single slice or a radiograph" if slices == 1 else f"{slices} slices"
        raise InputError(
            f"{image.path.name}: {input_kind}, but bundle {bundle} makes thin slices of thick ones, expected a volume "
            f"of at least {FEWEST_SLICES} slices. Pass the whole series, or name a bundle that enlarges in the plane."
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
    thicknesses, distance = _measure_slices(image)
    if slices_touch(image):
        return ()
    thinnest, thickest = min(thicknesses), max(thicknesses)
    means = "averaging the new slices does not give back the slices"
    geometry = f"The slices are {thickest:.4g} mm thick and lie {distance:.4g} mm apart"
    if thickest > (1 + THICKNESS_SHARE) * thinnest:
        geometry = f"The slices are between {thinnest:.4g} and {thickest:.4g} mm thick"
        return (f"{geometry}: they are taken as equal, and {means}.",)
    if thickest < distance:
        return (f"{geometry}: the new slices in the gaps are guessed, and {means}.",)
    return (f"{geometry}: they overlap, the new slices are less certain, and {means}.",)


def slices_touch(image: Image) -> bool:
    """Return whether every slice is as thick as slices are apart; True where the image states no thickness.

    Only then is a slice the mean of the thin ones in its place: one that overlaps its neighbours averages theirs too.
    """
    thicknesses, distance = _measure_slices(image)
    return all(abs(thickness - distance) <= THICKNESS_SHARE * distance for thickness in thicknesses)


def _measure_slices(image: Image) -> tuple[list[float], float]:
    """Return the stated thicknesses of slices, none where there are none, and their distance, in millimetres."""
    if image.format != "dicom" or len(image.header) != len(image.pixels):
        return [], 0.0
    thicknesses = [
        value[0] for header in image.header if (value := numbers(header, "SliceThickness", 1)) and value[0] > 0
    ]
    return thicknesses, abs(float(normal(image.header[0]) @ image.grid.affine[:3, 2])) if thicknesses else 0.0
