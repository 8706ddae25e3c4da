"""The position of a new box: in the middle of a volume, on the slice that a view shows."""

from __future__ import annotations

from SuperResolutionLib import display, region
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.volumes import check, shapeOf

REGION_PIXELS, BOX_PIXELS = 128, 32
"""Sides of a new region box and of a new anomaly box."""


def middleExtent(volumeNode, sliceNode, pixels: int = BOX_PIXELS) -> list[int]:
    """Return the extent of a square of `pixels` by `pixels` in the middle of a slice.

    Args:
        volumeNode: radiograph or CT.
        sliceNode: slice view; if it shows no slice of the volume, the middle slice is taken.
        pixels: side of the square in pixels; the square is smaller if the volume is.

    Returns:
        ``[k0, k1, r0, r1, c0, c1]``.

    Raises:
        InputError: the volume cannot be enhanced.
    """
    check(volumeNode)
    slices, rows, columns = shapeOf(volumeNode)
    k = slices // 2
    if sliceNode is not None and slices > 1:
        try:
            extent = region.ofSlice(sliceNode, volumeNode)
        except InputError:
            extent = [0, slices]  # the view shows another plane, or lies outside the volume
        if extent[1] - extent[0] == 1:
            k = extent[0]
    height, width = min(pixels, rows), min(pixels, columns)
    top, left = (rows - height) // 2, (columns - width) // 2
    return [k, k + 1, top, top + height, left, left + width]


def addRegion(volumeNode, sliceNode, pixels: int = REGION_PIXELS):
    """Add a region box on `middleExtent`, as an outline, and return its node.

    Raises:
        InputError: the volume cannot be enhanced, or its axes are not perpendicular. The scene is not changed.
    """
    extent, scene = middleExtent(volumeNode, sliceNode, pixels), volumeNode.GetScene()
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", scene.GenerateUniqueName("SR region"))
    try:
        region.placeBox(node, volumeNode, extent)
    except InputError:
        scene.RemoveNode(node)
        raise
    display.outlineOnly(node)
    return node
