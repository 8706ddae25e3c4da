"""Boxes read from DICOM Structured Reports by TID 1500, of any program.

A region is taken from a measurement group wherever it hangs: directly (TID 1410 and 1411) or below a measurement, as
viewers built on dcmjs write it. Regions that are no box, or cannot be trusted as one, are left out with a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from monai_sr_bundle.boxes.box import LONGEST_TEXT, Box, Figures
from monai_sr_bundle.boxes.codes import finding_name, unnamed_codes
from monai_sr_bundle.boxes.dicom_planes import Plane, plane_of, planes_in_library
from monai_sr_bundle.boxes.dicom_report_tree import (
    child_codes,
    children,
    coded_name,
    is_code,
    item_text,
    items_named,
    measured_value,
    read_code,
    walk,
)
from monai_sr_bundle.boxes.dicom_report_write import (
    AFTER,
    BEFORE,
    CERTAINTY,
    MEAN,
    PERCENT,
    STANDARD_DEVIATION,
    UNKNOWN_READER,
)
from monai_sr_bundle.errors import InputError, quote
from monai_sr_bundle.images.dicom_file import is_dicom, make_writable, quiet_pydicom, read_file
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sr.coding import Code
from pydicom.uid import UID

SAME_PIXEL = 0.01
"""Pixels by which the corners of a rectangle may be off; they are stored as 32 bit floats, in pixels or millimetres."""
_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
_GROUP = Code("125007", "DCM", "Measurement Group")
_FINDING = Code("121071", "DCM", "Finding")
_TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
_READER = Code("121008", "DCM", "Person Observer Name")
_DEVICE = Code("121013", "DCM", "Device Observer Name")
_METHOD = Code("370129005", "SCT", "Measurement Method")
_DERIVATION = Code("121401", "DCM", "Derivation")


@dataclass(frozen=True)
class ReportBoxes:
    """Boxes of a report.

    Attributes:
        boxes: boxes in the order of the report.
        notes: one sentence each on items that were not understood or left out; without names and without UIDs.
        complete: the report is marked as COMPLETE.
        series_uids: Series Instance UID of each SOP Instance UID in the report's evidence.
        study_uid: Study Instance UID of the report; empty where it has none.
    """

    boxes: tuple[Box, ...]
    notes: tuple[str, ...]
    complete: bool
    series_uids: dict[str, str]
    study_uid: str


@dataclass(frozen=True)
class _Region:
    """An outline: ``[n, 2]`` pixels or ``[n, 3]`` millimetres of the image `uid`, if one is named."""

    kind: str
    points: np.ndarray
    uid: str
    frame: int | None
    frame_of_reference: str = ""


def read_report(file: Path, sources: Sequence[Dataset] = ()) -> ReportBoxes:
    """Read the boxes of a report.

    Args:
        file: a Structured Report.
        sources: headers of the image, by `read_headers`. With them only its boxes are taken, each with its
            `slice_index` and checked against the size of the image, and corners in millimetres can be read from
            any report; without them only where its image library holds the positions of the slices.

    Returns:
        The boxes and notes on what was not understood. Findings whose code is known have this package's name for
        them. Where several boxes of the report mark one lesion, they share its `tracking_uid`.

    Raises:
        InputError: no Structured Report, none by TID 1500, one of another image, or one without any box.
    """
    with quiet_pydicom():
        report = _open_report(file)
        planes = [plane for header in sources if (plane := plane_of(header))] or planes_in_library(report)
        notes: list[str] = []
        unused: Counter[str] = Counter()
        boxes: list[Box] = []
        observers = _observers(children(report))
        for number, group in enumerate(_groups(report), 1):
            group_notes: list[str] = []
            boxes += _boxes_of(group, observers, planes, group_notes, unused)
            notes += [f"{file.name}, group {number}: {note}" for note in group_notes]
        if unused:
            names = ", ".join(f"{name} ({count})" if count > 1 else name for name, count in unused.items())
            notes.append(f"{file.name}: measurements and evaluations that boxes have no place for: {names}.")
        if sources:
            boxes = _select_image(boxes, sources, file, notes)
        if not boxes:
            reason = " ".join(notes[:3]) or "It has no measurement group with a region."
            raise InputError(f"{file.name}: holds no box that can be used. {reason}")
        complete = report.get("CompletionFlag") == "COMPLETE"
        study_uid = str(report.get("StudyInstanceUID") or "")
        return ReportBoxes(tuple(boxes), tuple(notes), complete, _series_uids(report), study_uid)


def _open_report(file: Path) -> Dataset:
    if not is_dicom(file):
        raise InputError(f"{file.name}: is not a DICOM file, expected a Structured Report.")
    report = read_file(file, stop_before_pixels=True)
    make_writable(report, file.name, big_endian=False)  # values are looked at here, not in the middle of the tree
    sop_class = UID(str(report.get("SOPClassUID") or ""))
    if report.get("ValueType") != "CONTAINER" or "ContentSequence" not in report:
        raise InputError(
            f"{file.name}: is {quote(sop_class.name) or 'of no stated class'}, expected a Structured Report "
            "(Comprehensive, Comprehensive 3D or Enhanced SR). Pass the report, not the image."
        )
    templates = [item.get("TemplateIdentifier") for item in report.get("ContentTemplateSequence") or ()]
    if "1500" not in templates and (any(templates) or not items_named(children(report), _MEASUREMENTS)):
        title = coded_name(report)
        name = title.meaning if title else "untitled"
        template = f"template {quote(templates[0])}" if any(templates) else "no stated template"
        raise InputError(
            f"{file.name}: is a Structured Report by {template} ({quote(name)}), expected TID 1500 Measurement "
            "Report. Export the boxes as such a report."
        )
    return report


def _groups(report: Dataset) -> Iterator[Dataset]:
    for measurements in items_named(children(report), _MEASUREMENTS):
        groups = items_named(children(measurements), _GROUP)
        yield from (group for group in groups if group.get("ValueType") == "CONTAINER")


def _series_uids(report: Dataset) -> dict[str, str]:
    """Return the series of every image in the evidence of a report."""
    uids = {}
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in report.get(keyword) or ():
            for series in study.get("ReferencedSeriesSequence") or ():
                for image in series.get("ReferencedSOPSequence") or ():
                    uids[str(image.get("ReferencedSOPInstanceUID"))] = str(series.get("SeriesInstanceUID") or "")
    return uids


def _boxes_of(
    group: Dataset, observers: Sequence[str], planes: Sequence[Plane], notes: list[str], unused: Counter[str]
) -> Iterator[Box]:
    """Yield the boxes of one measurement group, one for each of its regions."""
    items = children(group)
    if any("ReferencedContentItemIdentifier" in item for item in items):
        notes.append("points at other parts of the report, which is not followed.")
    regions = list(_regions(group))
    if not regions:
        segments = any(item.get("ValueType") == "IMAGE" for item in items)
        notes.append(
            "refers to an image or a segmentation as a whole, not to a region, and is left out."
            if segments
            else "has no region and is left out."
        )
        return
    finding, code = "", None
    for item in items_named(items, _FINDING):
        code = read_code(item, "ConceptCodeSequence")
        finding = " ".join(finding_name(code).split()) if code else item_text(item)
    if not finding:
        notes.append("names no finding; its box has none.")
    if len(finding) > LONGEST_TEXT:
        notes.append(f"has a finding of {len(finding)} characters, of which the first {LONGEST_TEXT} are kept.")
        finding = finding[:LONGEST_TEXT].strip()
    readers = _observers(items) or observers
    if len(readers) > 1:
        notes.append(f"is by one of {len(readers)} observers, without saying which; its box has none.")
    certainty, figures = _read_measurements(items, notes, unused)
    fallback = next((uid for item in items if item.get("ValueType") == "IMAGE" for uid, _ in _images([item])), "")
    for region in regions:
        outline = _in_pixels(replace(region, uid=region.uid or fallback), planes, notes)
        edges = _edges(outline.kind, outline.points, notes) if outline else None
        if outline and edges:
            yield Box(
                finding,
                *edges,
                slice_index=None if outline.frame is None else outline.frame - 1,
                reader=readers[0][:LONGEST_TEXT] if len(readers) == 1 else "",
                certainty=certainty,
                sop_instance_uid=outline.uid,
                tracking_uid=next((str(item.get("UID") or "") for item in items_named(items, _TRACKING_UID)), ""),
                codes=unnamed_codes(finding, code) if code else (),
                before=figures.get("before"),
                after=figures.get("after"),
            )


def _read_measurements(
    items: Sequence[Dataset], notes: list[str], unused: Counter[str]
) -> tuple[float | None, dict[str, Figures]]:
    """Return certainty and figures among the measurements of a group, and count the other ones in `unused`."""
    certainty: float | None = None
    figures: dict[str, dict[str, float]] = {"before": {}, "after": {}}
    for item in items:
        name = coded_name(item)
        if name is None or item.get("ValueType") not in ("NUM", "CODE") or is_code(name, _FINDING):
            continue
        value = measured_value(item)
        codes = child_codes(item)
        method = codes.get(_METHOD.value)
        stage = "before" if is_code(method, BEFORE) else "after" if is_code(method, AFTER) else ""
        derivation = codes.get(_DERIVATION.value)
        if is_code(name, CERTAINTY) and value is not None:
            unit = read_code(item.MeasuredValueSequence[0], "MeasurementUnitsCodeSequence")
            share = value / 100 if is_code(unit, PERCENT) else value
            if 0 <= share <= 1:
                certainty = share
            else:
                notes.append(f"its certainty is {value:g}, which is no share, and is left out.")
        elif stage and value is not None and is_code(derivation, MEAN, STANDARD_DEVIATION):
            figures[stage]["mean" if is_code(derivation, MEAN) else "standard_deviation"] = value
        elif item.get("RelationshipType") == "CONTAINS":
            unused[name.meaning] += 1
    return certainty, {stage: Figures(**values) for stage, values in figures.items() if len(values) == 2}


def _observers(items: Sequence[Dataset]) -> list[str]:
    """Return the observers among the content items at one level: persons, or else devices."""
    observers = items_named(items, _READER) or items_named(items, _DEVICE)
    names = [item_text(item) for item in observers]
    return list(dict.fromkeys("" if name == UNKNOWN_READER else name for name in names))


def _regions(item: Dataset) -> Iterator[_Region]:
    """Yield every outline below a content item, the same one once: some repeat it for each measurement."""
    keys = set()
    for each in walk(item):
        kind, data = each.get("ValueType"), each.get("GraphicData")
        if kind not in ("SCOORD", "SCOORD3D") or not data:
            continue
        size = 2 if kind == "SCOORD" else 3
        values = np.atleast_1d(np.asarray(data, dtype=np.float64))
        uid, frame = next(_images(children(each)), ("", None))
        key = (kind, values.tobytes(), uid, frame)
        if len(values) % size == 0 and np.isfinite(values).all() and key not in keys:
            keys.add(key)
            frame_of_reference = str(each.get("ReferencedFrameOfReferenceUID") or "")
            yield _Region(str(each.get("GraphicType")), values.reshape(-1, size), uid, frame, frame_of_reference)


def _images(items: Sequence[Dataset]) -> Iterator[tuple[str, int | None]]:
    """Yield SOP Instance UID and frame, from 1, of the images among content items."""
    for item in items:
        for reference in item.get("ReferencedSOPSequence") or ():
            frames = reference.get("ReferencedFrameNumber")
            first = frames[0] if isinstance(frames, MultiValue) else frames
            yield str(reference.get("ReferencedSOPInstanceUID") or ""), int(first) if first else None


def _in_pixels(region: _Region, planes: Sequence[Plane], notes: list[str]) -> _Region | None:
    """Return a region in pixels of its slice; None, and a note, where its slice is not known."""
    if region.points.shape[1] == 3:
        if not planes:
            notes.append(
                "has corners in millimetres, and the report does not say where the slices lie. Pass the image."
            )
            return None
        plane = _nearest_plane(region, planes)
        if plane is None:
            notes.append("lies on no slice of the image, or across several, and is left out.")
            return None
        return replace(region, points=plane.pixels(region.points), uid=plane.uid)
    if not region.uid:
        notes.append("has a region without the image it was drawn on, and is left out.")
        return None
    return region


def _nearest_plane(region: _Region, planes: Sequence[Plane]) -> Plane | None:
    """Return the slice that all points lie on, by its UID if the report names it."""
    if region.uid:
        planes = [plane for plane in planes if plane.uid == region.uid]
    planes = [plane for plane in planes if region.frame_of_reference in ("", plane.frame_of_reference)]
    distances = [float(np.abs(plane.heights(region.points)).max()) for plane in planes]
    if not distances:
        return None
    nearest = int(np.argmin(distances))
    return planes[nearest] if distances[nearest] <= planes[nearest].thickness_mm / 2 else None


def _edges(kind: str, points: np.ndarray, notes: list[str]) -> tuple[float, float, float, float] | None:
    """Return left, top, right and bottom of an outline ``[n, 2]`` in pixels; None, and a note, for what is no box."""
    low, high = points.min(axis=0), points.max(axis=0)
    exact = True
    if kind == "CIRCLE" and len(points) == 2:
        radius = float(np.linalg.norm(points[1] - points[0]))
        low, high, exact = points[0] - radius, points[0] + radius, False
    elif kind == "ELLIPSE" and len(points) == 4:
        axes = (points[1] - points[0]) / 2, (points[3] - points[2]) / 2
        half = np.hypot(*axes)
        middle = points[:2].mean(axis=0)
        low, high, exact = middle - half, middle + half, False
    elif kind == "MULTIPOINT" and len(points) == 2:
        pass  # opposite corners
    elif kind in ("POLYLINE", "POLYGON", "MULTIPOINT") and len(points) >= 4:
        exact = _is_rectangle(points, low, high)
        closed = kind == "POLYGON" or np.allclose(points[0], points[-1], atol=SAME_PIXEL)
        if not exact and (not closed or kind == "MULTIPOINT"):
            notes.append(f"is {len(points)} points that enclose nothing ({kind}), and is left out.")
            return None
    else:
        shape = "a point" if len(points) == 1 else "a line" if len(points) == 2 else f"of {len(points)} points"
        notes.append(f"is {shape} ({kind}), no box, and is left out.")
        return None
    if (high - low < SAME_PIXEL).any():
        notes.append("encloses no area and is left out.")
        return None
    if not exact:
        notes.append(f"is no rectangle along the image's edges ({kind}); its box is the smallest around it.")
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _is_rectangle(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Check that the points are the four corners and nothing else, in any order: viewers differ in it."""
    corners = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
    distances = np.abs(points[:, None] - corners[None]).max(axis=2)
    return bool((distances.min(axis=1) <= SAME_PIXEL).all() and (distances.min(axis=0) <= SAME_PIXEL).all())


