"""Readings of images, with the boxes they hold, and the one JSON form of both.

A reading is what one reader says about one image: boxes, or explicitly no finding. `SCHEMA` describes the JSON (the
package ships it as boxes.schema.json); `parse_readings` reads and checks it, `format_readings` writes it.

Only the standard library is imported, and `box` relatively: the Slicer extension ships both files without the package,
and a server uses them without numpy.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .box import LONGEST_TEXT, Box, BoxError, Figures, FindingCode, check_edges

VERSION = "sr-boxes/1"
"""Value of `schema` in the JSON. A change that older programs cannot read gets a new number."""


@dataclass(frozen=True)
class ImageIdentity:
    """The source image that was read.

    Attributes:
        id: name of its file or folder, its DICOM Series Instance UID, or its name on a server.
        sha256: SHA-256 of the file; of several files, SHA-256 of their sorted SHA-256s, one a line. Empty if unknown.
        study_instance_uid, series_instance_uid: DICOM UIDs; empty where there are none.
        columns, rows, slices: size of the source image in pixels; None where unknown.
    """

    id: str
    sha256: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    columns: int | None = None
    rows: int | None = None
    slices: int | None = None


@dataclass(frozen=True)
class Reader:
    """The person or program that drew the boxes: a name or pseudonym, and a role such as "radiologist"."""

    id: str
    role: str = ""


@dataclass(frozen=True)
class Tool:
    """The program that the boxes were drawn or converted with."""

    name: str
    version: str = ""


@dataclass(frozen=True)
class Reading:
    """A statement by one reader about one image.

    Attributes:
        image: the source image.
        reader: who read it.
        boxes: the findings; their `reader` is that of the reading.
        status: "draft" or "submitted".
        no_finding: the reader states that there is nothing to mark. False says nothing.
        saw_enhanced: whether the reader saw the enhanced image; None where unknown.
        created: date and time by RFC 3339, for example "2026-11-23T08:30:00Z"; empty where unknown.
        tool: the program; None where unknown.
    """

    image: ImageIdentity
    reader: Reader
    boxes: tuple[Box, ...] = ()
    status: str = "draft"
    no_finding: bool = False
    saw_enhanced: bool | None = None
    created: str = ""
    tool: Tool | None = None


def _text(expected: str, pattern: str, **keywords: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, "description": expected, **keywords}


def _object(expected: str, required: Sequence[str], properties: dict[str, Any], **keywords: Any) -> dict[str, Any]:
    fields = {"required": list(required), "properties": properties, "additionalProperties": False}
    return {"type": "object", "description": expected, **fields, **keywords}


_LINE = r"^(\S([^\x00-\x1f\x7f]*\S)?)?$"
_WORDS = {"maxLength": LONGEST_TEXT}
_SIZE = {"type": "integer", "minimum": 1, "maximum": 1e9, "description": "a whole number of pixels above 0"}
_UID = _text("a DICOM UID, for example 2.25.1234", r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+$", maxLength=64)
_NUMBER = {"type": "number", "minimum": -1e9, "maximum": 1e9, "description": "a number between -1e9 and 1e9"}
_DEVIATION = {**_NUMBER, "minimum": 0, "description": "a number from 0"}
_FIGURES = _object(
    "the numbers mean and standard_deviation", ("mean", "standard_deviation"),
    {"mean": _NUMBER, "standard_deviation": _DEVIATION},
)  # fmt: skip
_CODE = _object(
    "a code: value, scheme and meaning", ("value", "scheme", "meaning"),
    {
        "value": _text("1 to 64 characters", r"^\S([^\x00-\x1f\x7f]*\S)?$", **_WORDS),
        "scheme": _text("a DICOM coding scheme: SCT (SNOMED CT), RADLEX, DCM, ...", r"^[A-Z0-9_]{1,16}$"),
        "meaning": _text("1 to 64 characters", r"^\S([^\x00-\x1f\x7f]*\S)?$", **_WORDS),
    },
)  # fmt: skip
_BOX = _object(
    "a box: finding, xyxy, ...", ("finding", "xyxy"),
    {
        "finding": _text("a name of at most 64 characters, or nothing where it is not named", _LINE, **_WORDS),
        "codes": {"type": "array", "items": _CODE, "description": "a list of codes of the finding"},
        "xyxy": {
            "type": "array", "minItems": 4, "maxItems": 4, "items": _NUMBER,
            "description": "four numbers x_min, y_min, x_max, y_max: edges in pixels of the source, upper excluded",
        },
        "slice_index": {"type": "integer", "minimum": 0, "maximum": 1e9, "description": "a whole number from 0"},
        "sop_instance_uid": _UID,
        "tracking_uid": _UID,
        "certainty": {
            "type": "number", "minimum": 0, "maximum": 1, "description": "a number from 0 (guess) to 1 (sure)",
        },
        "before": _FIGURES,
        "after": _FIGURES,
    },
)  # fmt: skip
_READING = _object(
    "a reading: image, reader, status, boxes, ...", ("image", "reader", "status", "boxes"),
    {
        "image": _object("the identity of the image: id, ...", ("id",), {
            "id": _text("the name of the image, of 1 to 256 characters", r"^\S([^\x00-\x1f\x7f]*\S)?$", maxLength=256),
            "sha256": _text("a SHA-256 of 64 hexadecimal digits in lower case", r"^[0-9a-f]{64}$"),
            "study_instance_uid": _UID,
            "series_instance_uid": _UID,
            "columns": _SIZE,
            "rows": _SIZE,
            "slices": {**_SIZE, "description": "a whole number of slices above 0"},
        }),
        "reader": _object("the reader: id and perhaps role", ("id",), {
            # The value of a field that is writeOnly may name a person, and is not quoted in messages.
            "id": _text("a name of at most 64 characters, or nothing if unknown", _LINE, writeOnly=True, **_WORDS),
            "role": _text("a role of at most 64 characters, for example radiologist", _LINE, **_WORDS),
        }),
        "status": {"enum": ["draft", "submitted"], "description": "draft or submitted"},
        "created": _text(
            "a date and time with its zone, for example 2026-11-23T08:30:00Z",
            r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$",
        ),
        "saw_enhanced": {"type": "boolean", "description": "true or false: whether the enhanced image was seen"},
        "no_finding": {"type": "boolean", "description": "true or false: whether the reader found nothing"},
        "tool": _object("the program: name and perhaps version", ("name",), {
            "name": _text("a name of 1 to 64 characters", r"^\S([^\x00-\x1f\x7f]*\S)?$", **_WORDS),
            "version": _text("a version of at most 64 characters", _LINE, **_WORDS),
        }),
        "boxes": {"type": "array", "items": _BOX, "description": "a list of boxes"},
    },
    allOf=[
        {
            "description": "no boxes where no_finding is true",
            "if": {"required": ["no_finding"], "properties": {"no_finding": {"enum": [True]}}},
            "then": {"properties": {"boxes": {"maxItems": 0}}},
        },
        {
            "description": "boxes, or no_finding true, in a submitted reading",
            "if": {"properties": {"status": {"enum": ["submitted"]}, "boxes": {"maxItems": 0}}},
            "then": {"required": ["no_finding"], "properties": {"no_finding": {"enum": [True]}}},
        },
    ],
)  # fmt: skip
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": f"urn:{VERSION}",
    "title": "Readings of medical images: boxes around findings, in pixels of the source image",
    **_object(
        'an object {"schema": "' + VERSION + '", "readings": [...]}', ("schema", "readings"),
        {
            "schema": {"enum": [VERSION], "description": f'"{VERSION}"'},
            "readings": {"type": "array", "items": _READING, "description": "a list of readings"},
        },
    ),
}  # fmt: skip
"""JSON Schema (draft 2020-12) of a document. The descriptions complete the sentence "... is X, expected DESCRIPTION".

