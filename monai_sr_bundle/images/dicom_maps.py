"""Maps on the grid of a DICOM result: the width of its error bars, and a mask of the too wide ones.

The library highdicom writes the maps of a result with a position in the patient (CT): a Parametric Map of floats and a
binary Segmentation. A Parametric Map needs a position in a patient or on a slide (PS3.3 A.75), which a radiograph
lacks; its error bars are a Secondary Capture of 16 bits whose Real World Value Mapping gives the values. A Segmentation
of one frame needs no position. Codes: PS3.16 CID 7150, 7151, 7162 and 7181.
"""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from monai_sr_bundle.errors import InputError, OutputError, quote
from monai_sr_bundle.images.dicom_file import quiet_pydicom
from monai_sr_bundle.images.dicom_geometry import decimal, normal, numbers, orientation, position, positive_pair
from monai_sr_bundle.images.dicom_write import (
    DERIVATION_LENGTH,
    DESCRIPTION_LENGTH,
    LARGEST_INTEGER_STRING,
    code,
    save,
    short_text,
    source_reference,
)
from monai_sr_bundle.images.provenance import Provenance
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pydicom.valuerep import DA, TM, format_number_as_ds

LARGEST_ELEMENT = 2**32 - 2
"""Largest number of bytes in one DICOM element of explicit length."""
LARGEST_STORED = 2**16 - 1

_PIXEL_VALUE_KEYWORDS = (
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
    "VOILUTSequence",
    "PresentationLUTShape",
    "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RealWorldValueMappingSequence",
)
"""Attributes of the result's header that describe its own pixel values, not those of a map."""
_TIMES = tuple(f"{event}{part}" for event in ("InstanceCreation", "Content", "Series") for part in ("Date", "Time"))


def check_dicom_maps(sources: Sequence[Dataset], shape_zyx: Sequence[int]) -> None:
    """Raise an error, before anything is computed, if the maps could not be written.

    Args:
        sources: headers of the source.
        shape_zyx: slices, rows and columns of the result.

    Raises:
        InputError: the source names no study.
        OutputError: highdicom is not installed; the error bars do not fit into one DICOM object.
    """
    try:
        import highdicom  # noqa: F401
    except ModuleNotFoundError as error:
        raise OutputError(
            "--error-bars: error bars of a DICOM image need the library highdicom, which is not installed. "
            "Install it with `pip install -c constraints.txt '.[dicom]'` in this package's folder."
        ) from error
    name = Path(str(sources[0].get("filename", ""))).name
    if not sources[0].get("StudyInstanceUID"):
        raise InputError(
            f"{name}: has no Study Instance UID (0020,000D), which its error bars must share. Export the file "
            "again, or leave out --error-bars."
        )
    check_size(name, "error bars", shape_zyx, 4)


def check_size(name: str, kind: str, shape_zyx: Sequence[int], pixel_bytes: int) -> None:
    """Raise an error if an image does not fit into one DICOM object.

    Args:
        name: name of the source, for the message.
        kind: "error bars" or "results".
        shape_zyx: slices, rows and columns.
        pixel_bytes: bytes of a pixel.

    Raises:
        OutputError: it does not fit.
    """
    slices, rows, columns = shape_zyx
    needed = pixel_bytes * slices * rows * columns
    if needed > LARGEST_ELEMENT:
        raise OutputError(
            f"{name}: {kind} of {columns} x {rows} x {slices} pixels need {needed:,} bytes, and one DICOM object "
            f"holds {LARGEST_ELEMENT:,}. Choose a region with --roi, or pass --output-format nifti."
        )


def read_result_headers(result: Path) -> list[Dataset]:
    """Read the headers of a written result, slice by slice, from a file, a series folder or a zip."""
    with ExitStack() as stack, quiet_pydicom():
        if result.is_dir():
            streams: Iterable[Any] = sorted(result.iterdir())
        elif zipfile.is_zipfile(result):
            archive = stack.enter_context(zipfile.ZipFile(result))
            streams = (stack.enter_context(archive.open(name)) for name in sorted(archive.namelist()))
        else:
            streams = [result]
        return [dcmread(file, stop_before_pixels=True) for file in streams]


