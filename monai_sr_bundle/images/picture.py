"""Grey PNG, JPEG and TIFF of 8 or 16 bits (TIFF also 32-bit float): exact numbers and resolution tags.

A picture's resolution tag is a print size. It is kept and scaled, but is no length in the patient.
"""

from __future__ import annotations

import io
import math
import re
import struct
import warnings
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from monai_sr_bundle.errors import InputError, OutOfMemoryError, OutputError, SuperResolutionError, quote
from monai_sr_bundle.images.geometry import RESOLUTION_TAG, UNKNOWN, Grid
from monai_sr_bundle.images.image import Format, Image, require_finite
from monai_sr_bundle.images.memory import require_memory
from monai_sr_bundle.images.provenance import Provenance
from PIL import ImageOps
from PIL.PngImagePlugin import PngInfo

SUFFIXES: dict[str, Format] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff"}
MOST_PIXELS = 357_913_940
"""Pillow's own limit: it opens no larger picture."""
MOST_DEFLATED = 1032
"""Bytes that a byte of a PNG becomes at most. Pillow paints black what the data of a damaged PNG do not reach."""
JPEG_QUALITY = 98

_STARTS: tuple[tuple[bytes, Format], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
)
_TO_GREY = "Convert it to grey if it is a radiograph."
_LOSSLESS_TIFF = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate")
_MM_PER_INCH = 25.4
_LARGEST_DPI = 2**16 - 1
"""Largest number of dots per inch that a JPEG holds."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _NEW_SUBFILE_TYPE, _DESCRIPTION = 258, 262, 254, 270
_ORIENTATION, _X_RESOLUTION = 274, 282

# What Pillow raises for damaged files, apart from its own error classes (all of them OSError).
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, struct.error)


@dataclass(frozen=True)
class PictureHeader:
    """The resolution tag, colour profile and TIFF compression of a source, for `write_picture`.

    `dpi_xy` are dots per inch along columns and rows; None where the source states none.
    """

    dpi_xy: tuple[float, float] | None
    icc_profile: bytes | None
    compression: str


def picture_format(path: Path) -> Format | None:
    """Return "png", "jpeg" or "tiff" by the file's first bytes, else None."""
    with path.open("rb") as file:
        start = file.read(8)
    return next((kind for magic, kind in _STARTS if start.startswith(magic)), None)


def picture_description(path: Path) -> str:
    """Return the text that `write_picture` puts into a file; empty if the file has none or cannot be read."""
    try:
        with warnings.catch_warnings(), path.open("rb") as file, PIL.Image.open(file) as picture:
            warnings.simplefilter("ignore")
            info = picture.info
            text = info.get("Description") or info.get("comment") or _read_tiff_tag(picture, _DESCRIPTION, "")
    except (*_DAMAGE, PIL.Image.DecompressionBombError):
        return ""
    return text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)


