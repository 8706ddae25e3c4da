"""DICOM files: recognise one by its content, name the image it belongs to, and read its header."""

from __future__ import annotations

import hashlib
import logging
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from monai_sr_bundle.errors import InputError, OutOfMemoryError, SuperResolutionError
from monai_sr_bundle.images.memory import free_memory, require_memory
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import BYTES_VR

logger = logging.getLogger(__name__)

_VALUE_REPRESENTATIONS = frozenset(b"AE AS CS DA DT IS LO LT PN SH ST TM UI UL US UN SQ".split())
PARSE_ERRORS = (
    BytesLengthException, InvalidDicomError, EOFError, OSError, ValueError, TypeError, AttributeError, KeyError,
    IndexError, AssertionError, NotImplementedError, OverflowError, RecursionError, struct.error, zlib.error,
)  # fmt: skip
"""Exceptions of pydicom for damaged files, when they are read and when a value is looked at."""
_DECIDING = frozenset(
    (
        "SOPClassUID", "SOPInstanceUID", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
        "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope",
        "RescaleIntercept", "ModalityLUTSequence",
    )
)  # fmt: skip
"""Attributes without which pixels would mean something else."""
_PIECE = 1024 * 1024
_NUMBER_FORMS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_INFLATED_COPIES = 4
"""Bytes of memory that pydicom takes for each byte of a deflated data set."""
_BESIDE_PIXELS = 64 * 1024 * 1024
"""The most bytes of a deflated data set that are not its pixels."""


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
    except SuperResolutionError:
        return False
    with quiet_pydicom():
        return UID(str(header.get("SOPClassUID") or "")).is_valid or isinstance(header.get("Rows"), int)


def series_key(path: Path) -> str:
    """Return the key that the files of one image share, so that a folder can be grouped; reads no pixels.

    CT slices share their Series Instance UID. Every other image stands alone even within a series (a frontal and a
    lateral view are no volume, nor are two copies of a film), so its path follows, after a slash. Empty for DICOM
    objects that are no images (directories, reports, presentation states).

    Raises:
        InputError: not DICOM, or cut off before Rows.
    """
    header = open_header(path, ["SOPClassUID", "SeriesInstanceUID", "Rows"])
    if "Rows" not in header:
        return ""
    series = str(header.get("SeriesInstanceUID") or path)
    return series if header.get("SOPClassUID") == CTImageStorage else f"{series}/{path}"


