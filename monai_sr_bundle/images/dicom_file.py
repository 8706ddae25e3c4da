"""DICOM files: recognise one by its content, name the image it belongs to, and read its header."""

from __future__ import annotations

import copy
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
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
