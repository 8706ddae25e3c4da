"""A box around a finding, as readers draw it: where, what, by whom, how sure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from monai_sr_bundle.errors import InputError

LONGEST_LABEL = 64
"""Characters of a Code Meaning (VR LO), and of one component group of a Person Name (VR PN)."""

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", re.ASCII)


@dataclass(frozen=True)
class Figures:
    """Mean and standard deviation of the pixels inside a box: HU of CT, grey levels of anything else."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class Box:
    """A rectangle on one slice of an image, in pixels; the upper edges are excluded.

    The edges are those of pixels: from 0, the outer edge of the first pixel, to the number of columns or rows. The
    box (2, 3, 4, 5) holds pixels 2 and 3 of rows 3 and 4. DICOM counts in the same way (PS3.3 C.18.6: the top left
    corner of the top left pixel is 0.0\\0.0), so nothing is ever shifted by half a pixel.

    Attributes:
        label: class of the finding, "Nodule".
        x_min, y_min, x_max, y_max: along columns and rows.
        reader: who drew it, a name or a label that identifies nobody; empty where unknown.
        certainty: of the reader, 0 to 1; None where not told.
        slice_index: from 0, in the order of `Image.pixels`; None for an image of one slice, and where unknown.
        sop_instance_uid: of the slice; empty where unknown.
        tracking_uid: the same for all boxes that mark one lesion, from slice to slice and from version to version.
        before, after: figures of the image as it was, and super-resolved.
    """

    label: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    reader: str = ""
    certainty: float | None = None
    slice_index: int | None = None
    sop_instance_uid: str = ""
    tracking_uid: str = ""
    before: Figures | None = None
    after: Figures | None = None

    @property
    def corners(self) -> tuple[tuple[float, float], ...]:
        """The rectangle as a closed line of five points (x, y), clockwise on the screen from the top left."""
        left, top, right, bottom = self.x_min, self.y_min, self.x_max, self.y_max
        return (left, top), (right, top), (right, bottom), (left, bottom), (left, top)


def check_box(box: Box, columns: int, rows: int, where: str) -> None:
    """Refuse a box that could not be written, or that no pixel is in.

    Args:
        box: to check.
        columns, rows: of its image.
        where: begins the message, as "boxes.csv, line 3".

    Raises:
        InputError: a label or reader that is empty, too long or of wrong characters, a certainty that is no share, a
            tracking UID that is none, a box that is upside down, empty or not inside the image.
    """
    if not _is_text(box.label, "\\"):
        raise InputError(
            f"{where}: the finding is {box.label!r}, expected 1 to {LONGEST_LABEL} characters without backslash or "
            "line break. Correct it."
        )
    if box.reader and (not _is_text(box.reader, "\\=") or box.reader.count("^") > 4):
        raise InputError(
            f"{where}: the reader's name or label is not one that DICOM holds: at most {LONGEST_LABEL} characters, no "
            "backslash, equals sign or line break, at most four ^. Correct it."
        )
    if box.certainty is not None and not 0 <= box.certainty <= 1:
        raise InputError(
            f"{where}: certainty is {box.certainty:g}, expected 0 (guess) to 1 (sure). Divide percentages by 100."
        )
    if box.tracking_uid and not (len(box.tracking_uid) <= 64 and _UID.fullmatch(box.tracking_uid)):
        raise InputError(
            f"{where}: tracking_uid is {box.tracking_uid!r}, expected a DICOM UID, as 2.25.1234. Correct it, or leave "
            "it empty for a new one."
        )
    for axis, low, high, size in (("x", box.x_min, box.x_max, columns), ("y", box.y_min, box.y_max, rows)):
        if not low < high:
            what = "empty" if low == high else "upside down" if axis == "y" else "turned round"
            raise InputError(
                f"{where}: the box is {what}: {axis}_min {low:g} is not below {axis}_max {high:g}. Correct the two."
            )
        if low < 0 or high > size:
            raise InputError(
                f"{where}: the box goes from {axis} {low:g} to {high:g}, outside its image of {columns} x {rows} "
                "pixels. Is it of another image, or of the enlarged one?"
            )


def _is_text(text: str, without: str) -> bool:
    allowed = text.isprintable() and not any(character in text for character in without)
    return allowed and 0 < len(text.strip()) <= len(text) <= LONGEST_LABEL
