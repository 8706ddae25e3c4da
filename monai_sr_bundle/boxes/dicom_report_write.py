"""Boxes as a DICOM Structured Report: TID 1500 "Measurement Report", a planar ROI group (TID 1410) for each box.

On a radiograph a box is a closed line in pixels of its image (SCOORD) in a Comprehensive SR. On CT slices that lie in
the patient it is a polygon in millimetres (SCOORD3D) in a Comprehensive 3D SR, whose image library (TID 1600) keeps the
positions of the slices, so that another program finds the pixels without the images. Codes: PS3.16 CID 218, 7464, 7469.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from monai_sr_bundle import __version__
from monai_sr_bundle.boxes.box import LONGEST_TEXT, Box, BoxError, check_edges
from monai_sr_bundle.boxes.codes import PRIVATE, PRIVATE_NAME, finding_code
from monai_sr_bundle.boxes.dicom_planes import plane_of
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.dicom_file import quiet_pydicom
from monai_sr_bundle.images.dicom_geometry import file_name
from monai_sr_bundle.images.dicom_maps import copy_names_and_dates, explain_refusals, with_names_and_dates
from monai_sr_bundle.images.dicom_read import modality_of
from monai_sr_bundle.images.dicom_write import (
    DESCRIPTION_LENGTH,
    LARGEST_INTEGER_STRING,
    series_description,
    set_times,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, generate_uid

UNKNOWN_READER = "Unknown"
"""Person Observer Name of unknown readers; TID 1003 does not allow an empty one."""
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
PERCENT = Code("%", "UCUM", "Percent")
HOUNSFIELD, NO_UNITS = Code("[hnsf'U]", "UCUM", "Hounsfield unit"), Code("1", "UCUM", "no units")
ATTENUATION, GREY_LEVEL = Code("112031", "DCM", "Attenuation Coefficient"), Code("GREYLEVEL", PRIVATE, "Grey level")
MEAN = Code("373098007", "SCT", "Mean")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")
BEFORE = Code("BEFORE", PRIVATE, "Before super-resolution")
AFTER = Code("AFTER", PRIVATE, "After super-resolution")
_IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
_PERSON = Code("121006", "DCM", "Person")
_SERIES_OFFSET = 9
"""The result is the source's series number x 100 + 1, its maps are + 2 and + 3."""


def write_report(
    boxes: Sequence[Box],
    sources: Sequence[Dataset],
    out: Path,
    *,
    result: Sequence[Dataset] = (),
    in_patient: bool = True,
    complete: bool = False,
    labels: Sequence[str] = (),
) -> None:
    """Write boxes as a series of their own in the study of their image.

    Args:
        boxes: at least one; `slice_index` or `sop_instance_uid` names the slice, unless there is only one.
        sources: headers of the image, by `read_headers`.
        out: the file to write.
        result: headers of the enhanced image, to which `after` of the boxes refers.
        in_patient: give corners in millimetres where slices lie in the patient; else always in pixels, which more
            viewers show.
        complete: mark the report as COMPLETE; PARTIAL by default.
        labels: words for each box in messages; by default "box 1" and so on.

    Raises:
        InputError: a box that is not of this image, not inside it, empty or upside down; a header without its
            study or series; a `result` that was not made from the slice of a box.
        OutputError: highdicom is not installed, or refuses the header.
    """
    try:
        import highdicom  # noqa: F401
    except ModuleNotFoundError as error:
        raise OutputError(
            "boxes as DICOM are written by highdicom, not installed here. Install with "
            "`pip install -c constraints.txt '.[dicom]'` in this package's folder, or keep them as .csv or .json."
        ) from error
    labels = labels or [f"box {number}" for number in range(1, len(boxes) + 1)]
    problem = f"{out.name}: the header of the image does not allow a report"
    with quiet_pydicom(), explain_refusals(problem, "Keep the boxes as .csv or .json."):
        for header in (*sources, *result):
            _check_header(header)
        slices = []
        for box, label in zip(boxes, labels, strict=True):
            header, frame = _find_slice(box, sources, label)
            _check_box(box, header, label)
            slices.append((header, frame))
        report = _compose(boxes, slices, _find_results(boxes, slices, result, labels), in_patient, complete)
        report.save_as(out, enforce_file_format=True)


def _check_box(box: Box, header: Dataset, label: str) -> None:
    """Refuse a box that DICOM cannot hold, or that does not lie inside its image."""
    if not box.finding.strip() or not _is_text(box.finding, "\\"):
        raise InputError(
            f"{label}: the finding is {box.finding!r}, expected 1 to {LONGEST_TEXT} characters without backslash or "
            "line break. Correct it."
        )
    if not _is_text(box.reader, "\\=") or box.reader.count("^") > 4:
        raise InputError(
            f"{label}: the reader's name or label is not one that DICOM holds: at most {LONGEST_TEXT} characters, no "
            "backslash, equals sign or line break, at most four ^. Correct it."
        )
    if box.certainty is not None and not 0 <= box.certainty <= 1:
        raise InputError(
            f"{label}: certainty is {box.certainty:g}, expected 0 (guess) to 1 (sure). Divide percentages by 100."
        )
    if box.tracking_uid and not UID(box.tracking_uid).is_valid:
        raise InputError(
            f"{label}: tracking_uid is {box.tracking_uid!r}, expected a DICOM UID, as 2.25.1234. Correct it, or leave "
            "it empty for a new one."
        )
    try:
        check_edges(box, int(header.Columns), int(header.Rows))
    except BoxError as error:
        raise InputError(f"{label}: {error}") from error


