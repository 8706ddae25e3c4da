"""The stored numbers of one DICOM file, exactly as the modality stored them.

Pixel cells: DICOM PS3.5 section 8. Nothing is inverted, rescaled or windowed here.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from monai_sr_bundle.errors import InputError, quote
from monai_sr_bundle.images.decoder_process import DecoderProcess
from monai_sr_bundle.images.dicom_file import PARSE_ERRORS
from monai_sr_bundle.images.memory import require_memory
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder, pixel_array
from pydicom.pixels.utils import as_pixel_options, get_expected_length
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000MC,
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    RLETransferSyntaxes,
)

PLUGINS = "pip install pylibjpeg pylibjpeg-openjpeg python-gdcm"
LOSSY_METHODS = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
    JPEG2000MC: "ISO_15444_2",
    HTJ2K: "ISO_15444_15",
}
"""Transfer syntaxes that are lossy, those of JPEG 2000 not always, and their Lossy Image Compression Method
(PS3.3 C.7.6.1.1.5.1)."""

_LARGEST_RLE_RATIO = 64
"""Two bytes of a run become 128 (PS3.5 G.3.1); a header that claims more lies about its size."""
_DECODER_ERRORS = (
    ValueError, TypeError, AttributeError, KeyError, IndexError, RuntimeError, NotImplementedError, OSError, EOFError,
    StopIteration, OverflowError, AssertionError, SyntaxError, struct.error,
)  # fmt: skip


def decode(dataset: Dataset, file: Path, process: DecoderProcess) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode the frames of a data set.

    Args:
        dataset: the data set; its pixel description was checked.
        file: its file, for messages.
        process: process for decoders that may abort.

    Returns:
        ``[frames, rows, columns]`` in native uint8, int8, uint16 or int16, and notes (one sentence each).

    Raises:
        InputError: no pixels, pixels cut off, a transfer syntax without a decoder, or numbers wider than Bits Stored.
        OutOfMemoryError: the pixels do not fit into the memory.
    """
    _check_present(dataset, file)
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    plugin = _choose_decoder(syntax, int(dataset.BitsStored), file)
    frames = frame_count(dataset, file)
    expected, size = get_expected_length(dataset), len(dataset.PixelData)
    largest_ratio = {True: _LARGEST_RLE_RATIO if syntax in RLETransferSyntaxes else math.inf, False: 1}
    if size * largest_ratio[syntax.is_encapsulated] < expected:
        raise InputError(
            f"{file.name}: the pixel data is cut off: found {size} bytes, expected {expected} for {frames} x "
            f"{dataset.Rows} x {dataset.Columns} pixels. Copy or export the file again."
        )
    require_memory(file.name, 2 * expected, f"its {frames} x {dataset.Rows} x {dataset.Columns} pixels")
    try:
        stored = _decode(dataset, syntax, plugin, frames, expected, process)
    except _DECODER_ERRORS as error:
        reason = quote(error) or type(error).__name__
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
    # Loss moves numbers by little; what is beyond twice the range is no overshoot.
    if syntax in LOSSY_METHODS and int(stored.max()) < 2 << int(dataset.BitsStored):
        return _cut_overshoot(stored, int(dataset.BitsStored))
    return _extract_numbers(
        stored, dataset, file, by_codec=syntax.is_encapsulated and syntax not in RLETransferSyntaxes
    )


def _decoding_plugin(syntax: UID, bits_stored: int) -> str:
    """Return the one decoder of a transfer syntax, by pydicom's name; empty for pixels that are not compressed."""
    if not syntax.is_encapsulated:
        return ""
    if syntax in RLETransferSyntaxes:
        return "pydicom"
    if syntax == JPEGBaseline8Bit or (syntax == JPEGExtended12Bit and bits_stored == 8):
        return "pillow"
    is_jpeg2000 = syntax in JPEG2000TransferSyntaxes or "High-Throughput" in syntax.name
    return "pylibjpeg" if is_jpeg2000 or syntax == JPEGExtended12Bit else "gdcm"


def _decode(
    dataset: Dataset, syntax: UID, plugin: str, frames: int, expected: int, process: DecoderProcess
) -> np.ndarray:
    """Decode by the decoder of a transfer syntax, in a process of its own if it may abort or take any memory."""
    if plugin not in ("pylibjpeg", "gdcm"):
        # pydicom trims unused bits as if the High Bit were always Bits Stored - 1; `_extract_numbers` reads it.
        return pixel_array(dataset, decoding_plugin=plugin, raw=True, correct_unused_bits=False)
    dataset.pop("ExtendedOffsetTable", None)  # bytes, which a request cannot hold; the frames are found without it
    description = as_pixel_options(
        dataset, number_of_frames=frames, syntax=str(syntax), decoding_plugin=plugin, correct_unused_bits=False
    )
    return process.decode(dataset.PixelData, description, expected)


