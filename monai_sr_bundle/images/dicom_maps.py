"""Maps on the grid of a DICOM result: how wide its error bars are, and where they are too wide.

Where the result lies in the patient (CT), a Parametric Map of floats and a binary Segmentation, by the library
highdicom. A Parametric Map has to lie somewhere in a patient or on a slide (PS3.3 A.75), which a radiograph does not;
its error bars are a Secondary Capture of 16 bits whose Real World Value Mapping gives the values. A Segmentation needs
no place as long as it is of one frame. Codes: PS3.16 CID 7150, 7151, 7162 and 7181.
"""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MultiFrameGrayscaleWordSecondaryCaptureImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.dicom_file import calm, with_names_and_dates
from monai_sr_bundle.images.dicom_geometry import orientation, position, positive_pair
from monai_sr_bundle.images.dicom_scale import decimal
from monai_sr_bundle.images.dicom_write import (
    DERIVATION_LENGTH,
    DESCRIPTION_LENGTH,
    LARGEST_INTEGER_STRING,
    ascii_only,
    become_capture,
    code,
    save,
)
from monai_sr_bundle.images.provenance import Provenance

LARGEST_ELEMENT = 2**32 - 2
"""Bytes that one DICOM element holds, of explicit length."""
LARGEST_STORED = 2**16 - 1

_OF_OTHER_PIXELS = (
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
"""What the result's header says of its own numbers."""
_TIMES = tuple(f"{event}{part}" for event in ("InstanceCreation", "Content", "Series") for part in ("Date", "Time"))


def check_dicom_maps(sources: Sequence[Dataset], shape_zyx: Sequence[int]) -> None:
    """Refuse, before anything is computed, maps that could not be written.

    Args:
        sources: headers of the source.
        shape_zyx: of the result.

    Raises:
        InputError: the source names no study.
        OutputError: highdicom is not installed; the error bars do not fit into one DICOM object.
    """
    try:
        import highdicom  # noqa: F401
    except ModuleNotFoundError as error:
        raise OutputError(
            "--error-bars: error bars of a DICOM image are written by highdicom, not installed here. "
            "Install with `pip install 'monai-sr-bundle[dicom]'`."
        ) from error
    name = Path(str(sources[0].get("filename", ""))).name
    if not sources[0].get("StudyInstanceUID"):
        raise InputError(
            f"{name}: has no Study Instance UID (0020,000D), which its error bars would have to share. Export the file "
            "again, or leave out --error-bars."
        )
    slices, rows, columns = shape_zyx
    needed = 4 * slices * rows * columns
    if needed > LARGEST_ELEMENT:
        raise OutputError(
            f"{name}: error bars of {columns} x {rows} x {slices} pixels need {needed:,} bytes, and one DICOM object "
            f"holds {LARGEST_ELEMENT:,}. Choose a region with --roi, or convert the series to NIfTI first."
        )


def read_result_headers(result: Path) -> list[Dataset]:
    """The headers of a result that was written, slice by slice; of a file, a series folder or a zip."""
    with ExitStack() as stack, calm():
        if result.is_dir():
            opened: Iterable[Any] = sorted(result.iterdir())
        elif zipfile.is_zipfile(result):
            archive = stack.enter_context(zipfile.ZipFile(result))
            opened = (stack.enter_context(archive.open(name)) for name in sorted(archive.namelist()))
        else:
            opened = [result]
        return [dcmread(file, stop_before_pixels=True) for file in opened]


def write_error_bar(
    half_width: np.ndarray, result: Sequence[Dataset], provenance: Provenance, out: Path, *, meaning: str, unit: str
) -> None:
    """Write error bars as a series of their own.

    Args:
        half_width: ``[slices, rows, columns]`` float32, above 0, on the grid of the result.
        result: its headers, by `read_result_headers`.
        provenance: how it was made.
        out: the file to write.
        meaning: what the values are, at most 64 ASCII characters.
        unit: of the values: "HU" or "grey levels".

    Raises:
        OutputError: highdicom refuses the header.
    """
    with calm(), _refusals_told(out):
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
        made = highdicom.pm.ParametricMap(
            _sources(result),
            half_width,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[window],
            contains_recognizable_visual_features=False,
            **_identity(result[0], provenance, "ERROR_BAR", meaning, 1),
        )
        anatomy = Dataset()
        anatomy.FrameLaterality = "U"
        anatomy.AnatomicRegionSequence = result[0].get("AnatomicRegionSequence") or [_region(result[0])]
        made.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
        _finish(made, result[0], "Error bar")
        made.save_as(out)


def write_trust_mask(
    mask: np.ndarray, result: Sequence[Dataset], provenance: Provenance, out: Path, *, meaning: str
) -> None:
    """Write where error bars are too wide, as a series of their own.

    Args:
        mask: ``[slices, rows, columns]`` bool, on the grid of the result.
        result, provenance, out, meaning: as for `write_error_bar`.

    Raises:
        OutputError: as `write_error_bar`.
    """
    with calm(), _refusals_told(out):
        placed = lies_in_patient(result)
        if not placed and (len(mask) > 1 or result[0].SOPClassUID == CTImageStorage):
            # highdicom needs a place in the patient for several frames, and for any CT.
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
                name=ascii_only(provenance.bundle)[:64], family=family, version=ascii_only(provenance.version)[:64]
            ),
        )
        made = highdicom.seg.Segmentation(
            _sources(result),
            mask.astype(np.uint8),
            segmentation_type="BINARY",
            segment_descriptions=[segment],
            omit_empty_frames=False,
            **_identity(result[0], provenance, "TRUST_MASK", meaning, 2),
        )
        if not placed:
            made.PatientOrientation = result[0].get("PatientOrientation")
        _finish(made, result[0], "Trust mask")
        made.save_as(out)