Two rules cannot be written there, and `parse_readings` checks them too: each lower edge lies below the upper one, and
edges and slices lie inside the image where its size is given.
"""


def check_document(document: object) -> None:
    """Check a document against `SCHEMA`.

    Raises:
        BoxError: the first field that breaks a rule.
    """
    if isinstance(document, dict) and "schema" not in document and "boxes" in document:
        raise BoxError(
            'it is a list of boxes as version 0.1.0 wrote it, expected "schema": '
            f'"{VERSION}". Write it again: read the report with `monai-sr boxes from-dicom`, or pass the boxes as CSV.'
        )
    problem = _find_problem(document, SCHEMA, "")
    if problem:
        raise BoxError(problem)


def parse_readings(text: str) -> list[Reading]:
    """Read a JSON document and check it.

    Args:
        text: the document.

    Returns:
        Its readings; the boxes of each have its reader.

    Raises:
        BoxError: no JSON, or a document that breaks a rule.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BoxError(f"it is no JSON ({error}). Copy the file again.") from error
    check_document(document)
    readings = [_to_reading(entry) for entry in document["readings"]]
    for number, reading in enumerate(readings):
        for index, box in enumerate(reading.boxes):
            field, slices = f"readings[{number}].boxes[{index}]", reading.image.slices
            try:
                check_edges(box, reading.image.columns, reading.image.rows)
            except BoxError as error:
                raise BoxError(f"{field}.xyxy: {error}") from error
            if box.slice_index is not None and slices is not None and box.slice_index >= slices:
                raise BoxError(
                    f"{field}.slice_index is {box.slice_index}, expected less than {slices}, the slices of the image."
                )
    return readings


