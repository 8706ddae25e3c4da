"""Boxes as a DICOM Structured Report: TID 1500 "Measurement Report", a planar ROI group (TID 1410) for each box.

On a radiograph a box is a closed line in pixels of its image (SCOORD) in a Comprehensive SR. On CT slices that lie in
the patient it is a polygon in millimetres (SCOORD3D) in a Comprehensive 3D SR, whose image library (TID 1600) keeps the
places of the slices, so that a reader finds the pixels again without the images. Codes: PS3.16 CID 218, 7464, 7469.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from monai_sr_bundle import __version__
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.box import LONGEST_LABEL, Box, Figures, check_box
from monai_sr_bundle.images.dicom_box_codes import PRIVATE, PRIVATE_NAME, finding_code
from monai_sr_bundle.images.dicom_file import calm, with_names_and_dates
from monai_sr_bundle.images.dicom_geometry import file_name
from monai_sr_bundle.images.dicom_planes import plane_of
from monai_sr_bundle.images.dicom_read import modality_of
from monai_sr_bundle.images.dicom_write import DESCRIPTION_LENGTH, LARGEST_INTEGER_STRING, in_zone_of

UNKNOWN_READER = "Unknown"
"""Person Observer Name where nobody is named; TID 1003 does not allow an empty one."""
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


def write_boxes(
    boxes: Sequence[Box],
    sources: Sequence[Dataset],
    out: Path,
    *,
    result: Sequence[Dataset] = (),
    in_patient: bool = True,
    where: Sequence[str] = (),
) -> None:
    """Write boxes as a series of their own in the study of their image.

    Args:
        boxes: at least one; `slice_index` or `sop_instance_uid` says which slice, unless there is only one.
        sources: headers of the image, by `read_headers`.
        out: the file to write.
        result: headers of the image super-resolved, to which `after` of the boxes then refers.
        in_patient: give corners in millimetres where slices lie in the patient; else always in pixels, which more
            viewers show.
        where: what to call each box in a message; by default "box 1" and so on.

    Raises:
        InputError: no box; a box that is not of this image, not inside it, empty or upside down; a header without its
            study or series; a `result` that was not made from the slice of a box.
        OutputError: highdicom is not installed, or refuses the header.
    """
    try:
        import highdicom  # noqa: F401
    except ModuleNotFoundError as error:
        raise OutputError(
            "boxes as DICOM are written by highdicom, not installed here. Install with "
            "`pip install 'monai-sr-bundle[dicom]'`, or keep them as .csv or .json."
        ) from error
    if not boxes:
        raise InputError("there is no box to write. Draw one first, or leave the report out.")
    where = where or [f"box {number}" for number in range(1, len(boxes) + 1)]
    with calm(), _refusals_told(out):
        for header in (*sources, *result):
            _check_header(header)
        places = []
        for box, name in zip(boxes, where, strict=True):
            place = _place(box, sources, name)
            check_box(box, int(place[0].Columns), int(place[0].Rows), name)
            places.append(place)
        _write(boxes, places, _results(boxes, places, result, where), in_patient, out)


def _check_header(header: Dataset) -> None:
    for keyword, tag in (("StudyInstanceUID", "0020,000D"), ("SeriesInstanceUID", "0020,000E")):
        if not header.get(keyword):
            raise InputError(
                f"{file_name(header)}: has no {keyword} ({tag}), by which a report names its images. Export the file "
                "again, or keep the boxes as .csv or .json."
            )


def _place(box: Box, sources: Sequence[Dataset], where: str) -> tuple[Dataset, int | None]:
    """The header of a box's slice and, in a file of several frames, the frame from 1."""
    frames = int(sources[0].get("NumberOfFrames") or 1)
    count = max(frames, len(sources))
    index = box.slice_index
    if box.sop_instance_uid:
        of_file = [number for number, header in enumerate(sources) if header.SOPInstanceUID == box.sop_instance_uid]
        if not of_file:
            raise InputError(
                f"{where}: the box belongs to the image {box.sop_instance_uid}, which is not among the {len(sources)} "
                "given. Pass the image that the box was drawn on."
            )
        if frames == 1:
            if index is not None and index != of_file[0]:
                raise InputError(
                    f"{where}: slice {index} is not the image {box.sop_instance_uid}, which is slice {of_file[0]}, "
                    "counted from 0. Correct one of the two, or leave it out."
                )
            index = of_file[0]
    if index is None:
        if count > 1:
            raise InputError(
                f"{where}: does not say which of the {count} slices the box is on. Fill in slice_index, from 0, or "
                "sop_instance_uid."
            )
        index = 0
    if not 0 <= index < count:
        raise InputError(f"{where}: slice_index is {index}, but the image has {count} slice(s), counted from 0.")
    return (sources[index], None) if frames == 1 else (sources[0], index + 1)