def _select_image(boxes: Sequence[Box], sources: Sequence[Dataset], file: Path, notes: list[str]) -> list[Box]:
    """Return the boxes on slices of the image, with their slice index, cut to its edges by less than `SAME_PIXEL`."""
    indices = {str(header.SOPInstanceUID): index for index, header in enumerate(sources)}
    selected = [box for box in boxes if box.sop_instance_uid in indices]
    others = len(boxes) - len(selected)
    if boxes and not selected:
        raise InputError(
            f"{file.name}: its {others} box(es) belong to other images than the {len(sources)} given. Pass the image, "
            "or the whole series, that the report was made of."
        )
    if others:
        notes.append(f"{file.name}: {others} box(es) belong to other images and are left out.")
    inside = []
    for number, box in enumerate(selected, 1):
        index = indices[box.sop_instance_uid]
        columns, rows = int(sources[index].Columns), int(sources[index].Rows)
        x_min, x_max = np.clip((box.x_min, box.x_max), 0, columns).tolist()
        y_min, y_max = np.clip((box.y_min, box.y_max), 0, rows).tolist()
        if np.abs(np.subtract(box.xyxy, (x_min, y_min, x_max, y_max))).max() > SAME_PIXEL:
            notes.append(
                f"{file.name}: box {number} of this image reaches outside its {columns} x {rows} pixels and is left "
                "out."
            )
            continue
        slice_index = index if len(sources) > 1 else box.slice_index
        inside.append(replace(box, x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max, slice_index=slice_index))
    return inside
