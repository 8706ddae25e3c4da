"""What the DICOM header of a radiograph says and Slicer's volume does not: whose spacing it shows, and its bits.

Slicer's readers take a spacing without telling which, and 1 mm where they take none (CR with Pixel Spacing alone). The
rule for what a file states is that of the package `monai_sr_bundle`, images/dicom_geometry.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from SuperResolutionLib import volumes
from SuperResolutionLib.export import UIDS
from SuperResolutionLib.geometry import spacingOf

PIXEL_SPACING, IMAGER, SCANNED = "0028,0030", "0018,1164", "0018,2010"
CALIBRATION, BITS, SIGNED = "0028,0A02", "0028,0101", "0028,0103"
_SAME = 1e-3
"""Relative: headers round."""


@dataclass(frozen=True)
class Header:
    """What is known of a volume beside its voxels.

    Attributes:
        spacingSource: in words; `volumes.UNKNOWN` where the shown spacing is that of no tag; empty without a header.
        note: a sentence for the user; empty where there is nothing to say.
        storedRange: lowest and highest number the file can hold, or None.
    """

    spacingSource: str = ""
    note: str = ""
    storedRange: tuple | None = None


def headerOf(volumeNode, database) -> Header:
    """The header behind a radiograph; an empty one for other volumes.

    Args:
        volumeNode: checked.
        database: Slicer's DICOM database, or None.
    """
    uids = (volumeNode.GetAttribute(UIDS) or "").split()
    if database is None or not uids or volumes.modality(volumeNode) != "CXR":
        return Header()
    file = database.fileForInstance(uids[0])
    if not file:
        return Header()

    def value(tag: str) -> str:
        return str(database.fileValue(file, tag) or "").strip()

    stated, source = _stated(value)
    column, row, _ = spacingOf(volumes.ijkToRasOf(volumeNode))
    storedRange = _range(value(BITS), value(SIGNED))
    if stated is None:
        return Header(volumes.UNKNOWN, "", storedRange)
    if _same(stated, (row, column)):
        return Header(source, "", storedRange)
    note = (
        f"The file states {stated[0]:.4g} x {stated[1]:.4g} mm ({source}), and Slicer shows {row:.4g} x {column:.4g} "
        "mm: set the spacing in the Volumes module before you measure."
    )
    return Header(volumes.UNKNOWN, note, storedRange)


def _stated(value: Callable[[str], str]):
    """Row and column spacing that a file states, and where; None where it states none."""
    pixel, imager, scanned = (_pair(value(tag)) for tag in (PIXEL_SPACING, IMAGER, SCANNED))
    if pixel and (value(CALIBRATION) or (imager and not _same(pixel, imager))):
        return pixel, "calibrated"
    if imager:
        return imager, "detector plane"
    if pixel:
        return pixel, "Pixel Spacing, detector plane or calibrated"
    return (scanned, "film plane") if scanned else (None, "")


def _pair(text: str):
    try:
        pair = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return None
    return pair if len(pair) == 2 and min(pair) > 0 else None


def _same(one, other) -> bool:
    return all(abs(a - b) <= _SAME * max(a, b) for a, b in zip(one, other))


def _range(bits: str, signed: str):
    if not bits.isdigit() or not 1 <= int(bits) <= 16:
        return None
    span = 2 ** int(bits)
    return (-span // 2, span // 2 - 1) if signed == "1" else (0, span - 1)