def _is_text(text: str, forbidden: str) -> bool:
    return len(text) <= LONGEST_TEXT and text.isprintable() and not any(character in text for character in forbidden)


def _check_header(header: Dataset) -> None:
    for keyword, tag in (("StudyInstanceUID", "0020,000D"), ("SeriesInstanceUID", "0020,000E")):
        if not header.get(keyword):
            raise InputError(
                f"{file_name(header)}: has no {keyword} ({tag}), by which a report names its images. Export the file "
                "again, or keep the boxes as .csv or .json."
            )


def _find_slice(box: Box, sources: Sequence[Dataset], label: str) -> tuple[Dataset, int | None]:
    """Return the header of a box's slice and, in a file of several frames, the frame from 1."""
    frames = int(sources[0].get("NumberOfFrames") or 1)
    count = max(frames, len(sources))
    index = box.slice_index
    if box.sop_instance_uid:
        matches = [number for number, header in enumerate(sources) if header.SOPInstanceUID == box.sop_instance_uid]
        if not matches:
            raise InputError(
                f"{label}: the box belongs to the image {box.sop_instance_uid}, which is not among the {len(sources)} "
                "given. Pass the image that the box was drawn on."
            )
        if frames == 1:
            if index is not None and index != matches[0]:
                raise InputError(
                    f"{label}: slice {index} is not the image {box.sop_instance_uid}, which is slice {matches[0]}, "
                    "counted from 0. Correct one of the two, or leave it out."
                )
            index = matches[0]
    if index is None:
        if count > 1:
            raise InputError(
                f"{label}: does not say which of the {count} slices the box is on. Fill in slice_index, from 0, or "
                "sop_instance_uid."
            )
        index = 0
    if not 0 <= index < count:
        raise InputError(f"{label}: slice_index is {index}, but the image has {count} slice(s), counted from 0.")
    return (sources[index], None) if frames == 1 else (sources[0], index + 1)


def _find_results(
    boxes: Sequence[Box],
    slices: Sequence[tuple[Dataset, int | None]],
    result: Sequence[Dataset],
    labels: Sequence[str],
) -> list[list[Dataset]]:
    """Return for each box the slices of the result that were made from its slice."""
    results: list[list[Dataset]] = []
    for box, (header, _), label in zip(boxes, slices, labels, strict=True):
        derived = [
            each
            for each in result
            if header.SOPInstanceUID
            in [item.get("ReferencedSOPInstanceUID") for item in each.get("SourceImageSequence", ())]
        ]
        if result and not derived:
            raise InputError(
                f"{label}: {file_name(result[0])} was not made from the slice of the box, {file_name(header)}. Pass "
                "the result of this image."
            )
        results.append(derived if box.after else [])
    return results


def _compose(
    boxes: Sequence[Box],
    slices: Sequence[tuple[Dataset, int | None]],
    results: Sequence[list[Dataset]],
    in_patient: bool,
    complete: bool,
) -> Any:
    """Return the report as a data set."""
    from highdicom import sr

    headers = list({header.SOPInstanceUID: header for header, _ in slices}.values())
    spatial = in_patient and all(plane_of(header) for header in headers)
    readers = list(dict.fromkeys(box.reader for box in boxes))
    groups = []
    tracking = [box.tracking_uid or generate_uid(prefix=None) for box in boxes]
    names = _tracking_names(boxes, tracking)
    for index, (box, (header, frame)) in enumerate(zip(boxes, slices, strict=True)):
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=tracking[index], identifier=names[index]),
            referenced_region=_region_in_patient(box, header) if spatial else _region_in_image(box, header, frame),
            finding_type=_code(box),
            measurements=_measurements(box, header, frame, results[index]) or None,
        )
        content = group[0].ContentSequence
        if spatial:
            # A region in millimetres names no image; TID 1410 may be extended.
            content.append(sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID))
        if len(readers) > 1:
            content.extend(_observer(box.reader))
        groups.append(group)
    context = sr.ObservationContext(observer_person_context=_observer(readers[0]))
    for reader in readers[1:]:
        context.extend(_observer(reader))
    report = sr.MeasurementReport(
        observation_context=context,
        procedure_reported=_IMAGING_PROCEDURE,
        imaging_measurements=groups,
        referenced_images=[with_names_and_dates(header) for header in headers] if spatial else None,
    )
    evidence = {header.SOPInstanceUID: header for images in (headers, *results) for header in images}
    dataset = (sr.Comprehensive3DSR if spatial else sr.ComprehensiveSR)(
        evidence=[with_names_and_dates(header) for header in evidence.values()],
        content=report,
        series_instance_uid=generate_uid(prefix=None),
        series_number=_series_number(headers[0]),
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer=PRIVATE_NAME,
        is_complete=complete,
        manufacturer_model_name=PRIVATE_NAME,
        device_serial_number="none",
        software_versions=__version__,
        # Readers and findings may be written in any script; the source's may not have their characters.
        specific_character_set="ISO_IR 192",
    )
    has_private_codes = any(_code(box).scheme_designator == PRIVATE or box.before or box.after for box in boxes)
    _complete_header(dataset, headers[0], has_private_codes)
    return dataset


