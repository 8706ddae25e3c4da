import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.benchmark.quality import evaluate, least_gain
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.metrics.fidelity import as_stored
from monai_sr_bundle.metrics.mean import Mean
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.transforms.pairs import LoadHighResd, pair_items
from skimage.metrics import peak_signal_noise_ratio

from tests.drawn_data import write_radiographs


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    # Large enough for MS-SSIM after the reduction by two that the radiograph bundle trains with.
    return write_radiographs(tmp_path_factory.mktemp("radiographs"), size=352, counts=(("train", 1), ("test", 3)))


@pytest.fixture(scope="module")
def evaluation(radiographs):
    return evaluate("chest_xray_edsr_x4", radiographs, sets=["drawn"])


def test_the_bicubic_row_is_what_scikit_image_measures(radiographs, evaluation):
    expected = []
    for item in pair_items(str(radiographs), "CXR", "test"):
        target = LoadHighResd("label", window=(0, 255), reduce=2, multiple=4)(item)["label"][0].numpy()
        low = torch.from_numpy(Degradation("bicubic_antialias", 4)(target))[None, None]
        enlarged = as_stored(Bicubic(4)(low))[0, 0].numpy()
        expected.append(peak_signal_noise_ratio(target, enlarged, data_range=1.0))
    np.testing.assert_allclose(evaluation.bicubic["psnr"], expected, atol=1e-3)


def test_every_figure_has_one_number_per_image(evaluation):
    assert evaluation.comparison.images == ["test0", "test1", "test2"]
    for figures in (evaluation.method, evaluation.bicubic):
        assert set(figures) == {"psnr", "ssim", "ms_ssim", "uqi"}
        assert all(len(values) == 3 and np.isfinite(values).all() for values in figures.values())


def test_a_bundle_of_several_scales_is_measured_at_the_one_that_is_named(radiographs):
    named = evaluate("chest_xray_blind", radiographs, sets=["drawn"], limit=1, scale=2)
    assert "| bicubic_antialias_x2 |" in named.header
    assert named.comparison.low_res_size == "176x176"
    by_operator = evaluate("chest_xray_blind", radiographs, sets=["drawn"], limit=1, operator="bicubic_antialias_x2")
    assert by_operator.method["psnr"] == named.method["psnr"]
    with pytest.raises(InputError, match="area_x4 reduces by 4, but bundle chest_xray_blind enlarges by 2; expected"):
        evaluate("chest_xray_blind", radiographs, sets=["drawn"], scale=2, operator="area_x4")
    with pytest.raises(BundleError, match="states no eval_metrics"):
        least_gain("chest_xray_blind", 2)


def test_bicubic_compared_with_itself_gains_nothing(radiographs):
    same = evaluate("bicubic", radiographs, sets=["drawn"])
    assert same.gain("psnr") == Mean(0.0, 0.0, 0.0, 0.0, 3)


def test_the_table_names_split_operator_patients_and_what_is_missing(evaluation):
    table = evaluation.table()
    assert "test split of drawn: 3 images of 3 patients | bicubic_antialias_x4 | torch on cpu" in table
    assert "PSNR (dB)" in table
    assert "LPIPS (lower is better) unavailable: its backbone" in table
    assert "Median time of chest_xray_edsr_x4 for 44x44 pixels" in table


def test_turned_images_are_measured_turned(radiographs, evaluation):
    rotated = evaluate("chest_xray_edsr_x4", radiographs, sets=["drawn"], rotation_degrees=180, limit=1)
    assert "| turned by 180 degrees |" in rotated.table()
    # Bicubic knows no direction, a network may.
    assert rotated.bicubic["psnr"][0] == pytest.approx(evaluation.bicubic["psnr"][0], abs=0.01)
    assert rotated.method["psnr"][0] != evaluation.method["psnr"][0]


def test_images_too_small_for_a_figure_are_left_out_of_it_and_counted(radiographs, tmp_path):
    data = write_radiographs(tmp_path, size=256, counts=(("test", 2),))
    small = evaluate("bicubic", data, sets=["drawn"])
    small.method["uqi"][0] = float("nan")
    table = small.table()
    assert "MS-SSIM                 unavailable: every image is smaller than 176 pixels on a side" in table
    assert "over 1 of 2 images" in table


def test_intervals_are_over_patients(evaluation):
    patients = ["a", "a", "b"]
    gains = np.subtract(evaluation.method["psnr"], evaluation.bicubic["psnr"]).tolist()
    comparison = replace(evaluation.comparison, patients=patients)
    assert replace(evaluation, comparison=comparison).gain("psnr") == Mean.of(gains, patients) != Mean.of(gains)
    of_one = replace(comparison.results[-1], figures={"psnr": [*evaluation.method["psnr"][:2], float("nan")]})
    comparison.results = [comparison.results[0], of_one]
    assert replace(evaluation, comparison=comparison).gain("psnr") == Mean.of(gains[:2])


def test_the_csv_holds_both_methods(evaluation, tmp_path):
    evaluation.write_csv(tmp_path / "figures.csv")
    with (tmp_path / "figures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == evaluation.comparison.images
    assert float(rows[1]["method_psnr"]) == pytest.approx(evaluation.method["psnr"][1], abs=1e-5)
    assert float(rows[1]["bicubic_ssim"]) == pytest.approx(evaluation.bicubic["ssim"][1], abs=1e-5)


@pytest.mark.parametrize("words", [["--at-least", "nan"], ["--at-least", "inf"]])
def test_a_least_gain_that_is_no_number_is_refused(radiographs, words, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "bicubic", "--data", str(radiographs), *words])
    assert "expected a number of dB, or metadata" in capsys.readouterr().err


def test_an_older_csv_is_replaced_only_when_asked(radiographs, tmp_path):
    (tmp_path / "keep.csv").write_text("mine")
    words = ["evaluate", "bicubic", "--data", str(radiographs), "--limit", "1", "--csv", str(tmp_path / "keep.csv")]
    assert main(words) == 5
    assert (tmp_path / "keep.csv").read_text() == "mine"
    assert main([*words, "--overwrite"]) == 0
    assert (tmp_path / "keep.csv").read_text() != "mine"


def test_an_operator_that_is_unknown_or_of_another_factor_is_refused(radiographs):
    for operator, message in (
        ("area_x2", "area_x2 reduces by 2, but bundle chest_xray_edsr_x4 enlarges by 4"),
        ("magic_x4", "--operator: degradation is 'magic_x4'"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate("chest_xray_edsr_x4", radiographs, sets=["drawn"], operator=operator)


def test_a_bundle_without_a_released_figure_cannot_be_checked():
    with pytest.raises(BundleError, match=r"bicubic: metadata.json states no eval_metrics.least_psnr_over_bicubic_db"):
        least_gain("bicubic")
