"""The one JSON form of boxes: what is read, written and refused, and that jsonschema says the same."""

import ast
import json
import sys
from pathlib import Path

import jsonschema
import pytest
from monai_sr_bundle.boxes import box as box_module
from monai_sr_bundle.boxes import readings as readings_module
from monai_sr_bundle.boxes.box import Box, BoxError, Figures, FindingCode
from monai_sr_bundle.boxes.readings import (
    SCHEMA,
    ImageIdentity,
    Reader,
    Reading,
    Tool,
    check_document,
    format_readings,
    parse_readings,
)

SOURCES = [Path(module.__file__) for module in (box_module, readings_module)]
ROOT = Path(__file__).parents[2]
NODULE = Box(
    *("Nodule", 3.25, 5.5, 9.75, 20.125), slice_index=2, reader="R1", certainty=0.8, sop_instance_uid="2.25.1",
    tracking_uid="2.25.2", codes=(FindingCode("27925004", "SCT", "Nodule"),), before=Figures(1.5, 2.0),
    after=Figures(-3.0, 0.0),
)  # fmt: skip
READING = Reading(
    ImageIdentity("chest.dcm", "0" * 64, "2.25.3", "2.25.4", columns=20, rows=24, slices=3),
    Reader("R1", "radiologist"),
    (NODULE, Box("Größe: \"Mass\"", 0, 0, 20, 24, reader="R1")), "submitted", saw_enhanced=False,
    created="2026-11-23T08:30:00+01:00", tool=Tool("3D Slicer", "5.12"),
)  # fmt: skip


def plain(**fields):
    """A document of one small reading; `fields` replace those of the reading."""
    reading = {"image": {"id": "a.png"}, "reader": {"id": "R1"}, "status": "draft", "boxes": [BOX]}
    return {"schema": "sr-boxes/1", "readings": [{**reading, **fields}]}


