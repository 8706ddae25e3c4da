"""Image files to volumes of the scene, and results to files: by the readers and writers of monai_sr_bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import slicer
from SuperResolutionLib import display, results, volumes
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.headers import PHOTOMETRIC

from monai_sr_bundle.images import files
from monai_sr_bundle.images.geometry import ras_from_lps
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.provenance import Provenance

_LUNG = (-1350.0, 150.0)
"""HU shown black and white at first."""


@dataclass(frozen=True)
class Loaded:
    """An image that was read.

    Attributes:
        source: where it came from.
        image: as stored.
        values: ``[slices, rows, columns]`` as the scene takes them: HU of CT, and bright is high.
        window: lowest and highest value shown.
    """

    source: files.Source
    image: Image
    values: np.ndarray
    window: tuple[float, float]


class Found:
    """The images of a file, folder or zip, until `close`."""

    def __init__(self, path: str):
        self._open = ExitStack()
        try:
            self.sources = self._open.enter_context(files.discover([Path(path).expanduser()]))
        except BaseException:
            self._open.close()
            raise

    @property
    def names(self) -> list[str]:
        return [source.name for source in self.sources]

    def read(self, number: int) -> Loaded:
        """Read one of them; it touches no scene, so that a thread may do it.

        Raises:
            SuperResolutionError: it cannot be read.
        """
        image = files.read(self.sources[number])
        values = _values(image)
        return Loaded(self.sources[number], image, values, _window(image, values))

    def close(self) -> None:
        self._open.close()


class Headers:
    """What SuperResolutionLib asks Slicer's DICOM database for, answered from the headers of the loaded image."""

    def __init__(self):
        self._headers = {}

    def add(self, loaded: Loaded) -> str:
        """Take the headers of an image; their instances, as the attribute `volumes.UIDS` names them."""
        if loaded.image.format != "dicom":
            return ""
        self._headers |= {str(header.SOPInstanceUID): header for header in loaded.image.header}
        return " ".join(str(header.SOPInstanceUID) for header in loaded.image.header)

    def fileForInstance(self, uid: str) -> str:
        return uid if uid in self._headers else ""

    def fileValue(self, uid: str, tag: str) -> str:
        if tag == PHOTOMETRIC:
            return "MONOCHROME2"  # as in the scene
        group, element = (int(part, 16) for part in tag.split(","))
        found = self._headers[uid].get((group, element))
        if found is None or found.value is None:
            return ""
        several = isinstance(found.value, list | tuple) or found.VM > 1
        return "\\".join(map(str, found.value)) if several else str(found.value)


def addVolume(scene, loaded: Loaded, headers: Headers):
    """Put an image into the scene. Returns its volume node."""
    image = loaded.image
    node = slicer.vtkMRMLScalarVolumeNode()
    results.fill(node, loaded.values, ras_from_lps(image.grid.affine))
    node.SetName(Path(loaded.source.name).name)
    known = image.grid.in_millimetres
    node.SetAttribute(volumes.SPACING_SOURCE, image.grid.spacing_source if known else volumes.UNKNOWN)
    node.SetAttribute(volumes.UIDS, headers.add(loaded) or None)
    scene.AddNode(node)
    display.addDisplay(node)
    low, high = loaded.window
    node.GetDisplayNode().SetWindowLevelMinMax(low, high)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    if image.format == "dicom":
        attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
        hierarchy.SetItemAttribute(item, attribute, str(image.header[0].Modality))
    return node


def writer(resultNode, loaded: Loaded, folder: Path) -> Callable[[], Path]:
    """Prepare a result to be written as the kind of file its source is, by the writers of `monai-sr enhance`.

    Args:
        resultNode: whose voxels are taken now.
        loaded: its source.
        folder: for the file.

    Returns:
        Writes it and returns the file, a zip for a series; it touches no scene, so that a thread may do it.

    Raises:
        InputError: a multi-frame image of which some slices were enhanced only.
    """
    image = loaded.image
    k0, k1, r0, r1, c0, c1 = results.extentOf(resultNode)
    voxels = slicer.util.arrayFromVolume(resultNode)
    scale = results.scaleOf(resultNode)
    header = image.header
    if image.format == "dicom" and (k0, k1) != (0, len(image.pixels)):
        if len(header) != len(image.pixels):
            raise InputError(
                f"'{resultNode.GetName()}' shows {k1 - k0} of {len(image.pixels)} frames, and a multi-frame image "
                "is written whole. Enhance a box that goes through all of them, or the whole volume."
            )
        header = header[k0:k1]
    grid = image.grid.cropped((k0, r0, c0), (k1 - k0, r1 - r0, c1 - c0)).scaled(scale)
    provenance = Provenance.from_dict(results.reportOf(resultNode)["provenance"])
    [place] = files.output_paths([loaded.source], f"{folder}/")

    def write() -> Path:
        enlarged = replace(image, pixels=_stored(voxels, image), grid=grid, header=header)
        written = files.write(enlarged, provenance, place)
        if written.is_file():
            return written
        return Path(shutil.make_archive(str(written), "zip", written))

    return write


def nameOfResult(loaded: Loaded) -> str:
    """What the file of a result is called."""
    [place] = files.output_paths([loaded.source], "results/")
    return place.name + (".zip" if loaded.source.in_folder else "")


def _values(image: Image) -> np.ndarray:
    """Modality values, bright is high, in a type that the engine takes."""
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


def _stored(values: np.ndarray, image: Image) -> np.ndarray:
    """The other way: modality values as the image stores them."""
    if (image.slope, image.intercept) != (1, 0):
        values = (values.astype(np.float64) - image.intercept) / image.slope
    if image.pixels.dtype.kind in "iu":
        low, high = image.stored_range
        values = np.clip(np.rint(values), low, high).astype(np.int32)
        if image.black_is_high:
            values = (low + high) - values
    return values.astype(image.pixels.dtype)


def _window(image: Image, values: np.ndarray) -> tuple[float, float]:
    """What is shown black and white: that of the lung for CT, else nearly all values."""
    if image.modality == "CT":
        return _LUNG
    some = values.ravel()[:: max(1, values.size // 1_000_000)]
    low, high = (float(value) for value in np.percentile(some, (0.1, 99.9)))
    return (low, high) if low < high else (low, low + 1)
