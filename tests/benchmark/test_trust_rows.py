import json

import numpy as np
import pytest
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.benchmark.comparison import TRUST_FIGURES
from monai_sr_bundle.benchmark.measure import measure
from monai_sr_bundle.benchmark.protocol import Row

from tests.benchmark.drawn_protocol import drawn_protocol
from tests.with_error_bars import calibration_of, with_error_bars, write_windows

IMAGES = 50


@pytest.fixture(scope="module")
def barred(tmp_path_factory):
    folder = with_error_bars(tmp_path_factory.mktemp("bundle"))
    calibration_of(folder).write(folder / "calibration.json")
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_windows(tmp_path_factory.mktemp("data"), "own", {"train": 1, "test": 3}, size=96)
    return write_windows(root, "local", {"train": IMAGES}, noise=16.0, seed=1)


def protocol(*rows):
    return drawn_protocol(Row("bicubic", "bicubic"), *rows, sets=("own",), trust=True)


def test_a_protocol_of_trust_has_its_figures_for_every_method(barred, data):
    comparison = measure(protocol(Row(barred, "ours")), data)
    bicubic, ours = comparison.results
    assert set(TRUST_FIGURES) - {"box_coverage"} <= set(ours.figures) == set(bicubic.figures)  # there are no boxes
    assert np.isnan(bicubic.figures["coverage"]).all()
    assert all(0 <= value <= 1 for value in ours.figures["coverage"])
    assert (np.array(ours.figures["consistency"]) < np.array(bicubic.figures["consistency"])).all()
    for result in comparison.results:
        assert np.median(result.figures["nodule_1"]) < np.median(result.figures["nodule_2"])


def test_a_row_may_be_calibrated_on_images_of_another_hospital(barred, data):
    rows = Row(barred, "ours"), Row(barred, "ours, calibrated there", recalibrated_on="local")
    _, theirs, local = measure(protocol(*rows), data).results
    assert local.method == f"{barred}+recalibrated_on=local"
    # There, noise makes larger errors: wider error bars, in the same proportion everywhere.
    ratio = np.array(local.figures["error_bar"]) / np.array(theirs.figures["error_bar"])
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert ratio[0] != pytest.approx(1, abs=0.05)
    assert theirs.figures["psnr"] == local.figures["psnr"]


def test_the_command_measures_protocols_of_trust_alone(barred, data, tmp_path, capsys):
    text = tmp_path / "mine.yaml"
    text.write_text(
        "title: Mine\nabout: Ours.\nmodality: CXR\nsets: [own]\noperator: bicubic_antialias_x4\nwindow: [0, 255]\n"
        "levels: 255\ntrust: true\nrows:\n  - {method: bicubic, label: Bicubic}\n"
        f"  - {{method: {barred}, label: Ours}}\n"
    )
    command = ["benchmark", "trust", "--data", str(data), "--out", str(tmp_path / "out"), "--protocol", str(text)]
    assert main([*command, "--limit", "1", "--workers", "1", "--progress", "none"]) == 0
    printed = capsys.readouterr().out
    assert "pixels within their error bars" in printed
    assert "### Detection: difference to Bicubic" in printed
    page = (tmp_path / "out" / "index.html").read_text()
    assert "best near 0.9" in page
    assert "<caption>Difference to Bicubic [95 % interval]</caption>" in page
    assert "sensitivity to dark blobs, sigma 1.5 pixels" in page
    assert "false blobs per image" in page  # the plot's axis
    methods = json.loads((tmp_path / "out" / "mine" / "comparison.json").read_text())["methods"]
    assert methods[1]["detection"]["sensitivity_bright_1"]["mean"] >= 0
    assert "detectability_1" not in methods[1]["detection"]  # the images are too few
    assert methods[1]["detection_difference_to_reference"].keys() == methods[0]["detection"].keys()
    assert "The share of the pixels whose true value lies within the error bar" in page