def write_error_bar(
    half_width: np.ndarray, result: Sequence[Dataset], provenance: Provenance, out: Path, *, meaning: str, unit: str
) -> None:
    """Write error bars as a series of their own.

    Args:
        half_width: ``[slices, rows, columns]`` float32, above 0, on the grid of the result.
        result: headers of the result, from `read_result_headers`.
        provenance: record of the bundle and settings that made the result.
        out: file to write.
        meaning: description of the values, at most 64 ASCII characters.
        unit: unit of the values, "HU" or "grey levels".

    Raises:
        OutputError: highdicom refuses the header.
    """
    with quiet_pydicom(), _refusals_of_error_bars(out):
        if not lies_in_patient(result):
            _write_capture(half_width, result, out, meaning, unit, "Error bar", 1)
            return
        import highdicom

        largest = float(half_width.max())
        mapping = highdicom.pm.RealWorldValueMapping(
            lut_label="ERROR_BAR",
            lut_explanation=meaning,
            unit=highdicom_code(_unit_code(unit)),
            value_range=(0.0, largest),
            slope=1.0,
            intercept=0.0,
        )
        window = highdicom.VOILUTTransformation(
            window_center=float(decimal(largest / 2)), window_width=float(decimal(largest))
        )
        parametric_map = highdicom.pm.ParametricMap(
            _complete_headers(result),
            half_width,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[window],
            contains_recognizable_visual_features=False,
            **_describe_series(result[0], provenance, "ERROR_BAR", meaning, 1),
        )
        anatomy = Dataset()
        anatomy.FrameLaterality = "U"
        anatomy.AnatomicRegionSequence = result[0].get("AnatomicRegionSequence") or [_region(result[0])]
        parametric_map.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
        _finish(parametric_map, result[0], "Error bar")
        parametric_map.save_as(out)


def write_trust_mask(
    mask: np.ndarray, result: Sequence[Dataset], provenance: Provenance, out: Path, *, meaning: str
) -> None:
    """Write the mask of too wide error bars as a series of its own.

    Args:
        mask: ``[slices, rows, columns]`` bool, on the grid of the result.
        result, provenance, out, meaning: see `write_error_bar`.

    Raises:
        OutputError: highdicom refuses the header.
    """
    with quiet_pydicom(), _refusals_of_error_bars(out):
        in_patient = lies_in_patient(result)
        if not in_patient and (len(mask) > 1 or result[0].SOPClassUID == CTImageStorage):
            # highdicom needs a position in the patient for several frames, and for any CT.
            _write_capture(mask.astype(np.float32), result, out, meaning, "", "Trust mask", 2)
            return
        import highdicom

        family = highdicom_code(code("123110", "Artificial Intelligence"))
        segment = highdicom.seg.SegmentDescription(
            segment_number=1,
            segment_label=meaning,
            segmented_property_category=highdicom_code(code("309825002", "Spatial and Relational Concept", "SCT")),
            segmented_property_type=highdicom_code(code("111099", "Selected region")),
            algorithm_type="AUTOMATIC",
            algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                name=short_text(provenance.bundle), family=family, version=short_text(provenance.version)
            ),
        )
        segmentation = highdicom.seg.Segmentation(
            _complete_headers(result),
            mask.astype(np.uint8),
            segmentation_type="BINARY",
            segment_descriptions=[segment],
            omit_empty_frames=False,
            **_describe_series(result[0], provenance, "TRUST_MASK", meaning, 2),
        )
        if not in_patient:
            segmentation.PatientOrientation = result[0].get("PatientOrientation")
        _finish(segmentation, result[0], "Trust mask")
        segmentation.save_as(out)


def _refusals_of_error_bars(out: Path) -> AbstractContextManager[None]:
    return explain_refusals(
        f"{out.name}: error bars cannot be written with the header of this image",
        "Leave out --error-bars, or convert the image to NIfTI first.",
    )


