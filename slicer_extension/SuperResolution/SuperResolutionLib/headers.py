"""DICOM headers behind a volume: the source of a radiograph's spacing, its stored range, and its files.

Slicer's readers do not say which spacing they read, and set 1 mm if they read none (CR with Pixel Spacing alone). The
rule for the spacing of a file is that of the package `monai_sr_bundle`, images/dicom_geometry.py.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import slicer
from vtk.util.numpy_support import vtk_to_numpy

from SuperResolutionLib import volumes
from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.geometry import spacing_xyz

try:
    from vtkITK import vtkITKArchetypeImageSeriesScalarReader
except ImportError:  # Slicer's core without the application
    from slicer import vtkITKArchetypeImageSeriesScalarReader

PIXEL_SPACING, IMAGER, SCANNED = "0028,0030", "0018,1164", "0018,2010"
POSITION, PHOTOMETRIC, ASPECT = "0020,0032", "0028,0004", "0028,0034"
CALIBRATION, BITS, SIGNED = "0028,0A02", "0028,0101", "0028,0103"
ORIENTATION, KERNEL, ROWS, COLUMNS = "0020,0020", "0018,1210", "0028,0010", "0028,0011"
_OPPOSITE = str.maketrans("APLRHF", "PARLFH")
_same = functools.partial(np.allclose, rtol=1e-3, atol=0)  # of spacings, because headers round
_SAME_VOXEL = 0.5
_DECODERS_DIFFER = 2  # numbers by which two decoders of one lossy file may differ


@dataclass(frozen=True)
class Header:
    """Facts about a volume from its DICOM header."""

    spacingSource: str = ""  # in words; `volumes.UNKNOWN` if no tag gives the shown spacing; empty without a header
    note: str = ""  # sentence for the user; may be empty
    storedRange: tuple | None = None  # lowest and highest number that the file can hold
    blackIsHigh: bool = False  # True if the file is MONOCHROME1 and Slicer's reader has not inverted it
    kernel: str = ""  # first value of the Convolution Kernel of a CT; empty where it is not known


def openDatabase():
    """Return Slicer's DICOM database, or raise an InputError while none is open: its module may open it later."""
    database = getattr(slicer, "dicomDatabase", None)
    if database is None or not database.isOpen:
        raise InputError(_("Slicer has no DICOM database open. Open the DICOM module once, and try again."))
    return database


def uidsOf(volumeNode) -> list[str]:
    """Return the SOP Instance UIDs of a volume from DICOM, in the order in which Slicer's reader took its files."""
    return (volumeNode.GetAttribute(volumes.UIDS) or "").split()