BOX = {"finding": "Nodule", "xyxy": [1, 2, 3, 4.5]}
GOOD = [
    plain(),
    {"schema": "sr-boxes/1", "readings": []},
    plain(boxes=[], no_finding=True, status="submitted"),
    plain(boxes=[]),  # a draft that is not finished
    plain(no_finding=False, saw_enhanced=True),
    plain(reader={"id": ""}, boxes=[BOX | {"finding": ""}]),  # of a report that names neither
    plain(boxes=[BOX | {"certainty": certainty} for certainty in (0, 1, 0.5)]),
    plain(boxes=[BOX | {"slice_index": index} for index in (0, 7, 3.0)]),
    plain(boxes=[BOX | {"codes": [{"value": "RID3875", "scheme": "RADLEX", "meaning": "nodule"}]}]),
    plain(boxes=[BOX | {"before": {"mean": -800.5, "standard_deviation": 12}}]),
    plain(created="2026-11-23T08:30:00.25Z", tool={"name": "OHIF"}),
    plain(image={"id": "a", "sha256": "ab" * 32, "columns": 5, "rows": 6, "slices": 1, "series_instance_uid": "1.2"}),
    json.loads(format_readings([READING])),
]
BAD = {
    "document is null": None,
    "document is a list of 1": ["a"],
    'document has no schema, expected "sr-boxes/1"': {"readings": []},
    'schema is "sr-boxes/2", expected "sr-boxes/1"': {"schema": "sr-boxes/2", "readings": []},
    "document has no readings, expected a list of readings": {"schema": "sr-boxes/1"},
    "readings is an object": {"schema": "sr-boxes/1", "readings": {}},
    "readings[0] is 7, expected a reading: image": {"schema": "sr-boxes/1", "readings": [7]},
    "readings[0].image is \"a.png\", expected the identity": plain(image="a.png"),
    "readings[0].image has no id": plain(image={}),
    "readings[0].image.id is \"\", expected the name": plain(image={"id": ""}),
    'readings[0].image.sha256 is "ABC", expected a SHA-256': plain(image={"id": "a", "sha256": "ABC"}),
    "readings[0].image.columns is 0, expected a whole": plain(image={"id": "a", "columns": 0}),
    "readings[0].image.rows is 2.5, expected a whole": plain(image={"id": "a", "rows": 2.5}),
    "readings[0].image.slices is true, expected": plain(image={"id": "a", "slices": True}),
    'readings[0].image.series_instance_uid is "1.02"': plain(image={"id": "a", "series_instance_uid": "1.02"}),
    'readings[0].image has the unknown field "path"': plain(image={"id": "a", "path": "/"}),
    "readings[0].reader.id is not as it should be, expected a name": plain(reader={"id": " Doe"}),
    "readings[0].reader has no id": plain(reader={"role": "radiologist"}),
    "readings[0].reader.role is 7": plain(reader={"id": "R1", "role": 7}),
    'readings[0].status is "final", expected draft or submitted': plain(status="final"),
    "readings[0].saw_enhanced is \"yes\", expected true or false": plain(saw_enhanced="yes"),
    "readings[0].no_finding is 1, expected true or false": plain(no_finding=1),
    "readings[0] contradicts itself, expected no boxes where no_finding is true": plain(no_finding=True),
    "readings[0] contradicts itself, expected boxes, or no_finding true": plain(status="submitted", boxes=[]),
    "contradicts itself, expected boxes, or no_finding": plain(status="submitted", boxes=[], no_finding=False),
    'readings[0].created is "yesterday", expected a date': plain(created="yesterday"),
    "readings[0].tool is null, expected the program": plain(tool=None),
    "readings[0].boxes is null, expected a list of boxes": plain(boxes=None),
    "readings[0].boxes[1] is \"Nodule\", expected a box": plain(boxes=[BOX, "Nodule"]),
    "readings[0].boxes[0] has no finding": plain(boxes=[{"xyxy": [1, 2, 3, 4]}]),
    'readings[0].boxes[0] has the unknown field "label", exp': plain(boxes=[BOX | {"label": "Mass"}]),
    "readings[0].boxes[0].finding is 7, expected a name": plain(boxes=[BOX | {"finding": 7}]),
    'readings[0].boxes[0].finding is "two\\nlines", expected': plain(boxes=[BOX | {"finding": "two\nlines"}]),
    "boxes[0].finding is \"aaaaa": plain(boxes=[BOX | {"finding": "a" * 65}]),
    "boxes[0].xyxy is a list of 3, expected four numbers x_min, y_min": plain(boxes=[BOX | {"xyxy": [1, 2, 3]}]),
    "boxes[0].xyxy[1] is \"2\", expected a number": plain(boxes=[BOX | {"xyxy": [1, "2", 3, 4]}]),
    "boxes[0].xyxy[3] is true, expected a number": plain(boxes=[BOX | {"xyxy": [1, 2, 3, True]}]),
    "boxes[0].certainty is 80, expected a number from 0 (guess) to 1": plain(boxes=[BOX | {"certainty": 80}]),
    "boxes[0].slice_index is -1, expected a whole number": plain(boxes=[BOX | {"slice_index": -1}]),
    "boxes[0].slice_index is 0.5, expected a whole number": plain(boxes=[BOX | {"slice_index": 0.5}]),
    'boxes[0].tracking_uid is "lesion 1", expected a DICOM UID': plain(boxes=[BOX | {"tracking_uid": "lesion 1"}]),
    "boxes[0].codes is an object, expected a list": plain(boxes=[BOX | {"codes": {}}]),
    "boxes[0].codes[0] has no scheme, expected a DICOM coding": plain(
        boxes=[BOX | {"codes": [{"value": "1", "meaning": "one"}]}]
    ),
    "boxes[0].codes[0].scheme is \"snomed ct\"": plain(
        boxes=[BOX | {"codes": [{"value": "1", "scheme": "snomed ct", "meaning": "one"}]}]
    ),
    "boxes[0].before has no standard_deviation": plain(boxes=[BOX | {"before": {"mean": 1}}]),
    "boxes[0].after.standard_deviation is -1": plain(boxes=[BOX | {"after": {"mean": 1, "standard_deviation": -1}}]),
}  # fmt: skip
JSONSCHEMA = jsonschema.Draft202012Validator(SCHEMA)


@pytest.mark.parametrize("document", GOOD, ids=range(len(GOOD)))
def test_a_good_document_is_read_here_and_by_jsonschema(document):
    check_document(document)
    assert JSONSCHEMA.is_valid(document)
    readings = parse_readings(json.dumps(document))
    assert parse_readings(format_readings(readings)) == readings


