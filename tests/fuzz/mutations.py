"""Damage and odd values, drawn from a random generator, so that a case is repeated by its seed.

Bytes of any file are flipped, cut off, repeated or replaced; values of DICOM, NIfTI, JSON, YAML and CSV are replaced by
others that are odd for a reader and valid for the format, inside of zips, too.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import nibabel
import numpy as np
import yaml
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from tests.fuzz.seeds import Files

LONG = "A" * 70_000
TEXTS: tuple[Any, ...] = (
    "", " ", "A1", "1\\2", "0", "-1", "1e400", "nan", "inf", "-inf", "1e-320", "007.812500e-01", "1e308", "9" * 40,
    "\0", "é\u202e", "a\nb\x1b[31m", "../../x", "$os.system('x')", "@scale", "ORIGINAL\\PRIMARY\\LOCALIZER", LONG,
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (0, -1, 1, 2, 255, 65535, 2**31, 2**63, -(2**63), 10**30, 0.5, 1e-320, 1e308)
ODD: tuple[Any, ...] = (
    *TEXTS, *NUMBERS, None, True, False, [], {}, [None], [1, 2, 3], {"a": 1}, [[]] * 3, float("nan"), float("inf"),
)  # fmt: skip
REPRESENTATIONS = (
    "AE", "AS", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB", "OF", "OW", "PN", "SH", "SL", "SQ", "SS",
    "ST", "TM", "UC", "UI", "UL", "UN", "US", "UT", "UR", "OU",
)  # fmt: skip
_LONG_REPRESENTATIONS = frozenset({"OB", "OF", "OW", "SQ", "UC", "UN", "UT", "UR", "OU"})
KEYWORDS = (
    "SeriesNumber", "Rows", "Columns", "HighBit", "BitsStored", "BitsAllocated", "SamplesPerPixel", "NumberOfFrames",
    "PixelRepresentation", "PhotometricInterpretation", "PixelSpacing", "ImagerPixelSpacing", "RescaleSlope",
    "RescaleIntercept", "ImageType", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth", "SOPClassUID", "SOPInstanceUID",
    "SeriesInstanceUID", "Modality", "BodyPartExamined", "InstanceNumber", "PixelAspectRatio", "SeriesDescription",
    "DerivationDescription", "TimezoneOffsetFromUTC", "ShutterLeftVerticalEdge", "CenterOfCircularShutter",
    "VerticesOfThePolygonalShutter", "RadiusOfCircularShutter", "LossyImageCompression", "SpecificCharacterSet",
    "ContributingEquipmentSequence", "PixelData", "SmallestImagePixelValue",
)  # fmt: skip


def mutate(files: Files, random: Random) -> Files:
    """Return the files of a case with one to four mutations."""
    changed = dict(files)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        name = random.choice(sorted(changed))
        changed[name] = _mutate_file(name, changed[name], random)
    return changed


def _mutate_file(name: str, data: bytes, random: Random) -> bytes:
    structured = _STRUCTURED.get(name.rsplit(".", 1)[-1])
    if structured is not None and random.random() < 0.6:
        try:
            return structured(data, random)
        except Exception:  # a case that was damaged before has no values left to replace
            pass
    return mutate_bytes(data, random)


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """Damage bytes as disks, transfers and attackers do."""
    if not data:
        return random.randbytes(random.randint(1, 64))
    # Headers decide more than pixels do.
    at = random.randrange(len(data) if random.random() < 0.4 else min(len(data), 600))
    kind = random.randrange(9)
    damaged = bytearray(data)
    if kind == 0:
        for _ in range(random.randint(1, 8)):
            damaged[(at + random.randrange(64)) % len(data)] ^= 1 << random.randrange(8)
    elif kind == 1:
        damaged[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
    elif kind == 2:
        del damaged[random.choice((at, len(data) - random.randint(1, min(48, len(data))))) :]
    elif kind == 3:
        del damaged[at : at + random.randint(1, 32)]
    elif kind == 4:
        damaged[at:at] = damaged[at : at + random.randint(1, 64)]
    elif kind == 5:
        damaged[at:at] = random.randbytes(random.randint(1, 16))
    elif kind == 6:
        form = random.choice(("<H", ">H", "<I", ">I", "<Q", ">Q", "<f", "<d"))
        top = 1 << (8 * struct.calcsize(form))
        value = random.choice((1e300, -0.0)) if form == "<d" else random.choice((1e38, -1.0))
        number: Any = value if form[1] in "fd" else random.choice((0, 1, 2, top - 1, top // 2, top // 2 - 1))
        damaged[at : at + struct.calcsize(form)] = struct.pack(form, number)
    elif kind == 7:
        other = random.randrange(len(data))
        size = random.randint(1, 64)
        damaged[at : at + size] = data[other : other + size]
    else:
        damaged[at : at + random.randint(0, 8)] = str(random.choice(TEXTS)).encode("utf-8", "replace")
    return bytes(damaged)


def mutate_dicom(data: bytes, random: Random) -> bytes:
    """Replace, remove or retype an element, and write the file as it would be written."""
    dataset = dcmread(io.BytesIO(data), force=True)
    holder: Dataset = dataset
    while random.random() < 0.5:  # into a sequence, if there is one
        sequences = [element for element in holder if element.VR == "SQ" and element.value]
        if not sequences:
            break
        holder = random.choice(list(random.choice(sequences).value))
    at_top = holder is dataset and random.random() < 0.6
    tag = BaseTag(tag_for_keyword(random.choice(KEYWORDS)) or 0) if at_top else random.choice(list(holder.keys()))
    implicit, little = dataset.original_encoding
    action = random.randrange(8)
    if action == 0:
        holder._dict.pop(tag, None)
    else:
        representation = holder[tag].VR if tag in holder and action < 6 else random.choice(REPRESENTATIONS)
        value = _dicom_value(representation if action < 4 else "", random, ">" if little is False else "<")
        if representation not in _LONG_REPRESENTATIONS:
            value = value[: 2**16 - 2]
        value += b" " * (len(value) % 2)
        length, offset = len(value), 0
        holder._dict[tag] = RawDataElement(tag, representation, length, value, offset, bool(implicit), bool(little))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(buffer, enforce_file_format=False)
    return buffer.getvalue()


def _dicom_value(representation: str, random: Random, order: str) -> bytes:
    form = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FD": "d", "FL": "f"}.get(representation)
    if form:
        count = random.choice((0, 1, 1, 1, 2, 3))
        low, high = {"H": (0, 2**16 - 1), "h": (-(2**15), 2**15 - 1), "I": (0, 2**32 - 1)}.get(
            form, (-(2**31), 2**31 - 1)
        )
        values: list[Any] = [random.choice((0, 1, 7, 8, 11, 12, 15, 16, 17, 32, low, high)) for _ in range(count)]
        if form in "df":
            values = [random.choice((0.0, -1.0, 1e30, float("nan"), float("inf"), 1e-40)) for _ in range(count)]
        return struct.pack(f"{order}{count}{form}", *values)
    if not representation and random.random() < 0.5:
        return random.randbytes(random.choice((1, 2, 3, 4, 8, 100)))
    return "\\".join(str(random.choice(TEXTS)) for _ in range(random.choice((1, 1, 2, 3, 6)))).encode(
        "utf-8", "replace"
    )


def mutate_nifti(data: bytes, random: Random) -> bytes:
    """Replace a field of a NIfTI header."""
    compressed = data[:2] == b"\x1f\x8b"
    raw = bytearray(gzip.decompress(data) if compressed else data)
    kind = nibabel.Nifti1Header if struct.unpack("<i", raw[:4])[0] == 348 else nibabel.Nifti2Header
    fields = kind.template_dtype.fields
    name = random.choice(("dim", "pixdim", "datatype", "vox_offset", "scl_slope", "scl_inter", *fields))
    dtype, offset = fields[name][:2]
    base, size = dtype.base, dtype.base.itemsize
    position = offset + size * random.randrange(max(1, dtype.itemsize // size))
    if base.kind in "iu":
        limits = np.iinfo(base)
        number = random.choice((0, 1, 2, 3, 4, 5, 16, 64, 128, 512, 2047, 32767, limits.min, limits.max))
        value = np.array(min(number, limits.max), base).tobytes()
    elif base.kind == "f":
        with np.errstate(over="ignore"):
            value = np.array(random.choice((0, -1, 1e-40, 1e30, 1e300, np.nan, np.inf, 352, 1e9)), base).tobytes()
    else:
        value = random.randbytes(size)
    raw[position : position + size] = value
    return gzip.compress(bytes(raw), mtime=0) if compressed else bytes(raw)


def mutate_png(data: bytes, random: Random) -> bytes:
    """Change a chunk of a PNG and mend its check sum."""
    chunks, position = [], 8
    while position + 12 <= len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        chunks.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    index = random.randrange(len(chunks))
    name, body = chunks[index]
    chunks[index] = (name, mutate_bytes(body, random)) if random.random() < 0.8 else random.choice(chunks)
    parts = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return data[:8] + b"".join(parts)


def mutate_json(data: bytes, random: Random) -> bytes:
    """Replace, remove or add a value of a JSON document."""
    if random.random() < 0.03:
        return b"[" * 100_000 + b"]" * 100_000
    return json.dumps(mutate_value(json.loads(data), random)).encode()


def mutate_yaml(data: bytes, random: Random) -> bytes:
    """Replace, remove or add a value of a YAML document."""
    return yaml.safe_dump(mutate_value(yaml.safe_load(data), random)).encode("utf-8", "replace")


def mutate_value(value: Any, random: Random) -> Any:
    """Return a value of JSON with one change somewhere inside."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(sorted(value, key=str))
        action = random.random()
        if action < 0.12:
            return {name: entry for name, entry in value.items() if name != key}
        if action < 0.18:
            return {**value, str(random.choice(TEXTS)): random.choice(ODD)}
        return {**value, key: mutate_value(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.8:
        index = random.randrange(len(value))
        action = random.random()
        if action < 0.1:
            return value[:index] + value[index + 1 :]
        if action < 0.2:
            return [*value, value[index]]
        return [*value[:index], mutate_value(value[index], random), *value[index + 1 :]]
    return random.choice(ODD)


def mutate_csv(data: bytes, random: Random) -> bytes:
    """Replace a cell of a table."""
    lines = [line.split(",") for line in data.decode().split("\n")]
    line = random.choice(lines)
    line[random.randrange(len(line))] = str(random.choice(ODD))
    return "\n".join(",".join(line) for line in lines).encode("utf-8", "replace")


def mutate_zip(data: bytes, random: Random) -> bytes:
    """Mutate a file of a zip, leave it out, or give it another name, with the check sums of what it holds now."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    index = random.randrange(len(members))
    name, content = members[index]
    action = random.random()
    if action < 0.1:
        del members[index]
    elif action < 0.25:
        members[index] = str(random.choice((*TEXTS[:-1], "x.zip", members[0][0], "a/" + name))), content
    else:
        members[index] = name, _mutate_file(name, content, random)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


_STRUCTURED: dict[str, Callable[[bytes, Random], bytes]] = {
    "dcm": mutate_dicom, "nii": mutate_nifti, "gz": mutate_nifti, "png": mutate_png, "json": mutate_json,
    "yaml": mutate_yaml, "csv": mutate_csv, "zip": mutate_zip,
}  # fmt: skip