def series_ending(key: str) -> str:
    """Return the ending that tells a series from others of the same name, made of what its files share."""
    return f"_series_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _has_no_pixels(header: Dataset) -> bool:
    """Return whether a header states a class that is none of images; private classes are taken for such."""
    with suppress(*PARSE_ERRORS):
        sop_class = UID(str(header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID") or ""))
        is_known = sop_class.is_valid and (sop_class.is_private or sop_class.startswith("1.2.840.10008."))
        return is_known and "Image Storage" not in sop_class.name
    return False


def is_localizer(header: Dataset) -> bool:
    """Return whether a header is that of a localizer (scout) of CT, by its class and Image Type."""
    return header.get("SOPClassUID") == CTImageStorage and "LOCALIZER" in (header.get("ImageType") or ())


def derivation(path: Path) -> str:
    """Return the description of a DICOM file's derivation; empty if it has none.

    Raises:
        InputError: not DICOM.
    """
    header = open_header(path, ["DerivationDescription", "ContributingEquipmentSequence"])
    texts = [header.get("DerivationDescription")]
    texts += [item.get("ContributionDescription") for item in items_of(header, "ContributingEquipmentSequence")]
    return " ".join(text for text in texts if isinstance(text, str))


def items_of(header: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none where the element is missing, empty or no sequence."""
    value = header.get(keyword)
    return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Iterable) else []


@contextmanager
def quiet_pydicom() -> Iterator[None]:
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
        OutOfMemoryError: a deflated data set does not fit into the memory.
    """
    try:
        with quiet_pydicom():
            if not stop_before_pixels:
                require_memory(file.name, file.stat().st_size, "its bytes")
            _check_deflated(file)
            dataset = dcmread(file, stop_before_pixels=stop_before_pixels, force=True, specific_tags=tags)
            if tags:
                # pydicom converts values when they are first looked at, which may fail or warn.
                list(dataset)
    except SuperResolutionError:
        raise
    except (*PARSE_ERRORS, MemoryError) as error:
        if isinstance(error, MemoryError) and file.stat().st_size > free_memory() // 2:
            raise OutOfMemoryError(f"{file.name}: does not fit into the memory. Close other programs.") from error
        raise InputError(
            f"{file.name}: cannot be read as DICOM ({type(error).__name__}); it is damaged, truncated or another kind "
            "of file. Copy or export the file again."
        ) from error
    if not isinstance(dataset.file_meta.get("TransferSyntaxUID"), str):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def open_header(file: Path, tags: list[str] | None = None) -> Dataset:
    """Read the header of a file, or only its `tags`.

    Raises:
        InputError: not DICOM; Rows, if asked for, are missing in the header of an image.
    """
    if not is_dicom(file):
        raise InputError(f"{file.name}: is not a DICOM file. Pass a DICOM, NIfTI, PNG, JPEG or TIFF file.")
    header = read_file(file, stop_before_pixels=True, tags=tags)
    if "Rows" in (tags or ["Rows"]) and "Rows" not in header and not _has_no_pixels(header):
        raise InputError(
            f"{file.name}: has no Rows (0028,0010), expected the header of an image; it is cut off or damaged. "
            "Copy or export the file again."
        )
    return header


def make_writable(dataset: Dataset, name: str, big_endian: bool) -> None:
    """Remove elements whose bytes break their own type, and convert words to the byte order of the result.

    An element of another type than the standard's takes that, where its value can. pydicom swaps the bytes of numbers
    when it writes another byte order, but not those of tables stored as words.

    Raises:
        InputError: an element is not readable without which the pixels would mean something else.
    """
    try:
        _make_writable(dataset, name, big_endian)
    except RecursionError as error:
        raise InputError(
            f"{name}: its sequences lie too deep in each other; it is damaged. Export the file again."
        ) from error


def _make_writable(dataset: Dataset, name: str, big_endian: bool) -> None:
    for tag in list(dataset.keys()):
        if tag.group in (0, 2):  # of messages and of file headers, and not for a data set
            del dataset[tag]
            continue
        try:
            stored = dataset.get_item(tag).value
            element = _as_in_the_standard(dataset[tag])
            dataset[tag] = element
            if element.VR == "PN" and element.VM == 1 and isinstance(stored, bytes):
                # pydicom has question marks where a name's letters are not those of its Specific Character Set.
                element.value.original_string = stored.rstrip(b" \0")
        except PARSE_ERRORS as error:
            if keyword_for_tag(tag) in _DECIDING:
                raise InputError(
                    f"{name}: {keyword_for_tag(tag)} {tag} is not readable, and pixels mean nothing without it. Export "
                    "the file again from its source."
                ) from error
            del dataset[tag]
            logger.warning("%s: element %s is not readable and is left out of the result.", name, tag)
            continue
        if element.VR == "SQ":
            for item in element.value:
                _make_writable(item, name, big_endian)
        elif element.VR == "OW" and big_endian:
            element.value = np.frombuffer(element.value, ">u2").astype("<u2").tobytes()


def _as_in_the_standard(element: DataElement) -> DataElement:
    """Return an element with the type that the standard gives it; raise one of `PARSE_ERRORS` where it cannot be."""
    if element.tag.is_private:
        return element
    try:
        allowed = dictionary_VR(element.tag).split(" or ")
    except KeyError:  # of a newer standard
        return element
    if element.VR in allowed or element.is_empty:
        return element if element.VR in allowed else DataElement(element.tag, allowed[0], None)
    # A text or a number is no sequence, no bytes and no tag, and pydicom would only say so when it writes them.
    if isinstance(element.value, bytes) or element.VR == "SQ" or allowed[0] in {"SQ", "AT", *BYTES_VR}:
        raise TypeError(f"{element.tag} is {element.VR}")
    values = list(element.value) if isinstance(element.value, MultiValue) else [element.value]
    if allowed[0] in _NUMBER_FORMS:  # pydicom looks at them when it writes
        struct.pack(f"<{len(values)}{_NUMBER_FORMS[allowed[0]]}", *values)
    elif allowed[0] not in ("DS", "IS"):
        values = list(map(str, values))
    return DataElement(element.tag, allowed[0], values if len(values) > 1 else values[0])


def _check_deflated(file: Path) -> None:
    """Inflate a deflated data set piece by piece, before pydicom takes it whole.

    Raises:
        InputError: it is larger than its header says.
        OutOfMemoryError: it does not fit into the memory.
        zlib.error: it is damaged.
    """
    with file.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return
        meta = read_dataset(stream, False, True, stop_when=lambda tag, _, __: tag >> 16 != 2)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        start = inflate.decompress(stream.read(_PIECE), _PIECE)
        header = dcmread(BytesIO(start), stop_before_pixels=True, force=True)
        header.setdefault("SamplesPerPixel", 1)
        largest = _BESIDE_PIXELS
        with suppress(*PARSE_ERRORS):  # what the header lacks is told when the image is checked
            largest += get_expected_length(header)
        free, size = free_memory() // _INFLATED_COPIES, len(start)
        while not inflate.eof and (packed := inflate.unconsumed_tail or stream.read(_PIECE)):
            size += len(inflate.decompress(packed, _PIECE))
            if size > largest:
                raise InputError(
                    f"{file.name}: its deflated data hold more than {largest:,} bytes, the most that its header stands "
                    "for; it is damaged. Export the file again from its source."
                )
            if size > free:
                require_memory(file.name, size * _INFLATED_COPIES, "more than the first bytes of its deflated data")
