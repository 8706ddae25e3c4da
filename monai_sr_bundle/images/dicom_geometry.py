"""Geometry of DICOM images: the spacing tags of radiographs, the positions of CT slices, and both of an enlarged image.

Plane attributes: DICOM PS3.3 C.7.6.2. Radiograph spacing: PS3.3 10.7.1.3, because a radiograph's Imager Pixel Spacing
is measured at the detector, where anatomy looks larger than it is, and its Pixel Spacing may be corrected for that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from monai_sr_bundle.errors import InputError, quote
from monai_sr_bundle.images.geometry import UNKNOWN
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.provenance import Provenance
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

SPACING_KEYWORDS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")

DUPLICATE_MM = 1e-3
UNEVEN_MM = 0.02
"""Largest difference between slice distances in mm (positions are often rounded to 0.01 mm); see `UNEVEN_SHARE`."""
UNEVEN_SHARE = 0.01
"""Largest difference between slice distances as a share of the distance, if that is more than `UNEVEN_MM`."""
TILT_DEGREES = 0.1
"""Smallest angle between the stack and its slices' normal that is reported as a gantry tilt."""


@dataclass(frozen=True)
class PixelSpacing:
    """The spacing of rows and columns in millimetres, and the header's attribute it comes from.

    `source` is `UNKNOWN`, with spacing 1, if the header gives no spacing. Each of `notes` is one sentence.
    """

    row_mm: float
    column_mm: float
    source: str
    notes: tuple[str, ...] = ()


def file_name(header: Dataset) -> str:
    """Return the name of the file that `header` was read from, for messages."""
    return Path(str(header.filename)).name


def numbers(header: Dataset, keyword: str, count: int | None = None) -> list[float] | None:
    """Return the finite numbers of an attribute, `count` of them or any number; None if they are anything else."""
    try:
        values = np.atleast_1d(np.asarray(header.get(keyword), dtype=np.float64))
    except (TypeError, ValueError, OverflowError):
        return None
    expected = (len(values) if count is None else count,)
    return [float(v) for v in values] if values.shape == expected and np.isfinite(values).all() else None


def positive_pair(header: Dataset, keyword: str) -> tuple[float, float] | None:
    """Return the (row, column) spacing in one attribute; None if it is absent or not two numbers above 0."""
    pair = numbers(header, keyword, 2)
    return (pair[0], pair[1]) if pair and min(pair) > 0 else None


def pixel_spacing(header: Dataset) -> PixelSpacing:
    """Return the spacing of one image by the rules of PS3.3 10.7.1.3, `UNKNOWN` if the header gives none."""
    notes = [
        f"{keyword} is {_plain(header[keyword].value)}, not two numbers above 0 mm, and was ignored."
        for keyword in SPACING_KEYWORDS
        if header.get(keyword) is not None and positive_pair(header, keyword) is None
    ]
    pixel, imager, scanned = (positive_pair(header, keyword) for keyword in SPACING_KEYWORDS)
    calibration = str(header.get("PixelSpacingCalibrationType") or "").lower()
    if pixel and (calibration or (imager and not np.allclose(pixel, imager, rtol=1e-6))):
        spacing, source = pixel, "PixelSpacing, calibrated" + (f" ({calibration})" if calibration else "")
    elif imager:
        spacing, source = imager, "ImagerPixelSpacing, detector plane"
    elif pixel:
        spacing, source = pixel, "PixelSpacing"
        if header.get("Modality") in ("CR", "DX"):
            notes.append(
                "PixelSpacing is given without ImagerPixelSpacing: the header does not state whether lengths "
                "are those at the detector or corrected for magnification."
            )
    elif scanned:
        spacing, source = scanned, "NominalScannedPixelSpacing, film plane"
    else:
        spacing, source = (1.0, 1.0), UNKNOWN
    aspect = numbers(header, "PixelAspectRatio", 2)
    if aspect and aspect[0] != aspect[1]:
        notes.append(f"PixelAspectRatio is {_plain(aspect)} (row, column): the pixels are not square.")
    return PixelSpacing(*spacing, source, tuple(notes))


def position(header: Dataset) -> np.ndarray | None:
    """Return Image Position (Patient), ``[3]`` in LPS millimetres; None if the header has none."""
    coordinates = numbers(header, "ImagePositionPatient", 3)
    return None if coordinates is None else np.array(coordinates)


def orientation(header: Dataset) -> np.ndarray | None:
    """Return Image Orientation (Patient), ``[2, 3]``: the directions of growing column and row index; None if absent.

    Raises:
        InputError: the two directions are not unit vectors at a right angle.
    """
    cosines = numbers(header, "ImageOrientationPatient", 6)
    if cosines is None:
        return None
    axes = np.reshape(cosines, (2, 3))
    if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
        raise InputError(
            f"{file_name(header)}: Image Orientation (0020,0037) is {_plain(cosines)}, expected two unit vectors at a "
            "right angle. Export the file again from its source."
        )
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


def normal(header: Dataset) -> np.ndarray:
    """Return the unit vector from slice to slice: the row direction crossed with the column direction, ``[3]``."""
    axes = orientation(header)
    if axes is None:
        return np.array([0.0, 0.0, 1.0])
    across = np.cross(axes[0], axes[1])
    return across / np.linalg.norm(across)


