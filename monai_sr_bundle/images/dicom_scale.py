"""Scale the attributes of a DICOM header that are in millimetres per pixel or in pixels."""

from __future__ import annotations

from math import gcd

from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from monai_sr_bundle.images.dicom_geometry import SPACING_KEYWORDS, normal, numbers, pixel_spacing, positive_pair
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.provenance import Provenance

COLUMN_KEYWORDS = tuple(f"{part}{side}VerticalEdge" for part in ("Shutter", "Collimator") for side in ("Left", "Right"))
ROW_KEYWORDS = tuple(f"{part}{side}HorizontalEdge" for part in ("Shutter", "Collimator") for side in ("Upper", "Lower"))
POINT_KEYWORDS = (
    "CenterOfCircularShutter",
    "VerticesOfThePolygonalShutter",
    "CenterOfCircularCollimator",
    "VerticesOfThePolygonalCollimator",
)
RADIUS_KEYWORDS = ("RadiusOfCircularShutter", "RadiusOfCircularCollimator")


def spacing_is_from_header(result: Image, source: Dataset) -> bool:
    """Return whether the grid's spacing comes from the header, not from the user."""
    return result.grid.spacing_source == pixel_spacing(source).source


def scale_spacing(derived: Dataset, result: Image, provenance: Provenance) -> None:
    """Divide every spacing in the header, so that calibrated and detector-plane spacing stay consistent.

    The thickness of new slices is their distance: each is the mean over its own step, however thick the source's are.
    """
    scale_z, scale_y, scale_x = provenance.scale_zyx
    from_header = spacing_is_from_header(result, derived)
    for keyword in SPACING_KEYWORDS:
        pair = positive_pair(derived, keyword)
        if pair:
            setattr(derived, keyword, [decimal(pair[0] / scale_y), decimal(pair[1] / scale_x)])
        elif keyword in derived:
            del derived[keyword]
    if not from_header and result.grid.in_millimetres:
        x, y, _ = result.grid.spacing_xyz
        derived.PixelSpacing = [decimal(y), decimal(x)]
        for keyword in ("PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription"):
            if keyword in derived:
                del derived[keyword]
    aspect = numbers(derived, "PixelAspectRatio", 2)
    if aspect and scale_x != scale_y:
        vertical, horizontal = round(aspect[0]) * scale_x, round(aspect[1]) * scale_y
        derived.PixelAspectRatio = [v // gcd(vertical, horizontal) for v in (vertical, horizontal)]
    if scale_z > 1:
        derived.SliceThickness = decimal(float(normal(derived) @ result.grid.affine[:3, 2]))


def scale_pixel_coordinates(derived: Dataset, provenance: Provenance) -> None:
    """Scale shutter and collimator edges, which count pixels from 1 at the first pixel's centre."""
    _, scale_y, scale_x = provenance.scale_zyx
    left, top = provenance.roi_xyxy[:2] if provenance.roi_xyxy else (0, 0)

    def scale_coordinate(value: float, start: int, scale: int) -> int:
        return whole((value - 0.5 - start) * scale + 0.5)

    for keywords, start, scale in ((COLUMN_KEYWORDS, left, scale_x), (ROW_KEYWORDS, top, scale_y)):
        for keyword in keywords:
            value = numbers(derived, keyword, 1)
            if value:
                setattr(derived, keyword, scale_coordinate(value[0], start, scale))
    for keyword in POINT_KEYWORDS:
        coordinates = numbers(derived, keyword) or []
        pairs = zip(coordinates[0::2], coordinates[1::2], strict=False)
        points = [
            v
            for row, column in pairs
            for v in (scale_coordinate(row, top, scale_y), scale_coordinate(column, left, scale_x))
        ]
        if points:
            setattr(derived, keyword, points)
    for keyword in RADIUS_KEYWORDS:
        value = numbers(derived, keyword, 1)
        if value:
            setattr(derived, keyword, whole(value[0] * scale_x))


def whole(value: float) -> int:
    """Round to a whole number that a DICOM integer string holds; an edge far outside the image stays outside."""
    return round(min(max(value, -(2**31)), 2**31 - 1))


def decimal(value: float) -> str:
    """Format a DICOM decimal string of at most 16 characters, rounded to a picometre to drop rounding noise."""
    return format_number_as_ds(round(float(value), 9) + 0.0)
