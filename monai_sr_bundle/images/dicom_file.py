"""DICOM files: recognise one by its content, name the image it belongs to, read its header and its stored numbers.

Pixel cells: DICOM PS3.5 section 8. The numbers are exactly as the modality stored them: nothing is inverted, rescaled
or windowed here.
"""

from __future__ import annotations

import copy
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import get_decoder, pixel_array
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from monai_sr_bundle.errors import InputError

logger = logging.getLogger(__name__)

_VALUE_REPRESENTATIONS = frozenset(b"AE AS CS DA DT IS LO LT PN SH ST TM UI UL US UN SQ".split())
_MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Type 2 elements that older files leave out, and that highdicom requires."""
_PARSE_ERRORS = (
    BytesLengthException, InvalidDicomError, EOFError, OSError, ValueError, TypeError, AttributeError, KeyError,
    NotImplementedError, struct.error,
)  # fmt: skip


def is_dicom(path: Path) -> bool:
    """Return whether a file's content is DICOM: it has the DICM prefix, or begins like a data set without one.

    False for folders and files that cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    if start[128:] == b"DICM":
        return True
    group, first_word = start[:2], int.from_bytes(start[:2], "little")
    explicit = start[4:6] in _VALUE_REPRESENTATIONS
    implicit = first_word == 8 and int.from_bytes(start[4:8], "little") < 256
    if not (first_word in (2, 8) and (explicit or implicit)) and not (group == b"\x00\x08" and explicit):
        return False
    try:
        header = read_file(path, stop_before_pixels=True, tags=["SOPClassUID", "Rows"])
    except InputError:
        return False
    with calm():
        return UID(str(header.get("SOPClassUID") or "")).is_valid or isinstance(header.get("Rows"), int)


def series_key(path: Path) -> str:
    """Return the key that the files of one image share, so that a folder can be grouped; reads no pixels.

    CT slices share their Series Instance UID. Every other image stands alone even within a series (a frontal and a
    lateral view are no volume), so its own SOP Instance UID follows, after a slash. Empty for DICOM objects that are no
    images (directories, reports, presentation states).

    Raises:
        InputError: not DICOM.
    """
    header = open_header(path, ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Rows"])
    if "Rows" not in header:
        return ""
    series = str(header.get("SeriesInstanceUID") or path)
    return series if header.get("SOPClassUID") == CTImageStorage else f"{series}/{header.get('SOPInstanceUID') or path}"


def derivation(path: Path) -> str:
    """Return the description of a DICOM file's derivation; empty if it has none.

    Raises:
        InputError: not DICOM.
    """
    header = open_header(path, ["DerivationDescription", "ContributingEquipmentSequence"])
    texts = [header.get("DerivationDescription")]
    texts += [item.get("ContributionDescription") for item in header.get("ContributingEquipmentSequence") or []]
    return " ".join(str(text) for text in texts if text)


@contextmanager
def calm() -> Iterator[None]:
    """Silence pydicom: it quotes odd values, patients' names among them, and prints each failed decoder's traceback."""
    pydicom_logger = logging.getLogger("pydicom")
    level = pydicom_logger.level
    pydicom_logger.setLevel(logging.CRITICAL + 1)
    try:
        with disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        pydicom_logger.setLevel(level)


def read_file(file: Path, stop_before_pixels: bool, tags: list[str] | None = None) -> Dataset:
    """Read the data set of a file, or only its `tags`; fill in the transfer syntax if the file has no prefix.

    Raises:
        InputError: the bytes are no DICOM.
    """
    try:
        with calm():
            dataset = dcmread(file, stop_before_pixels=stop_before_pixels, force=True, specific_tags=tags)
            if tags:
                # pydicom converts values when they are first looked at, which may fail or warn.
                list(dataset)
    except _PARSE_ERRORS as error:
        raise InputError(
            f"{file.name}: cannot be read as DICOM ({type(error).__name__}); it is damaged, truncated or another kind "
            "of file. Copy or export the file again."
        ) from error
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def open_header(file: Path, tags: list[str] | None = None) -> Dataset:
    """Read the header of a file, or only its `tags`.

    Raises:
        InputError: not DICOM.
    """
    if not is_dicom(file):
        raise InputError(f"{file.name}: is not a DICOM file. Pass a DICOM, NIfTI, PNG, JPEG or TIFF file.")
    return read_file(file, stop_before_pixels=True, tags=tags)


def with_names_and_dates(header: Dataset) -> Dataset:
    """Return a copy that has every required element of patient and study, empty if the header lacks it."""
    complete = copy.deepcopy(header)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in complete:
            setattr(complete, keyword, None)
    return complete


def make_writable(dataset: Dataset, name: str, big_endian: bool) -> None:
    """Remove elements whose bytes break their own type, and convert words to the byte order of the result.

    pydicom swaps the bytes of numbers when it writes another byte order, but not those of tables stored as words.
    """
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except _PARSE_ERRORS:
            del dataset[tag]
            logger.warning("%s: element %s is not readable and is left out of the result.", name, tag)
            continue
        if element.VR == "SQ":
            for item in element.value:
                make_writable(item, name, big_endian)
        elif element.VR == "OW" and big_endian:
            element.value = np.frombuffer(element.value, ">u2").astype("<u2").tobytes()


PLUGINS = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
REASON_LENGTH = 200
LOSSY_METHODS = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
}
"""Transfer syntaxes that are always lossy, and their Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1)."""

_DECODER_ERRORS = (
    ValueError, TypeError, AttributeError, KeyError, IndexError, RuntimeError, NotImplementedError, OSError, EOFError,
    StopIteration, struct.error,
)  # fmt: skip


