"""The voxels to enhance: those of a region box (markups ROI), of a view's slice, or of the whole volume.

An extent is ``[k0, k1, r0, r1, c0, c1]``: slices, rows and columns of the input, stops excluded. Slicer's own
`vtkSlicerCropVolumeLogic` decides which voxels a box holds: those that lie wholly inside, as in Crop Volume. The user's
nodes are never changed; transforms are applied to copies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from slicer.util import NodeModify

from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.geometry import spacing_xyz
from SuperResolutionLib.volumes import check, corners, ijkToRasOf, outerCorners, shapeOf, toWorldOf, transformPoints

TOLERANCE = 1e-5  # relative error of a region box, whose middle Slicer keeps in single precision
_SQUARE = 1e-3


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
    roi, volume = _copyToRoiSpace(roiNode, volumeNode)
    extent = [0] * 6
    slicer.vtkSlicerCropVolumeLogic.GetVoxelBasedCropOutputExtent(roi, volume, extent, True)
    points = transformPoints(np.linalg.inv(ijkToRasOf(volume)), cornersWorld(roi)) + 0.5
    spacings = spacing_xyz(toWorldOf(volumeNode) @ ijkToRasOf(volumeNode))
    names = {"name": roiNode.GetName(), "volume": volumeNode.GetName()}
    axes = (_("columns"), _("rows"), _("slices"))
    for axis, (count, spacing) in enumerate(zip(shapeOf(volumeNode)[::-1], spacings)):
        low, high = points[:, axis].min(), points[:, axis].max()
        if high <= 0 or low >= count:
            message = _("Region '{name}' lies outside '{volume}': it covers {axis} {low:.1f} to {high:.1f} of {count}. "
                        "Move it onto the volume.")  # fmt: skip
            raise InputError(message, **names, axis=axes[axis], low=low, high=high, count=count)
        if count == 1:
            extent[2 * axis : 2 * axis + 2] = [0, 0]
        if extent[2 * axis] > extent[2 * axis + 1]:
            message = _("Region '{name}' holds no whole voxel of '{volume}': along its {axis} it is {thickness:.3g} "
                        "thick, and a voxel is {voxel:.3g}. Make it at least {least:.3g} thick there.")  # fmt: skip
            sizes = {"thickness": (high - low) * spacing, "voxel": spacing, "least": 2 * spacing}
            raise InputError(message, **names, axis=axes[axis], **sizes)
    return [extent[4], extent[5] + 1, extent[2], extent[3] + 1, extent[0], extent[1] + 1]


def ofSlice(sliceNode, volumeNode) -> list[int]:
    """Return the extent of the one layer of voxels that a slice view shows."""
    check(volumeNode)
    if sliceNode is None:
        raise InputError(_("No slice view is chosen. Choose the view whose slice is to be enhanced."))
    names = {"view": sliceNode.GetName(), "name": volumeNode.GetName()}
    sliceToRas = slicer.util.arrayFromVTKMatrix(sliceNode.GetSliceToRAS())
    normal, point = sliceToRas[:3, 2], sliceToRas[:3, 3]
    ijkToWorld = toWorldOf(volumeNode) @ ijkToRasOf(volumeNode)
    counts = shapeOf(volumeNode)[::-1]
    for axis in (2, 1, 0):
        along = float(normal @ ijkToWorld[:3, axis])
        if abs(along) < 1e-6 * np.linalg.norm(ijkToWorld[:3, axis]):
            continue
        # The points where the plane cuts the four edges of the volume along this axis.
        bounds = np.array([[-0.5, count - 0.5] for count in counts])
        bounds[axis] = 0.0
        cuts = (point - transformPoints(ijkToWorld, corners(bounds.ravel()))) @ normal / along
        if np.ptp(cuts) > 0.5:
            continue
        layer = int(np.floor(cuts.mean() + 0.5))
        if not 0 <= layer < counts[axis]:
            message = _("The slice of view '{view}' lies beside '{name}'. Scroll the view onto the volume, or fit it "
                        "to the volume.")  # fmt: skip
            raise InputError(message, **names)
        bounds = [[0, count] for count in counts]
        bounds[axis] = [layer, layer + 1]
        columns, rows, slices = bounds
        return [*slices, *rows, *columns]
    message = _("View '{view}' is turned against the voxels of '{name}', so its slice cuts through many of their "
                "layers. Press 'Rotate to volume plane' in the view's bar, or draw a region.")  # fmt: skip
    raise InputError(message, **names)


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


def cornersWorld(roiNode) -> np.ndarray:
    """Return the eight corners of a region box in the world: ``[8, 3]`` RAS, the box's first axis fastest."""
    half = np.array(roiNode.GetSize()) / 2
    objectToNode = slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToNodeMatrix())
    return transformPoints(toWorldOf(roiNode) @ objectToNode, corners(np.stack([-half, half], axis=1).ravel()))


def _copyToRoiSpace(roiNode, volumeNode):
    """Copy the box, and the volume without voxels, into the box's own coordinates, without parent transforms."""
    if roiNode is None:
        raise InputError(_("No region is chosen. Draw a region box (Markups, ROI) or choose the whole volume."))
    if roiNode.GetNumberOfDefinedControlPoints() == 0 or min(roiNode.GetSize()) <= 0:
        raise InputError(_("Region '{name}' has no size yet. Finish drawing it in a view."), name=roiNode.GetName())
    roi = slicer.vtkMRMLMarkupsROINode()
    roi.CopyContent(roiNode)
    volume = slicer.vtkMRMLScalarVolumeNode()
    toRoi = np.linalg.inv(toWorldOf(roiNode)) @ toWorldOf(volumeNode) @ ijkToRasOf(volumeNode)
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(toRoi))
    voxels = vtk.vtkImageData()  # same size, without memory for the voxels
    voxels.SetExtent(volumeNode.GetImageData().GetExtent())
    volume.SetAndObserveImageData(voxels)
    return roi, volume
