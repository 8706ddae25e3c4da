"""NIfTI-1 and NIfTI-2 in one file (`.nii`, `.nii.gz`): keeps stored numbers and header, position to 1e-3 mm.

https://nifti.nimh.nih.gov/nifti-1 (nifti1.h): an affine maps the index (i, j, k) of a sample's centre to RAS+
coordinates in the header's unit. This package is in LPS millimetres, so two axes flip on the way in and out.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from monai_sr_bundle.errors import InputError, OutputError, quote
from monai_sr_bundle.images.geometry import UNKNOWN, Grid, ras_from_lps, spacing_xyz
from monai_sr_bundle.images.image import AIR_HU, Image, require_finite
from monai_sr_bundle.images.memory import require_memory
from monai_sr_bundle.images.provenance import Provenance
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
_GZIP = b"\x1f\x8b"
_GZIP_BEST_RATIO = 1032  # of deflate; a header that claims more than this lies about its size
_DESCRIP_LENGTH = 79

Header = nibabel.Nifti1Header | nibabel.Nifti2Header


@dataclass(frozen=True)
class NiftiHeader:
    """The header of a source as stored, and the affine (LPS mm) of its image, for `write_nifti`."""

    raw: Header
    affine: np.ndarray


def is_nifti(path: Path) -> bool:
    """Return whether the file begins with a NIfTI header, gzipped or not, of a single file or of a pair."""
    return _read_magic(path) is not None


def nifti_description(path: Path) -> str:
    """Return the text that `write_nifti` puts into `descrip`; empty if the header cannot be read."""
    try:
        with _open(path) as stream:
            start = stream.read(348)
    except (OSError, EOFError, zlib.error):
        return ""
    # NIfTI-1 has its 80 bytes at 148, NIfTI-2 at 240.
    offset = 148 if 348 in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")) else 240
    return start[offset : offset + 80].split(b"\0")[0].decode("ascii", "replace")


def read_nifti(path: Path) -> Image:
    """Read a grey NIfTI image or volume.

    Returns:
        pixels ``[k, j, i]`` in the stored type (a 64-bit float stays one); values are `slope * stored + intercept`.
        The modality is "CT" if there are values of `AIR_HU` or lower, else "unknown".

    Raises:
        InputError: damaged or truncated; half of a pair; more than three dimensions; colour or complex samples; NaN
            or infinite values.
    """
    magic = _read_magic(path)
    if magic == b"ni1\0" or magic == b"ni2\0":
        raise InputError(
            f"{path.name}: one half of a NIfTI pair (.hdr and .img), expected one file with header and image. "
            "Convert the pair to .nii, for example by loading it in Python with nibabel and saving it."
        )
    kind = nibabel.Nifti2Header if magic == b"n+2\0" else nibabel.Nifti1Header
    notes: list[str] = []
    try:
        with _open(path) as stream:
            raw = kind(stream.read(kind.template_dtype.itemsize), check=False)
            if stream.read(4)[:1] not in (b"", b"\0"):
                notes.append("Its header extensions may describe the source's grid and are not copied to the result.")
        pixels = _read_pixels(path, raw)
        slope, intercept = raw.get_slope_inter()
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, HeaderDataError, WrapStructError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path.name}: damaged or truncated NIfTI ({quote(error)}). Get the file again.") from error
    slope, intercept = (1.0, 0.0) if slope is None else (slope, intercept)
    affine, spacing_source, position_notes = _read_position(raw, len(pixels))
    is_integer = pixels.dtype.kind in "iu"
    lowest = min(slope * float(extreme) + intercept for extreme in (pixels.min(), pixels.max()))
    return Image(
        pixels=pixels,
        grid=Grid((pixels.shape[0], pixels.shape[1], pixels.shape[2]), affine, spacing_source),
        modality="CT" if lowest <= AIR_HU else "unknown",
        format="nifti",
        path=path,
        slope=slope,
        intercept=intercept,
        stored_range=(np.iinfo(pixels.dtype).min, np.iinfo(pixels.dtype).max) if is_integer else None,
        bits=8 * pixels.dtype.itemsize,
        header=NiftiHeader(raw, affine),
        notes=(*notes, *position_notes),
    )


def write_nifti(result: Image, provenance: Provenance, out: Path, meaning: str = "") -> None:
    """Write the result of an image from `read_nifti` with the same fields, byte order, codes and scaling.

    The sform and the qform are each transformed to the result's grid, so a file in which they differ (scanner and
    template space) keeps both. `descrip` gets the provenance.

    Args:
        result: `pixels` in any type NIfTI knows, `header` from `read_nifti`.
        provenance: record of the bundle and settings that made the result.
        out: file to write; `.nii.gz` is compressed, `.nii` is not.
        meaning: description of samples that are not the source's, whose scaling and display range are then dropped.

    Raises:
        OutputError: a grid or a type that the header cannot hold (NIfTI-1: 32,767 samples an axis).
    """
    header: Header = result.header.raw.copy()
    if meaning:
        header["scl_slope"], header["scl_inter"], header["cal_min"], header["cal_max"] = 1, 0, 0, 0
    slices, rows, columns = result.pixels.shape
    flat = slices == 1 and header["dim"][0] == 2
    _set_position(header, result)
    try:
        header.set_data_dtype(result.pixels.dtype)
        header.set_data_shape((columns, rows) if flat else (columns, rows, slices))
    except HeaderDataError as error:
        raise OutputError(
            f"{out.name}: a {columns} x {rows} x {slices} {result.pixels.dtype} image does not fit into this kind of "
            f"NIfTI ({error}). Enhance a region with --roi, or convert the source to NIfTI-2."
        ) from error
    if (result.slope, result.intercept) != (1.0, 0.0):
        header["scl_slope"], header["scl_inter"] = result.slope, result.intercept
    if slices != result.header.raw["dim"][3]:
        for field in ("slice_start", "slice_end", "slice_code", "slice_duration"):
            header[field] = 0
    sentence = f"{provenance.process} {provenance.factor}, {provenance.bundle} {provenance.version}. Not for diagnosis."
    sentence = f"{meaning}. {sentence}" if meaning else sentence
    header["descrip"] = sentence.encode("ascii", "replace")[:_DESCRIP_LENGTH]
    header["vox_offset"] = header.single_vox_offset
    stored_type = result.pixels.dtype.newbyteorder(header.endianness)
    with out.open("wb") as file:
        # The fixed time keeps equal results equal byte for byte.
        compressed = out.name.lower().endswith(".gz")
        stream = gzip.GzipFile("", "wb", compresslevel=3, fileobj=file, mtime=0) if compressed else file
        header.write_to(stream)
        for one_slice in result.pixels:
            stream.write(one_slice.astype(stored_type).tobytes())
        if stream is not file:
            stream.close()


def _open(path: Path) -> gzip.GzipFile | io.BufferedReader:
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
    return gzip.open(path, "rb") if compressed else path.open("rb")


def _read_magic(path: Path) -> bytes | None:
    try:
        with _open(path) as stream:
            start = stream.read(348)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return None
    header_size = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")}
    if 348 in header_size and start[344:348] in (b"n+1\0", b"ni1\0"):
        return start[344:348]
    if 540 in header_size and start[4:8] in (b"n+2\0", b"ni2\0"):
        return start[4:8]
    return None


def _read_pixels(path: Path, raw: Header) -> np.ndarray:
    ndim, shape = int(raw["dim"][0]), tuple(int(n) for n in raw["dim"][1:])
    if not 2 <= ndim <= 7 or min(shape[:ndim]) < 1:
        raise InputError(f"{path.name}: its size is {shape[: max(ndim, 0)]}, expected two or three numbers above 0.")
    if max(shape[3:ndim], default=1) > 1:
        raise InputError(
            f"{path.name}: {ndim} dimensions {shape[:ndim]}, expected one image or volume. "
            "Split it (for example `fslsplit`) and give the parts."
        )
    columns, rows, slices = shape[0], shape[1], shape[2] if ndim > 2 else 1
    stored_type = _read_stored_type(path, raw)
    offset = int(np.nan_to_num(raw["vox_offset"])) or raw.single_vox_offset
    needed = columns * rows * slices * stored_type.itemsize
    size = os.path.getsize(path)
    if offset < 0:
        raise InputError(f"{path.name}: its pixels begin at byte {offset}, before the file. Get the file again.")
    with _open(path) as stream:
        if offset + needed > (size * _GZIP_BEST_RATIO if isinstance(stream, gzip.GzipFile) else size):
            raise InputError(
                f"{path.name}: truncated NIfTI: {columns} x {rows} x {slices} {stored_type.name} samples "
                f"need {needed:,} bytes, and the whole file has {size:,}. Get the file again."
            )
        # The bytes, their copy in this machine's order, and what looks for values that are no numbers.
        require_memory(path.name, 3 * needed, f"its {columns} x {rows} x {slices} samples")
        stream.seek(offset)
        data = stream.read(needed)
        stream.read(1)  # to the end of the gzip stream, which checks its sum
    if len(data) < needed:
        raise InputError(f"{path.name}: truncated NIfTI: {len(data):,} of {needed:,} bytes. Get the file again.")
    pixels = np.frombuffer(data, stored_type).reshape(slices, rows, columns).astype(stored_type.newbyteorder("="))
    require_finite(pixels, path)
    return pixels


def _read_stored_type(path: Path, raw: Header) -> np.dtype:
    try:
        stored_type = raw.get_data_dtype()
    except (HeaderDataError, KeyError):
        stored_type = np.dtype("V1")
    if stored_type.kind not in "iuf" or stored_type.itemsize > 8:
        code = int(raw["datatype"])
        name = nibabel.nifti1.data_type_codes.niistring.get(code, "unknown")
        raise InputError(
            f"{path.name}: its samples have NIfTI datatype {code} ({name}), expected integers or floats of up to 64 "
            "bits. Convert it to a grey image."
        )
    return stored_type


def _read_position(raw: Header, slices: int) -> tuple[np.ndarray, str, list[str]]:
    """Return the affine in LPS mm, its origin in words, and notes for the user."""
    notes = []
    mm_per_unit = _MM_PER_UNIT.get(int(raw["xyzt_units"]) & 7)
    unit_remark = "" if mm_per_unit else ", unit not stated, millimetres assumed"
    forms = {"sform": _read_sform(raw, slices), "qform": _read_qform(raw, slices)}
    coded = {name: form for name, form in forms.items() if raw[f"{name}_code"] > 0}
    usable = {name: form for name, form in coded.items() if form is not None}
    broken = [name for name in coded if name not in usable]
    notes += [f"Its {name} is not a grid (zero, singular or not a number) and is not used." for name in broken]
    if not mm_per_unit and (usable or _read_pixdim(raw, slices) is not None):
        notes.append("It states no unit of length; millimetres are assumed, as most programs do.")
    if usable:
        name, ras = next(iter(usable.items()))
        if len(usable) == 2:
            distance_mm = _measure_distance(ras, usable["qform"], raw) * (mm_per_unit or 1.0)
            if distance_mm > 1e-3:
                notes.append(
                    f"Its sform and qform lie up to {distance_mm:.4g} mm apart; the sform is used, both are kept."
                )
        spacing_source = f"NIfTI {name}{unit_remark}"
    elif (spacing := _read_pixdim(raw, slices)) is not None:
        ras = nibabel.volumeutils.shape_zoom_affine(tuple(raw["dim"][1:4]), spacing, x_flip=True)
        spacing_source = f"NIfTI pixdim{unit_remark}"
        notes.append("It states no position or orientation (sform and qform code 0); only its spacing is kept.")
    else:
        return np.eye(4), UNKNOWN, notes
    ras = np.diag([mm_per_unit or 1.0] * 3 + [1.0]) @ ras
    return ras_from_lps(ras), spacing_source, notes


def _set_position(header: Header, result: Image) -> None:
    """Transform sform, qform and pixdim to the grid of the result."""
    # From an index of the result to an index of the source: it has no unit, so it fits any form of the header.
    to_source = np.linalg.inv(result.header.affine) @ result.grid.affine
    slices = int(result.header.raw["dim"][3]) if result.header.raw["dim"][0] > 2 else 1
    sform, qform = _read_sform(header, slices), _read_qform(header, slices)
    mm_per_unit = _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    spacing = np.array(spacing_xyz(result.grid.affine)) / mm_per_unit
    header["pixdim"][1:4] = spacing if result.grid.in_millimetres else 0.0
    codes = {name: int(header[name]) for name in ("qform_code", "sform_code")}
    header["qform_code"] = header["sform_code"] = 0
    if codes["qform_code"] > 0 and qform is not None:
        header.set_qform(qform @ to_source)
        header["qform_code"] = codes["qform_code"]
    if codes["sform_code"] > 0 and sform is not None:
        header.set_sform(sform @ to_source)
        header["sform_code"] = codes["sform_code"]


def _read_sform(raw: Header, slices: int) -> np.ndarray | None:
    affine = np.array(raw.get_sform(), dtype=np.float64)
    if slices == 1 and not np.nan_to_num(affine[:3, 2]).any():  # a flat image may lack the third axis that a grid needs
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1.0)
    return affine if _is_grid(affine) else None


def _read_qform(raw: Header, slices: int) -> np.ndarray | None:
    spacing = _read_pixdim(raw, slices)
    if spacing is None:
        return None
    with_spacing = raw.copy()
    # The handedness of the axes; a file that leaves it unset (0) means 1.
    with_spacing["pixdim"][:4] = -1 if raw["pixdim"][0] < 0 else 1, *spacing
    try:
        affine = np.array(with_spacing.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):  # a quaternion longer than 1
        return None
    return affine if _is_grid(affine) else None


def _read_pixdim(raw: Header, slices: int) -> np.ndarray | None:
    spacing = np.abs(raw["pixdim"][1:4]).astype(np.float64)
    if slices == 1:
        spacing[2] = spacing[2] or 1.0
    return spacing if np.isfinite(spacing).all() and (spacing > 0).all() else None


def _is_grid(affine: np.ndarray) -> bool:
    if not np.isfinite(affine).all() or min(spacing_xyz(affine)) <= 0:
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / spacing_xyz(affine))) > 1e-6)


def _measure_distance(one: np.ndarray, other: np.ndarray, raw: Header) -> float:
    """Return the largest distance between two affines over the corners of the image."""
    last = np.maximum(raw["dim"][1:4].astype(np.float64) - 1, 0)
    corners = np.array([[x, y, z, 1] for x in (0, last[0]) for y in (0, last[1]) for z in (0, last[2])])
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())
