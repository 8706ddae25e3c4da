"""Scale what a DICOM header says in millimetres per pixel, and what it says in pixels."""

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
    """Whether the grid's spacing is the header's own, not one that the user gave."""
    return result.grid.spacing_source == pixel_spacing(source).source


def scale_spacing(derived: Dataset, result: Image, provenance: Provenance) -> None:
    """Divide every spacing the header has, so that calibrated and detector-plane spacing stay in step.

    New slices are as thick as they lie apart: each is the mean over its own step, however thick the source's were.
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
    """Shutters and collimator edges are given in pixels, counted from 1 at the first pixel's centre."""
    _, scale_y, scale_x = provenance.scale_zyx
    left, top = provenance.roi_xyxy[:2] if provenance.roi_xyxy else (0, 0)

    def moved(value: float, start: int, scale: int) -> int:
        return round((value - 0.5 - start) * scale + 0.5)

    for keywords, start, scale in ((COLUMN_KEYWORDS, left, scale_x), (ROW_KEYWORDS, top, scale_y)):
        for keyword in keywords:
            value = numbers(derived, keyword, 1)
            if value:
                setattr(derived, keyword, moved(value[0], start, scale))
    for keyword in POINT_KEYWORDS:
        flat = derived.get(keyword) or []
        pairs = zip(flat[0::2], flat[1::2], strict=False)
        points = [v for row, column in pairs for v in (moved(row, top, scale_y), moved(column, left, scale_x))]
        if points:
            setattr(derived, keyword, points)
    for keyword in RADIUS_KEYWORDS:
        value = numbers(derived, keyword, 1)
        if value:
            setattr(derived, keyword, round(value[0] * scale_x))


def decimal(value: float) -> str:
    """A DICOM decimal string, at most 16 characters; what lies below a picometre is rounding noise."""
    return format_number_as_ds(round(float(value), 9) + 0.0)
