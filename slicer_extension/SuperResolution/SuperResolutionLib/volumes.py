"""Input volumes: which of them can be enhanced, their voxels as the engine takes them, and their grids in millimetres.

An affine maps an index ``(i, j, k)`` = (column, row, slice), counted from 0 at the *centre* of the first voxel, to
millimetres, by the geometry of the package `monai_sr_bundle`. A voxel is a box. MRML's millimetres are RAS.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.geometry import crop_affine, scale_affine, spacing_xyz

SPACING_SOURCE = "SuperResolution.SpacingSource"  # attribute of a volume: "detector plane", ... or `UNKNOWN`
UNKNOWN = "unknown"
UIDS = "DICOM.instanceUIDs"  # attribute that holds the DICOM instance UIDs of a volume, set by Slicer's reader
MODALITY = "SuperResolution.Modality"  # attribute of a volume that holds the user's answer to "This is": "CXR" or "CT"
MODALITIES = {"CT": "CT", **dict.fromkeys(("CR", "DX", "RG", "RF", "DR", "XR"), "CXR"), "OT": UNKNOWN, "SC": UNKNOWN}
"""DICOM modalities that the engine takes, with its names; OT is, for instance, a film that was scanned."""
AIR_HU = -200  # A chest CT holds air, which lies below this value in HU
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_ENGINE_DTYPES = (np.uint8, np.int16, np.uint16, np.float32)
_EXACT_IN_FLOAT32 = 2**24
_SAMPLES = 100_000


def check(volumeNode) -> None:
    """Check that the engine can take a volume, or raise an InputError that says why it cannot."""
    if volumeNode is None:
        raise InputError(_("No volume is chosen. Load a chest radiograph or a chest CT and choose it as the input."))
    image = volumeNode.GetImageData() if volumeNode.IsA("vtkMRMLScalarVolumeNode") else None
    dicomModality, count = (_dicomModality(volumeNode), image.GetNumberOfScalarComponents()) if image else ("", 0)
    if volumeNode.IsA("vtkMRMLSequenceNode") or _showsSequence(volumeNode):
        problem = _("'{name}' is a sequence: its voxels change with the time point. Clone the time point you want "
                    "(Data module, right click, Clone) and choose the clone.")  # fmt: skip
    elif volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        problem = _("'{name}' is a label map: its numbers are names. Choose the image it belongs to.")
    elif volumeNode.IsA("vtkMRMLTensorVolumeNode"):
        problem = _("'{name}' has several values per voxel (colour, vector or diffusion). Convert it with the module "
                    "Vector to Scalar Volume and choose the result.")  # fmt: skip
    elif not volumeNode.IsA("vtkMRMLScalarVolumeNode"):
        problem = _("'{name}' is no volume ({kind}). Choose a radiograph or a CT.")
    elif image is None or image.GetPointData().GetScalars() is None or image.GetNumberOfPoints() == 0:
        problem = _("'{name}' holds no image. Load it again from its file.")
    elif count != 1:
        problem = _("'{name}' has {count} values per voxel, expected one. Convert it with the module Vector to Scalar "
                    "Volume and choose the result.")  # fmt: skip
    elif dicomModality and dicomModality not in MODALITIES:
        problem = _("'{name}' is of DICOM modality {dicomModality}. The models know chest radiographs ({known}) and "
                    "CT. Choose another volume.")  # fmt: skip
    else:
        return
    radiographs = ", ".join(name for name, modality in MODALITIES.items() if modality == "CXR")
    name, kind = volumeNode.GetName(), volumeNode.GetNodeTagName()
    raise InputError(problem.format(name=name, kind=kind, count=count, dicomModality=dicomModality, known=radiographs))


def shapeOf(volumeNode) -> tuple[int, int, int]:
    """Return slices, rows and columns of a volume with an image."""
    columns, rows, slices = volumeNode.GetImageData().GetDimensions()
    return slices, rows, columns


def modality(volumeNode) -> str:
    """Return "CXR", "CT" or "unknown": what the user has said, or the DICOM modality, the unit or the values say.

    One slice without the values of a CT is taken for a radiograph.
    """
    answer = volumeNode.GetAttribute(MODALITY)
    if answer:
        return answer
    fileModality = statedModality(volumeNode)
    if fileModality == UNKNOWN and shapeOf(volumeNode)[0] == 1 and not _holdsAir(volumeNode):
        return "CXR"
    return fileModality


def isFilm(volumeNode) -> bool:
    """Return whether a volume is one slice that is no CT: Slicer knows no direction of a patient in it."""
    return shapeOf(volumeNode)[0] == 1 and modality(volumeNode) != "CT"


def setModality(volumeNode, answer: str) -> None:
    """Store what the user says a volume is: "CXR" or "CT"."""
    volumeNode.SetAttribute(MODALITY, answer)


def questionOf(volumeNode) -> str:
    """Return why the user is to say what a volume is; empty if it is known, or was said."""
    name = volumeNode.GetName()
    if volumeNode.GetAttribute(MODALITY):
        return ""
    if modality(volumeNode) == UNKNOWN:
        text = _("'{name}' does not say whether it is a radiograph or a CT. Choose it under 'This is'.")
        return text.format(name=name)
    if statedModality(volumeNode) == "CT" and not _holdsAir(volumeNode):
        text = _("'{name}' calls itself CT, but no value lies below {air} HU, where air would be: it may be a "
                 "radiograph. Choose what it is under 'This is'.")  # fmt: skip
        return text.format(name=name, air=AIR_HU)
    return ""


def spacingZyx(volumeNode) -> tuple[float, float, float] | None:
    """Return millimetres between slices, rows and columns, or None if they are unknown.

    The spacing is unknown if the attribute `SPACING_SOURCE` says so, for a picture file (its resolution is a print
    size), and for a single slice of exactly 1 mm by 1 mm, which Slicer shows when a file has no spacing.
    """
    source = volumeNode.GetAttribute(SPACING_SOURCE)
    if source == UNKNOWN:
        return None
    column, row, between = spacing_xyz(ijkToRasOf(volumeNode))
    if source is None and (_isPicture(volumeNode) or (shapeOf(volumeNode)[0] == 1 and row == column == 1.0)):
        return None
    return between, row, column


def spacingAdvice(volumeNode) -> str:
    """Return advice for a volume of unknown spacing; empty if the attribute `SPACING_SOURCE` is set."""
    if volumeNode.GetAttribute(SPACING_SOURCE) is not None:
        return ""
    if _isPicture(volumeNode):
        return _("If you know it, set it in the Volumes module, and save the volume as NRRD.")
    return _("If you know it, set it in the Volumes module.")


def voxelsOf(volumeNode) -> np.ndarray:
    """Return the voxels of a volume that `check` accepts: a view of ``[slices, rows, columns]``, read-only."""
    check(volumeNode)
    array = slicer.util.arrayFromVolume(volumeNode).view()
    array.flags.writeable = False
    return array


def narrow(array: np.ndarray, name: str) -> np.ndarray:
    """Convert the voxels of a volume to a type that the engine takes; read-only.

    Wider integers become the narrowest type that holds them exactly, and float64 becomes float32; other voxels are not
    copied. This uses numpy alone, so a thread may do it.
    """
    if array.dtype not in _ENGINE_DTYPES:
        array = _narrowDtype(array, name)
    if array.dtype == np.float32 and not np.isfinite(array).all():
        text = _("'{name}' holds {count} values that are not numbers or are too large. Replace them first (for example "
                 "with the module Simple Filters, Clamp).")  # fmt: skip
        raise InputError(text.format(name=name, count=int((~np.isfinite(array)).sum())))
    array.flags.writeable = False
    return array


def resample(volumeNode, ijkToRas: np.ndarray, extent: Sequence[int]) -> np.ndarray:
    """Interpolate a volume (cubic) on an extent of a finer grid: the comparison without super-resolution.

    The affine of the grid is in the volume's own coordinates, before its parent transform. Returns ``[slices, rows,
    columns]`` float32; 0 outside the volume.
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
    """Return the affine ``[4, 4]`` from a node's own coordinates to the world, through its parent transforms."""
    parent = node.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        text = _("'{name}' is bent by the transform '{transform}'. Take it out of the transform (Transforms module), "
                 "or harden a clone of it and use the clone.")  # fmt: skip
        raise InputError(text.format(name=node.GetName(), transform=parent.GetName()))
    return np.eye(4) if parent is None else slicer.util.arrayFromTransformMatrix(parent, toWorld=True)