def fileOf(volumeNode) -> str:
    """Return the middle DICOM file of a volume; empty where Slicer's database is not open or does not know it."""
    uids = uidsOf(volumeNode)
    with suppress(InputError):
        return openDatabase().fileForInstance(uids[len(uids) // 2]) if uids else ""
    return ""


def valueOf(file: str, tag: str) -> str:
    """Return the value of a tag in a file of Slicer's database; empty without a file or a value."""
    return str(openDatabase().fileValue(file, tag) or "").strip() if file else ""


def headerOf(volumeNode) -> Header:
    """Return the header of a radiograph that `volumes.check` accepts, and of a CT the kernel alone."""
    file = fileOf(volumeNode)
    value = functools.partial(valueOf, file)
    modality = volumes.modality(volumeNode) if file else ""
    if modality != "CXR":
        return Header(kernel=value(KERNEL).split("\\")[0].strip() if modality == "CT" else "")
    fileSpacing, source = _readSpacing(value)
    column, row = spacing_xyz(volumes.ijkToRasOf(volumeNode))[:2]
    notes = []
    blackIsHigh = _blackIsHigh(volumeNode, file) if value(PHOTOMETRIC) == "MONOCHROME1" else False
    if blackIsHigh is None:
        notes.append(_("The file is MONOCHROME1, where high is black, and whether Slicer has inverted it cannot be "
                       "told: the result is right only if air looks dark."))  # fmt: skip
    if fileSpacing is None:
        # Slicer then shows 1 mm or the aspect ratio of the pixels; any other spacing was set by a user.
        isSet = not value(ASPECT) and not _same((row, column), (1.0, 1.0))
        source = "set in Slicer" if isSet else volumes.UNKNOWN
    elif not _same(fileSpacing, (row, column)):
        text = _("The file states {fileRow:.4g} x {fileColumn:.4g} mm, and Slicer shows {row:.4g} x {column:.4g} mm: "
                 "set the spacing in the Volumes module before you measure.")  # fmt: skip
        notes.append(text.format(fileRow=fileSpacing[0], fileColumn=fileSpacing[1], row=row, column=column))
        source = volumes.UNKNOWN
    return Header(source, " ".join(notes), _storedRange(value(BITS), value(SIGNED)), bool(blackIsHigh))


def edgeLettersOf(volumeNode) -> tuple[str, ...]:
    """Return the letters (A, P, L, R, H, F) of the left, right, upper and lower edge of a film.

    They are by its Patient Orientation (0020,0020), and none where the file does not state two directions. Slicer's own
    letters are wrong on every film: it lays them flat, and would call the upper edge anterior.
    """
    directions = re.fullmatch(r"([APLRHF]+)\\([APLRHF]+)", valueOf(fileOf(volumeNode), ORIENTATION))
    if not directions or volumes.modality(volumeNode) != "CXR":
        return ()
    (right, left), (lower, upper) = ((each, each.translate(_OPPOSITE)) for each in directions.groups())
    return () if right[0] in (lower[0], upper[0]) else (left, right, upper, lower)


def filesOf(volumeNode) -> list[str]:
    """Return all files of a volume in the order of Slicer's reader. A cropped one has the UIDs of its source, too."""
    uids, name = uidsOf(volumeNode), volumeNode.GetName()
    if not uids:
        text = _("'{name}' was not loaded from DICOM, so there is no patient and study to write to. Load it through "
                 "the DICOM module, or save with File, Save.")  # fmt: skip
        raise InputError(text, name=name)
    files = [openDatabase().fileForInstance(uid) for uid in uids]
    missing = sum(not os.path.isfile(file) for file in files)
    slices, *size = volumes.shapeOf(volumeNode)
    if missing:
        text = _("{missing} of {count} DICOM files of '{name}' are no longer where they were. Import them again in the "
                 "DICOM module.")  # fmt: skip
    elif [valueOf(files[0], tag) for tag in (ROWS, COLUMNS)] != [*map(str, size)] or len(files) not in (1, slices):
        text = _("'{name}' is not all that its DICOM files hold, but a part or a copy of another size, so its results "
                 "and boxes would lie elsewhere in them. Choose the volume that was loaded from them.")  # fmt: skip
    else:
        return files
    raise InputError(text, missing=missing, count=len(files), name=name)


def requireSameVoxels(volumeNode):
    """Compare a volume with its files, of which an export is made: yields after each; InputError if it was changed."""
    files = filesOf(volumeNode)
    parts = _voxelsOf(volumeNode.GetImageData()).reshape(len(files), -1)
    orders = [parts, parts[::-1]]  # Slicer may reverse the slices when a saved volume is loaded
    for number, file in enumerate(files):
        fileVoxels = _read(file)
        orders = [order for order in orders if _signOf(order[number].astype(np.float64), fileVoxels)]
        if not orders:
            text = _("'{name}' has other voxels than are read from its DICOM files, as after a mask: a result of them "
                     "would show what they hold. Save with File, Save.")  # fmt: skip
            raise InputError(text, name=volumeNode.GetName())
        yield


def slicesOf(volumeNode) -> list[str]:
    """Return the SOP Instance UID of each slice of a volume, by the positions in its files.

    The order of the files need not be that of the slices: Slicer may reverse it when a saved volume is loaded.
    """
    uids, slices = uidsOf(volumeNode), volumes.shapeOf(volumeNode)[0]
    if len(uids) == slices == 1:
        return uids
    files = filesOf(volumeNode)
    try:
        lps = np.array([[float(part) for part in valueOf(file, POSITION).split("\\")] for file in files])
        toIndex = np.linalg.inv(volumes.ijkToRasOf(volumeNode))
        positions = volumes.transformPoints(toIndex, lps * (-1.0, -1.0, 1.0))
        order = positions[:, 2].argsort()
        isInPlace = (np.abs(positions[order] - [[0, 0, k] for k in range(slices)]) < _SAME_VOXEL).all()
    except ValueError:  # a file without a position, or files of several slices
        isInPlace = False
    if not isInPlace:
        text = _("'{name}' does not lie slice for slice where its DICOM files say, or not evenly, so boxes have no "
                 "place in them. Load it again through the DICOM module, or keep its boxes by File, Save.")  # fmt: skip
        raise InputError(text, name=volumeNode.GetName())
    return [uids[number] for number in order]


def _blackIsHigh(volumeNode, file: str) -> bool | None:
    """Return True if high is black in a volume of a MONOCHROME1 file, None if its voxels are not those of the file.

    GDCM, Slicer's default, inverts such a file, and DCMTK does not.
    """
    sign = _signOf(_thinned(_voxelsOf(volumeNode.GetImageData())), _readSamples(file))
    return sign < 0 if sign else None


def _signOf(voxels: np.ndarray, fileVoxels: np.ndarray) -> int:
    """Return 1 if voxels are those of a file, -1 if they are inverted, and 0 if they are others."""
    if voxels.shape != fileVoxels.shape:
        return 0
    return next((sign for sign in (1, -1) if np.ptp(voxels - sign * fileVoxels) <= _DECODERS_DIFFER), 0)


@functools.lru_cache(maxsize=64)
def _readSamples(file: str) -> np.ndarray:
    return _thinned(_read(file))


def _read(file: str) -> np.ndarray:
    """Read the voxels of a file by GDCM; none if it cannot be read."""
    reader = vtkITKArchetypeImageSeriesScalarReader()
    reader.SetArchetype(file)
    reader.SetSingleFile(1)
    reader.SetOutputScalarTypeToNative()
    reader.SetDesiredCoordinateOrientationToNative()
    reader.Update()
    return np.empty(0) if reader.GetErrorCode() else _voxelsOf(reader.GetOutput())


def _voxelsOf(image) -> np.ndarray:
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(-1)


def _thinned(voxels: np.ndarray) -> np.ndarray:
    """Return about 4096 of the voxels as a copy, so that the others can be forgotten."""
    return voxels[:: max(voxels.size // 4096, 1)].astype(np.float64)


def _readSpacing(value: Callable[[str], str]):
    """Read row and column spacing of a file, and its source in words; None if the file gives no spacing."""
    pixel, imager, scanned = (_parsePair(value(tag)) for tag in (PIXEL_SPACING, IMAGER, SCANNED))
    if pixel and (value(CALIBRATION) or (imager and not _same(pixel, imager))):
        return pixel, "calibrated"
    if imager:
        return imager, "detector plane"
    if pixel:
        return pixel, "Pixel Spacing, detector plane or calibrated"
    return (scanned, "film plane") if scanned else (None, "")


def _parsePair(text: str):
    try:
        pair = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return None
    return pair if len(pair) == 2 and min(pair) > 0 else None


def _storedRange(bits: str, signed: str):
    if not bits.isdigit() or not 1 <= int(bits) <= 16:
        return None
    span = 2 ** int(bits)
    return (-span // 2, span // 2 - 1) if signed == "1" else (0, span - 1)
