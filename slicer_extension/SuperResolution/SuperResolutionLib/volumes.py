"""What goes out of the scene: which volumes can be enhanced, and their voxels as the engine takes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from SuperResolutionLib.errors import InputError
from SuperResolutionLib.voxel_grid import shapeOf as shapeOfExtent
from SuperResolutionLib.voxel_grid import spacingOf

SPACING_SOURCE = "SuperResolution.SpacingSource"
"""Attribute of a volume: in words, where its spacing came from ("detector plane", "calibrated"), or `UNKNOWN`."""

UNKNOWN = "unknown"

UIDS = "DICOM.instanceUIDs"
"""Attribute in which Slicer's DICOM reader leaves the instances of a volume."""

MODALITIES = {"CT": "CT", "CR": "CXR", "DX": "CXR", "RG": "CXR", "RF": "CXR"}
"""DICOM modalities that the engine knows, by its own names."""

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_AS_THEY_ARE = (np.uint8, np.int16, np.uint16, np.float32)
_EXACT_IN_FLOAT32 = 2**24


def check(volumeNode) -> None:
    """Whether the engine can take a volume; nothing is changed.

    Raises:
        InputError: it cannot, and why.
    """
    if volumeNode is None:
        raise InputError("No volume is chosen. Load a chest radiograph or a chest CT and choose it as the input.")
    name = volumeNode.GetName()
    if volumeNode.IsA("vtkMRMLSequenceNode") or _showsSequence(volumeNode):
        raise InputError(
            f"'{name}' is a sequence: its voxels change with the time point. "
            "Clone the time point you want (Data module, right click, Clone) and choose the clone."
        )
    if volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(f"'{name}' is a label map: its numbers are names. Choose the image it belongs to.")
    if volumeNode.IsA("vtkMRMLTensorVolumeNode"):
        raise InputError(
            f"'{name}' has several values per voxel (colour, vector or diffusion). "
            "Convert it with the module Vector to Scalar Volume and choose the result."
        )
    if not volumeNode.IsA("vtkMRMLScalarVolumeNode"):
        raise InputError(f"'{name}' is no volume ({volumeNode.GetNodeTagName()}). Choose a radiograph or a CT.")
    image = volumeNode.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or image.GetNumberOfPoints() == 0:
        raise InputError(f"'{name}' holds no image. Load it again from its file.")
    if image.GetNumberOfScalarComponents() != 1:
        raise InputError(
            f"'{name}' has {image.GetNumberOfScalarComponents()} values per voxel, expected one. "
            "Convert it with the module Vector to Scalar Volume and choose the result."
        )
    told = _dicomModality(volumeNode)
    if told and told not in MODALITIES:
        raise InputError(
            f"'{name}' is of DICOM modality {told}. The models know chest radiographs ({_radiographs()}) and CT. "
            "Choose another volume."
        )


def shapeOf(volumeNode) -> tuple[int, int, int]:
    """Slices, rows and columns of a volume with an image."""
    columns, rows, slices = volumeNode.GetImageData().GetDimensions()
    return slices, rows, columns


def modality(volumeNode) -> str:
    """What an image is of, from its DICOM headers or the unit of its voxels: "CXR", "CT" or "unknown"."""
    told = _dicomModality(volumeNode)
    if told:
        return MODALITIES.get(told, UNKNOWN)
    units = volumeNode.GetVoxelValueUnits()
    if units is not None and units.GetCodeValue() == "[hnsf'U]":
        return "CT"
    return UNKNOWN


def spacingZyx(volumeNode) -> tuple[float, float, float] | None:
    """Millimetres between slices, rows and columns, or None where they say nothing about the patient.

    Unknown is what the attribute `SPACING_SOURCE` calls so, a picture file (its resolution is a print size), and a
    single slice of exactly 1 mm by 1 mm: that is what Slicer shows when a file has no spacing.
    """
    told = volumeNode.GetAttribute(SPACING_SOURCE)
    if told == UNKNOWN:
        return None
    column, row, between = spacingOf(ijkToRasOf(volumeNode))
    if told is None and (_isPicture(volumeNode) or (shapeOf(volumeNode)[0] == 1 and row == column == 1.0)):
        return None
    return between, row, column


def spacingAdvice(volumeNode) -> str:
    """What to do where `spacingZyx` knows nothing, for somebody who does; empty where something has called it so."""
    if volumeNode.GetAttribute(SPACING_SOURCE) is not None:
        return ""
    saved = ", and save the volume as NRRD" if _isPicture(volumeNode) else ""
    return f"If you know it, set it in the Volumes module{saved}."


def arrayOf(volumeNode) -> np.ndarray:
    """The voxels as the engine takes them: ``[slices, rows, columns]``, uint8, int16, uint16 or float32, read-only.

    Wider integers become the narrowest of these that holds them exactly; float64 becomes float32. Where nothing has
    to be converted this is a view of the volume, so it costs nothing and must be used before the volume changes.

    Raises:
        InputError: `check` refuses the volume, numbers that are not finite, or integers that float32 cannot hold.
    """
    return narrowed(voxelsOf(volumeNode), volumeNode.GetName())


