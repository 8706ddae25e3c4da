"""Where a new box goes: in the middle of a volume, on the slice that a view shows."""

from __future__ import annotations

from SuperResolutionLib import display, region
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.volumes import check, shapeOf


def middleOf(volumeNode, sliceNode, pixels: int) -> list[int]:
    """Extent of a square of `pixels` by `pixels` in the middle of a slice.

    Args:
        volumeNode: radiograph or CT.
        sliceNode: the view whose slice is taken; where it shows no slice of the volume, the middle slice.
        pixels: side; less where the volume is smaller.

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
            extent = [0, slices]  # another plane, or beside the volume
        if extent[1] - extent[0] == 1:
            k = extent[0]
    high, wide = min(pixels, rows), min(pixels, columns)
    top, left = (rows - high) // 2, (columns - wide) // 2
    return [k, k + 1, top, top + high, left, left + wide]


def newRegion(roiNode, volumeNode, sliceNode, pixels: int) -> None:
    """Put a region box there, as an outline.

    Raises:
        InputError: as `middleOf`, or the volume's axes are not square to each other.
    """
    region.place(roiNode, volumeNode, middleOf(volumeNode, sliceNode, pixels))
    display.outlineOnly(roiNode)
