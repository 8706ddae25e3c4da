"""Load image files as volumes of the scene and save results as files, with the package's readers and writers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import slicer
from SuperResolutionLib import display, result_nodes, volumes
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.headers import PHOTOMETRIC

from monai_sr_bundle.images import files
from monai_sr_bundle.images.geometry import ras_from_lps
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.provenance import Provenance

_LUNG = (-1350.0, 150.0)
"""Initial window of a CT, lowest and highest HU."""


@dataclass(frozen=True)
class LoadedImage:
    """An image that was read.

    Attributes:
        source: file or folder of the image.
        image: image with stored values.
        values: ``[slices, rows, columns]`` for the scene: HU for CT; bright is high.
        window: lowest and highest value shown at first.
    """

    source: files.Source
    image: Image
    values: np.ndarray
    window: tuple[float, float]


class ImageSources:
    """The images of a file, folder or zip, until `close`."""

    def __init__(self, path: str):
        self._open = ExitStack()
        try:
            self._sources = self._open.enter_context(files.discover([Path(path).expanduser()]))
        except BaseException:
            self._open.close()
            raise

    @property
    def names(self) -> list[str]:
        return [source.name for source in self._sources]

    def __getitem__(self, number: int) -> files.Source:
        return self._sources[number]

    def read(self, number: int) -> LoadedImage:
        """Read one image. It touches no scene, so a thread may do it.

        Raises:
            SuperResolutionError: the image cannot be read.
        """
        image = files.read(self._sources[number])
        values = _modalityValues(image)
        return LoadedImage(self._sources[number], image, values, _chooseWindow(image, values))

    def close(self) -> None:
        self._open.close()


class Headers:
    """The headers of the loaded images, with the methods of Slicer's DICOM database that SuperResolutionLib calls."""

    def __init__(self):
        self._headers = {}

    def add(self, image: Image) -> str:
        """Add the headers of an image. Return their instance UIDs, as the attribute `volumes.UIDS` holds them."""
        if image.format != "dicom":
            return ""
        self._headers |= {str(header.SOPInstanceUID): header for header in image.header}
        return " ".join(str(header.SOPInstanceUID) for header in image.header)

    def fileForInstance(self, uid: str) -> str:
        return uid if uid in self._headers else ""

    def fileValue(self, uid: str, tag: str) -> str:
        if tag == PHOTOMETRIC:
            return "MONOCHROME2"  # as in the scene
        group, element = (int(part, 16) for part in tag.split(","))
        field = self._headers[uid].get((group, element))
        if field is None or field.value is None:
            return ""
        isMultiValued = isinstance(field.value, list | tuple) or field.VM > 1
        return "\\".join(map(str, field.value)) if isMultiValued else str(field.value)


def addVolume(scene, loadedImage: LoadedImage, headers: Headers):
    """Put an image into the scene and return its volume node."""
    image = loadedImage.image
    node = slicer.vtkMRMLScalarVolumeNode()
    result_nodes.fill(node, loadedImage.values, ras_from_lps(image.grid.affine))
    node.SetName(Path(loadedImage.source.name).name)
    spacingSource = image.grid.spacing_source if image.grid.in_millimetres else volumes.UNKNOWN
    node.SetAttribute(volumes.SPACING_SOURCE, spacingSource)
    node.SetAttribute(volumes.UIDS, headers.add(image) or None)
    scene.AddNode(node)
    display.addDisplay(node)
    node.GetDisplayNode().SetWindowLevelMinMax(*loadedImage.window)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    if image.format == "dicom":
        attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
        hierarchy.SetItemAttribute(item, attribute, str(image.header[0].Modality))
    return node


def prepareFile(resultNode, loadedImage: LoadedImage, folder: Path) -> Callable[[], Path]:
    """Prepare to write a result in the format of its source, with the writers of `monai-sr enhance`.

    Args:
        resultNode: result; its voxels are read now.
        loadedImage: source of the result.
        folder: folder for the file.

    Returns:
        A function that writes the file and returns its path, a zip for a series. It touches no scene, so a thread may
        call it.

    Raises:
        InputError: only some frames of a multi-frame image were enhanced.
    """
    image = loadedImage.image
    k0, k1, r0, r1, c0, c1 = result_nodes.extentOf(resultNode)
    voxels = slicer.util.arrayFromVolume(resultNode)
    scale = result_nodes.scaleOf(resultNode)
    header = image.header
    if image.format == "dicom" and (k0, k1) != (0, len(image.pixels)):
        if len(header) != len(image.pixels):
            raise InputError(
                f"'{resultNode.GetName()}' shows {k1 - k0} of {len(image.pixels)} frames, and a multi-frame image "
                "is written whole. Enhance a box that goes through all of them, or the whole volume."
            )
        header = header[k0:k1]
    grid = image.grid.cropped((k0, r0, c0), (k1 - k0, r1 - r0, c1 - c0)).scaled(scale)
    provenance = Provenance.from_dict(result_nodes.reportOf(resultNode)["provenance"])
    [out] = files.output_paths([loadedImage.source], f"{folder}/")

    def write() -> Path:
        enlarged = replace(image, pixels=_storedValues(voxels, image), grid=grid, header=header)
        written = files.write(enlarged, provenance, out)
        if written.is_file():
            return written
        return Path(shutil.make_archive(str(written), "zip", written))

    return write


def nameResult(loadedImage: LoadedImage) -> str:
    """Return the file name for a result of an image."""
    [out] = files.output_paths([loadedImage.source], "results/")
    return out.name + (".zip" if loadedImage.source.in_folder else "")


def _modalityValues(image: Image) -> np.ndarray:
    """Return modality values, bright is high, in a type that the engine takes."""
    pixels = image.pixels
    if image.black_is_high:
        low, high = image.stored_range
        pixels = ((low + high) - pixels.astype(np.int32)).astype(pixels.dtype)
    if (image.slope, image.intercept) == (1, 0):
        return np.array(pixels, order="C")
    if image.slope == 1 and float(image.intercept).is_integer() and pixels.dtype.kind in "iu":
        values = pixels.astype(np.int32) + int(image.intercept)
        if np.iinfo(np.int16).min <= values.min() and values.max() <= np.iinfo(np.int16).max:
            return values.astype(np.int16)
    return (pixels * np.float32(image.slope) + np.float32(image.intercept)).astype(np.float32)


def _storedValues(values: np.ndarray, image: Image) -> np.ndarray:
    """Convert modality values to those that the image stores: the inverse of `_modalityValues`."""
    if (image.slope, image.intercept) != (1, 0):
        values = (values.astype(np.float64) - image.intercept) / image.slope
    if image.pixels.dtype.kind in "iu":
        low, high = image.stored_range
        values = np.clip(np.rint(values), low, high).astype(np.int32)
        if image.black_is_high:
            values = (low + high) - values
    return values.astype(image.pixels.dtype)


def _chooseWindow(image: Image, values: np.ndarray) -> tuple[float, float]:
    """Return the initial window: that of the lung for CT, else nearly all values."""
    if image.modality == "CT":
        return _LUNG
    samples = values.ravel()[:: max(1, values.size // 1_000_000)]
    low, high = (float(value) for value in np.percentile(samples, (0.1, 99.9)))
    return (low, high) if low < high else (low, low + 1)