@contextmanager
def explain_refusals(problem: str, advice: str) -> Iterator[None]:
    """Raise an OutputError of these words when highdicom refuses a header."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise OutputError(f"{problem} ({quote(error)}). {advice}") from error


def lies_in_patient(result: Sequence[Dataset]) -> bool:
    """Return whether every slice has a position, an orientation and a spacing in the patient.

    One slice alone needs a thickness too; several of no stated thickness are taken to be as thick as they lie apart.
    """
    return all(
        header.SOPClassUID == CTImageStorage
        and bool(header.get("FrameOfReferenceUID"))
        and positive_pair(header, "PixelSpacing") is not None
        and position(header) is not None
        and orientation(header) is not None
        and (len(result) > 1 or _has_thickness(header))
        for header in result
    )


def _has_thickness(header: Dataset) -> bool:
    return max(numbers(header, "SliceThickness", 1) or [0.0]) > 0


def _complete_headers(result: Sequence[Dataset]) -> list[Dataset]:
    """Return headers that highdicom accepts: complete, with one frame of reference, or none for a radiograph."""
    complete = []
    is_series = len(result) > 1
    if is_series:
        last, first = (np.array(result[end].ImagePositionPatient, dtype=float) for end in (-1, 0))
        distance = decimal(abs(float(normal(result[0]) @ (last - first))) / (len(result) - 1))
    for header in result:
        header = with_names_and_dates(header)
        if header.SOPClassUID == CTImageStorage:
            # Some archives give each slice its own frame of reference; the reader has checked that they are one volume.
            header.FrameOfReferenceUID = result[0].FrameOfReferenceUID
            if is_series:
                header.SpacingBetweenSlices = distance  # the source may state another
                header.SliceThickness = header.SliceThickness if _has_thickness(header) else distance
        else:
            for keyword in ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient"):
                header.pop(keyword, None)
        complete.append(header)
    return complete


def _describe_series(header: Dataset, provenance: Provenance, label: str, meaning: str, offset: int) -> dict[str, Any]:
    """Return the arguments about the series and its equipment that both of highdicom's classes take."""
    return {
        "series_instance_uid": generate_uid(prefix=None),
        "series_number": _series_number(header, offset),
        "sop_instance_uid": generate_uid(prefix=None),
        "instance_number": 1,
        # highdicom refuses most sets of several alphabets, as those of Japanese and Korean names.
        "specific_character_set": "ISO_IR 192",
        "manufacturer": short_text(provenance.manufacturer) or "unknown",
        "manufacturer_model_name": short_text(provenance.bundle),
        "software_versions": short_text(provenance.version),
        # Retrained weights are another device.
        "device_serial_number": provenance.weights_sha256 or "none",
        "content_label": label,
        "content_description": meaning,
    }


def _series_number(header: Dataset, offset: int) -> int:
    number = int(header.get("SeriesNumber") or 0) + offset
    return number if 0 < number <= LARGEST_INTEGER_STRING else offset


def _finish(dicom_map: Dataset, header: Dataset, title: str) -> None:
    """Copy what highdicom leaves out: times, contributing equipment and the mark of synthetic data."""
    dicom_map.SeriesDescription = f"{title} of {header.get('SeriesDescription') or ''}"[:DESCRIPTION_LENGTH].strip()
    copy_names_and_dates(dicom_map, header)
    for keyword in (*_TIMES, "TimezoneOffsetFromUTC", "SyntheticData"):
        if keyword in header:
            dicom_map[keyword] = copy.deepcopy(header[keyword])
    equipment = header.get("ContributingEquipmentSequence") or []
    dicom_map.ContributingEquipmentSequence = [
        *copy.deepcopy(list(equipment)),
        *dicom_map.get("ContributingEquipmentSequence", []),
    ]