@contextmanager
def _refusals_told(out: Path) -> Iterator[None]:
    """What highdicom finds wrong with a header, in words of ours."""
    try:
        yield
    except (ValueError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{out.name}: the header of the image does not allow it ({error}). Leave out --error-bars, or convert the "
            "image to NIfTI first."
        ) from error


def lies_in_patient(result: Sequence[Dataset]) -> bool:
    """Whether every slice has all that a place in the patient takes."""
    return all(
        header.SOPClassUID == CTImageStorage
        and bool(header.get("FrameOfReferenceUID"))
        and positive_pair(header, "PixelSpacing") is not None
        and position(header) is not None
        and orientation(header) is not None
        for header in result
    )


def _sources(result: Sequence[Dataset]) -> list[Dataset]:
    """The headers as highdicom wants them: complete, and of one place or, of a radiograph, of none."""
    complete = []
    for header in result:
        header = with_names_and_dates(header)
        if header.SOPClassUID == CTImageStorage:
            # Some archives give each slice one of its own; the reader has made sure that they are one volume.
            header.FrameOfReferenceUID = result[0].FrameOfReferenceUID
        else:
            for keyword in ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient"):
                if keyword in header:
                    delattr(header, keyword)
        complete.append(header)
    return complete


def _identity(header: Dataset, provenance: Provenance, label: str, meaning: str, offset: int) -> dict[str, Any]:
    """What both of highdicom's classes are told of the series and its maker."""
    return {
        "series_instance_uid": generate_uid(prefix=None),
        "series_number": _series_number(header, offset),
        "sop_instance_uid": generate_uid(prefix=None),
        "instance_number": 1,
        "manufacturer": ascii_only(provenance.manufacturer)[:64] or "unknown",
        "manufacturer_model_name": ascii_only(provenance.bundle)[:64],
        "software_versions": ascii_only(provenance.version)[:64],
        # Retrained, it is another device.
        "device_serial_number": provenance.weights_sha256 or "none",
        "content_label": label,
        "content_description": meaning,
    }


def _series_number(header: Dataset, offset: int) -> int:
    number = int(header.get("SeriesNumber") or 0) + offset
    return number if number <= LARGEST_INTEGER_STRING else offset


def _finish(made: Dataset, header: Dataset, what: str) -> None:
    """What highdicom does not take from the result: its times, its makers, its word on generated texture."""
    made.SeriesDescription = f"{what} of {header.get('SeriesDescription') or ''}"[:DESCRIPTION_LENGTH].strip()
    for keyword in (*_TIMES, "TimezoneOffsetFromUTC", "SyntheticData"):
        if keyword in header:
            made[keyword] = copy.deepcopy(header[keyword])
    makers = header.get("ContributingEquipmentSequence") or []
    made.ContributingEquipmentSequence = [*copy.deepcopy(list(makers)), *made.get("ContributingEquipmentSequence", [])]


def _write_capture(
    values: np.ndarray, result: Sequence[Dataset], out: Path, meaning: str, unit: str, what: str, offset: int
) -> None:
    """Write values from 0 up as a Secondary Capture whose stored 65535 is the largest of them."""
    frames = len(values)
    # Rounded to what a decimal string holds, so that rescale and real world value are one number.
    rescale = format_number_as_ds((float(values.max()) or 1.0) / LARGEST_STORED)
    slope = float(rescale)
    derived = copy.deepcopy(result[0])
    for keyword in _OF_OTHER_PIXELS:
        if keyword in derived:
            delattr(derived, keyword)
    derived.SOPInstanceUID, derived.SeriesInstanceUID = generate_uid(prefix=None), generate_uid(prefix=None)
    derived.Modality = "OT"  # nothing is to hang or read it as a radiograph
    derived.SeriesNumber, derived.InstanceNumber = _series_number(derived, offset), 1
    derived.SeriesDescription = f"{what} of {derived.get('SeriesDescription') or ''}"[:DESCRIPTION_LENGTH].strip()
    derived.DerivationDescription = f"{meaning}. {derived.DerivationDescription}"[:DERIVATION_LENGTH]
    become_capture(derived)
    derived.ImageType = ["DERIVED", "SECONDARY"]
    derived.PhotometricInterpretation = "MONOCHROME2"
    derived.BitsAllocated = derived.BitsStored = 16
    derived.PixelRepresentation = 0
    mapping = Dataset()
    mapping.LUTLabel, mapping.LUTExplanation = what.upper().replace(" ", "_"), meaning
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
        # For the many readers that know no Real World Value Mapping.
        derived.RescaleSlope, derived.RescaleIntercept, derived.RescaleType = rescale, "0", "US"
    references = []
    for header in result:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        reference.PurposeOfReferenceCodeSequence = [code("121322", "Source image for image processing operation")]
        reference.SpatialLocationsPreserved = "YES"
        references.append(reference)
    derived.SourceImageSequence = references
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
