"""Read a radiograph, a secondary capture or a CT series from DICOM files, with the headers the writer needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from monai_sr_bundle.errors import InputError, quote
from monai_sr_bundle.images.decoder_process import DecoderProcess
from monai_sr_bundle.images.dicom_file import is_localizer, make_writable, open_header, quiet_pydicom, read_file
from monai_sr_bundle.images.dicom_geometry import file_name, numbers, pixel_spacing, sort_slices, stack_affine
from monai_sr_bundle.images.dicom_pixels import decode, lossy_method
from monai_sr_bundle.images.geometry import Grid
from monai_sr_bundle.images.image import MODALITIES, Image, Modality
from monai_sr_bundle.images.memory import require_memory
from pydicom.dataset import Dataset
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

RADIOGRAPHS = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)
SECONDARY_CAPTURES = (
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
CHEST_PARTS = ("CHEST", "THORA", "LUNG", "RIB", "HEART", "BODY", "TRUNK")
"""Parts of the values of Body Part Examined (0018,0015) that hold the chest, or lie in it."""
EXPECTED = "expected CT, CR, DX or Secondary Capture"
PIXEL_DESCRIPTION = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    *("NumberOfFrames", "PhotometricInterpretation"),
)
SAME_IN_A_SERIES = (
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "PhotometricInterpretation",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
)


def read_dicom(files: Sequence[Path], path: Path) -> Image:
    """Read one file (single or multi-frame) or all files of one CT series.

    Args:
        files: one file, or the slices of one series in any order.
        path: file, folder or zip that the user named, for messages.

    Returns:
        Stored numbers ``[slices or frames, rows, columns]`` in their own type, never inverted or windowed; CT slices
        sorted along their normal. `slope` and `intercept` give HU for CT. `header` is the list of source data sets in
        the same order, without their pixels.

    Raises:
        InputError: not DICOM, cut off, no pixels, colour, an image class or transfer syntax that is not supported, or
            files that do not form one regular volume.
    """
    with quiet_pydicom():
        headers, notes = read_headers(files, path)
        first = headers[0]
        modality = modality_of(first)
        spacing = pixel_spacing(first)
        if first.SOPClassUID == CTImageStorage:
            affine, geometry_notes = stack_affine(headers, spacing, path)
        else:
            # An image without a position in the patient: origin 0, axes along columns and rows.
            affine, geometry_notes = np.diag([spacing.column_mm, spacing.row_mm, 1.0, 1.0]), spacing.notes
        slope, intercept = _rescale(first)
        pixels, pixel_notes = _read_pixels(headers)
        bits, shape_zyx = int(first.BitsStored), (len(pixels), int(first.Rows), int(first.Columns))
        lowest = -(1 << (bits - 1)) if pixels.dtype.kind == "i" else 0
        return Image(
            pixels=pixels,
            grid=Grid(shape_zyx, affine, spacing.source, are_frames=len(headers) == 1),
            modality=modality,
            format="dicom",
            path=path,
            slope=slope,
            intercept=intercept,
            stored_range=(lowest, lowest + (1 << bits) - 1),
            bits=bits,
            black_is_high=first.PhotometricInterpretation == "MONOCHROME1",
            header=headers,
            padding=_padding(first),
            kernel=str(np.atleast_1d(first.get("ConvolutionKernel") or "")[0]),
            notes=(*notes, *geometry_notes, *pixel_notes, *_remarks(first, pixels, modality)),
        )


def read_headers(files: Sequence[Path], path: Path) -> tuple[list[Dataset], tuple[str, ...]]:
    """Read the headers of one image in the order of `Image.pixels`, with notes on what was left out.

    Args:
        files, path: see `read_dicom`.

    Raises:
        InputError: the reasons of `read_dicom`, except those about pixels, which are not decoded.
    """
    with quiet_pydicom():
        headers = [open_header(file) for file in files]
        for header in headers:
            _check_image(header)
        headers, notes = _drop_localizers(headers, path)
        if len(headers) > 1:
            _check_one_series(headers, path)
            headers = sort_slices(headers, path)
        return headers, notes


def _check_image(header: Dataset) -> None:
    """Raise InputError unless the header is of a grey image of a class that this package can write."""
    name = file_name(header)
    make_writable(header, name, big_endian=not header.original_encoding[1])
    sop_class = UID(str(header.get("SOPClassUID") or ""))
    if not header.get("Rows") or not header.get("Columns"):
        raise InputError(
            f"{name}: holds no image (it is {quote(sop_class.name) or 'of no stated class'}), {EXPECTED}. "
            "Pass the file or folder with the images."
        )
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        value = header.get(keyword)
        if not isinstance(value, int) and (value is not None or keyword == "PixelRepresentation"):
            raise InputError(f"{name}: {keyword} is {quote(value)}, expected one whole number. Export the file again.")
    if header.get("SamplesPerPixel") is None:  # what a grey image has
        header.SamplesPerPixel = 1
    colours, samples = header.get("PhotometricInterpretation"), header.SamplesPerPixel
    if samples != 1 or colours not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(
            f"{name}: is a colour image ({quote(colours)}, {quote(samples)} sample(s) per pixel), expected "
            "MONOCHROME1 or MONOCHROME2. Radiographs and CT are grey; convert it only if its colours mean nothing."
        )
    if "PerFrameFunctionalGroupsSequence" in header or "SharedFunctionalGroupsSequence" in header:
        raise InputError(
            f"{name}: is {quote(sop_class.name)} with functional groups (geometry frame by frame), {EXPECTED} without. "
            "Convert it to a classic series of single slices first, for example with dcm4che's `emf2sf`."
        )
    if sop_class not in (CTImageStorage, *RADIOGRAPHS, *SECONDARY_CAPTURES):
        raise InputError(
            f"{name}: is {quote(sop_class.name) or 'of no stated class'}, {EXPECTED}. Pass another series."
        )
    if not header.get("SOPInstanceUID"):
        raise InputError(
            f"{name}: has no SOP Instance UID (0008,0018), which a result must refer to. Export the file again."
        )
    if sop_class == CTImageStorage and str(header.get("NumberOfFrames") or 1) != "1":
        raise InputError(
            f"{name}: is a CT Image with {quote(header.NumberOfFrames)} frames, expected one slice per file. "
            "Export it slice by slice."
        )
    allocated, stored = header.get("BitsAllocated"), header.get("BitsStored")
    if allocated not in (8, 16) or stored is None or not 1 <= stored <= allocated:
        raise InputError(
            f"{name}: stores {stored} bits in {allocated} allocated bits per pixel, expected 1 to 16 bits in 8 or 16. "
            "Export it as 8 or 16 bits."
        )


def _drop_localizers(headers: list[Dataset], path: Path) -> tuple[list[Dataset], tuple[str, ...]]:
    slices = [header for header in headers if not is_localizer(header)]
    if not slices:
        count = "a CT localizer (scout)" if len(headers) == 1 else f"{len(headers)} CT localizers (scouts)"
        raise InputError(f"{path.name}: {count}, expected the slices of a CT. Pass the series that holds them.")
    left_out = len(headers) - len(slices)
    return slices, (f"{left_out} localizer (scout) image(s) in the series were left out.",) if left_out else ()


def _check_one_series(headers: Sequence[Dataset], path: Path) -> None:
    frames = [str(header.get("FrameOfReferenceUID") or index) for index, header in enumerate(headers)]
    positions = {str(header.get("ImagePositionPatient")) for header in headers}
    # Some archives give each slice a frame of reference of its own; two slices at one position are refused later.
    same = SAME_IN_A_SERIES if len(set(frames)) >= len(positions) else (*SAME_IN_A_SERIES, "FrameOfReferenceUID")
    for header in headers:
        if header.SOPClassUID != CTImageStorage:
            raise InputError(
                f"{path.name}: {len(headers)} files with {file_name(header)} ({header.SOPClassUID.name}) among them, "
                "expected one such image at a time, or only CT slices."
            )
    for keyword in same:
        is_identity = keyword.endswith("ID")  # which an anonymised slice may lack, and no message repeats
        compared = [header for header in headers if header.get(keyword)] if is_identity else headers
        other = next((header for header in compared if header.get(keyword) != compared[0].get(keyword)), None)
        if other is not None:
            values = "" if is_identity else f" ({quote(compared[0].get(keyword))} and {quote(other.get(keyword))})"
            raise InputError(
                f"{path.name}: {file_name(compared[0])} and {file_name(other)} differ in {keyword}{values}. "
                "Pass only files that belong together."
            )


def modality_of(header: Dataset) -> Modality:
    """Return the modality of the pixel values: CT (HU), CXR (grey levels) or unknown."""
    sop_class, named = header.SOPClassUID, header.get("Modality")
    # Without a rescale a captured CT slice is a screenshot: its numbers are grey levels, not HU.
    if sop_class == CTImageStorage or (sop_class in SECONDARY_CAPTURES and named == "CT" and "RescaleSlope" in header):
        return "CT"
    return "CXR" if sop_class in RADIOGRAPHS or named in MODALITIES["CXR"] else "unknown"


def _rescale(header: Dataset) -> tuple[float, float]:
    """Return slope and intercept from stored numbers to values, 1 and 0 if the header has none."""
    slope_and_intercept = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        pair = [default] if header.get(keyword) in (None, "") else numbers(header, keyword, 1)
        if pair is None or (keyword == "RescaleSlope" and pair[0] == 0):
            raise InputError(
                f"{file_name(header)}: {keyword} is {quote(header.get(keyword))}, expected a finite number, not 0 "
                "for the slope. Export the file again from its source."
            )
        slope_and_intercept.append(pair[0])
    return slope_and_intercept[0], slope_and_intercept[1]


def _read_pixels(headers: Sequence[Dataset]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode file by file, so that no more than one file's bytes are in memory at a time."""
    pixels = np.empty(0)
    notes: dict[str, None] = {}
    with DecoderProcess() as process:
        for index, header in enumerate(headers):
            file = Path(str(header.filename))
            dataset = read_file(file, stop_before_pixels=False)
            for keyword in PIXEL_DESCRIPTION:  # as it was checked
                dataset.pop(keyword, None)
                if keyword in header:
                    dataset[keyword] = header[keyword]
            frames, file_notes = decode(dataset, file, process)
            notes.update(dict.fromkeys(file_notes))
            if index == 0:
                require_memory(file.name, len(headers) * frames.nbytes, f"its {len(headers)} slices")
                pixels = frames if len(headers) == 1 else np.empty((len(headers), *frames.shape[1:]), frames.dtype)
            pixels[index : index + len(frames)] = frames
            _record_lossy_compression(header, dataset)
    return pixels, tuple(notes)