def _write_capture(
    values: np.ndarray, result: Sequence[Dataset], out: Path, meaning: str, unit: str, title: str, offset: int
) -> None:
    """Write values of 0 and above as a Secondary Capture; the largest is stored as 65535."""
    frames = len(values)
    # Rounded to what a decimal string holds, so that rescale and real world value are one number.
    rescale = format_number_as_ds((float(values.max()) or 1.0) / LARGEST_STORED)
    slope = float(rescale)
    derived = copy.deepcopy(result[0])
    for keyword in _PIXEL_VALUE_KEYWORDS:
        if keyword in derived:
            delattr(derived, keyword)
    derived.SOPInstanceUID, derived.SeriesInstanceUID = generate_uid(prefix=None), generate_uid(prefix=None)
    derived.Modality = "OT"  # so that no viewer hangs or reads it as a radiograph
    derived.SeriesNumber, derived.InstanceNumber = _series_number(derived, offset), 1
    derived.SeriesDescription = f"{title} of {derived.get('SeriesDescription') or ''}"[:DESCRIPTION_LENGTH].strip()
    derived.DerivationDescription = f"{meaning}. {derived.DerivationDescription}"[:DERIVATION_LENGTH]
    _become_capture(derived)
    derived.ImageType = ["DERIVED", "SECONDARY"]
    derived.PhotometricInterpretation = "MONOCHROME2"
    derived.BitsAllocated = derived.BitsStored = 16
    derived.PixelRepresentation = 0
    mapping = Dataset()
    mapping.LUTLabel, mapping.LUTExplanation = title.upper().replace(" ", "_"), meaning
    mapping.MeasurementUnitsCodeSequence = [_unit_code(unit)]
    mapping.add_new("RealWorldValueFirstValueMapped", "US", 0)
    mapping.add_new("RealWorldValueLastValueMapped", "US", LARGEST_STORED)
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = slope, 0.0
    derived.RealWorldValueMappingSequence = [mapping]
    if frames > 1:
        derived.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
        derived.NumberOfFrames, derived.FrameIncrementPointer = frames, 0x00182001
        derived.PageNumberVector = list(range(1, frames + 1))
        derived.RescaleSlope, derived.RescaleIntercept, derived.RescaleType = "1", "0", "US"
        derived.PresentationLUTShape = "IDENTITY"
        derived.BurnedInAnnotation = derived.get("BurnedInAnnotation") or "NO"
    else:
        # For the many readers without support for Real World Value Mapping.
        derived.RescaleSlope, derived.RescaleIntercept, derived.RescaleType = rescale, "0", "US"
    derived.SourceImageSequence = [source_reference(header) for header in result]
    for reference in derived.SourceImageSequence:
        reference.SpatialLocationsPreserved = "YES"
    stored = np.empty(values.shape, dtype=np.uint16)
    for index in range(frames):
        stored[index] = np.rint(values[index].astype(np.float64) / slope)
    save(derived, stored, out)


def _unit_code(unit: str) -> Dataset:
    return code("[hnsf'U]", "Hounsfield unit", "UCUM") if unit == "HU" else code("1", "no units", "UCUM")


def _region(header: Dataset) -> Dataset:
    part = str(header.get("BodyPartExamined") or "CHEST").upper()
    if any(chest in part for chest in ("CHEST", "THORA", "LUNG", "RIB")):
        return code("51185008", "Chest", "SCT")
    return code("38266002", "Entire body", "SCT")


def highdicom_code(item: Dataset) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)


def _become_capture(derived: Dataset) -> None:
    """Change the header of a single image into one of Secondary Capture."""
    derived.SOPClassUID = SecondaryCaptureImageStorage
    derived.ConversionType = derived.get("ConversionType") or "WSD"
    if "PatientOrientation" not in derived:
        derived.PatientOrientation = None
    derived.pop("NumberOfFrames", None)
    for view in derived.get("ViewCodeSequence") or ():
        # Required in DX even when empty, forbidden to be empty in a capture.
        if "ViewModifierCodeSequence" in view and not view.ViewModifierCodeSequence:
            del view.ViewModifierCodeSequence


_MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Type 2 elements that older files leave out, and that highdicom requires."""
_SEXES = (None, "", "M", "F", "O")


def with_names_and_dates(header: Dataset) -> Dataset:
    """Return a copy that has every required element of patient and study, in a form that highdicom accepts.

    An element is empty where the header lacks it or has a value of another form, such as a year in place of a date; see
    `copy_names_and_dates`.
    """
    complete = copy.deepcopy(header)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in complete or not _is_accepted(complete[keyword]):
            setattr(complete, keyword, None)
    if complete.get("SpacingBetweenSlices") is None:  # which a report's image library would state
        complete.pop("SpacingBetweenSlices", None)
    return complete


def _is_accepted(element: DataElement) -> bool:
    try:
        {"DA": DA, "TM": TM}.get(element.VR, str)(element.value)
    except ValueError:
        return False
    return element.keyword != "PatientSex" or element.value in _SEXES


def copy_names_and_dates(dataset: Dataset, header: Dataset) -> None:
    """Copy patient and study to an object of highdicom as the header has them, in whichever form."""
    for keyword in _MAY_BE_EMPTY:
        if keyword in header:
            dataset[keyword] = copy.deepcopy(header[keyword])
