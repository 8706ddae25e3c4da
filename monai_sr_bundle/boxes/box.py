"""A box around a finding, on one slice of an image.

Only the standard library is imported: the Slicer extension ships this file without the package, and a server uses it
without numpy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LONGEST_TEXT = 64
"""Largest number of characters of a finding or a reader: what DICOM holds in VR LO and in a component group of PN."""


class BoxError(ValueError):
    """A box or a document that breaks a rule. The message names the field, what it holds and what was expected."""


@dataclass(frozen=True)
class FindingCode:
    """A coded concept, as DICOM writes it.

    Attributes:
        value: code, for example "27925004".
        scheme: DICOM Coding Scheme Designator: "SCT" (SNOMED CT), "RADLEX", "DCM".
        meaning: words for people.
    """

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Figures:
    """Mean and standard deviation of the pixels inside a box, in HU for CT and in grey levels otherwise."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class Box:
    """A rectangle on one slice of the source image, in its pixels; the upper edges are excluded.

    Coordinates are edges of pixels, from 0 (the outer edge of the first pixel) to the number of columns or rows: the
    box (2, 3, 4, 5) holds pixels 2 and 3 of rows 3 and 4. DICOM counts in the same way (PS3.3 C.18.6: the top left
    corner of the top left pixel is 0.0\\0.0), so nothing is shifted by half a pixel.

    Attributes:
        finding: class of the finding, for example "Nodule"; empty where a report names none.
        x_min, y_min, x_max, y_max: edges along columns and rows, in pixels.
        slice_index: index of the slice, from 0; None for an image of one slice, or where unknown.
        reader: identifier of the reader, a name or a pseudonym; empty where unknown.
        certainty: certainty of the reader, 0 (guess) to 1 (sure); None where not stated.
        sop_instance_uid: DICOM UID of the slice; empty where unknown.
        tracking_uid: UID that all boxes of one lesion share, from slice to slice and from version to version.
        codes: codes of the finding; empty where its name alone says it.
        before, after: figures inside the box, in the source image and in the enhanced one.
    """

    finding: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    slice_index: int | None = None
    reader: str = ""
    certainty: float | None = None
    sop_instance_uid: str = ""
    tracking_uid: str = ""
    codes: tuple[FindingCode, ...] = ()
    before: Figures | None = None
    after: Figures | None = None

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge."""
        return self.x_min, self.y_min, self.x_max, self.y_max

    @property
    def corners(self) -> tuple[tuple[float, float], ...]:
        """The rectangle as a closed line of five points (x, y), clockwise on the screen from the top left."""
        left, top, right, bottom = self.xyxy
        return (left, top), (right, top), (right, bottom), (left, bottom), (left, top)


def check_edges(box: Box, columns: int | None = None, rows: int | None = None) -> None:
    """Check that a box is a rectangle, and that it lies inside its image where the size is given.

    Args:
        box: box to check.
        columns, rows: size of the source image in pixels.

    Raises:
        BoxError: an edge that is no finite number, a box that is empty or upside down, or one that leaves the image.
    """
    for axis, low, high, size in (("x", box.x_min, box.x_max, columns), ("y", box.y_min, box.y_max, rows)):
        if not low < high:
            problem = "empty" if low == high else "upside down" if axis == "y" else "mirrored"
            raise BoxError(f"the box is {problem}: {axis}_min {low:g} is not below {axis}_max {high:g}. Correct them.")
        if low < 0 or high > (math.inf if size is None else size) or math.isinf(high):
            image = "its image" if columns is None or rows is None else f"its image of {columns} x {rows} pixels"
            raise BoxError(
                f"the box goes from {axis} {low:g} to {high:g}, outside {image}. Is it a box of another image, or of "
                "the enlarged one?"
            )