def resultAffine(ijkToRas: np.ndarray, extent: Sequence[int], scaleZyx: Sequence[float]) -> np.ndarray:
    """Return the affine of the enlarged region of a volume.

    The extent is in voxels of the volume, stops excluded, and the scale that along slices, rows and columns.
    """
    return scale_affine(crop_affine(ijkToRas, (extent[4], extent[2], extent[0])), scaleZyx[::-1])


def shapeOfExtent(extent: Sequence[int]) -> tuple[int, int, int]:
    """Return slices, rows and columns of an extent ``[k0, k1, r0, r1, c0, c1]``."""
    k0, k1, r0, r1, c0, c1 = extent
    return k1 - k0, r1 - r0, c1 - c0


def transformPoints(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points ``[n, 3]`` by an affine ``[4, 4]``."""
    points = np.asarray(points, dtype=np.float64)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def corners(boundsIjk: Sequence[float]) -> np.ndarray:
    """Return the corners ``[8, 3]`` of a box ``[iMin, iMax, jMin, jMax, kMin, kMax]``, i changing fastest."""
    i, j, k = np.asarray(boundsIjk, dtype=np.float64).reshape(3, 2)
    return np.array([[i[n & 1], j[n >> 1 & 1], k[n >> 2 & 1]] for n in range(8)])


def outerCorners(ijkToRas: np.ndarray, extent: Sequence[float]) -> np.ndarray:
    """Return the outer corners of an extent ``[k0, k1, r0, r1, c0, c1]``: ``[8, 3]``, i fastest.

    Bounds may be fractions: 0 is the outer face of the first voxel, whose centre is at 0.5.
    """
    k0, k1, r0, r1, c0, c1 = np.asarray(extent, dtype=np.float64) - 0.5
    return transformPoints(ijkToRas, corners([c0, c1, r0, r1, k0, k1]))


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
        text = _("'{name}' holds integers from {lowest} to {highest}, expected at most {limit} in size: more cannot be "
                 "kept exactly. Cast it to float first (for example with the module Cast Scalar Volume).")  # fmt: skip
        raise InputError(text.format(name=name, lowest=lowest, highest=highest, limit=_EXACT_IN_FLOAT32))
    return array.astype(np.float32)


def _showsSequence(volumeNode) -> bool:
    browsers = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode", volumeNode.GetScene())
    return any(browser.IsProxyNodeID(volumeNode.GetID()) for browser in browsers)


def _dicomModality(volumeNode) -> str:
    """Return the Modality (0008,0060) that Slicer's DICOM reader wrote into the subject hierarchy, or nothing."""
    scene = volumeNode.GetScene()
    hierarchy = scene and slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if not hierarchy:
        return ""
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    return hierarchy.GetItemAttribute(hierarchy.GetItemByDataNode(volumeNode), attribute)


def statedModality(volumeNode) -> str:
    """Return "CXR", "CT" or "unknown" by the DICOM modality or the unit of the voxels."""
    dicomModality = _dicomModality(volumeNode)
    if dicomModality:
        return MODALITIES.get(dicomModality, UNKNOWN)
    units = volumeNode.GetVoxelValueUnits()
    return "CT" if units is not None and units.GetCodeValue() == "[hnsf'U]" else UNKNOWN


def _holdsAir(volumeNode) -> bool:
    """Return whether a volume has values of air in HU. Some voxels are enough: a chest CT holds much of it."""
    voxels = vtk_to_numpy(volumeNode.GetImageData().GetPointData().GetScalars())
    return bool(voxels[:: max(voxels.size // _SAMPLES, 1)].min() < AIR_HU)