def decode(dataset: Dataset, file: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode the frames of a data set.

    Returns:
        ``[frames, rows, columns]`` in native uint8, int8, uint16 or int16, and notes (one sentence each).

    Raises:
        InputError: no pixels, pixels cut off, a transfer syntax without a decoder, or numbers wider than Bits Stored.
    """
    _check_present(dataset, file)
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    _check_decoder(syntax, file)
    frames = frame_count(dataset, file)
    if not syntax.is_compressed:
        expected, size = get_expected_length(dataset), len(dataset.PixelData)
        if size < expected:
            raise InputError(
                f"{file.name}: the pixel data is cut off: found {size} bytes, expected {expected} for {frames} x "
                f"{dataset.Rows} x {dataset.Columns} pixels. Copy or export the file again."
            )
    try:
        # pydicom trims unused bits as if the High Bit were always Bits Stored - 1; `_extract_numbers` reads it.
        stored = pixel_array(dataset, raw=True, correct_unused_bits=False)
    except _DECODER_ERRORS as error:
        if syntax == JPEGExtended12Bit and int(dataset.BitsStored) > 8 and find_spec("libjpeg") is None:
            raise InputError(
                f"{file.name}: lossy JPEG of {dataset.BitsStored} bits ({syntax}) needs a decoder that is not "
                "installed. Install it with `pip install 'monai-sr-bundle[jpeg]'` (GPL-3.0), or convert the file to an "
                "uncompressed transfer syntax."
            ) from error
        reason = " ".join(str(error).split())[:REASON_LENGTH] or type(error).__name__
        raise InputError(
            f"{file.name}: the pixel data ({syntax.name}) cannot be decoded, it is damaged or cut off ({reason}). "
            "Copy or export the file again, or convert it to an uncompressed transfer syntax."
        ) from error
    expected_shape = (frames, int(dataset.Rows), int(dataset.Columns))
    if stored.size != np.prod(expected_shape):
        raise InputError(
            f"{file.name}: the pixel data decodes to {stored.shape}, expected {expected_shape} (frames, rows, "
            "columns). Export the file again."
        )
    stored = stored.reshape(expected_shape)
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return (stored, ()) if syntax.is_encapsulated and not _is_rle(syntax) else _extract_numbers(stored, dataset, file)


def frame_count(dataset: Dataset, file: Path) -> int:
    """Return Number of Frames, 1 if it is absent.

    Raises:
        InputError: Number of Frames is not a number above 0.
    """
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        frames = 0
    if frames < 1:
        raise InputError(
            f"{file.name}: Number of Frames (0028,0008) is {dataset.get('NumberOfFrames')}, expected a whole number "
            "above 0. Export the file again from its source."
        )
    return frames


def compression_ratio(dataset: Dataset) -> float:
    """Return the bytes before compression per stored byte."""
    return get_expected_length(dataset, "bytes") / max(len(dataset.PixelData), 1)


def _check_present(dataset: Dataset, file: Path) -> None:
    for keyword in ("FloatPixelData", "DoubleFloatPixelData"):
        if keyword in dataset:
            raise InputError(
                f"{file.name}: the pixels are floating-point numbers ({keyword}), expected whole numbers of 8 to 16 "
                "bits. Convert the file to NIfTI, which keeps them."
            )
    if not dataset.get("PixelData"):
        raise InputError(
            f"{file.name}: the header describes an image but no pixel data follows; the file may be cut off. "
            "Copy or export it again."
        )


def _check_decoder(syntax: UID, file: Path) -> None:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise InputError(
            f"{file.name}: transfer syntax {syntax.name} ({syntax}) cannot be decoded here, expected uncompressed, "
            "RLE, JPEG, JPEG-LS or JPEG 2000. Ask the sender for an uncompressed copy, or try `gdcmconv --raw`."
        ) from error
    if not decoder.is_available:
        raise InputError(
            f"{file.name}: transfer syntax {syntax.name} ({syntax}) needs a decoder that is not installed. "
            f"Install one: {PLUGINS}"
        )


def _is_rle(syntax: UID) -> bool:
    return syntax.name.startswith("RLE")


def _extract_numbers(cells: np.ndarray, dataset: Dataset, file: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Extract stored numbers from pixel cells that may shift them up, hold overlay bits, or lack their sign."""
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    shift = int(dataset.get("HighBit", stored - 1)) + 1 - stored
    if not 0 <= shift <= allocated - stored:
        raise InputError(
            f"{file.name}: High Bit {dataset.HighBit} cannot hold {stored} stored bits in {allocated} allocated bits. "
            "Export the file again from its source."
        )
    if allocated == stored:
        return cells, ()
    unsigned = cells.view(np.dtype(f"u{cells.itemsize}")) >> shift
    numbers = unsigned & ((1 << stored) - 1)
    if cells.dtype.kind == "i":
        sign = 1 << (stored - 1)
        numbers = (numbers.astype(np.int32) ^ sign) - sign
    numbers = numbers.astype(cells.dtype)
    if shift:
        return numbers, (f"The numbers were stored {shift} bit(s) higher in their cells and were moved down.",)
    strays = int(np.count_nonzero(numbers != cells))
    if not strays:
        return numbers, ()
    if _has_overlays_in_cells(dataset):
        return numbers, ("The unused bits held an overlay drawing, which is left out.",)
    if cells.dtype.kind == "i" and int(unsigned.max()) < 1 << stored:
        return numbers, ()
    raise InputError(
        f"{file.name}: {strays} pixel(s) need more than the {stored} bits of Bits Stored (0028,0101), "
        f"range {int(cells.min())} to {int(cells.max())}. Correct Bits Stored and High Bit, or export the file again."
    )


def _has_overlays_in_cells(dataset: Dataset) -> bool:
    return any((group, 0x0102) in dataset and dataset[group, 0x0102].value for group in range(0x6000, 0x6020, 2))