@pytest.mark.parametrize(("words", "document"), BAD.items(), ids=BAD)
def test_a_bad_document_is_refused_here_and_by_jsonschema(words, document):
    with pytest.raises(BoxError) as error:
        check_document(document)
    assert words in str(error.value)
    assert not JSONSCHEMA.is_valid(document)


def test_readings_come_back_as_they_were():
    assert parse_readings(format_readings([READING])) == [READING]


def test_the_shipped_schema_is_this_one_and_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads((SOURCES[0].parent / "boxes.schema.json").read_text(encoding="utf-8")) == SCHEMA


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"xyxy": [1, 5, 3, 4]}, r"boxes\[0\].xyxy: the box is upside down: y_min 5 is not below y_max 4."),
        ({"xyxy": [3, 2, 1, 4]}, r"boxes\[0\].xyxy: the box is mirrored: x_min 3 is not below x_max 1."),
        ({"xyxy": [1, 2, 1, 4]}, r"boxes\[0\].xyxy: the box is empty"),
        ({"xyxy": [-1, 2, 3, 4]}, r"boxes\[0\].xyxy: the box goes from x -1 to 3, outside its image of 20 x 24 pixels"),
        ({"xyxy": [1, 2, 3, 25]}, r"boxes\[0\].xyxy: the box goes from y 2 to 25, outside its image of 20 x 24 pixels"),
        ({"slice_index": 3}, r"boxes\[0\].slice_index is 3, expected less than 3, the slices of the image."),
    ],
)  # fmt: skip
def test_rules_that_a_schema_cannot_hold_are_checked_when_a_document_is_read(change, words):
    document = plain(image={"id": "a", "columns": 20, "rows": 24, "slices": 3}, boxes=[BOX | change])
    assert JSONSCHEMA.is_valid(document)
    with pytest.raises(BoxError, match=words):
        parse_readings(json.dumps(document))


@pytest.mark.parametrize("text", ["{", "", '{"schema": NaN}', '{"schema": Infinity}'])
def test_text_that_is_no_json_is_refused(text):
    with pytest.raises(BoxError, match=r"it is no JSON \(.*\). Copy the file again."):
        parse_readings(text)


@pytest.mark.parametrize("large", ["1e999", "-1e999", "1" + "0" * 400])
@pytest.mark.parametrize("field", ['"slice_index": ', '"certainty": ', '"xyxy": [1, 2, 3, '])
def test_numbers_that_are_too_large_are_refused(field, large):
    text = json.dumps(plain(boxes=[BOX | {"slice_index": 7, "certainty": 7, "xyxy": [1, 2, 3, 7]}]))
    text = text.replace(": 7", ": 0").replace(", 7]", ", 7]").replace(field + "0", field + large)
    with pytest.raises(BoxError, match="expected a (whole )?number"):
        parse_readings(text.replace(field + "7", field + large))


def test_json_that_is_nested_too_deeply_is_refused():
    with pytest.raises(BoxError, match="it is no JSON"):
        parse_readings("[" * 100000)


def test_boxes_of_the_first_version_are_refused_with_what_to_do():
    with pytest.raises(BoxError, match="as version 0.1.0 wrote it, .* `monai-sr boxes from-dicom`, or pass"):
        parse_readings('{"boxes": [{"label": "Nodule", "x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4}]}')


def test_what_cannot_be_read_is_not_written():
    with pytest.raises(BoxError, match="expected boxes, or no_finding true, in a submitted reading"):
        format_readings([Reading(ImageIdentity("a"), Reader("R1"), status="submitted")])


def test_a_message_does_not_quote_the_reader():
    with pytest.raises(BoxError) as error:
        check_document(plain(reader={"id": "Doe\nJane"}))
    assert "Doe" not in str(error.value)


def test_the_example_in_the_docs_is_a_good_document():
    text = (ROOT / "docs" / "dicom.md").read_text(encoding="utf-8")
    (reading,) = parse_readings(text.split("```json")[1].split("```")[0])
    assert (reading.boxes[0].xyxy, reading.saw_enhanced) == ((812.5, 640, 861, 694.25), True)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_only_the_standard_library_is_imported(source):
    imports = [
        node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = {getattr(node, "module", None) or node.names[0].name for node in imports}
    others = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
    assert others <= {"box"}  # relatively, as the Slicer extension ships both
