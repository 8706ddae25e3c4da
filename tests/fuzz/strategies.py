"""Damaged and odd files.

Bytes of any file are replaced, inserted or cut off; values of DICOM, NIfTI, JSON, YAML and CSV are replaced by others
that are odd for a reader and valid for the format, inside of zips, too.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import nibabel
import numpy as np
import yaml
from hypothesis import strategies as st
from hypothesis.extra.numpy import from_dtype
from PIL.PngImagePlugin import putchunk
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.valuerep import STANDARD_VR

from tests.fuzz.seeds import Files, unzip_files, zip_files

NUMBERS = {"US": "<u2", "SS": "<i2", "UL": "<u4", "SL": "<i4", "FD": "<f8", "FL": "<f4"}
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
"""Of DICOM; elements that readers look at."""


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")


texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from([
        "", " ", "A1", "1\\2", "0", "-0", "-1", "1e400", "nan", "inf", "-inf", "1e-320", "007.812500e-01", "9" * 400,
        "\0", "é\u202e", "\ud800", "a\nb\x1b[31m", "../../x", "$os.system('x')", "@scale", "A" * 70_000,
        "ORIGINAL\\PRIMARY\\LOCALIZER",
    ]),
)  # fmt: skip
numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 1, 2, 255, 65535, 2**31, 2**63, 10**30, 1e-320, 1e308])
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)
"""Any value of JSON, and the infinities that Python's reader of it takes."""
odd_bytes = st.one_of(
    st.binary(max_size=16),
    texts.map(_encode),
    st.sampled_from([b"\0\0\0\0", b"\xff" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", struct.pack("<d", 1e300)]),
)


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Replace, insert or cut off bytes, as disks, transfers and attackers do."""
    # Headers decide more than pixels do.
    at = draw(st.one_of(st.integers(0, min(len(data), 600)), st.integers(0, len(data))))
    added = draw(odd_bytes)
    removed = draw(st.one_of(st.just(len(added)), st.integers(0, 64), st.just(len(data))))
    return data[:at] + added + data[at + removed :]


@st.composite
def changed_value(draw: st.DrawFn, value: Any) -> Any:
    """Replace, remove or repeat one value somewhere inside a value of JSON."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not keys or draw(st.integers(0, 5)) == 0:
        return draw(json_values)
    key, changed = draw(st.sampled_from(keys)), value.copy()
    action = draw(st.sampled_from(("change", "change", "change", "remove", "repeat")))
    if action == "change":
        changed[key] = draw(changed_value(value[key]))
    elif action == "remove":
        del changed[key]
    elif isinstance(value, dict):
        changed[draw(texts)] = value[key]
    else:
        changed.append(value[key])
    return changed


@st.composite
def changed_json(draw: st.DrawFn, data: bytes) -> bytes:
    text = json.dumps(draw(changed_value(json.loads(data)))).encode()
    return draw(st.sampled_from([text] * 30 + [b"[" * 100_000 + b"]" * 100_000]))


@st.composite
def changed_yaml(draw: st.DrawFn, data: bytes) -> bytes:
    return _encode(yaml.safe_dump(draw(changed_value(yaml.safe_load(data)))))


@st.composite
def changed_csv(draw: st.DrawFn, data: bytes) -> bytes:
    """Replace a cell of a table."""
    parts = re.split(b"([,\n])", data)
    parts[draw(st.integers(0, len(parts) // 2)) * 2] = _encode(str(draw(json_values)))
    return b"".join(parts)


@st.composite
def dicom_values(draw: st.DrawFn, representation: str) -> bytes:
    """Return bytes that are right for a value representation, or those of a text."""
    if representation in NUMBERS:
        number = st.one_of(from_dtype(np.dtype(NUMBERS[representation])), st.integers(0, 32))
        return np.array(draw(st.lists(number, max_size=3))).astype(NUMBERS[representation]).tobytes()
    return _encode("\\".join(draw(st.lists(st.one_of(texts, numbers.map(str)), max_size=4))))


@st.composite
def changed_dicom(draw: st.DrawFn, data: bytes) -> bytes:
    """Replace, remove or retype an element, and write the file as it would be written."""
    dataset = dcmread(io.BytesIO(data), force=True)
    items = [item for element in dataset.iterall() if element.VR == "SQ" for item in element.value]
    holders = [dataset, *(item for item in items if len(item))]
    holder = holders[draw(st.one_of(st.just(0), st.integers(0, len(holders) - 1)))]
    tag = Tag(draw(st.one_of(st.sampled_from(KEYWORDS), st.sampled_from(list(holder.keys())))))
    action = draw(st.sampled_from(("change", "change", "change", "retype", "remove")))
    if action == "remove":
        holder._dict.pop(tag, None)
    else:
        kind = holder[tag].VR if tag in holder and action == "change" else draw(st.sampled_from(sorted(STANDARD_VR)))
        value = draw(st.one_of(dicom_values(kind), dicom_values(kind), odd_bytes))[: 2**16 - 2]
        implicit, little = dataset.original_encoding
        value += b" " * (len(value) % 2)
        holder._dict[tag] = RawDataElement(tag, kind, len(value), value, 0, bool(implicit), bool(little))
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        dataset.save_as(buffer, enforce_file_format=False)
    return buffer.getvalue()


@st.composite
def changed_nifti(draw: st.DrawFn, data: bytes) -> bytes:
    """Replace a field of a NIfTI header."""
    compressed = data[:2] == b"\x1f\x8b"
    raw = bytearray(gzip.decompress(data) if compressed else data)
    header = nibabel.Nifti1Header if struct.unpack("<i", raw[:4])[0] == 348 else nibabel.Nifti2Header
    fields = header.template_dtype.fields
    pixels = ("dim", "pixdim", "datatype", "vox_offset", "scl_slope", "scl_inter")
    dtype, offset = fields[draw(st.one_of(st.sampled_from(pixels), st.sampled_from(list(fields))))][:2]
    position = offset + dtype.base.itemsize * draw(st.integers(0, dtype.itemsize // dtype.base.itemsize - 1))
    value = draw(st.one_of(from_dtype(dtype.base), st.integers(0, 20)))
    raw[position : position + dtype.base.itemsize] = np.array(value).astype(dtype.base).tobytes()
    return gzip.compress(bytes(raw), mtime=0) if compressed else bytes(raw)


@st.composite
def changed_png(draw: st.DrawFn, data: bytes) -> bytes:
    """Damage a chunk of a PNG and mend its check sum."""
    chunks, position = [], 8
    while position < len(data):
        size = int.from_bytes(data[position : position + 4])
        chunks.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + size]))
        position += size + 12
    index = draw(st.integers(0, len(chunks) - 1))
    chunks[index] = chunks[index][0], draw(damaged_bytes(chunks[index][1]))
    buffer = io.BytesIO()
    buffer.write(data[:8])
    for name, body in chunks:
        putchunk(buffer, name, body)
    return buffer.getvalue()


@st.composite
def changed_zip(draw: st.DrawFn, data: bytes) -> bytes:
    """Change a file of a zip, leave it out, or give it another name."""
    members = unzip_files(data)
    name = draw(st.sampled_from(list(members)))
    content = members.pop(name)
    action = draw(st.sampled_from(("change", "change", "change", "remove", "rename")))
    if action == "change":
        members[name] = draw(changed_file(name, content))
    elif action == "rename":
        members[draw(st.one_of(texts, st.sampled_from(["x.zip", f"a/{name}"])))[:60_000]] = content
    return zip_files(members, draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))


CHANGES: dict[str, Callable[[bytes], st.SearchStrategy[bytes]]] = {
    "dcm": changed_dicom, "nii": changed_nifti, "gz": changed_nifti, "png": changed_png, "json": changed_json,
    "yaml": changed_yaml, "csv": changed_csv, "zip": changed_zip,
}  # fmt: skip


@st.composite
def changed_file(draw: st.DrawFn, name: str, data: bytes) -> bytes:
    """Change a value of a file, or else its bytes."""
    change = CHANGES.get(name.rpartition(".")[2])
    if change is not None and draw(st.integers(0, 2)):
        try:
            return draw(change(data))
        except Exception:  # damaged by the change before, or a value that its library does not write
            pass
    return draw(damaged_bytes(data))


@st.composite
def cases(draw: st.DrawFn, seeds: tuple[Files, ...]) -> Files:
    """Return valid files with one to four changes."""
    files = dict(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 2, 3, 4)))):
        name = draw(st.sampled_from(sorted(files)))
        files[name] = draw(changed_file(name, files[name]))
    return files
