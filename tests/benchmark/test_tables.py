import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from monai_sr_bundle.benchmark.comparison import Comparison, MethodResult
from monai_sr_bundle.benchmark.protocol import Row
from monai_sr_bundle.benchmark.tables import (
    as_json,
    format_p_value,
    markdown,
    paired,
    require_results_folder,
    write_all,
    write_figures_csv,
)
from monai_sr_bundle.benchmark.training_curve import TrainingTime
from monai_sr_bundle.errors import OutputError

from tests.benchmark.drawn_protocol import drawn_protocol

PROTOCOL = drawn_protocol(Row("bicubic", "Bicubic"), Row("srcnn", "SRCNN"), Row("srgan", "SRGAN"), name="three")
NAN = float("nan")
TEN, THIRTY = TrainingTime(10.0), TrainingTime(30.0)


def result(method, label, psnr, **changes):
    figures = {"psnr": psnr, "box_psnr": [NAN, psnr[1], NAN], "log_spectral_distance": [6.0, 5.0, 4.0]}
    return replace(MethodResult(method, label, "torch on cpu", seconds=[0.01, 0.02, 0.09], figures=figures), **changes)


@pytest.fixture
def comparison():
    return Comparison(
        PROTOCOL,
        images=["a", "b", "c"],
        patients=["1", "1", "2"],
        results=[
            result("bicubic", "Bicubic", [30.0, 31.0, 32.0]),
            result("srcnn", "SRCNN", [31.0, 32.5, 32.5], parameters=57281, multiply_adds=3.75e9, training=TEN),
            result("srgan", "SRGAN", [29.0, 30.0, 31.0], training=THIRTY, gained_until=21.7, curve=[(21.7, 33.0)]),
        ],
        unavailable={"lpips": "its backbone is not here"},
        manifest_sha256="0123456789abcdef",
        low_res_size="64x64",
        versions={"torch": "2.13.0"},
    )


def cells(text, label):
    row = next(line for line in text.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip() for cell in row.split("|")]


def test_the_table_has_a_row_per_method_with_its_difference_to_the_reference(comparison):
    text = markdown(comparison)
    assert cells(text, "Bicubic")[2:4] == ["31.00 ± 1.00", ""]
    assert cells(text, "SRCNN")[2:4] == ["32.00 ± 0.87", "+1.00 [+0.50, +1.25], p = 0.258"]
    assert cells(text, "SRGAN")[2:4] == ["30.00 ± 1.00", "-1.00 [-1.00, -1.00], p not defined"]
    assert cells(text, "SRCNN")[-5:-1] == ["57,281", "3.75 G", "20.0", "10 / not recorded"]
    assert cells(text, "SRGAN")[-2] == "30 / 22"
    assert cells(text, "Bicubic")[-2] == ""


def test_the_table_says_what_it_was_measured_on_and_what_is_missing(comparison):
    text = markdown(comparison)
    assert "3 images of 2 patients (test split of drawn), most of them from 64x64 pixels" in text
    assert "degradation bicubic_antialias_x4; 1 CPU thread." in text
    assert "PSNR in boxes (dB): over the 1 of 3 images that have it." in text
    assert "log-spectral distance (dB) (lower is better)" in text
    assert "LPIPS is unavailable: its backbone is not here." in text
    assert "LPIPS" not in cells(text, "method")
    assert "SSIM" not in cells(text, "method")


def test_slices_of_one_patient_are_not_called_patients(comparison):
    assert "One patient only" not in markdown(comparison)
    over_patients = paired(comparison, "srcnn")["psnr"]
    comparison.patients = ["1"] * 3
    assert paired(comparison, "srcnn")["psnr"] != over_patients  # but over images
    assert "One patient only: intervals and tests are over slices of the same chest" in markdown(comparison)


def test_small_probabilities_are_not_written_as_nought():
    words = [format_p_value(value) for value in (0.0, 0.00099, 0.0312, NAN)]
    assert words == ["p < 0.001", "p < 0.001", "p = 0.031", "p not defined"]


def test_lower_is_better_where_it_is(comparison):
    comparison.results[1].figures["log_spectral_distance"] = [5.0, 4.0, 4.5]
    assert paired(comparison, "srcnn")["log_spectral_distance"].better == 2
    assert paired(comparison, "srcnn")["psnr"].better == 3
    assert paired(comparison, "bicubic") == {}


def test_the_csv_is_long(comparison, tmp_path):
    write_figures_csv(comparison, tmp_path / "figures.csv")
    with (tmp_path / "figures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["protocol", "method", "image", "patient", "figure", "value"]
    assert len(rows) == 3 * (3 + 1 + 3 + 3)  # psnr, the one box, distance, seconds
    assert ["three", "srcnn", "b", "1", "psnr", "32.500000"] in [list(row.values()) for row in rows]


def test_the_json_holds_everything_and_no_not_a_number(comparison):
    content = json.loads(json.dumps(as_json(comparison), allow_nan=False))
    assert content["protocol"]["operator"] == "bicubic_antialias_x4"
    assert content["versions"] == {"torch": "2.13.0"}
    srcnn, srgan = content["methods"][1:]
    assert srcnn["means"]["psnr"]["mean"] == 32.0
    assert srcnn["median_seconds"] == 0.02
    assert srcnn["difference_to_reference"]["psnr"]["p_value"] == pytest.approx(0.2578, abs=1e-4)
    assert srcnn["difference_to_reference"]["psnr"]["better"] == 3
    assert srgan["difference_to_reference"]["psnr"]["p_value"] is None
    assert (srgan["training_minutes"], srgan["gained_until_minutes"]) == (30.0, 21.7)


def page(comparisons, command):
    return f"{len(comparisons)} comparisons: {command}"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


FILES = ["index.html", "three/comparison.json", "three/figures.csv", "three/table.md"]


def test_an_empty_folder_is_as_good_as_none(comparison, tmp_path):
    (tmp_path / "out").mkdir()
    write_all([comparison], tmp_path / "out", page, command="one")
    assert names(tmp_path / "out") == FILES


@pytest.mark.parametrize("stranger", ["notes.txt", "three/notes.txt", "images/a.png", "three/more/table.md"])
def test_a_folder_with_anything_else_is_never_replaced(comparison, tmp_path, stranger):
    write_all([comparison], tmp_path / "out", page, command="one")
    path = tmp_path / "out" / stranger
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(OutputError, match="which no benchmark wrote, and is not touched. Choose a new folder"):
        require_results_folder(tmp_path / "out", overwrite=True)
    assert path.read_text() == "mine"


def test_nothing_half_written_is_left(comparison, tmp_path):
    def broken(comparisons, command):
        raise OutputError("the disk is full")

    with pytest.raises(OutputError, match="the disk is full"):
        write_all([comparison], tmp_path / "out", broken, command="one")
    assert list(tmp_path.iterdir()) == []