def _record_lossy_compression(header: Dataset, dataset: Dataset) -> None:
    """Record lossy compression that the sender left out of the header (PS3.3 C.7.6.1.1.5)."""
    method = lossy_method(dataset)
    if method and header.get("LossyImageCompression") != "01":
        header.LossyImageCompression = "01"
        header.LossyImageCompressionRatio = f"{get_expected_length(dataset, 'bytes') / len(dataset.PixelData):.2f}"
        header.LossyImageCompressionMethod = method


def _remarks(header: Dataset, pixels: np.ndarray, modality: Modality) -> Iterator[str]:
    if header.SOPClassUID == CTImageStorage and "RescaleSlope" not in header:
        yield "The header has no rescale: its numbers are taken as HU."
    if "ModalityLUTSequence" in header:
        yield "The header's modality table (non-linear) is kept; the stored numbers are enlarged, not its output."
    if header.get("LossyImageCompression") == "01":
        yield "The source was compressed with loss."
    if any(tag.group >> 8 == 0x60 and tag.element in (0x0102, 0x3000) for tag in header.keys()):  # noqa: SIM118
        yield "The overlay drawings of the header, such as the marker of a side, are left out of the result."
    part = str(header.get("BodyPartExamined") or "")
    if part and not any(chest in part.upper() for chest in CHEST_PARTS):
        yield f"BodyPartExamined is {quote(part)}, not the chest."
    padding = _padding(header)
    if padding and modality != "CT":
        padded = int(np.count_nonzero((pixels >= padding[0]) & (pixels <= padding[1])))
        if padded:
            yield f"{padded} pixel(s) are padding (value {padding[0]}) outside the image, enlarged like any other."


def _padding(header: Dataset) -> tuple[int, int] | None:
    """Return the lowest and highest stored number that mark padding (PS3.3 C.7.5.1.1.2)."""
    ends = [header.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    numbers = [end for end in ends if isinstance(end, int)]
    return (min(numbers), max(numbers)) if isinstance(ends[0], int) else None