def read_picture(path: Path) -> Image:
    """Read a grey picture; a TIFF with several pages is a stack of slices.

    A colour file whose channels are equal is a grey picture, and an EXIF orientation is applied; both are noted.

    Returns:
        pixels ``[pages, rows, columns]``, uint8, uint16 or float32, black low. Spacing from the resolution tag, or
        unit spacing and `UNKNOWN`.

    Raises:
        InputError: damaged; a colour picture; transparent; an animation; samples of other sizes; pages of different
            sizes; NaN or infinite values; more than `MOST_PIXELS`.
        OutOfMemoryError: it does not fit into the memory.
    """
    kind = picture_format(path)
    if kind is None:
        raise InputError(f"{path.name}: not a PNG, JPEG or TIFF. Convert it to one of these.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damage that raises later, and sizes between two limits
            # With a path, Pillow would map rotated TIFFs (orientation 5 to 8) with rows and columns swapped.
            with path.open("rb") as file, PIL.Image.open(file, formats=[kind.upper()]) as picture:
                return _read_image(path, kind, picture)
    except SuperResolutionError:
        raise
    except PIL.Image.DecompressionBombError as error:
        count = next(iter(re.findall(r"\((\d+) pixels", str(error))), "too many")
        raise InputError(
            f"{path.name}: too large for a radiograph ({count} pixels, expected at most {MOST_PIXELS:,}). Crop it."
        ) from error
    except MemoryError as error:
        raise OutOfMemoryError(f"{path.name}: does not fit into the memory. Close other programs.") from error
    except _DAMAGE as error:
        raise InputError(
            f"{path.name}: {kind.upper()} picture that cannot be decoded ({quote(error)}); it is damaged, truncated "
            "or of a rare kind. Get the file again, or save it as 8- or 16-bit grey PNG."
        ) from error


def write_picture(result: Image, provenance: Provenance, out: Path, meaning: str = "") -> None:
    """Write a picture in the format that `out`'s suffix names, with the source's resolution tag scaled.

    Args:
        result: uint8 for any format, uint16 for PNG and TIFF, float32 and several slices for TIFF only.
        provenance: record whose sentence becomes the PNG's Description, the TIFF's ImageDescription or JPEG's comment.
        out: file to write: `.png`, `.jpg`, `.jpeg`, `.tif` or `.tiff`. JPEG loses detail (quality 98).
        meaning: description of samples that are no grey levels; it precedes the sentence.

    Raises:
        OutputError: a format that cannot hold these samples, several slices or this size.
    """
    kind = SUFFIXES[out.suffix.lower()]
    _check_fits(result, kind, out)
    header: PictureHeader = result.header
    sentence = f"{meaning}. {provenance.sentence}" if meaning else provenance.sentence
    pages = [PIL.Image.fromarray(np.ascontiguousarray(page)) for page in result.pixels]
    # Through memory, because Pillow's encoders hide the reason (a full disk) when they write to a file themselves.
    buffer = io.BytesIO()
    options: dict[str, Any] = {"icc_profile": header.icc_profile} if header.icc_profile else {}
    if header.dpi_xy:
        (x, y), (_, scale_y, scale_x) = header.dpi_xy, provenance.scale_zyx
        if max(x * scale_x, y * scale_y) <= _LARGEST_DPI:  # a wrong resolution is worse than none
            options["dpi"] = x * scale_x, y * scale_y
    try:
        if kind == "png":
            text = PngInfo()
            text.add_text("Description", sentence)
            pages[0].save(buffer, format="PNG", pnginfo=text, **options)
        elif kind == "jpeg":
            pages[0].save(buffer, format="JPEG", quality=JPEG_QUALITY, comment=sentence, **options)
        else:
            options |= {"compression": header.compression, "description": sentence}
            pages[0].save(buffer, format="TIFF", save_all=True, append_images=pages[1:], **options)
    except (OSError, ValueError, struct.error) as error:
        raise OutputError(
            f"{out.name}: {result.pixels.shape[2]} x {result.pixels.shape[1]} pixels do not fit into a {kind.upper()} "
            f"({error}). Choose another format, or enhance a region with --roi."
        ) from error
    out.write_bytes(buffer.getvalue())


def _read_image(path: Path, kind: Format, picture: PIL.Image.Image) -> Image:
    count = getattr(picture, "n_frames", 1)
    if count > 1 and kind != "tiff":
        raise InputError(
            f"{path.name}: {count} pictures in one {kind.upper()} file, expected one. Save the one you want by itself."
        )
    if kind == "png" and picture.width * picture.height > MOST_DEFLATED * 8 * path.stat().st_size:  # at a bit each
        raise ValueError(f"{picture.width} x {picture.height} pixels in {path.stat().st_size} bytes")
    # Of each pixel, up to four channels as Pillow decodes them and their copy; of all pages, float32.
    needed = picture.width * picture.height * (8 + 4 * count)
    require_memory(path.name, needed, f"its {picture.width} x {picture.height} pixels")
    dpi_xy = _read_dpi(kind, picture)
    icc_profile = picture.info.get("icc_profile") if picture.mode.startswith(("L", "I")) else None
    compression = str(picture.info.get("compression", "")) if kind == "tiff" else ""
    notes: list[str] = []
    pages: list[np.ndarray] = []
    for index in range(count):
        picture.seek(index)
        if kind == "tiff" and _read_tiff_tag(picture, _NEW_SUBFILE_TYPE, 0) & 1:
            notes.append("Reduced copies of the picture in the same file are left out.")
            continue
        page, orientation, page_notes = _read_page(path, kind, picture)
        notes += page_notes
        pages.append(page)
        if orientation > 4 and dpi_xy and len(pages) == 1:
            dpi_xy = dpi_xy[1], dpi_xy[0]
    if len({(page.shape, page.dtype) for page in pages}) != 1:
        page_kinds = ", ".join(sorted({f"{page.shape[1]} x {page.shape[0]} {page.dtype}" for page in pages})) or "none"
        raise InputError(f"{path.name}: its pages are not of one kind ({page_kinds}). Save the pages as single files.")
    pixels = np.stack(pages)
    require_finite(pixels, path)
    if kind == "jpeg":
        notes.append(
            f"JPEG has already lost detail; a result named .jpg is saved at quality {JPEG_QUALITY}, "
            "one named .png keeps every pixel."
        )
    is_float = pixels.dtype.kind == "f"
    compression = compression if compression in _LOSSLESS_TIFF else "tiff_adobe_deflate"
    return Image(
        pixels=pixels,
        grid=_make_grid(pixels.shape, dpi_xy),
        modality="unknown",
        format=kind,
        path=path,
        stored_range=None if is_float else (0, int(np.iinfo(pixels.dtype).max)),
        bits=8 * pixels.dtype.itemsize,
        header=PictureHeader(dpi_xy, icc_profile, compression),
        notes=tuple(dict.fromkeys(notes)),
    )


def _read_page(path: Path, kind: Format, picture: PIL.Image.Image) -> tuple[np.ndarray, int, list[str]]:
    """Read pixels ``[rows, columns]`` as a screen shows them; return them, the EXIF orientation applied, and notes."""
    notes = []
    bits = _read_bits(path, kind, picture)
    white_is_zero = kind == "tiff" and _read_tiff_tag(picture, _PHOTOMETRIC, 0) == 0
    if kind == "tiff":
        orientation = _read_tiff_tag(picture, _ORIENTATION, 1)  # Pillow applies it while it decodes, and drops the tag
    else:
        orientation = int(picture.getexif().get(_ORIENTATION, 1))
        picture = ImageOps.exif_transpose(picture)
    if orientation in range(2, 9):
        notes.append(f"Its orientation tag ({orientation}) is applied: the result is stored as it is shown.")
    if kind == "tiff" and _is_swapped_twice(picture):
        raise InputError(
            f"{path.name}: compressed big-endian floats, which cannot be decoded reliably. Save it without compression."
        )
    pixels, grey_notes = _read_grey(path, kind, bits, picture)
    if white_is_zero:
        if pixels.dtype == np.uint16:  # Pillow inverts 8 bits while it decodes, and leaves 16 bits as they are
            pixels = np.iinfo(np.uint16).max - pixels
        elif pixels.dtype != np.uint8:
            raise InputError(f"{path.name}: float samples with white as zero. Save it with black as zero.")
        notes.append("White is stored as 0 in the file; the result is stored with black as 0 and looks the same.")
    return pixels, orientation, notes + grey_notes


def _read_bits(path: Path, kind: Format, picture: PIL.Image.Image) -> int:
    """Read the bits per sample from the file: Pillow reduces some kinds to 8 bits without a warning."""
    if kind == "png":
        with path.open("rb") as file:
            return file.read(25)[24]
    if kind == "tiff":
        bits = _read_tiff_tag(picture, _BITS_PER_SAMPLE, (1,))
        return int(max(bits) if isinstance(bits, tuple) else bits)
    return 8


def _read_grey(path: Path, kind: Format, bits: int, picture: PIL.Image.Image) -> tuple[np.ndarray, list[str]]:
    mode, transparent = picture.mode, "transparency" in picture.info
    if (mode == "L" and bits == 8 and not transparent) or (mode == "F" and bits == 32):
        return np.array(picture), []
    if bits == 16 and not transparent and (mode.startswith("I;16") or (mode, kind) == ("I", "png")):
        return np.array(picture).astype(np.uint16), []
    if mode in ("P", "PA") or (bits == 8 and mode in ("L", "LA", "RGB", "RGBA", "RGBX", "YCbCr")):
        return _read_grey_from_colours(path, mode, picture)
    if mode in ("CMYK", "LAB", "HSV"):
        raise InputError(f"{path.name}: a colour picture ({mode}), expected grey. {_TO_GREY}")
    raise InputError(
        f"{path.name}: {kind.upper()} with {bits}-bit samples ({mode}{', transparent' if transparent else ''}), "
        "expected one grey channel of 8 or 16 bits, or a TIFF of 32-bit floats. Save it as 8- or 16-bit grey PNG."
    )


def _read_grey_from_colours(path: Path, mode: str, picture: PIL.Image.Image) -> tuple[np.ndarray, list[str]]:
    notes = []
    if mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        channels = np.array(picture.convert("RGBA"))
        if channels[..., 3].min() < 255:
            raise InputError(f"{path.name}: partly transparent, expected grey only. Put it on a background first.")
        notes.append("Its transparency channel is opaque everywhere and is left out.")
    else:
        channels = np.array(picture.convert("RGB"))
    red, green, blue = (channels[..., index].astype(np.int16) for index in range(3))
    difference = int(max(np.abs(red - green).max(), np.abs(green - blue).max(), np.abs(red - blue).max()))
    if difference:
        raise InputError(
            f"{path.name}: a colour picture (red, green and blue differ by up to {difference} of 255), expected grey. "
            f"{_TO_GREY}"
        )
    if mode not in ("L", "LA"):
        stored = "with a palette of greys" if mode in ("P", "PA") else "as colour with three equal channels"
        notes.append(f"Stored {stored}; read and written as grey.")
    return np.ascontiguousarray(channels[..., 0]), notes


def _make_grid(shape: tuple[int, ...], dpi_xy: tuple[float, float] | None) -> Grid:
    pages, rows, columns = shape
    x, y = dpi_xy or (_MM_PER_INCH, _MM_PER_INCH)  # unit spacing where none is stated
    affine = np.diag([_MM_PER_INCH / x, _MM_PER_INCH / y, 1.0, 1.0])
    return Grid((pages, rows, columns), affine, RESOLUTION_TAG if dpi_xy else UNKNOWN, are_frames=True)


def _read_dpi(kind: Format, picture: PIL.Image.Image) -> tuple[float, float] | None:
    """Return the dots per inch along columns and rows; None for a tag that is missing, 0, invalid or without a unit."""
    info = picture.info
    # Pillow makes up 72 for some JPEG without a unit, and 1 for a TIFF without a tag.
    if (kind == "jpeg" and not info.get("jfif_unit")) or (
        kind == "tiff" and not _read_tiff_tag(picture, _X_RESOLUTION, 0)
    ):
        return None
    dots = [float(value) for value in info.get("dpi", ()) if isinstance(value, Real)]
    return (dots[0], dots[1]) if len(dots) == 2 and all(0 < value < math.inf for value in dots) else None


def _is_swapped_twice(picture: PIL.Image.Image) -> bool:
    """Return whether Pillow 13 swaps the bytes twice, without an error: in compressed big-endian floats."""
    tags = getattr(picture, "tag_v2", None)
    is_big_endian = tags is not None and tags.prefix == b"MM"
    return picture.mode == "F" and is_big_endian and picture.info.get("compression") != "raw"


def _read_tiff_tag(picture: PIL.Image.Image, tag: int, default: Any) -> Any:
    return getattr(picture, "tag_v2", {}).get(tag, default)


def _check_fits(result: Image, kind: Format, out: Path) -> None:
    allowed = {"png": (np.uint8, np.uint16), "jpeg": (np.uint8,), "tiff": (np.uint8, np.uint16, np.float32)}[kind]
    if result.pixels.dtype not in [np.dtype(one) for one in allowed]:
        raise OutputError(
            f"{out.name}: {result.pixels.dtype} pixels do not fit into a {kind.upper()}, which holds "
            f"{' or '.join(np.dtype(one).name for one in allowed)}. Use the suffix of the source."
        )
    if kind != "tiff" and len(result.pixels) > 1:
        raise OutputError(f"{out.name}: {len(result.pixels)} slices do not fit into one {kind.upper()}. Name it .tif.")
