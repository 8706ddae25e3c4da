"""Slices as planes in the patient, to turn millimetres of a report into pixels of its image, and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai_sr_bundle.boxes.dicom_report_tree import children, coded_name, items_named, measured_value
from monai_sr_bundle.images.dicom_geometry import file_name, numbers, pixel_spacing, stack_affine
from monai_sr_bundle.images.dicom_maps import lies_in_patient
from monai_sr_bundle.images.geometry import crop_affine
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

_LIBRARY = Code("111028", "DCM", "Image Library")
_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
_FRAME_OF_REFERENCE = Code("112227", "DCM", "Frame of Reference UID")
_POSITION = ("110901", "110902", "110903")
_ORIENTATION = ("110904", "110905", "110906", "110907", "110908", "110909")
_ACROSS, _DOWN, _THICKNESS = "111026", "111066", "112225"
"""DCM code values of PS3.16 TID 1604; the spacing along a row, and down a column."""


@dataclass(frozen=True)
class Plane:
    """One slice.

    Attributes:
        uid: SOP Instance UID.
        frame_of_reference: its UID.
        edges: ``[4, 4]``, from (x, y, z) in pixels, counted from the outer edge of the first pixel as boxes are, and
            z = 0 in the middle of the slice, to LPS millimetres.
        thickness_mm: thickness of the slice.
    """

    uid: str
    frame_of_reference: str
    edges: np.ndarray
    thickness_mm: float

    def millimetres(self, pixels: np.ndarray) -> np.ndarray:
        """Return ``[n, 2]`` pixels as ``[n, 3]`` LPS millimetres."""
        ones = np.ones((len(pixels), 1))
        return (np.hstack([pixels, 0 * ones, ones]) @ self.edges.T)[:, :3]

    def pixels(self, millimetres: np.ndarray) -> np.ndarray:
        """Return the feet of ``[n, 3]`` millimetres on the slice as ``[n, 2]`` pixels, to a thousandth of one."""
        pixels = np.linalg.solve(self.edges[:3, :3], (millimetres - self.edges[:3, 3]).T).T[:, :2]
        return pixels.round(3) + 0.0  # no -0

    def heights(self, millimetres: np.ndarray) -> np.ndarray:
        """Return the heights of ``[n, 3]`` points above the slice, ``[n]`` millimetres."""
        along = self.edges[:3, 2]
        return (millimetres - self.edges[:3, 3]) @ along / np.linalg.norm(along)


def plane_of(header: Dataset) -> Plane | None:
    """Return the plane of a CT slice; None where it does not lie in the patient, or has no thickness."""
    thickness = numbers(header, "SliceThickness", 1)
    if not lies_in_patient([header]) or not thickness:
        return None
    affine, _ = stack_affine([header], pixel_spacing(header), Path(file_name(header)))
    # The affine counts from the centre of the first pixel.
    edges = crop_affine(affine, (-0.5, -0.5, 0))
    return Plane(str(header.SOPInstanceUID), str(header.FrameOfReferenceUID), edges, thickness[0])


def planes_in_library(report: Dataset) -> list[Plane]:
    """Return the slices whose positions stand in the image library (TID 1600) of a report."""
    planes = []
    for library in items_named(children(report), _LIBRARY):
        for group in items_named(children(library), _LIBRARY_GROUP):
            shared = [item for item in children(group) if item.get("ValueType") != "IMAGE"]
            for image in children(group):
                if image.get("ValueType") == "IMAGE":
                    plane = _plane(image, [*shared, *children(image)])
                    planes += [plane] if plane else []
    return planes


def _plane(image: Dataset, descriptors: list[Dataset]) -> Plane | None:
    values = {}
    for item in descriptors:
        name, value = coded_name(item), measured_value(item)
        if name and value is not None:
            values[name.value] = value
    if not {*_POSITION, *_ORIENTATION, _ACROSS, _DOWN, _THICKNESS} <= values.keys():
        return None
    axes = np.reshape([values[code] for code in _ORIENTATION], (2, 3))
    normal = np.cross(*axes)
    if min(values[_ACROSS], values[_DOWN], values[_THICKNESS], float(np.linalg.norm(normal))) <= 0:
        return None
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = axes[0] * values[_ACROSS], axes[1] * values[_DOWN]
    affine[:3, 2] = normal / np.linalg.norm(normal) * values[_THICKNESS]
    affine[:3, 3] = [values[code] for code in _POSITION]
    references = image.get("ReferencedSOPSequence") or ()
    uid = next((str(each.get("ReferencedSOPInstanceUID") or "") for each in references), "")
    frame = next((str(item.get("UID") or "") for item in items_named(descriptors, _FRAME_OF_REFERENCE)), "")
    return Plane(uid, frame, crop_affine(affine, (-0.5, -0.5, 0)), values[_THICKNESS])
