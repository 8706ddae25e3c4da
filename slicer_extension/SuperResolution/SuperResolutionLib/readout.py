"""The words for the place under the mouse: slice, position, numbers before and after, zoom."""

from __future__ import annotations

import numpy as np
import slicer

from SuperResolutionLib import result_nodes, voxel_grid
from SuperResolutionLib.controller import inNumbers
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.geometry import spacing_xyz
from SuperResolutionLib.translation import _
from SuperResolutionLib.volumes import ijkToRasOf, isFilm, modality, shapeOf, spacingZyx, toWorldOf


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
    i, j, k = index
    unit = _("HU") if modality(volumeNode) == "CT" else _("grey levels")
    words = [_("column {column}, row {row}").format(column=i, row=j)]
    if shapeOf(volumeNode)[0] > 1:
        words.insert(0, _("slice {number} of {count}").format(number=k + 1, count=shapeOf(volumeNode)[0]))
    if spacingZyx(volumeNode) is not None and not isFilm(volumeNode):
        words.append("  ".join(_inMillimetres(*axis) for axis in zip(position, ("RL", "AP", "SI"))))
    value = f"{slicer.util.arrayFromVolume(volumeNode)[k, j, i]:g} {unit}"
    if fine is not None:
        after = slicer.util.arrayFromVolume(resultNode)[tuple(fine[::-1])]
        bars = result_nodes.errorBarsOf(resultNode)
        value += _(", enhanced {value}").format(value=inNumbers(after))
        if bars is not None:
            value += f" ± {inNumbers(slicer.util.arrayFromVolume(bars)[tuple(fine[::-1])])}"
    words.append(value)
    perPixel = view.GetFieldOfView()[0] / view.GetDimensions()[0]
    spacing = spacing_xyz(toWorldOf(volumeNode) @ ijkToRasOf(volumeNode))[0]
    words.append(_("zoom {zoom:.0%}").format(zoom=spacing / perPixel))
    return "; ".join(words)


def _inMillimetres(value: float, letters: str) -> str:
    return f"{letters[0] if value >= 0 else letters[1]} {abs(value):.1f}"


def _indexAt(volumeNode, position):
    """Return column, row and slice of the voxel at a position in the world; None outside the volume."""
    toIndex = np.linalg.inv(toWorldOf(volumeNode) @ ijkToRasOf(volumeNode))
    index = np.floor(voxel_grid.transformPoints(toIndex, np.array([position]))[0] + 0.5).astype(int)
    inside = all(0 <= at < count for at, count in zip(index, shapeOf(volumeNode)[::-1]))
    return tuple(int(at) for at in index) if inside else None
