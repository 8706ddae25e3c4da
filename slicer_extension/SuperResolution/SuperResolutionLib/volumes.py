"""Input volumes: which of them can be enhanced, their voxels as the engine takes them, and their grids in millimetres.

An affine maps an index ``(i, j, k)`` = (column, row, slice), counted from 0 at the *centre* of the first voxel, to
millimetres, by the geometry of the package `monai_sr_bundle`. A voxel is a box. MRML's millimetres are RAS.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import vtk

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
_SAMPLES = 100_000


def check(volumeNode) -> None:
    """Check that the engine can take a volume, or raise an InputError that says why it cannot."""
    if volumeNode is None:
        raise InputError(_("No volume is chosen. Load a chest radiograph or a chest CT and choose it as the input."))
    image = volumeNode.GetImageData() if volumeNode.IsA("vtkMRMLVolumeNode") else None
    browsers = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode", volumeNode.GetScene())
    if any(browser.IsProxyNodeID(volumeNode.GetID()) for browser in browsers):
        problem = _("'{name}' is a sequence: its voxels change with the time point. Clone the time point you want "
                    "(Data module, right click, Clone) and choose the clone.")  # fmt: skip
    elif volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        problem = _("'{name}' is a label map: its numbers are names. Choose the image it belongs to.")
    elif image is None or image.GetPointData().GetScalars() is None:
        problem = _("'{name}' holds no image. Load it again from its file.")
    elif image.GetNumberOfScalarComponents() != 1:
        problem = _("'{name}' has several values per voxel (colour, vector or diffusion). Convert it with the module "
                    "Vector to Scalar Volume and choose the result.")  # fmt: skip
    elif _dicomModality(volumeNode) not in ("", *MODALITIES):
        problem = _("'{name}' is of DICOM modality {modality}. The models know chest radiographs and CT. Choose "
                    "another volume.")  # fmt: skip
    else:
        return
    raise InputError(problem, name=volumeNode.GetName(), modality=_dicomModality(volumeNode))


def shapeOf(volumeNode) -> tuple[int, int, int]:
    """Return slices, rows and columns of a volume with an image."""
    columns, rows, slices = volumeNode.GetImageData().GetDimensions()
    return slices, rows, columns


def modality(volumeNode) -> str:
    """Return "CXR", "CT" or "unknown": what the user has said, or the DICOM modality, the unit or the values say.

    One slice without the values of a CT is taken for a radiograph.
    """
    statement = volumeNode.GetAttribute(MODALITY) or statedModality(volumeNode)
    isRadiograph = statement == UNKNOWN and shapeOf(volumeNode)[0] == 1 and not _holdsAir(volumeNode)
    return "CXR" if isRadiograph else statement


def statedModality(volumeNode) -> str:
    """Return "CXR", "CT" or "unknown" by the DICOM modality or the unit of the voxels."""
    dicomModality = _dicomModality(volumeNode)
    if dicomModality:
        return MODALITIES.get(dicomModality, UNKNOWN)
    units = volumeNode.GetVoxelValueUnits()
    return "CT" if units is not None and units.GetCodeValue() == "[hnsf'U]" else UNKNOWN


def isFilm(volumeNode) -> bool:
    """Return whether a volume is one slice that is no CT: Slicer knows no direction of a patient in it."""
    return shapeOf(volumeNode)[0] == 1 and modality(volumeNode) != "CT"


def questionOf(volumeNode) -> str:
    """Return why the user is to say what a volume is; empty if it is known, or was said."""
    text = ""
    if modality(volumeNode) == UNKNOWN:
        text = _("'{name}' does not say whether it is a radiograph or a CT. Choose it under 'This is'.")
    elif not volumeNode.GetAttribute(MODALITY) and statedModality(volumeNode) == "CT" and not _holdsAir(volumeNode):
        text = _("'{name}' calls itself CT, but no value lies below {air} HU, where air would be: it may be a "
                 "radiograph. Choose what it is under 'This is'.")  # fmt: skip
    return text.format(name=volumeNode.GetName(), air=AIR_HU)


def spacingZyx(volumeNode) -> tuple[float, float, float] | None:
    """Return millimetres between slices, rows and columns, or None if they are unknown.

    The spacing is unknown if the attribute `SPACING_SOURCE` says so, for a picture file (its resolution is a print
    size), and for a single slice of exactly 1 mm by 1 mm, which Slicer shows when a file has no spacing.
    """
    column, row, between = spacing_xyz(ijkToRasOf(volumeNode))
    source, storage = volumeNode.GetAttribute(SPACING_SOURCE), volumeNode.GetStorageNode()
    isPicture = storage is not None and (storage.GetFileName() or "").lower().endswith(_PICTURES)
    isDefault = shapeOf(volumeNode)[0] == 1 and row == column == 1.0
    isUnknown = isPicture or isDefault if source is None else source == UNKNOWN
    return None if isUnknown else (between, row, column)


def spacingAdvice(volumeNode) -> str:
    """Return advice for a volume of unknown spacing; empty if the attribute `SPACING_SOURCE` is set."""
    if volumeNode.GetAttribute(SPACING_SOURCE) is not None:
        return ""
    return _("If you know it, set it in the Volumes module. A picture file, such as PNG, must then be saved as NRRD.")


def voxelsOf(volumeNode) -> np.ndarray:
    """Return the voxels of a volume that `check` accepts: a view of ``[slices, rows, columns]``, read-only."""
    check(volumeNode)
    array = slicer.util.arrayFromVolume(volumeNode).view()
    array.flags.writeable = False
    return array


def narrow(array: np.ndarray, name: str) -> np.ndarray:
    """Convert voxels to the narrowest type that the engine takes, or return them uncopied if it takes theirs.

    This uses numpy alone, so a thread may do it.
    """
    if array.dtype not in _ENGINE_DTYPES:
        with np.errstate(over="ignore"):  # overflow becomes infinite, which is refused
            array = array.astype(_engineDtype(array))
    if array.dtype == np.float32 and not np.isfinite(array).all():
        text = _("'{name}' holds {count} values that are not numbers or are too large. Replace them first (for example "
                 "with the module Simple Filters, Clamp).")  # fmt: skip
        raise InputError(text, name=name, count=int((~np.isfinite(array)).sum()))
    return array


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
        raise InputError(text, name=node.GetName(), transform=parent.GetName())
    return np.eye(4) if parent is None else slicer.util.arrayFromTransformMatrix(parent, toWorld=True)


def ijkToWorldOf(volumeNode) -> np.ndarray:
    """Return the affine ``[4, 4]`` from voxel index to the world, through the volume's parent transforms."""
    return toWorldOf(volumeNode) @ ijkToRasOf(volumeNode)


