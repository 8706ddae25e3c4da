"""Zips of DICOM files: unpack one into its images, and pack one."""

from __future__ import annotations

import logging
import lzma
import re
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from monai_sr_bundle.errors import InputError, OutputError, SuperResolutionError, quote
from monai_sr_bundle.images.dicom_file import PARSE_ERRORS, is_dicom, series_ending
from monai_sr_bundle.images.staging import NO_ROOM

logger = logging.getLogger(__name__)

ZIP_ERRORS = (
    zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, IndexError, OverflowError, struct.error,
    zlib.error, lzma.LZMAError,
)  # fmt: skip
"""Exceptions of Python's reader of zips for damaged ones."""
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
MAX_UNZIPPED_BYTES = 8 * 1024**3
MAX_ZIPPED_FILES = 50_000


def unpack(path: Path, folder: Path) -> None:
    """Unpack the members of a zip into one folder, numbered, with safe names that cannot lead to another folder.

    Raises:
        InputError: it is damaged, encrypted or too large.
        OutputError: no room for unpacking.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _unpack_members(path, archive, folder)
    except (*ZIP_ERRORS, *PARSE_ERRORS) as error:
        if isinstance(error, SuperResolutionError):
            raise
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise OutputError(
                f"{path.name}: unpacking does not fit into {folder.parent} ({error.strerror}). Make room, or set "
                "TMPDIR to another disk."
            ) from error
        raise InputError(f"{path.name}: damaged zip ({quote(error)}). Get the file again.") from error


def unpack_series(
    path: Path, folder: Path, series_of: Callable[[Path], str]
) -> tuple[dict[str, tuple[Path, ...]], tuple[str, ...]]:
    """Unpack the DICOM files of a zip, see `unpack`, and group them.

    Other files are left out with one warning.

    Args:
        path: zip.
        folder: empty folder for its files.
        series_of: gives the key that the DICOM files of one image share; empty for what is no image.

    Returns:
        The files of each image, by the name of a zip for this image alone; and a note about files that may be damaged
        slices, because they are empty, cut off, or named like DICOM and are none.
    """
    unpack(path, folder)
    series: dict[str, list[Path]] = {}
    others: list[str] = []
    damaged: list[str] = []
    for file in sorted(folder.iterdir()):
        key = series_of(file) if is_dicom(file) else ""
        name = file.name.partition("_")[2]
        if key:
            series.setdefault(key, []).append(file)
            if key == str(file):  # names no series
                damaged.append(name)
            continue
        others.append(name)
        if not file.stat().st_size or (name.lower().endswith(_DICOM_SUFFIXES) and not is_dicom(file)):
            damaged.append(name)
        file.unlink()
    if others:
        first_names = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        logger.warning("%s: %d file(s) are no DICOM images, and are left out: %s", path, len(others), first_names)
    stem = path.name.removesuffix(path.suffix)
    # A key may hold the path of a file, in a folder that has another name every time.
    endings = [series_ending(key.replace(str(folder), "")) if len(series) > 1 else "" for key in series]
    names = [f"{stem}{ending}.zip" for ending in endings]
    names_of_damaged = quote(", ".join(damaged))
    note = f"Slices may be missing: files in the zip are damaged or name no series: {names_of_damaged}."
    return {name: tuple(files) for name, files in zip(names, series.values(), strict=True)}, (note,) if damaged else ()


def pack(write_files: Callable[[Path], None], out: Path) -> None:
    """Write a zip.

    Args:
        write_files: makes a folder, at the path it is given, with the files of the zip.
        out: zip to write.
    """
    with tempfile.TemporaryDirectory(dir=out.parent) as parent:
        folder = Path(parent, "series")
        write_files(folder)
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, file.name)


def _unpack_members(path: Path, archive: zipfile.ZipFile, folder: Path) -> None:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if any(member.flag_bits & 1 for member in members):
        raise InputError(f"{path.name}: encrypted zip. Unpack it with its password first.")
    size = sum(member.file_size for member in members)
    if size > MAX_UNZIPPED_BYTES or len(members) > MAX_ZIPPED_FILES:
        raise InputError(
            f"{path.name}: unpacks to {len(members):,} files of {size:,} bytes, expected at most {MAX_ZIPPED_FILES:,} "
            f"and {MAX_UNZIPPED_BYTES:,}. Unpack it yourself and give the folder."
        )
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OutputError(
            f"{path.name}: unpacking needs {size:,} bytes and {folder.parent} has {free:,} free. "
            "Make room, or set TMPDIR to another disk."
        )
    for number, member in enumerate(members):
        # zipfile stops at the size the directory states, so a member cannot grow beyond what was added up here.
        name = f"{number:06d}_{re.sub('[^A-Za-z0-9._-]', '_', PurePosixPath(member.filename).name)[-100:]}"
        with archive.open(member) as packed, (folder / name).open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 1024 * 1024)
