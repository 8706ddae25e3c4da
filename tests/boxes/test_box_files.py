"""`monai-sr boxes` as a user meets it: tables to reports and back, its lines and its exit codes."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.boxes.box import Box, FindingCode
from monai_sr_bundle.boxes.readings import ImageIdentity, parse_readings
from monai_sr_bundle.datasets.make_manifest import write_boxes, write_manifest
from monai_sr_bundle.datasets.manifest import Record, read_boxes
from monai_sr_bundle.images.dicom_read import read_dicom
from monai_sr_bundle.images.dicom_write import write_dicom
from PIL import Image
from pydicom import dcmread

from tests.images.dicom_files import ct_series, enlarged, phantom, provenance, radiograph, zipped

TABLE = """image,finding,x_min,y_min,x_max,y_max,reader,certainty
set/images/film.png,Nodule,3.25,5.5,9.75,20.125,R1,0.8
set/images/film.png,Effusion,0,0,20,24,R2,
set/images/other.png,Mass,1,2,3,4,R1,
"""


HEAD = "finding,x_min,y_min,x_max,y_max"

BOX = {"finding": "Nodule", "xyxy": [1, 2, 3, 4]}


@pytest.fixture
def film(tmp_path):
    return radiograph(tmp_path / "film.dcm")


@pytest.fixture
def series(tmp_path):
    ct_series(tmp_path / "ct", phantom(slices=3))
    return tmp_path / "ct"


@pytest.fixture
def table(tmp_path):
    (tmp_path / "boxes.csv").write_text(TABLE)
    return tmp_path / "boxes.csv"


def boxes(*words):
    return main(["boxes", *map(str, words)])


def there_and_back(film, folder, text, *options):
    """Write the JSON into a report and the report into JSON; return the readings of that."""
    (folder / "boxes.json").write_text(text)
    assert boxes("to-dicom", film, folder / "boxes.json", folder / "sr.dcm", *options) == 0
    assert boxes("from-dicom", folder / "sr.dcm", folder / "back.json") == 0
    return parse_readings((folder / "back.json").read_text())


def rows(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def document(*boxes, image="film.dcm", **fields):
    """A JSON document of one reading."""
    reading = {"image": {"id": image}, "reader": {"id": "R1"}, "status": "draft", "boxes": boxes, **fields}
    return json.dumps({"schema": "sr-boxes/1", "readings": [reading]})


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# There and back


def test_a_table_becomes_a_report_and_a_table_again(film, table, tmp_path, capsys):
    assert boxes("to-dicom", film, table, tmp_path / "sr.dcm") == 0
    assert boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "back.csv", "--image", film) == 0
    assert capsys.readouterr() == (f"{tmp_path / 'sr.dcm'}: 2 boxes\n{tmp_path / 'back.csv'}: 2 boxes\n", "")
    instance = dcmread(film).SOPInstanceUID
    first, second = rows(tmp_path / "back.csv")
    assert list(first)[:8] == ["image", "finding", "x_min", "y_min", "x_max", "y_max", "reader", "certainty"]
    assert list(first.values())[:9] == ["film.dcm", "Nodule", "3.25", "5.5", "9.75", "20.125", "R1", "0.8", instance]
    assert list(second.values())[:9] == ["film.dcm", "Effusion", "0", "0", "20", "24", "R2", "", instance]


def test_what_comes_back_goes_in_again_with_the_same_lesions(film, table, tmp_path):
    boxes("to-dicom", film, table, tmp_path / "sr.dcm")
    for name in ("a.csv", "a.json"):
        boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / name)
        assert boxes("to-dicom", film, tmp_path / name, tmp_path / f"{name}.dcm") == 0
        boxes("from-dicom", tmp_path / f"{name}.dcm", tmp_path / f"again_{name}")
        assert (tmp_path / f"again_{name}").read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("options", [(), ("--in-pixels",)])
@pytest.mark.parametrize("in_zip", [False, True])
def test_the_boxes_of_a_series_keep_their_slices(series, tmp_path, options, in_zip):
    source = zipped(tmp_path / "ct.zip", [*series.iterdir()]) if in_zip else series
    lines = f"image,slice_index,{HEAD}\nct.nii.gz,2,Adenocarcinoma,1.5,2,3,4\nct,0,Mass,1,2,3,4\n"
    (tmp_path / "boxes.csv").write_text(lines)
    assert boxes("to-dicom", source, tmp_path / "boxes.csv", tmp_path / "sr.dcm", *options) == 0
    assert boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "back.csv", "--image", source) == 0
    back = [(row["finding"], row["slice_index"], row["x_min"]) for row in rows(tmp_path / "back.csv")]
    assert back == [("Adenocarcinoma", "2", "1.5"), ("Mass", "0", "1")]
    assert boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "alone.csv") == 0
    assert "slice_index" not in rows(tmp_path / "alone.csv")[0]  # nobody can tell without the series
    assert boxes("to-dicom", source, tmp_path / "alone.csv", tmp_path / "again.dcm") == 0


def test_the_table_is_the_boxes_csv_of_a_data_set(film, tmp_path):
    """Boxes that `monai-sr prepare` writes go into a report, and come out as boxes of a set."""
    Image.new("L", (20, 24)).save(tmp_path / "film.png")
    record = Record(tmp_path / "film.png", "cxr", "test", "p1", "none", width=20, height=24)
    write_manifest([record], tmp_path)
    box = Box("Nodule", 3.25, 5.5, 9.75, 20.12, reader="R1")
    write_boxes({record.file: [box]}, tmp_path)
    assert boxes("to-dicom", film, tmp_path / "boxes.csv", tmp_path / "sr.dcm") == 0
    boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "back.csv")
    text = (tmp_path / "back.csv").read_text().replace(f"\n{dcmread(film).SOPInstanceUID}", "\nfilm.png")
    (tmp_path / "boxes.csv").write_text(text)
    assert read_boxes(tmp_path) == {record.file: [box]}


def test_json_carries_figures_of_the_result(film, tmp_path):
    image = read_dicom([film], film)
    write_dicom(enlarged(image), provenance(), tmp_path / "sr_image.dcm")
    figures = {"before": {"mean": 812.5, "standard_deviation": 20}, "after": {"mean": 813, "standard_deviation": 24.5}}
    text = document({"finding": "Nodule", "xyxy": [1, 2, 3, 4], **figures})
    (reading,) = there_and_back(film, tmp_path, text, "--result", tmp_path / "sr_image.dcm")
    (box,) = reading.boxes
    assert {"before": asdict(box.before), "after": asdict(box.after)} == figures
    study = dcmread(tmp_path / "sr.dcm").CurrentRequestedProcedureEvidenceSequence[0]
    evidence = [series.SeriesInstanceUID for series in study.ReferencedSeriesSequence]
    assert dcmread(tmp_path / "sr_image.dcm").SeriesInstanceUID in evidence


def test_json_holds_a_reading_for_each_reader_with_the_identity_of_the_image(film, table, tmp_path):
    boxes("to-dicom", film, table, tmp_path / "sr.dcm")
    boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "back.json", "--image", film)
    first, second = parse_readings((tmp_path / "back.json").read_text())
    header = dcmread(film)
    assert first.image == second.image == ImageIdentity(
        "film.dcm", hashlib.sha256(film.read_bytes()).hexdigest(), header.StudyInstanceUID, header.SeriesInstanceUID,
        columns=20, rows=24, slices=1,
    )  # fmt: skip
    assert ([first.reader.id, second.reader.id], first.status) == (["R1", "R2"], "draft")
    (nodule,), (effusion,) = first.boxes, second.boxes
    assert nodule.codes == (FindingCode("27925004", "SCT", "Nodule"),)
    assert (nodule.xyxy, nodule.reader, effusion.finding) == ((3.25, 5.5, 9.75, 20.125), "R1", "Effusion")


def test_the_hash_of_a_series_does_not_depend_on_the_names_of_its_files(series, tmp_path):
    (tmp_path / "boxes.csv").write_text(f"slice_index,{HEAD}\n1,Mass,1,2,3,4\n")  # rows that name no image
    boxes("to-dicom", series, tmp_path / "boxes.csv", tmp_path / "sr.dcm")
    hashes = []
    for name in ("a.json", "b.json"):
        assert boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / name, "--image", series) == 0
        (reading,) = parse_readings((tmp_path / name).read_text())
        hashes.append(reading.image.sha256)
        for number, file in enumerate(sorted(series.iterdir(), reverse=True)):
            file.rename(series / f"renamed{number}.dcm")
    assert hashes[0] == hashes[1]
    assert (reading.image.slices, [box.slice_index for box in reading.boxes]) == (3, [1])


def test_a_submitted_reading_with_an_unknown_code_becomes_a_complete_report_and_comes_back(film, tmp_path):
    code = {"value": "RID5001", "scheme": "RADLEX", "meaning": "Rib fracture"}
    box = {"finding": "Rib fracture", "xyxy": [1, 2, 3, 4], "codes": [code]}
    (reading,) = there_and_back(film, tmp_path, document(box, status="submitted"))
    assert dcmread(tmp_path / "sr.dcm").CompletionFlag == "COMPLETE"
    assert (reading.status, reading.image.id) == ("submitted", dcmread(film).SeriesInstanceUID)
    assert (reading.boxes[0].finding, reading.boxes[0].codes) == ("Rib fracture", (FindingCode(**code),))


@pytest.mark.parametrize("name", ["set/images/other.png", "other.png", "other"])
def test_rows_of_another_name_are_taken_when_told(film, table, tmp_path, name):
    assert boxes("to-dicom", film, table, tmp_path / "sr.dcm", "--rows-of", name) == 0
    boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "back.csv")
    assert [row["finding"] for row in rows(tmp_path / "back.csv")] == ["Mass"]


def test_a_region_that_is_no_box_gives_a_warning_on_standard_error(film, table, tmp_path):
    boxes("to-dicom", film, table, tmp_path / "sr.dcm")
    dataset = dcmread(tmp_path / "sr.dcm")
    measurements = dataset.ContentSequence[-1]
    region = next(item for item in measurements.ContentSequence[0].ContentSequence if item.ValueType == "SCOORD")
    region.GraphicType, region.GraphicData = "POINT", [1.0, 2.0]
    dataset.save_as(tmp_path / "sr.dcm")
    command = [sys.executable, "-m", "monai_sr_bundle", "boxes", "from-dicom", "sr.dcm", "back.csv"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (0, "back.csv: 1 box\n")
    assert process.stderr == "monai-sr: sr.dcm, group 1: is a point (POINT), no box, and is left out.\n"


# Refused, with one line, its exit code, and nothing written

# Numbers that no box has are refused by the writer, see test_dicom_report.py; here is the line that says where.
BAD_TABLES = {
    f"{HEAD},colour\nNodule,1,2,3,4,red\n": "column colour is not known; the columns are image, finding, x_min",
    "finding,x_min,y_min,x_max\nNodule,1,2,3\n": "column y_max is missing; the header holds finding, x_min",
    f"{HEAD}\nNodule,1,2,three,4\n": "line 2: x_max is 'three', expected a number. Correct the cell.",
    f"{HEAD}\nNodule,1,2,3,4\nNodule,1,5,3,4\n": "line 3: the box is upside down: y_min 5 is not below y_max 4.",
    f"{HEAD},slice_index\nNodule,1,2,3,4,0.5\n": "line 2: slice_index is 0.5, expected a whole number from 0.",
    f"{HEAD}\n": "holds no box. Draw one first.",
    f"image,{HEAD}\na.png,Nodule,1,2,3,4\nb.png,Mass,1,2,3,4\n": "has boxes of a.png, b.png, none of film.dcm.",
    f"{HEAD},sop_instance_uid\nNodule,1,2,3,4,2.25.3\n": "line 2: the box belongs to the image 2.25.3, which is",
}
BAD_JSON = {
    "{": "it is no JSON (Expecting property name",
    document(BOX, BOX | {"xyxy": [1, 5, 3, 4]}): "readings[0].boxes[1].xyxy: the box is upside down: y_min 5 is not",
    document(BOX | {"xyxy": [1, 2, 30, 4]}): "boxes.json, readings[0].boxes[0]: the box goes from x 1 to 30, outside",
    document(BOX, image="a.png"): "has boxes of a.png, none of film.dcm. Say which of them is this image with --rows",
    document(no_finding=True): "holds no box. Draw one first.",
}


@pytest.mark.parametrize(("text", "words"), [*BAD_TABLES.items(), *BAD_JSON.items()], ids=lambda text: text[-40:])
def test_a_wrong_table_is_refused_in_one_line(film, tmp_path, capsys, text, words):
    table = tmp_path / ("boxes.csv" if text in BAD_TABLES else "boxes.json")
    table.write_text(text)
    before = files(tmp_path)
    assert boxes("to-dicom", film, table, tmp_path / "sr.dcm") == 3
    message = capsys.readouterr().err
    assert message.startswith("monai-sr: error: ")
    assert words in message
    assert message.count("\n") == 1
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("film.png", "film.png: is PNG, expected DICOM: a report belongs to a study. Keep the"),
        ("nowhere.dcm", "nowhere.dcm: does not exist"),
        ("two", "two: holds 2 images (a.dcm, b.dcm), expected one. Pass it alone."),
        ("sr.dcm", "sr.dcm: holds no image (it is Comprehensive SR Storage)"),
    ],
)
def test_an_image_that_is_no_dicom_has_no_report(film, table, tmp_path, capsys, image, message):
    Image.new("L", (20, 24)).save(tmp_path / "film.png")
    (tmp_path / "two").mkdir()
    for name in "ab":
        radiograph(tmp_path / "two" / f"{name}.dcm", SOPInstanceUID=f"2.25.{ord(name)}")
    boxes("to-dicom", film, table, tmp_path / "sr.dcm")
    assert boxes("to-dicom", tmp_path / image, table, tmp_path / "again.dcm") == 3
    assert message in capsys.readouterr().err


def test_an_error_in_an_image_of_a_zip_names_the_zip(table, tmp_path, capsys):
    source = zipped(tmp_path / "films.zip", {"IM1": radiograph(tmp_path / "x.dcm", SOPInstanceUID=None)})
    assert boxes("to-dicom", source, table, tmp_path / "sr.dcm") == 3
    assert "films.zip: 000000_IM1: has no SOP Instance UID" in capsys.readouterr().err


def test_a_report_that_does_not_exist_is_refused(tmp_path, capsys):
    assert boxes("from-dicom", tmp_path / "nowhere.dcm", tmp_path / "back.csv") == 3
    assert "nowhere.dcm: is not a file. Check the spelling." in capsys.readouterr().err


def test_other_kinds_of_files_for_boxes_are_refused(film, table, tmp_path, capsys):
    boxes("to-dicom", film, table, tmp_path / "sr.dcm")
    assert boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "back.xlsx") == 5
    assert "back.xlsx: boxes are written as .csv or .json, not as .xlsx. Rename it." in capsys.readouterr().err
    table.rename(tmp_path / "boxes.txt")
    assert boxes("to-dicom", film, tmp_path / "boxes.txt", tmp_path / "again.dcm") == 3
    assert "boxes.txt: boxes are read from .csv or .json, not from .txt." in capsys.readouterr().err


def test_an_output_is_replaced_only_with_overwrite_and_an_input_never(film, table, tmp_path, capsys):
    (tmp_path / "sr.dcm").write_text("older")
    assert boxes("to-dicom", film, table, tmp_path / "sr.dcm") == 5
    assert (
        "sr.dcm exists already. Choose another name, or pass --overwrite (in Python overwrite=True) to replace it."
        in capsys.readouterr().err
    )
    assert (tmp_path / "sr.dcm").read_text() == "older"
    assert boxes("to-dicom", film, table, tmp_path / "sr.dcm", "--overwrite") == 0
    for out in (film, table):
        assert boxes("to-dicom", film, table, out, "--overwrite") == 5
        assert "is an input, which is never replaced. Choose another name." in capsys.readouterr().err
    assert boxes("from-dicom", tmp_path / "sr.dcm", table) == 5
    assert table.read_text() == TABLE
    assert boxes("from-dicom", tmp_path / "sr.dcm", table, "--overwrite") == 0


def test_a_failure_leaves_what_was_there(film, table, tmp_path, monkeypatch):
    (tmp_path / "sr.dcm").write_text("older")

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("highdicom.sr.ComprehensiveSR.save_as", full)
    before = files(tmp_path)
    assert boxes("to-dicom", film, table, tmp_path / "sr.dcm", "--overwrite") == 5
    assert files(tmp_path) == before


def test_no_line_names_the_patient_or_the_reader(film, table, tmp_path, capsys, caplog):
    boxes("to-dicom", film, table, tmp_path / "sr.dcm")
    boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "back.csv")
    boxes("to-dicom", film, tmp_path / "nowhere.csv", tmp_path / "again.dcm")
    lines = "".join(capsys.readouterr()) + caplog.text
    assert not any(name in lines for name in ("Phantom", "PHANTOM", "R1", "R2"))