def _results(
    boxes: Sequence[Box],
    places: Sequence[tuple[Dataset, int | None]],
    result: Sequence[Dataset],
    where: Sequence[str],
) -> list[list[Dataset]]:
    """For each box the slices of the result that were made from its slice."""
    found: list[list[Dataset]] = []
    for box, (header, _), name in zip(boxes, places, where, strict=True):
        made = [
            each
            for each in result
            if header.SOPInstanceUID
            in [item.get("ReferencedSOPInstanceUID") for item in each.get("SourceImageSequence", ())]
        ]
        if result and not made:
            raise InputError(
                f"{name}: {file_name(result[0])} was not made from the slice of the box, {file_name(header)}. Pass the "
                "result of this image."
            )
        found.append(made if box.after else [])
    return found


@contextmanager
def _refusals_told(out: Path) -> Iterator[None]:
    """What highdicom finds wrong with a header, in words of ours."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{out.name}: the header of the image does not allow a report ({error}). Keep the boxes as .csv or .json."
        ) from error


def _write(
    boxes: Sequence[Box],
    places: Sequence[tuple[Dataset, int | None]],
    results: Sequence[list[Dataset]],
    in_patient: bool,
    out: Path,
) -> None:
    from highdicom import sr

    slices = list({header.SOPInstanceUID: header for header, _ in places}.values())
    spatial = in_patient and all(plane_of(header) for header in slices)
    readers = list(dict.fromkeys(box.reader for box in boxes))
    groups = []
    tracking = [box.tracking_uid or generate_uid(prefix=None) for box in boxes]
    names = _tracking_names(boxes, tracking)
    for index, (box, (header, frame)) in enumerate(zip(boxes, places, strict=True)):
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=tracking[index], identifier=names[index]),
            referenced_region=_region_in_patient(box, header) if spatial else _region_in_image(box, header, frame),
            finding_type=finding_code(box.label),
            measurements=_measurements(box, header, frame, results[index]) or None,
        )
        content = group[0].ContentSequence
        if spatial:
            # A place in millimetres names no image; TID 1410 may be extended.
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
        referenced_images=slices if spatial else None,
    )
    evidence = {header.SOPInstanceUID: header for header in [*slices, *(each for made in results for each in made)]}
    first = slices[0]
    made = (sr.Comprehensive3DSR if spatial else sr.ComprehensiveSR)(
        evidence=[with_names_and_dates(header) for header in evidence.values()],
        content=report,
        series_instance_uid=generate_uid(prefix=None),
        series_number=_series_number(first),
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer=PRIVATE_NAME,
        manufacturer_model_name=PRIVATE_NAME,
        device_serial_number="none",
        software_versions=__version__,
        # Readers and findings may be written in any script; the source's may not have their characters.
        specific_character_set="ISO_IR 192",
    )
    own_codes = any(finding_code(box.label).scheme_designator == PRIVATE or box.before or box.after for box in boxes)
    _finish(made, first, own_codes)
    made.save_as(out, enforce_file_format=True)


def _region_in_image(box: Box, header: Dataset, frame: int | None) -> Any:
    from highdicom import sr

    frames = None if frame is None else [frame]
    image = sr.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID, frames)
    return sr.ImageRegion("POLYLINE", np.array(box.corners), image)


def _region_in_patient(box: Box, header: Dataset) -> Any:
    from highdicom import sr

    plane = plane_of(header)
    assert plane is not None, "a slice without a place in the patient"
    return sr.ImageRegion3D("POLYGON", plane.millimetres(np.array(box.corners)), header.FrameOfReferenceUID)


def _tracking_names(boxes: Sequence[Box], tracking: Sequence[str]) -> list[str]:
    """Names for people, as "Nodule 2"; boxes of one lesion share a name as they share its UID."""
    names: dict[str, str] = {}
    count: dict[str, int] = {}
    for box, uid in zip(boxes, tracking, strict=True):
        if uid not in names:
            count[box.label] = count.get(box.label, 0) + 1
            names[uid] = f"{box.label} {count[box.label]}"
    return [names[uid] for uid in tracking]


def _measurements(box: Box, header: Dataset, frame: int | None, result: Sequence[Dataset]) -> list[Any]:
    from highdicom import sr

    found = []
    if box.certainty is not None:
        found.append(sr.Measurement(name=CERTAINTY, value=100.0 * box.certainty, unit=PERCENT))
    frames = None if frame is None else [frame]
    name, unit = (ATTENUATION, HOUNSFIELD) if modality_of(header) == "CT" else (GREY_LEVEL, NO_UNITS)
    for figures, when, images in ((box.before, BEFORE, [header]), (box.after, AFTER, result)):
        if figures is None:
            continue
        for value, derivation in _derived(figures):
            found.append(
                sr.Measurement(
                    name=name,
                    value=float(value),
                    unit=unit,
                    derivation=derivation,
                    method=when,
                    referenced_images=[
                        sr.SourceImageForMeasurement(image.SOPClassUID, image.SOPInstanceUID, frames)
                        for image in images
                    ],
                )
            )
    return found


def _derived(figures: Figures) -> tuple[tuple[float, Code], tuple[float, Code]]:
    return (figures.mean, MEAN), (figures.standard_deviation, STANDARD_DEVIATION)


def _observer(reader: str) -> Any:
    from highdicom import sr

    return sr.ObserverContext(
        observer_type=sr.CodedConcept.from_code(_PERSON),
        observer_identifying_attributes=sr.PersonObserverIdentifyingAttributes(name=_person(reader)),
    )


def _person(reader: str) -> str:
    """A name of one part ends in ^, so that nobody takes it for the name form that was retired (PS3.5 6.2.1)."""
    name = reader or UNKNOWN_READER
    return name if "^" in name or len(name) == LONGEST_LABEL else f"{name}^"


def _series_number(header: Dataset) -> int:
    number = int(header.get("SeriesNumber") or 0) * 100 + _SERIES_OFFSET
    return number if 0 < number <= LARGEST_INTEGER_STRING else _SERIES_OFFSET


def _finish(made: Dataset, header: Dataset, own_codes: bool) -> None:
    """What highdicom does not take from the image or does not know: times in its zone, our codes."""
    description = header.get("SeriesDescription") or ""
    description = " ".join(description) if isinstance(description, MultiValue) else str(description)
    made.SeriesDescription = f"Boxes {description}"[:DESCRIPTION_LENGTH].strip()
    created = in_zone_of(header, datetime.now().astimezone())
    for event in ("InstanceCreation", "Content", "Series"):
        setattr(made, f"{event}Date", created.strftime("%Y%m%d"))
        setattr(made, f"{event}Time", created.strftime("%H%M%S"))
    for keyword in ("TimezoneOffsetFromUTC", "SyntheticData"):
        if keyword in header:
            made[keyword] = copy.deepcopy(header[keyword])
    if not own_codes:
        return
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = PRIVATE, "Findings and methods of monai-sr-bundle"
    scheme.CodingSchemeResponsibleOrganization = PRIVATE_NAME
    made.CodingSchemeIdentificationSequence = [scheme]
