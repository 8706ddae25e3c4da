"""Input volumes: which of them can be enhanced, and their voxels as the engine takes them."""

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
"""Attribute of a volume that names the source of its spacing ("detector plane", "calibrated"), or `UNKNOWN`."""

UNKNOWN = "unknown"

UIDS = "DICOM.instanceUIDs"
"""Attribute that holds the DICOM instance UIDs of a volume, set by Slicer's reader."""

MODALITIES = {"CT": "CT", "CR": "CXR", "DX": "CXR", "RG": "CXR", "RF": "CXR"}
"""DICOM modalities that the engine knows, with the engine's names."""

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_ENGINE_DTYPES = (np.uint8, np.int16, np.uint16, np.float32)
_EXACT_IN_FLOAT32 = 2**24


def check(volumeNode) -> None:
    """Check that the engine can take a volume.

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
    dicomModality = _dicomModality(volumeNode)
    if dicomModality and dicomModality not in MODALITIES:
        raise InputError(
            f"'{name}' is of DICOM modality {dicomModality}. The models know chest radiographs "
            f"({_radiographModalities()}) and CT. Choose another volume."
        )


def shapeOf(volumeNode) -> tuple[int, int, int]:
    """Return slices, rows and columns of a volume with an image."""
    columns, rows, slices = volumeNode.GetImageData().GetDimensions()
    return slices, rows, columns


def modality(volumeNode) -> str:
    """Return "CXR", "CT" or "unknown", from the DICOM modality or the unit of the voxels."""
    dicomModality = _dicomModality(volumeNode)
    if dicomModality:
        return MODALITIES.get(dicomModality, UNKNOWN)
    units = volumeNode.GetVoxelValueUnits()
    if units is not None and units.GetCodeValue() == "[hnsf'U]":
        return "CT"
    return UNKNOWN


def spacingZyx(volumeNode) -> tuple[float, float, float] | None:
    """Return millimetres between slices, rows and columns, or None if they are unknown.

    The spacing is unknown if the attribute `SPACING_SOURCE` says so, for a picture file (its resolution is a print
    size), and for a single slice of exactly 1 mm by 1 mm, which Slicer shows when a file has no spacing.
    """
    source = volumeNode.GetAttribute(SPACING_SOURCE)
    if source == UNKNOWN:
        return None
    column, row, between = spacingOf(ijkToRasOf(volumeNode))
    if source is None and (_isPicture(volumeNode) or (shapeOf(volumeNode)[0] == 1 and row == column == 1.0)):
        return None
    return between, row, column


def spacingAdvice(volumeNode) -> str:
    """Return advice for a volume of unknown spacing; empty if the attribute `SPACING_SOURCE` is set."""
    if volumeNode.GetAttribute(SPACING_SOURCE) is not None:
        return ""
    andSave = ", and save the volume as NRRD" if _isPicture(volumeNode) else ""
    return f"If you know it, set it in the Volumes module{andSave}."


def voxelsOf(volumeNode) -> np.ndarray:
    """Return the voxels unchanged: a view of ``[slices, rows, columns]``, read-only.

    Raises:
        InputError: `check` refuses the volume.
    """
    check(volumeNode)
    scalars = volumeNode.GetImageData().GetPointData().GetScalars()
    array = vtk_to_numpy(scalars).reshape(shapeOf(volumeNode)).view()
    array.flags.writeable = False
    return array


def narrow(array: np.ndarray, name: str) -> np.ndarray:
    """Convert the voxels of a volume to a type that the engine takes; read-only.

    The types are uint8, int16, uint16 and float32. Wider integers become the narrowest of them that holds them exactly;
    float64 becomes float32; other voxels are not copied. This uses numpy alone, so a thread may do it.

    Raises:
        InputError: numbers are not finite, or float32 cannot hold the integers.
    """
    if array.dtype not in _ENGINE_DTYPES:
        array = _narrowDtype(array, name)
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise InputError(
            f"'{name}' holds {int((~np.isfinite(array)).sum())} values that are not numbers or are too "
            "large. Replace them first (for example with the module Simple Filters, Clamp)."
        )
    array.flags.writeable = False
    return array


def resample(volumeNode, ijkToRas: np.ndarray, extent: Sequence[int]) -> np.ndarray:
    """Interpolate a volume (cubic) on a finer grid: the comparison without super-resolution.

    Args:
        volumeNode: volume that `check` accepts.
        ijkToRas: affine of the grid, ``[4, 4]``, in the volume's own coordinates (before its parent transform). Voxels
            outside the volume become 0.
        extent: extent of the grid, ``[k0, k1, r0, r1, c0, c1]``.

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
    """Return the affine ``[4, 4]`` from voxel index to the volume's own coordinates, before its parent transform."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def toWorldOf(node) -> np.ndarray:
    """Return the affine ``[4, 4]`` from a node's own coordinates to the world, through its parent transforms.

    Raises:
        InputError: a parent transform is not linear, so a box in the world is no box in the volume.
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


def _narrowDtype(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):  # overflow becomes infinite, which `narrow` refuses
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
    """Return the Modality (0008,0060) that Slicer's DICOM reader wrote into the subject hierarchy, or nothing."""
    scene = volumeNode.GetScene()
    hierarchy = scene and slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if not hierarchy:
        return ""
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    return hierarchy.GetItemAttribute(hierarchy.GetItemByDataNode(volumeNode), attribute)


def _radiographModalities() -> str:
    return ", ".join(name for name, modality in MODALITIES.items() if modality == "CXR")
