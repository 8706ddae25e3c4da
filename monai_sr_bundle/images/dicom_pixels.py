"""The stored numbers of one DICOM file, exactly as the modality stored them.

Pixel cells: DICOM PS3.5 section 8. Nothing is inverted, rescaled or windowed here.
"""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder, pixel_array
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from monai_sr_bundle.errors import InputError

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
                "installed. Install it (GPL-3.0) with `pip install '.[jpeg]'` in this package's folder, or convert the "
                "file to an uncompressed transfer syntax."
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
