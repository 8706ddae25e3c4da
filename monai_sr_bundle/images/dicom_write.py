"""Write a result as a new, derived DICOM series of the same class as its source.

The header is a copy of the source's in which everything that the processing made untrue is replaced, scaled or removed.
Derivation: DICOM PS3.3 C.7.6.1.1.2 to C.7.6.1.1.5 and C.12.1.1.5; codes: PS3.16 CID 7005, 7202 and 7203.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from monai_sr_bundle.errors import OutputError
from monai_sr_bundle.images.dicom_file import quiet_pydicom
from monai_sr_bundle.images.dicom_geometry import (
    decimal,
    normal,
    numbers,
    pixel_spacing,
    position,
    scale_pixel_coordinates,
    scale_spacing,
    spacing_is_from_header,
    stack_affine,
)
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.provenance import Provenance
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    generate_uid,
)

DESCRIPTION_LENGTH = 64
DERIVATION_LENGTH = 1024
LARGEST_INTEGER_STRING = 2**31 - 1

STALE = (
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "IconImageSequence",
    "HistogramSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "MACParametersSequence",
    "DigitalSignaturesSequence",
    "DataSetTrailingPadding",
    "PixelDataProviderURL",
)
"""Attributes that new pixels make untrue: extremes, thumbnails, counts, offsets into compressed data, signatures."""
EXTENT = re.compile("ReconstructionDiameter|FieldOfView(Shape|Dimensions|Origin|Rotation|HorizontalFlip)")
"""Attributes of the extent of a whole image, which a region does not have."""
POSITION = re.compile("Image(Position|Orientation)Patient|SliceLocation")
"""Attributes that are read of CT alone, and would stay the old ones in other classes."""
OVERLAYS_AND_CURVES = (0x60, 0x50)
"""Groups 60xx and 50xx: drawings on the old pixel grid."""


def write_dicom(result: Image, provenance: Provenance, out: Path) -> list[Path]:
    """Write a new series whose headers name its source, its model and its settings.

    Generated texture, and pixels filled in for a removed artifact, are marked with Synthetic Data (0008,001C) YES, an
    element that validators older than the 2023 edition of the standard do not know. YES in the source stays YES.

    Args:
        result: `pixels` are stored numbers in the source's type and range, `grid` the finer grid (of the whole image or
            of a region), `header` the source data sets from `read_dicom`.
        provenance: record of the bundle and settings that made the result.
        out: file if the source was one file, otherwise a folder, which is made and gets one file per slice.

    Returns:
        The written files, in the order of `result.pixels`; one for all frames of a multi-frame source.

    Raises:
        OutputError: slices were added between those of a series whose pixel spacing is unknown, or the result has
            a part of the frames of a file.
        OSError: the file or folder cannot be written.
    """
    sources: Sequence[Dataset] = result.header
    assert result.pixels.shape == result.grid.shape_zyx, "pixels and grid disagree"
    assert result.pixels.dtype.itemsize * 8 == sources[0].BitsAllocated, "pixels are not in the source's type"
    series = len(sources) > 1
    if not series and result.pixels.shape[0] != int(sources[0].get("NumberOfFrames") or 1):
        raise OutputError(f"{result.path.name}: a part of its frames cannot be written as DICOM. Enlarge all of them.")
    if series and provenance.scale_zyx[0] > 1 and not result.grid.in_millimetres:
        raise OutputError(
            f"{result.path.name}: new slices need positions in millimetres, and the source's pixel spacing is unknown. "
            "Enlarge within the slices only, or pass --spacing-mm ROW COLUMN."
        )
    series_uid = generate_uid(prefix=None)
    first_number, last_number = (numbers(sources[end], "InstanceNumber", 1) or [0.0] for end in (0, -1))
    with quiet_pydicom():
        if not series:
            single = _derive(result, provenance, [sources[0]], series_uid)
            _set_position(single, result, provenance, result.grid.affine[:3, 3])
            save(single, result.pixels, out)
            return [out]
        out.mkdir(parents=True, exist_ok=True)
        files = []
        for index, (origins, origin) in enumerate(_find_nearest_sources(result, provenance.scale_zyx[0])):
            derived = _derive(result, provenance, origins, series_uid)
            _set_position(derived, result, provenance, origin)
            if not derived.get("InstanceNumber") or provenance.scale_zyx[0] > 1:
                derived.InstanceNumber = len(result.pixels) - index if first_number > last_number else index + 1
            files.append(out / f"{index + 1:04d}.dcm")
            save(derived, result.pixels[index : index + 1], files[-1])
        return files


def _derive(result: Image, provenance: Provenance, origins: Sequence[Dataset], series_uid: str) -> Dataset:
    """Return the header of one output file, except position and pixels, from the nearest source slice `origins[0]`."""
    source = origins[0]
    derived = copy.deepcopy(source)
    _remove_untrue(derived, is_region=bool(provenance.roi_xyxy))
    _set_identity(derived, source, provenance, series_uid)
    derived.ImageType = _image_type(derived)
    _describe_derivation(derived, origins, result, provenance)
    # Never NO, which would vouch for the source.
    if source.get("SyntheticData") == "YES" or provenance.has_synthetic_pixels:
        derived.SyntheticData = "YES"
    elif "SyntheticData" in derived:
        del derived.SyntheticData
    scale_spacing(derived, result, provenance)
    scale_pixel_coordinates(derived, provenance)
    return derived


def _find_nearest_sources(result: Image, scale_z: int) -> list[tuple[list[Dataset], np.ndarray]]:
    """Return the nearest source slice of each output slice (two if slices were added), and its position.

    If no slices were added, the position keeps the small irregularities of the source's positions.
    """
    sources = result.header
    positions = np.array([position(source) for source in sources])
    regular, _ = stack_affine(sources, pixel_spacing(sources[0]), result.path)
    irregular = positions - (regular[:3, 3] + np.arange(len(sources))[:, None] * regular[:3, 2])
    nearest = []
    for index in range(result.pixels.shape[0]):
        origin = (result.grid.affine @ [0, 0, index, 1])[:3]
        order = np.argsort(np.abs((positions - origin) @ normal(sources[0])), kind="stable")
        if scale_z == 1:
            origin = origin + irregular[order[0]]
        nearest.append(([sources[i] for i in order[: 1 if scale_z == 1 else 2]], origin))
    return nearest


def _remove_untrue(derived: Dataset, *, is_region: bool) -> None:
    derived.remove_private_tags()
    is_ct = derived.SOPClassUID == CTImageStorage
    for tag in list(derived.keys()):
        name = keyword_for_tag(tag)
        untrue = name in STALE or (is_region and EXTENT.fullmatch(name)) or (not is_ct and POSITION.fullmatch(name))
        if untrue or tag.group >> 8 in OVERLAYS_AND_CURVES:
            del derived[tag]


def _set_identity(derived: Dataset, source: Dataset, provenance: Provenance, series_uid: str) -> None:
    derived.SOPInstanceUID = generate_uid(prefix=None)
    derived.SeriesInstanceUID = series_uid
    number = numbers(source, "SeriesNumber", 1)
    new_number = int(number[0]) * 100 + 1 if number else None
    derived.SeriesNumber = new_number if new_number and abs(new_number) <= LARGEST_INTEGER_STRING else None
    prefix = "Interpolated" if provenance.is_interpolated else "AI"
    description = f"{prefix} {provenance.factor} {series_description(source)}"
    derived.SeriesDescription = description.strip()[:DESCRIPTION_LENGTH]
    set_times(derived, source, provenance.created)


def series_description(header: Dataset) -> str:
    """Return the header's Series Description in one line, empty if it has none."""
    description = header.get("SeriesDescription") or ""
    return " ".join(description) if isinstance(description, MultiValue) else str(description)


