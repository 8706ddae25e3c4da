"""Window and level of a volume: those that its file names, and those that radiologists use."""

from __future__ import annotations

from typing import NamedTuple

from slicer.util import NodeModify

from SuperResolutionLib import headers, volumes
from SuperResolutionLib.translation import _

CENTER, WIDTH, EXPLANATION = "0028,1050", "0028,1051", "0028,1055"


class Window(NamedTuple):
    """A window with its name for the reader, in the unit of the voxels; a width of 0 means the full range."""

    name: str
    width: float
    level: float


def windowsOf(volumeNode, database=None) -> list[Window]:
    """Return the windows to choose from: all of the file, then lung, mediastinum and bone for CT, then the full range.

    A VOI LUT that is a table is not read. A volume without an image or a display has none. The database is Slicer's
    DICOM database, or None.
    """
    displayNode = volumeNode.GetDisplayNode()
    if displayNode is None or volumeNode.GetImageData() is None:
        return []
    windows = _fromFile(volumeNode, database)
    for n in range(displayNode.GetNumberOfWindowLevelPresets()):  # those that Slicer's DICOM reader has kept
        windows.append(Window(_("file"), displayNode.GetWindowPreset(n), displayNode.GetLevelPreset(n)))
    if volumes.modality(volumeNode) == "CT":
        windowsOfCt = (_("lung"), 1500.0, -600.0), (_("mediastinum"), 400.0, 40.0), (_("bone"), 1800.0, 400.0)
        windows += [Window(*each) for each in windowsOfCt]
    windows.append(Window(_("full"), 0.0, 0.0))  # its numbers cost a look at every voxel
    unique = {}
    for window in windows:
        unique.setdefault(window[1:], window)
    return list(unique.values())


def show(volumeNode, window: Window) -> None:
    """Show a volume in a window."""
    width, level = window.width, window.level
    if width == 0:
        low, high = volumeNode.GetImageData().GetScalarRange()
        width, level = max(high - low, 1), (low + high) / 2
    display = volumeNode.GetDisplayNode()
    with NodeModify(display):
        display.SetAutoWindowLevel(0)
        display.SetWindowLevel(width, level)


def describe(window: Window) -> str:
    """Return a window in words, for instance "lung: 1500 / -600"."""
    return f"{window.name}: {window.width:g} / {window.level:g}" if window.width else window.name


def _fromFile(volumeNode, database) -> list[Window]:
    """Read the windows of the middle file of a volume."""
    file, header = headers.fileOf(volumeNode, database), headers.headerOf(volumeNode, database)
    values = [headers.valueOf(file, tag, database).split("\\") for tag in (CENTER, WIDTH, EXPLANATION)]
    isMonochrome1 = headers.valueOf(file, headers.PHOTOMETRIC, database) == "MONOCHROME1"
    isInverted = isMonochrome1 and not header.blackIsHigh and header.storedRange is not None
    windows = []
    for n, (center, width) in enumerate(zip(values[0], values[1])):
        try:
            level, width = float(center), float(width)
        except ValueError:
            continue
        if isInverted:  # the reader has mirrored the numbers of the file
            level = sum(header.storedRange) - level
        explanation = values[2][n].strip() if n < len(values[2]) else ""
        if width > 0:
            windows.append(Window(explanation or _("file"), width, level))
    return windows
