"""`monai-sr boxes` as a user meets it: tables to reports and back, what it says, how it ends."""

import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from pydicom import dcmread

from monai_sr_bundle.__main__ import main
from monai_sr_bundle.datasets.manifest import Box as TableBox
from monai_sr_bundle.datasets.manifest import Record, read_boxes, write_boxes, write_manifest
from monai_sr_bundle.images.dicom_read import read_dicom
from monai_sr_bundle.images.dicom_write import write_dicom
from tests.images.dicom_files import ct_series, enlarged, phantom, provenance, radiograph

TABLE = """image,finding,x_min,y_min,x_max,y_max,reader,certainty
set/images/film.png,Nodule,3.25,5.5,9.75,20.125,R1,0.8
set/images/film.png,Effusion,0,0,20,24,R2,
set/images/other.png,Mass,1,2,3,4,R1,
"""


@pytest.fixture
def film(tmp_path):
    return radiograph(tmp_path / "film.dcm", phantom(dtype="uint16")[0])


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


def rows(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


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
@pytest.mark.parametrize("zipped", [False, True])
def test_the_boxes_of_a_series_keep_their_slices(series, tmp_path, options, zipped):
    given = series
    if zipped:
        given = tmp_path / "ct.zip"
        with zipfile.ZipFile(given, "w") as archive:
            for file in series.iterdir():
                archive.write(file, file.name)
    listed = (
        "image,slice_index,finding,x_min,y_min,x_max,y_max\nct.nii.gz,2,Adenocarcinoma,1.5,2,3,4\nct,0,Mass,1,2,3,4\n"
    )
    (tmp_path / "boxes.csv").write_text(listed)
    assert boxes("to-dicom", given, tmp_path / "boxes.csv", tmp_path / "sr.dcm", *options) == 0
    assert boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "back.csv", "--image", given) == 0
    found = [(row["finding"], row["slice_index"], row["x_min"]) for row in rows(tmp_path / "back.csv")]
    assert found == [("Adenocarcinoma", "2", "1.5"), ("Mass", "0", "1")]
    assert boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "alone.csv") == 0
    assert "slice_index" not in rows(tmp_path / "alone.csv")[0]  # nobody can tell without the series
    assert boxes("to-dicom", given, tmp_path / "alone.csv", tmp_path / "again.dcm") == 0


def test_the_table_is_the_boxes_csv_of_a_data_set(film, tmp_path):
    """What `monai-sr prepare` writes goes in, and what comes out is read as boxes of a set."""
    Image.new("L", (20, 24)).save(tmp_path / "film.png")
    record = Record(tmp_path / "film.png", "cxr", "test", "p1", "none", width=20, height=24)
    write_manifest([record], tmp_path)
    box = TableBox("Nodule", 3.25, 5.5, 9.75, 20.12, reader="R1")
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
    box = {"label": "Nodule", "x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4, **figures}
    (tmp_path / "boxes.json").write_text(json.dumps({"boxes": [box]}))
    words = (film, tmp_path / "boxes.json", tmp_path / "sr.dcm", "--result", tmp_path / "sr_image.dcm")
    assert boxes("to-dicom", *words) == 0
    assert boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "back.json") == 0
    (back,) = json.loads((tmp_path / "back.json").read_text())["boxes"]
    assert {name: back[name] for name in figures} == figures
    study = dcmread(tmp_path / "sr.dcm").CurrentRequestedProcedureEvidenceSequence[0]
    assert dcmread(tmp_path / "sr_image.dcm").SeriesInstanceUID in [
        series.SeriesInstanceUID for series in study.ReferencedSeriesSequence
    ]


@pytest.mark.parametrize("name", ["set/images/other.png", "other.png", "other"])
def test_rows_of_another_name_are_taken_when_told(film, table, tmp_path, name):
    assert boxes("to-dicom", film, table, tmp_path / "sr.dcm", "--rows-of", name) == 0
    boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "back.csv")
    assert [row["finding"] for row in rows(tmp_path / "back.csv")] == ["Mass"]


def test_rows_that_name_no_image_are_all_taken(film, tmp_path):
    (tmp_path / "boxes.csv").write_text("finding,x_min,y_min,x_max,y_max\nNodule,1,2,3,4\nMass,1,2,3,4\n")
    assert boxes("to-dicom", film, tmp_path / "boxes.csv", tmp_path / "sr.dcm") == 0