def _code(box: Box) -> Code:
    """Return the code of a box's finding: its own first, else that of the finding's name."""
    if not box.codes:
        return finding_code(box.finding)
    code = box.codes[0]
    return Code(code.value, code.scheme, code.meaning)


def _region_in_image(box: Box, header: Dataset, frame: int | None) -> Any:
    from highdicom import sr

    frames = None if frame is None else [frame]
    image = sr.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID, frames)
    return sr.ImageRegion("POLYLINE", np.array(box.corners), image)


def _region_in_patient(box: Box, header: Dataset) -> Any:
    from highdicom import sr

    plane = plane_of(header)
    assert plane is not None, "a slice without a position in the patient"
    return sr.ImageRegion3D("POLYGON", plane.millimetres(np.array(box.corners)), header.FrameOfReferenceUID)


def _tracking_names(boxes: Sequence[Box], tracking: Sequence[str]) -> list[str]:
    """Return names for people, as "Nodule 2"; boxes of one lesion share a name as they share its UID."""
    names: dict[str, str] = {}
    count: dict[str, int] = {}
    for box, uid in zip(boxes, tracking, strict=True):
        if uid not in names:
            count[box.finding] = count.get(box.finding, 0) + 1
            names[uid] = f"{box.finding} {count[box.finding]}"
    return [names[uid] for uid in tracking]


def _measurements(box: Box, header: Dataset, frame: int | None, result: Sequence[Dataset]) -> list[Any]:
    from highdicom import sr

    measurements = []
    if box.certainty is not None:
        measurements.append(sr.Measurement(name=CERTAINTY, value=100.0 * box.certainty, unit=PERCENT))
    frames = None if frame is None else [frame]
    name, unit = (ATTENUATION, HOUNSFIELD) if modality_of(header) == "CT" else (GREY_LEVEL, NO_UNITS)
    for figures, method, images in ((box.before, BEFORE, [header]), (box.after, AFTER, result)):
        if figures is None:
            continue
        for value, derivation in ((figures.mean, MEAN), (figures.standard_deviation, STANDARD_DEVIATION)):
            measurements.append(
                sr.Measurement(
                    name=name,
                    value=float(value),
                    unit=unit,
                    derivation=derivation,
                    method=method,
                    referenced_images=[
                        sr.SourceImageForMeasurement(image.SOPClassUID, image.SOPInstanceUID, frames)
                        for image in images
                    ],
                )
            )
    return measurements


def _observer(reader: str) -> Any:
    from highdicom import sr

    return sr.ObserverContext(
        observer_type=sr.CodedConcept.from_code(_PERSON),
        observer_identifying_attributes=sr.PersonObserverIdentifyingAttributes(name=_person(reader)),
    )


def _person(reader: str) -> str:
    """Return a Person Name; of one part it ends in ^, as the form without it was retired (PS3.5 6.2.1)."""
    name = reader or UNKNOWN_READER
    return name if "^" in name or len(name) == LONGEST_TEXT else f"{name}^"


def _series_number(header: Dataset) -> int:
    number = int(header.get("SeriesNumber") or 0) * 100 + _SERIES_OFFSET
    return number if 0 < number <= LARGEST_INTEGER_STRING else _SERIES_OFFSET


def _complete_header(dataset: Dataset, header: Dataset, has_private_codes: bool) -> None:
    """Add what highdicom does not take from the image or does not know: times in its zone, our codes."""
    dataset.SeriesDescription = f"Boxes {series_description(header)}"[:DESCRIPTION_LENGTH].strip()
    set_times(dataset, header, datetime.now().astimezone())
    copy_names_and_dates(dataset, header)
    for keyword in ("TimezoneOffsetFromUTC", "SyntheticData"):
        if keyword in header:
            dataset[keyword] = copy.deepcopy(header[keyword])
    if not has_private_codes:
        return
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = PRIVATE, "Findings and methods of monai-sr-bundle"
    scheme.CodingSchemeResponsibleOrganization = PRIVATE_NAME
    dataset.CodingSchemeIdentificationSequence = [scheme]