def sort_slices(headers: Sequence[Dataset], path: Path) -> list[Dataset]:
    """Sort the slices of one CT series by their position along the normal.

    Raises:
        InputError: a slice has no position, orientations differ, or two slices lie at one position.
    """
    axes, positions = [], []
    for header in headers:
        slice_axes, origin = orientation(header), position(header)
        if slice_axes is None or origin is None:
            raise InputError(
                f"{path.name}: {file_name(header)} has no usable Image Position (0020,0032) and Image Orientation "
                "(0020,0037), which each slice of a series needs. Export the series again, or pass one file."
            )
        axes.append(slice_axes)
        positions.append(origin)
        if not np.allclose(slice_axes, axes[0], atol=1e-4):
            raise InputError(
                f"{path.name}: the slices have different orientations: {file_name(headers[0])} has "
                f"{_plain(headers[0].ImageOrientationPatient)}, {file_name(header)} has "
                f"{_plain(header.ImageOrientationPatient)}. Pass the files of one orientation at a time."
            )
    heights = np.array(positions) @ normal(headers[0])
    order = np.argsort(heights, kind="stable")
    for lower, upper in pairwise(order):
        if heights[upper] - heights[lower] < DUPLICATE_MM:
            both = f"{file_name(headers[lower])} and {file_name(headers[upper])}"
            if headers[lower].SOPInstanceUID == headers[upper].SOPInstanceUID:
                raise InputError(f"{path.name}: {both} have the same SOP Instance UID: one is a copy. Remove it.")
            raise InputError(
                f"{path.name}: two slices lie at one position, {_plain(headers[upper].ImagePositionPatient)}: {both}. "
                "Pass repeated acquisitions (Acquisition Number) one at a time."
            )
    return [headers[index] for index in order]


def stack_affine(ordered: Sequence[Dataset], spacing: PixelSpacing, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the affine of sorted CT slices, sheared if the gantry was tilted, and notes about it.

    Args:
        ordered: one slice, or several from `sort_slices`.
        spacing: spacing of the first slice.
        path: path that the user named, for messages.

    Raises:
        InputError: slices are missing, unevenly spaced, or shifted against each other.
    """
    affine, notes = np.eye(4), list(spacing.notes)
    axes, origin, across = orientation(ordered[0]), position(ordered[0]), normal(ordered[0])
    if axes is None or origin is None:
        notes.append("The slice has no usable position or orientation: millimetres are relative to its first pixel.")
    axes = np.eye(2, 3) if axes is None else axes
    affine[:3, 0] = axes[0] * spacing.column_mm
    affine[:3, 1] = axes[1] * spacing.row_mm
    affine[:3, 3] = 0.0 if origin is None else origin
    if len(ordered) == 1:
        thickness = numbers(ordered[0], "SliceThickness", 1)
        affine[:3, 2] = across * (thickness[0] if thickness and thickness[0] > 0 else 1.0)
        return affine, tuple(notes)

    positions = np.array([position(header) for header in ordered])
    _check_gaps(ordered, positions @ across, path)
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    regular = positions[0] + np.arange(len(positions))[:, None] * affine[:3, 2]
    deviation_mm = np.linalg.norm(positions - regular, axis=1)
    farthest = int(deviation_mm.argmax())
    if deviation_mm[farthest] > max(UNEVEN_MM, UNEVEN_SHARE * float(np.linalg.norm(affine[:3, 2]))):
        raise InputError(
            f"{path.name}: {file_name(ordered[farthest])} lies {deviation_mm[farthest]:.3g} mm off the straight line "
            "through the first and last slice, so the series is no regular volume. Resample it to a regular grid, or "
            "pass single files."
        )
    step = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    tilt = math.degrees(math.atan2(float(np.linalg.norm(np.cross(step, across))), float(step @ across)))
    if tilt > TILT_DEGREES:
        notes.append(
            f"The gantry was tilted by {tilt:.1f} degrees: the slices are kept as acquired, in a sheared volume. Many "
            "viewers assume right angles, and programs built on ITK do not open such a volume as NIfTI."
        )
    return affine, tuple(notes)


def _check_gaps(ordered: Sequence[Dataset], heights: np.ndarray, path: Path) -> None:
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    wrong = np.flatnonzero(np.abs(gaps - usual) > max(UNEVEN_MM, UNEVEN_SHARE * usual))
    if not len(wrong):
        return
    first = int(wrong[0])
    missing = gaps[first] / usual - 1
    is_count = missing > 0.5 and abs(missing - round(missing)) < 0.1
    problem = f"{round(missing)} missing slice(s)" if is_count else "uneven slice spacing"
    raise InputError(
        f"{path.name}: {problem} between {file_name(ordered[first])} ({heights[first]:.2f} mm along the slice normal) "
        f"and {file_name(ordered[first + 1])} ({heights[first + 1]:.2f} mm): the gap is {gaps[first]:.3f} mm, expected "
        f"{usual:.3f} mm; {len(wrong)} gap(s) like this. Complete the series, or pass the files of one even part."
    )


def _plain(value: object) -> str:
    """Format numbers for a message: ``0.5, 0.5``."""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return quote(", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values))


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
        for keyword in ("PixelAspectRatio", "PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription"):
            derived.pop(keyword, None)
    if scale_z > 1:
        derived.SliceThickness = derived.SpacingBetweenSlices = decimal(result.grid.spacing_xyz[2])


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