def test_what_was_not_understood_is_told_on_standard_error(film, table, tmp_path):
    boxes("to-dicom", film, table, tmp_path / "sr.dcm")
    dataset = dcmread(tmp_path / "sr.dcm")
    measurements = dataset.ContentSequence[-1]
    region = next(item for item in measurements.ContentSequence[0].ContentSequence if item.ValueType == "SCOORD")
    region.GraphicType, region.GraphicData = "POINT", [1.0, 2.0]
    dataset.save_as(tmp_path / "sr.dcm")
    command = [sys.executable, "-m", "monai_sr_bundle", "boxes", "from-dicom", "sr.dcm", "back.csv"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    told = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "back.csv: 1 box\n")
    assert told.stderr == "monai-sr: sr.dcm, group 1: is a point (POINT), no box, and is left out.\n"


# Refused, with one line, its exit code, and nothing written

HEAD = "finding,x_min,y_min,x_max,y_max"
BAD_TABLES = {
    f"{HEAD},colour\nNodule,1,2,3,4,red\n": "column colour is not known; the columns are image, finding, x_min",
    "finding,x_min,y_min,x_max\nNodule,1,2,3\n": "column y_max is missing; the header holds finding, x_min",
    f"{HEAD}\nNodule,1,2,three,4\n": "line 2: x_max is 'three', expected a number. Correct the cell.",
    f"{HEAD}\nNodule,1,2,30,4\n": "line 2: the box goes from x 1 to 30, outside its image of 20 x 24 pixels",
    f"{HEAD}\nNodule,1,2,3,4\nNodule,1,5,3,4\n": "line 3: the box is upside down: y_min 5 is not below y_max 4.",
    f"{HEAD},certainty\nNodule,1,2,3,4,80\n": "line 2: certainty is 80, expected 0 (guess) to 1 (sure).",
    f"{HEAD},slice_index\nNodule,1,2,3,4,0.5\n": "line 2: slice_index is 0.5, expected a whole number from 0.",
    f"{HEAD},slice_index\nNodule,1,2,3,4,1\n": "line 2: slice_index is 1, but the image has 1 slice(s)",
    f"{HEAD}\n,1,2,3,4\n": "line 2: the finding is '', expected 1 to 64 characters",
    f"{HEAD}\n": "holds no box. Draw one first.",
    f"image,{HEAD}\na.png,Nodule,1,2,3,4\nb.png,Mass,1,2,3,4\n": "has boxes of a.png, b.png, none of film.dcm.",
    f"{HEAD},sop_instance_uid\nNodule,1,2,3,4,2.25.3\n": "line 2: the box belongs to the image 2.25.3, which is",
}
CORNERS = '"x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4'
BAD_JSON = {
    "[1, 2]": 'is JSON of another kind, expected {"boxes": [{"label": "Nodule", ...}, ...]}.',
    "{": "cannot be read as JSON (",
    '{"boxes": [{"label": "Nodule"}]}': "box 1: x_min, y_min, x_max, y_max is missing. Fill it in.",
    f'{{"boxes": [{{"label": "Nodule", {CORNERS}, "score": 1}}]}}': "box 1: field score is not known; the fields",
    f'{{"boxes": [{{"label": 7, {CORNERS}}}]}}': "box 1: label is 7, expected text.",
    f'{{"boxes": [{{"label": "Nodule", {CORNERS}, "certainty": "high"}}]}}': "box 1: certainty is 'high', expected",
    f'{{"boxes": [{{"label": "Nodule", {CORNERS}, "certainty": NaN}}]}}': "box 1: certainty is nan, expected a number",
    f'{{"boxes": [{{"label": "Nodule", {CORNERS}, "slice_index": true}}]}}': "box 1: slice_index is True, expected",
    f'{{"boxes": [{{"label": "Nodule", {CORNERS}, "before": {{"mean": 1}}}}]}}': "expected the numbers mean and",
}


@pytest.mark.parametrize(("text", "words"), [*BAD_TABLES.items(), *BAD_JSON.items()], ids=lambda text: text[:40])
def test_a_table_that_cannot_be_meant_is_refused(film, tmp_path, capsys, text, words):
    table = tmp_path / ("boxes.csv" if text in BAD_TABLES else "boxes.json")
    table.write_text(text)
    before = files(tmp_path)
    assert boxes("to-dicom", film, table, tmp_path / "sr.dcm") == 3
    told = capsys.readouterr().err
    assert told.startswith("monai-sr: error: ")
    assert words in told
    assert told.count("\n") == 1
    assert files(tmp_path) == before