def set_times(derived: Dataset, source: Dataset, created: datetime) -> None:
    """Set when instance, content and series were made, in the time zone of the source."""
    moment = _to_time_zone_of(source, created)
    for event in ("InstanceCreation", "Content", "Series"):
        setattr(derived, f"{event}Date", moment.strftime("%Y%m%d"))
        setattr(derived, f"{event}Time", moment.strftime("%H%M%S"))


def _to_time_zone_of(source: Dataset, moment: datetime) -> datetime:
    """Convert a time to the header's Timezone Offset From UTC (0008,0201), if it has one."""
    try:
        return moment.astimezone(datetime.strptime(str(source.get("TimezoneOffsetFromUTC")).strip(), "%z").tzinfo)
    except ValueError:
        return moment


def _image_type(derived: Dataset) -> list[str]:
    """Return DERIVED and SECONDARY, and the third value of the class (CT C.8.2.1.1.1, DX C.8.11.3.1.1)."""
    if derived.SOPClassUID == CTImageStorage:
        source_type = derived.get("ImageType")
        axial = source_type[2] if isinstance(source_type, MultiValue) and len(source_type) > 2 else "AXIAL"
        return ["DERIVED", "SECONDARY", axial]
    if derived.SOPClassUID in (DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing):
        return ["DERIVED", "SECONDARY", ""]
    return ["DERIVED", "SECONDARY"]


