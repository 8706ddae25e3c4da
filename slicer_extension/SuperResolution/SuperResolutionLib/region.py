"""The voxels to enhance: those of a region box (markups ROI), of a view's slice, or of the whole volume.

An extent is ``[k0, k1, r0, r1, c0, c1]``: slices, rows and columns of the input, stops excluded. A box holds the voxels
that lie wholly inside, as in Slicer's module Crop Volume.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
from slicer.util import NodeModify

from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.geometry import spacing_xyz
from SuperResolutionLib.volumes import (
    check,
    corners,
    ijkToRasOf,
    ijkToWorldOf,
    outerCorners,
    shapeOf,
    toWorldOf,
    transformPoints,
)

_OUTSIDE = 1e-3  # share of a voxel that may lie outside a box that holds it, as in Crop Volume
_SQUARE = 1e-3
_TILT = 0.5  # voxels by which a slice view may cut through a layer


def whole(volumeNode) -> list[int]:
    """Return the extent of a whole volume."""
    check(volumeNode)
    return [edge for size in shapeOf(volumeNode) for edge in (0, size)]


def ofRoi(roiNode, volumeNode) -> list[int]:
    """Return the extent of the voxels that lie wholly inside a region box.

    A box that is rotated against the volume gives the voxels of its bounding box. In a volume of one slice, a box that
    meets the slice holds it, however thin the box is.
    """
    check(volumeNode)
    if roiNode is None or roiNode.GetNumberOfDefinedControlPoints() == 0:
        raise InputError(_("No region is chosen. Draw one over the image, or choose the whole volume."))
    names = {"name": roiNode.GetName(), "volume": volumeNode.GetName()}
    points, counts = cornersZyx(roiNode, volumeNode), np.array(shapeOf(volumeNode))
    low, high = points.min(axis=0), points.max(axis=0)
    if (high <= 0).any() or (low >= counts).any():
        raise InputError(_("Region '{name}' lies outside '{volume}'. Move it onto the volume."), **names)
    first = np.where(counts == 1, 0, np.maximum(np.ceil(low - _OUTSIDE), 0))
    stop = np.where(counts == 1, 1, np.minimum(np.floor(high + _OUTSIDE), counts))
    if (first >= stop).any():
        message = _("Region '{name}' holds no whole voxel of '{volume}'. Make it at least {columns:.3g} wide and "
                    "{rows:.3g} high, and {slices:.3g} thick across slices.")  # fmt: skip
        columns, rows, slices = (2 * size for size in spacing_xyz(ijkToWorldOf(volumeNode)))
        raise InputError(message, **names, columns=columns, rows=rows, slices=slices)
    return np.stack([first, stop], axis=1).astype(int).ravel().tolist()


def ofSlice(sliceNode, volumeNode) -> list[int]:
    """Return the extent of the one layer of voxels that a slice view shows."""
    extent = whole(volumeNode)
    if sliceNode is None:
        raise InputError(_("No slice view is chosen. Choose the view whose slice is to be enhanced."))
    names = {"view": sliceNode.GetName(), "volume": volumeNode.GetName()}
    ijkToWorld, counts = ijkToWorldOf(volumeNode), np.array(shapeOf(volumeNode)[::-1])
    sliceToWorld = slicer.util.arrayFromVTKMatrix(sliceNode.GetSliceToRAS())
    normal = ijkToWorld[:3, :3].T @ sliceToWorld[:3, 2]  # of the slice, in voxel indices
    axis = int(np.abs(normal).argmax())
    slopes = normal / normal[axis]
    if np.abs(slopes) @ counts - counts[axis] > _TILT:
        message = _("View '{view}' is turned against the voxels of '{volume}', so its slice cuts through many of their "
                    "layers. Press 'Rotate to volume plane' in the view's bar, or draw a region.")  # fmt: skip
        raise InputError(message, **names)
    point = transformPoints(np.linalg.inv(ijkToWorld), sliceToWorld[None, :3, 3])[0]
    middle = (counts - 1) / 2
    layer = int(np.floor(middle[axis] + slopes @ (point - middle) + 0.5))
    if not 0 <= layer < counts[axis]:
        message = _("The slice of view '{view}' lies beside '{volume}'. Scroll the view onto the volume, or fit it to "
                    "the volume.")  # fmt: skip
        raise InputError(message, **names)
    extent[4 - 2 * axis : 6 - 2 * axis] = layer, layer + 1
    return extent


def placeBox(roiNode, volumeNode, extent: Sequence[float]) -> None:
    """Put a region box exactly around an extent, which may have fractions of voxels.

    The box is rotated like the volume and follows the volume's parent transform.
    """
    points = outerCorners(ijkToRasOf(volumeNode), extent)
    edges = points[[1, 2, 4]] - points[0]
    size = np.linalg.norm(edges, axis=1)
    axes = edges / size[:, None]
    if np.abs(axes @ axes.T - np.eye(3)).max() > _SQUARE:
        message = _("The axes of '{name}' are not square to each other. Resample the volume first (module Resample "
                    "Scalar/Vector/DWI Volume).")  # fmt: skip
        raise InputError(message, name=volumeNode.GetName())
    if np.linalg.det(axes) < 0:
        axes[2] = -axes[2]  # a box is its own mirror image, and handles need right-handed axes
    matrix = np.eye(4)
    matrix[:3, :3] = axes.T
    matrix[:3, 3] = points.mean(axis=0)
    with NodeModify(roiNode):
        roiNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        roiNode.SetROIType(slicer.vtkMRMLMarkupsROINode.ROITypeBox)
        roiNode.SetSize(*size)
        roiNode.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))


def cornersZyx(roiNode, volumeNode) -> np.ndarray:
    """Return the eight corners of a region box in voxels of a volume: ``[8, 3]`` slice, row, column, with fractions.

    0 is the outer face of the first voxel, whose centre is at 0.5.
    """
    bounds = [0.0] * 6
    roiNode.GetObjectBounds(bounds)
    boxToWorld = toWorldOf(roiNode) @ slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToNodeMatrix())
    return transformPoints(np.linalg.inv(ijkToWorldOf(volumeNode)) @ boxToWorld, corners(bounds))[:, ::-1] + 0.5