def frame_count(dataset: Dataset, file: Path) -> int:
    """Return Number of Frames, 1 if it is absent.

    Raises:
        InputError: Number of Frames is not a number above 0.
    """
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
    except (TypeError, ValueError, OverflowError):
        frames = 0
    if frames < 1:
        raise InputError(
            f"{file.name}: Number of Frames (0028,0008) is {quote(dataset.get('NumberOfFrames'))}, expected a whole "
            "number above 0. Export the file again from its source."
        )
    return frames


def lossy_method(dataset: Dataset) -> str | None:
    """Return the Lossy Image Compression Method of a data set's pixels; None where none is known to be lossy."""
    method, data = LOSSY_METHODS.get(UID(dataset.file_meta.TransferSyntaxUID)), dataset.PixelData
    if not method or not method.startswith("ISO_15444"):
        return method
    # The wavelet in the first coding style marker (ISO 15444-1 A.6.1): 0 is the irreversible 9-7.
    return None if data[data.find(b"\xff\x52", data.find(b"\xff\x4f\xff\x51")) + 13] else method


def _check_present(dataset: Dataset, file: Path) -> None:
    for keyword in ("FloatPixelData", "DoubleFloatPixelData"):
        if keyword in dataset:
            raise InputError(
                f"{file.name}: the pixels are floating-point numbers ({keyword}), expected whole numbers of 8 to 16 "
                "bits. Convert the file to NIfTI, which keeps them."
            )
    try:
        data = dataset.get("PixelData")
    except PARSE_ERRORS:
        data = None
    if not data or not isinstance(data, bytes):
        raise InputError(
            f"{file.name}: the header describes an image, but no readable pixel data follows; it is cut off or "
            "damaged. Copy or export it again."
        )


def _choose_decoder(syntax: UID, bits_stored: int, file: Path) -> str:
    """Return the one decoder of a transfer syntax, see `_decoding_plugin`, if it is installed."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise InputError(
            f"{file.name}: transfer syntax {quote(syntax.name)} ({quote(syntax)}) cannot be decoded here, expected "
            "uncompressed, RLE, JPEG, JPEG-LS or JPEG 2000. Ask the sender for an uncompressed copy, or try "
            "`gdcmconv --raw`."
        ) from error
    if (plugin := _decoding_plugin(syntax, bits_stored)) and plugin not in decoder.available_plugins:
        advice = f"Install it: `{PLUGINS}`."
        if syntax == JPEGExtended12Bit:
            advice = (
                "Install it (GPL-3.0) with `pip install -c constraints.txt '.[jpeg]'` in this package's folder, or "
                "convert the file to an uncompressed transfer syntax."
            )
        raise InputError(
            f"{file.name}: transfer syntax {syntax.name} ({syntax}) needs a decoder that is not installed. {advice}"
        )
    return plugin


def _extract_numbers(
    cells: np.ndarray, dataset: Dataset, file: Path, *, by_codec: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Extract stored numbers from pixel cells that may shift them up, hold overlay bits, or lack their sign."""
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    high_bit = dataset.get("HighBit")
    shift = (stored - 1 if high_bit is None else int(high_bit)) + 1 - stored
    if not 0 <= shift <= allocated - stored:
        raise InputError(
            f"{file.name}: High Bit {high_bit} cannot hold {stored} stored bits in {allocated} allocated bits. "
            "Export the file again from its source."
        )
    if by_codec and _cut_overshoot(cells, stored)[0] is cells:
        shift = 0  # most codecs know the number of bits and give the numbers themselves, some the whole cells
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
    if _has_overlays_in_cells(dataset) or (cells.dtype.kind == "i" and int(unsigned.max()) < 1 << stored):
        return numbers, ()
    raise InputError(
        f"{file.name}: {strays} pixel(s) need more than the {stored} bits of Bits Stored (0028,0101), "
        f"range {int(cells.min())} to {int(cells.max())}. Correct Bits Stored and High Bit, or export the file again."
    )


def _cut_overshoot(numbers: np.ndarray, stored: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Cut what lossy compression has moved beyond the stored bits; numbers that fit are returned as they are."""
    low = -(1 << (stored - 1)) if numbers.dtype.kind == "i" else 0
    clipped = np.clip(numbers, low, low + (1 << stored) - 1)
    strays = int(np.count_nonzero(clipped != numbers))
    note = f"{strays} pixel(s) that the compression had moved beyond the {stored} stored bits were cut to them."
    return (clipped, (note,)) if strays else (numbers, ())


def _has_overlays_in_cells(dataset: Dataset) -> bool:
    return any((group, 0x0102) in dataset and dataset[group, 0x0102].value for group in range(0x6000, 0x6020, 2))