def format_readings(readings: Sequence[Reading]) -> str:
    """Write readings as a JSON document; edges to a thousandth of a pixel, empty fields left out.

    Raises:
        BoxError: a reading that breaks a rule.
    """
    document = {"schema": VERSION, "readings": [_from_reading(reading) for reading in readings]}
    check_document(document)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def box_to_dict(box: Box) -> dict[str, Any]:
    """Return a box as it stands in a document; its reader stands in the reading."""
    entry = {
        "finding": box.finding,
        "codes": [vars(code) for code in box.codes],
        "xyxy": [round(float(edge), 3) for edge in box.xyxy],
        "slice_index": box.slice_index,
        "sop_instance_uid": box.sop_instance_uid,
        "tracking_uid": box.tracking_uid,
        "certainty": None if box.certainty is None else round(box.certainty, 6),
        "before": vars(box.before) if box.before else None,
        "after": vars(box.after) if box.after else None,
    }
    return {"finding": box.finding, **_filled(entry)}


def box_from_dict(entry: dict[str, Any], reader: str = "") -> Box:
    """Return a box from its checked entry in a document."""
    values = {name: value for name, value in entry.items() if name not in ("xyxy", "codes", "before", "after")}
    if "slice_index" in values:
        values["slice_index"] = int(values["slice_index"])
    x_min, y_min, x_max, y_max = (float(edge) for edge in entry["xyxy"])
    return Box(
        x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max, reader=reader,
        codes=tuple(FindingCode(**code) for code in entry.get("codes", ())),
        before=Figures(**entry["before"]) if "before" in entry else None,
        after=Figures(**entry["after"]) if "after" in entry else None,
        **values,
    )  # fmt: skip


def _to_reading(entry: dict[str, Any]) -> Reading:
    reader = Reader(**entry["reader"])
    parts = {
        "image": ImageIdentity(**entry["image"]),
        "reader": reader,
        "boxes": tuple(box_from_dict(box, reader.id) for box in entry["boxes"]),
        "tool": Tool(**entry["tool"]) if "tool" in entry else None,
    }
    return Reading(**{**entry, **parts})


def _from_reading(reading: Reading) -> dict[str, Any]:
    return {
        "image": {"id": reading.image.id, **_filled(vars(reading.image))},
        "reader": {"id": reading.reader.id, **_filled(vars(reading.reader))},
        "status": reading.status,
        **_filled({"created": reading.created, "saw_enhanced": reading.saw_enhanced}),
        "no_finding": reading.no_finding,
        **({"tool": _filled(vars(reading.tool))} if reading.tool else {}),
        "boxes": [box_to_dict(box) for box in reading.boxes],
    }


def _filled(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if value is not None and value != "" and value != []}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "number": (int, float),
    "integer": (int, float),
}  # fmt: skip


def _find_problem(value: Any, schema: dict[str, Any], field: str) -> str:
    """Return a sentence on the first rule of a schema that a value breaks, or nothing; for the keywords of `SCHEMA`."""
    if not _has_type(value, schema) or not _has_value(value, schema):
        quoted = "not as it should be" if schema.get("writeOnly") else _quote(value)
        return f"{field or 'the document'} is {quoted}, expected {schema.get('description', 'something else')}."
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                expected = properties.get(name, {}).get("description", "it")
                return f"{field or 'the document'} has no {name}, expected {expected}."
        for name, entry in value.items():
            if name not in properties:
                if schema.get("additionalProperties", True):
                    continue
                fields = ", ".join(properties)
                return f"{field or 'the document'} has the unknown field {_quote(name)}, expected one of {fields}."
            problem = _find_problem(entry, properties[name], f"{field}.{name}" if field else name)
            if problem:
                return problem
        for rule in schema.get("allOf", ()):
            if not _find_problem(value, rule["if"], field) and _find_problem(value, rule["then"], field):
                return f"{field} contradicts itself, expected {rule['description']}."
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            problem = _find_problem(entry, schema.get("items", {}), f"{field}[{index}]")
            if problem:
                return problem
    return ""


def _has_type(value: Any, schema: dict[str, Any]) -> bool:
    kind: str | None = schema.get("type")
    if kind is None:
        return True
    if isinstance(value, bool) and kind != "boolean":
        return False
    if not isinstance(value, _TYPES[kind]):
        return False
    return kind != "integer" or isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _has_value(value: Any, schema: dict[str, Any]) -> bool:
    if "enum" in schema and not any(type(value) is type(one) and value == one for one in schema["enum"]):
        return False
    if isinstance(value, str):
        long = len(value) > schema.get("maxLength", math.inf)
        halves = any("\ud800" <= character <= "\udfff" for character in value)  # of a character: no file can hold one
        return not long and not halves and bool(re.fullmatch(schema.get("pattern", r"[\s\S]*"), value))
    if isinstance(value, list):
        return bool(schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return bool(schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf))
    return True


def _quote(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value, ensure_ascii=False, default=repr).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 80 else f"{text[:80]}..."