def test_an_image_that_is_no_dicom_has_no_report(film, table, tmp_path, capsys):
    Image.new("L", (20, 24)).save(tmp_path / "film.png")
    assert boxes("to-dicom", tmp_path / "film.png", table, tmp_path / "sr.dcm") == 3
    assert "film.png: is PNG, expected DICOM: a report belongs to a study. Keep the" in capsys.readouterr().err
    assert boxes("to-dicom", tmp_path / "nowhere.dcm", table, tmp_path / "sr.dcm") == 3
    assert "nowhere.dcm: does not exist" in capsys.readouterr().err
    (tmp_path / "two").mkdir()
    radiograph(tmp_path / "two" / "a.dcm", phantom(dtype="uint16")[0])
    radiograph(tmp_path / "two" / "b.dcm", phantom(dtype="uint16")[0], SOPInstanceUID="2.25.3")
    assert boxes("to-dicom", tmp_path / "two", table, tmp_path / "sr.dcm") == 3
    assert "two: holds 2 images (a.dcm, b.dcm), expected one. Pass it alone." in capsys.readouterr().err
    boxes("to-dicom", film, table, tmp_path / "sr.dcm")
    assert boxes("to-dicom", tmp_path / "sr.dcm", table, tmp_path / "again.dcm") == 3
    assert "sr.dcm: holds no image (it is Comprehensive SR Storage)" in capsys.readouterr().err


def test_a_report_of_another_image_is_refused(film, series, table, tmp_path, capsys):
    boxes("to-dicom", film, table, tmp_path / "sr.dcm")
    assert boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "back.csv", "--image", series) == 3
    assert "sr.dcm: its 2 box(es) belong to other images than the 3 given" in capsys.readouterr().err
    assert not (tmp_path / "back.csv").exists()


def test_what_is_no_report_is_refused(film, table, tmp_path, capsys):
    assert boxes("from-dicom", film, tmp_path / "back.csv") == 3
    assert "expected a Structured Report" in capsys.readouterr().err
    assert boxes("from-dicom", table, tmp_path / "back.csv") == 3
    assert "boxes.csv: is not a DICOM file, expected a Structured Report." in capsys.readouterr().err
    assert boxes("from-dicom", tmp_path / "nowhere.dcm", tmp_path / "back.csv") == 3
    assert "nowhere.dcm: is not a file. Check the spelling." in capsys.readouterr().err


def test_other_kinds_of_files_for_boxes_are_refused(film, table, tmp_path, capsys):
    boxes("to-dicom", film, table, tmp_path / "sr.dcm")
    assert boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "back.xlsx") == 5
    assert "back.xlsx: boxes are written as .csv or .json, not as .xlsx. Rename it." in capsys.readouterr().err
    table.rename(tmp_path / "boxes.txt")
    assert boxes("to-dicom", film, tmp_path / "boxes.txt", tmp_path / "again.dcm") == 3
    assert "boxes.txt: boxes are read from .csv or .json, not from .txt." in capsys.readouterr().err


def test_nothing_is_replaced_unless_asked_and_an_input_never(film, table, tmp_path, capsys):
    (tmp_path / "sr.dcm").write_text("older")
    assert boxes("to-dicom", film, table, tmp_path / "sr.dcm") == 5
    assert "sr.dcm exists already. Choose another name, or pass --overwrite to replace it." in capsys.readouterr().err
    assert (tmp_path / "sr.dcm").read_text() == "older"
    assert boxes("to-dicom", film, table, tmp_path / "sr.dcm", "--overwrite") == 0
    for way, *words in (("to-dicom", film, table, film), ("to-dicom", film, table, table)):
        assert boxes(way, *words, "--overwrite") == 5
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


def test_nothing_said_names_the_patient_or_the_reader(film, table, tmp_path, capsys, caplog):
    boxes("to-dicom", film, table, tmp_path / "sr.dcm")
    boxes("from-dicom", tmp_path / "sr.dcm", tmp_path / "back.csv")
    boxes("to-dicom", film, tmp_path / "nowhere.csv", tmp_path / "again.dcm")
    shown = capsys.readouterr()
    for name in ("Phantom", "PHANTOM", "R1", "R2"):
        assert name not in shown.out + shown.err + caplog.text
