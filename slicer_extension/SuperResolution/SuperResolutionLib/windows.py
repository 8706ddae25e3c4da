"""Window and level of a volume, and the words for the place under the mouse: slice, position, numbers, zoom."""

from __future__ import annotations

from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import slicer
from slicer.util import NodeModify

from SuperResolutionLib import headers, result_nodes, volumes
from SuperResolutionLib.controller import inNumbers
from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.geometry import spacing_xyz
from SuperResolutionLib.volumes import ijkToWorldOf, isFilm, modality, shapeOf, spacingZyx, transformPoints

CENTER, WIDTH, EXPLANATION = "0028,1050", "0028,1051", "0028,1055"


class Window(NamedTuple):
    """A window with its name for the reader, in the unit of the voxels; a width of 0 means the full range."""

    name: str
    width: float
    level: float


def windowsOf(volumeNode) -> list[Window]:
    """Return the windows to choose from: all of the file, then lung, mediastinum and bone for CT, then the full range.

    A VOI LUT that is a table is not read. A volume without an image or a display has none.
    """
    displayNode = volumeNode.GetDisplayNode()
    if displayNode is None or volumeNode.GetImageData() is None:
        return []
    windows = _fromFile(volumeNode)
    for n in range(displayNode.GetNumberOfWindowLevelPresets()):  # those that Slicer's DICOM reader has kept
        windows.append(Window(_("file"), displayNode.GetWindowPreset(n), displayNode.GetLevelPreset(n)))
    if volumes.modality(volumeNode) == "CT":
        windows += Window(_("lung"), 1500, -600), Window(_("mediastinum"), 400, 40), Window(_("bone"), 1800, 400)
    windows.append(Window(_("full"), 0, 0))  # its numbers cost a look at every voxel
    unique = {}
    for window in windows:
        unique.setdefault(window[1:], window)
    return list(unique.values())


def show(volumeNode, window: Window) -> None:
    """Show a volume in a window."""
    _name, width, level = window
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


def _fromFile(volumeNode) -> list[Window]:
    """Read the windows of the middle file of a volume."""
    file, header = headers.fileOf(volumeNode), headers.headerOf(volumeNode)
    values = [headers.valueOf(file, tag).split("\\") for tag in (CENTER, WIDTH, EXPLANATION)]
    isMonochrome1 = headers.valueOf(file, headers.PHOTOMETRIC) == "MONOCHROME1"
    isInverted = isMonochrome1 and not header.blackIsHigh and header.storedRange is not None
    windows = []
    for center, width, explanation in zip_longest(*values, fillvalue=""):
        try:
            window = Window(explanation.strip() or _("file"), float(width), float(center))
        except ValueError:
            continue
        if isInverted:  # the reader has mirrored the numbers of the file
            window = window._replace(level=sum(header.storedRange) - window.level)
        if window.width > 0:
            windows.append(window)
    return windows


def textAt(crosshairNode, volumeNode, resultNode=None) -> str:
    """Describe the place of the mouse, which the crosshair node knows, in a volume and a result of it, if there is one.

    The text is one line, and empty where the mouse is over no view or outside the volume.
    """
    position, inView = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    view = crosshairNode.GetCursorPositionXYZ(inView)
    if view is None or not crosshairNode.GetCursorPositionRAS(position):
        return ""
    try:
        index = _indexAt(volumeNode, position)
        fine = _indexAt(resultNode, position) if resultNode is not None else None
    except InputError:
        return ""  # bent by a transform
    if index is None:
        return ""
    slices, (k, j, i) = shapeOf(volumeNode)[0], index
    words = [_("slice {number} of {count}").format(number=k + 1, count=slices)] if slices > 1 else []
    words.append(_("column {column}, row {row}").format(column=i, row=j))
    if spacingZyx(volumeNode) is not None and not isFilm(volumeNode):
        axes = zip(position, ("RL", "AP", "SI"))
        words.append("  ".join(f"{letters[value < 0]} {abs(value):.1f}" for value, letters in axes))
    unit = _("HU") if modality(volumeNode) == "CT" else _("grey levels")
    value = f"{slicer.util.arrayFromVolume(volumeNode)[index]:g} {unit}"
    if fine is not None:
        value += _(", enhanced {value}").format(value=inNumbers(slicer.util.arrayFromVolume(resultNode)[fine]))
        bars = result_nodes.errorBarsOf(resultNode)
        if bars is not None:
            value += f" ± {inNumbers(slicer.util.arrayFromVolume(bars)[fine])}"
    words.append(value)
    viewPixel = view.GetFieldOfView()[0] / view.GetDimensions()[0]
    words.append(_("zoom {zoom:.0%}").format(zoom=spacing_xyz(ijkToWorldOf(volumeNode))[0] / viewPixel))
    return "; ".join(words)


def _indexAt(volumeNode, position):
    """Return slice, row and column of the voxel at a position in the world; None outside the volume."""
    toIndex = np.linalg.inv(ijkToWorldOf(volumeNode))
    index = tuple(np.floor(transformPoints(toIndex, np.array([position]))[0, ::-1] + 0.5).astype(int).tolist())
    return index if all(0 <= at < count for at, count in zip(index, shapeOf(volumeNode))) else None