def voxelsOf(volumeNode) -> np.ndarray:
    """The voxels as they are: a view of ``[slices, rows, columns]``, read-only.

    Raises:
        InputError: `check` refuses the volume.
    """
    check(volumeNode)
    scalars = volumeNode.GetImageData().GetPointData().GetScalars()
    array = vtk_to_numpy(scalars).reshape(shapeOf(volumeNode)).view()
    array.flags.writeable = False
    return array


def narrowed(array: np.ndarray, name: str) -> np.ndarray:
    """Voxels as the engine takes them, as `arrayOf`; numpy alone, so that a thread may do it.

    Raises:
        InputError: as `arrayOf`, after `check`.
    """
    if array.dtype not in _AS_THEY_ARE:
        array = _narrowed(array, name)
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise InputError(
            f"'{name}' holds {int((~np.isfinite(array)).sum())} values that are not numbers or are too "
            "large. Replace them first (for example with the module Simple Filters, Clamp)."
        )
    array.flags.writeable = False
    return array


def sampled(volumeNode, ijkToRas: np.ndarray, extent: Sequence[int]) -> np.ndarray:
    """A volume interpolated (cubic) on a finer grid, which is what there is without super-resolution.

    Args:
        volumeNode: checked.
        ijkToRas: ``[4, 4]``, the grid in the volume's own coordinates (before its parent transform). Its voxels lie
            within the volume's; those outside become 0.
        extent: ``[k0, k1, r0, r1, c0, c1]`` of the grid.

    Returns:
        ``[slices, rows, columns]`` float32.
    """
    gridToIndex = vtk.vtkTransform()
    gridToIndex.SetMatrix(slicer.util.vtkMatrixFromArray(np.linalg.inv(ijkToRasOf(volumeNode)) @ ijkToRas))
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(volumeNode.GetImageData())
    reslice.SetResliceTransform(gridToIndex)
    reslice.SetInterpolationModeToCubic()
    reslice.BorderOn()  # the outer half of the outermost voxels belongs to the volume
    reslice.SetOutputScalarType(vtk.VTK_FLOAT)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputSpacing(1, 1, 1)
    k0, k1, r0, r1, c0, c1 = extent
    reslice.SetOutputExtent(c0, c1 - 1, r0, r1 - 1, k0, k1 - 1)
    reslice.Update()
    return vtk_to_numpy(reslice.GetOutput().GetPointData().GetScalars()).reshape(shapeOfExtent(extent))


def ijkToRasOf(volumeNode) -> np.ndarray:
    """``[4, 4]``: voxel index to the volume's own coordinates, that is before its parent transform."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def toWorldOf(node) -> np.ndarray:
    """``[4, 4]``: a node's own coordinates to the world, through its parent transforms.

    Raises:
        InputError: a parent transform bends space, so that a box in the world is no box in the volume.
    """
    parent = node.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        raise InputError(
            f"'{node.GetName()}' is bent by the transform '{parent.GetName()}'. Take it out of the transform "
            "(Transforms module), or harden a clone of it and use the clone."
        )
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(parent, None, matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _isPicture(volumeNode) -> bool:
    storage = volumeNode.GetStorageNode()
    return ((storage and storage.GetFileName()) or "").lower().endswith(_PICTURES)


def _narrowed(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and `arrayOf` refuses that
            return array.astype(np.float32)
    lowest, highest = int(array.min()), int(array.max())
    for narrow in (np.int16, np.uint16):
        if np.iinfo(narrow).min <= lowest and highest <= np.iinfo(narrow).max:
            return array.astype(narrow)
    if max(-lowest, highest) > _EXACT_IN_FLOAT32:
        raise InputError(
            f"'{name}' holds integers from {lowest} to {highest}, expected at most {_EXACT_IN_FLOAT32} in size: more "
            "cannot be kept exactly. Cast it to float first (for example with the module Cast Scalar Volume)."
        )
    return array.astype(np.float32)


def _showsSequence(volumeNode) -> bool:
    scene = volumeNode.GetScene()
    browsers = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode", scene) if scene else []
    return any(browser.IsProxyNodeID(volumeNode.GetID()) for browser in browsers)


def _dicomModality(volumeNode) -> str:
    """Modality (0008,0060) that Slicer's DICOM reader left in the subject hierarchy, or nothing."""
    scene = volumeNode.GetScene()
    hierarchy = scene and slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if not hierarchy:
        return ""
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    return hierarchy.GetItemAttribute(hierarchy.GetItemByDataNode(volumeNode), attribute)


def _radiographs() -> str:
    return ", ".join(told for told, ours in MODALITIES.items() if ours == "CXR")