def resultAffine(ijkToRas: np.ndarray, extent: Sequence[int], scaleZyx: Sequence[float]) -> np.ndarray:
    """Return the affine of an extent of a volume that is enlarged by a scale along slices, rows and columns."""
    return scale_affine(crop_affine(ijkToRas, (extent[4], extent[2], extent[0])), scaleZyx[::-1])


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


def _engineDtype(array: np.ndarray) -> type:
    if array.dtype.kind in "iu":
        lowest, highest = int(array.min()), int(array.max())
        for dtype in (np.int16, np.uint16):
            if np.iinfo(dtype).min <= lowest and highest <= np.iinfo(dtype).max:
                return dtype
    return np.float32


def _dicomModality(volumeNode) -> str:
    """Return the Modality (0008,0060) that Slicer's DICOM reader wrote into the subject hierarchy, or nothing."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    return hierarchy.GetItemAttribute(hierarchy.GetItemByDataNode(volumeNode), attribute)


def _holdsAir(volumeNode) -> bool:
    """Return whether a volume has values of air in HU. Some voxels are enough: a chest CT holds much of it."""
    voxels = slicer.util.arrayFromVolume(volumeNode).ravel()
    return bool(voxels[:: max(voxels.size // _SAMPLES, 1)].min() < AIR_HU)