def _describe_derivation(derived: Dataset, origins: Sequence[Dataset], result: Image, provenance: Provenance) -> None:
    """Describe in words and codes how the image was made, from which images and by which bundle."""
    sentence = ascii_only(provenance.sentence)
    if not spacing_is_from_header(result, origins[0]) and result.grid.in_millimetres:
        sentence += f" Pixel spacing {ascii_only(result.grid.spacing_source)}."
    if provenance.findings:
        sentence += f" {ascii_only(provenance.findings)}"
    earlier = str(derived.get("DerivationDescription") or "")
    derivation = f"{sentence} Before: {earlier}" if earlier else sentence
    derived.DerivationDescription = derivation[:DERIVATION_LENGTH]
    derived.DerivationCodeSequence = [*derived.get("DerivationCodeSequence", []), code("113085", "Spatial resampling")]
    derived.SourceImageSequence = [source_reference(origin) for origin in origins]

    _add_equipment(derived, provenance, sentence)


def _add_equipment(derived: Dataset, provenance: Provenance, description: str) -> None:
    """Add the bundle to the equipment that contributed to the image."""
    purpose = ("109100", "Synthesizing") if provenance.has_synthetic_pixels else ("109102", "Processing")
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [code(purpose[0], f"{purpose[1]} Equipment")]
    equipment.Manufacturer = short_text(provenance.manufacturer) or "unknown"
    equipment.ManufacturerModelName = short_text(provenance.bundle)
    equipment.SoftwareVersions = short_text(provenance.version)
    equipment.ContributionDateTime = provenance.created.strftime("%Y%m%d%H%M%S.%f%z")
    equipment.ContributionDescription = description[:DERIVATION_LENGTH]
    derived.ContributingEquipmentSequence = [*derived.get("ContributingEquipmentSequence", []), equipment]


def _set_position(derived: Dataset, result: Image, provenance: Provenance, origin: np.ndarray) -> None:
    if position(derived) is None or not result.grid.in_millimetres:
        return
    derived.ImagePositionPatient = [decimal(v) for v in origin]
    if provenance.scale_zyx[0] > 1:
        derived.pop("SliceLocation", None)
        # Where every slice of a source has a frame of its own, the new slices would share them in pairs.
        if frame := result.header[0].get("FrameOfReferenceUID"):
            derived.FrameOfReferenceUID = frame


def save(derived: Dataset, pixels: np.ndarray, file: Path) -> None:
    """Write ``[frames, rows, columns]`` stored numbers under a header, uncompressed."""
    frames, rows, columns = pixels.shape
    derived.Rows, derived.Columns = rows, columns
    if "NumberOfFrames" in derived:
        derived.NumberOfFrames = frames
    derived.HighBit = derived.BitsStored - 1
    little_endian = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    derived.add_new("PixelData", "OB" if derived.BitsAllocated == 8 else "OW", little_endian)
    derived.file_meta = FileMetaDataset()
    derived.file_meta.MediaStorageSOPClassUID = derived.SOPClassUID
    derived.file_meta.MediaStorageSOPInstanceUID = derived.SOPInstanceUID
    derived.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    written = Dataset()  # a data set that was read keeps the byte order of its source
    written.update(derived)
    written.file_meta, written.preamble = derived.file_meta, b"\0" * 128
    written.save_as(file, enforce_file_format=True)


def code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    """Return an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def source_reference(header: Dataset) -> Dataset:
    """Return the item of Source Image Sequence that refers to an image."""
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    reference.PurposeOfReferenceCodeSequence = [code("121322", "Source image for image processing operation")]
    return reference


def short_text(text: str) -> str:
    """Return the text as ASCII of at most 64 characters, which an element of VR LO holds."""
    return ascii_only(text)[:64]


def ascii_only(text: str) -> str:
    """Replace characters that are not ASCII, so that the text is valid in every Specific Character Set."""
    return text.encode("ascii", "replace").decode("ascii").replace("\\", "/")
