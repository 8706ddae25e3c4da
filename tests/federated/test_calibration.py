"""Federated calibration: sums of sites give exactly what all their images in one place give."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.__main__ import main
from monai_sr_bundle.calibrate.calibrate import calibrate, measure_losses
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.federated.calibration import (
    COVERAGE_FILE,
    TASK,
    CalibrateExecutor,
    as_message,
    calibrate_sites,
    from_message,
    measure_coverage,
)
from monai_sr_bundle.federated.filters import ListedOnly
from monai_sr_bundle.federated.site_calibration import simulate_calibration
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.uncertainty.calibration import FILE, bundle_sha256, read_calibration
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from tests.with_error_bars import write_windows

BUNDLE = "chest_xray_srcnn_x4"
COUNTS = {"north": 30, "south": 9, "west": 17}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with those of three sites, the second with noise."""
    root = tmp_path_factory.mktemp("sites")
    for number, (site, count) in enumerate(COUNTS.items()):
        write_windows(root, site, {"val": count}, noise=12.0 * (number == 1), seed=number)
    return root


@pytest.fixture(scope="module")
def curves(folders):
    bundle = find_bundle(BUNDLE)
    return {site: measure_losses(bundle, folders / site) for site in COUNTS}


def test_the_factors_are_those_of_all_images_in_one_place(folders, curves):
    bundle = find_bundle(BUNDLE)
    together = calibrate(BUNDLE, folders)
    sent = {site: from_message(bundle, as_message(each)) for site, each in curves.items()}
    federated = calibrate_sites(bundle, sent, 0.1)
    assert federated.entries == together.entries  # to the last bit
    assert (federated.images, federated.patients) == (together.images, together.patients) == (56, 56)
    assert federated.data == "3 sites"


def test_the_order_of_the_sites_changes_nothing(curves):
    bundle = find_bundle(BUNDLE)
    backwards = dict(reversed(list(curves.items())))
    assert calibrate_sites(bundle, curves, 0.1) == calibrate_sites(bundle, backwards, 0.1)


def test_coverage_is_stated_for_every_site_before_and_after(folders, curves):
    bundle = find_bundle(BUNDLE)
    calibration = calibrate_sites(bundle, curves, 0.1)
    coverage = measure_coverage(bundle, curves, calibration)
    shipped = read_calibration(bundle.folder / FILE, bundle).entries[0]
    for site, (curve,) in curves.items():
        (entry,) = coverage[site]
        assert entry["before"] == curve.coverage(shipped.factor)
        assert entry["after"] == curve.coverage(calibration.entries[0].factor)
    mean = sum(COUNTS[site] * coverage[site][0]["after"] for site in COUNTS) / sum(COUNTS.values())
    assert mean == pytest.approx(calibration.entries[0].coverage)
    assert mean >= 0.9
    assert coverage["south"][0]["after"] < coverage["north"][0]["after"]  # noise that no network can foresee


def test_a_site_with_few_patients_sends_nothing(folders):
    bundle = find_bundle(BUNDLE)
    with pytest.raises(InputError, match="this site has 4 patients to calibrate on, expected at least 5: .* was sent"):
        as_message(measure_losses(bundle, folders / "south", limit=4))


def test_few_patients_in_all_are_refused(curves):
    with pytest.raises(InputError, match="all 1 sites: the images has 9 images of 9 patients .* Let more sites take"):
        calibrate_sites(find_bundle(BUNDLE), {"south": curves["south"]}, 0.1)


def test_what_a_site_sends_passes_its_filter_and_holds_no_more_than_sums(curves):
    message = as_message(curves["north"])
    left = ListedOnly(BUNDLE).process(DXO(DataKind.ANALYTIC, message).to_shareable(), FLContext())
    np.testing.assert_equal(from_shareable(left).data, message)
    assert set(message) == {"0"}
    assert set(message["0"]) == {"images", "patients", "cases", "scale_sum", "loss_sum"}


def test_curves_of_another_bundle_are_refused(curves):
    with pytest.raises(InputError, match="a site has sent 1 curves, expected the 3 of chest_xray_blind"):
        from_message(find_bundle("chest_xray_blind"), as_message(curves["north"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"bundle": "../else"}, "bundle is"), ({"split": "other"}, "split is"), ({"limit": 0}, "limit is 0, expected")],
)
def test_a_job_brings_names_and_numbers_alone(changes, message):
    arguments = {"bundle": BUNDLE, "weights_sha256": "0" * 64} | changes
    with pytest.raises(InputError, match=message):
        CalibrateExecutor(**arguments)


def test_other_weights_are_refused_with_a_code_alone():
    executor = CalibrateExecutor(BUNDLE, "0" * 64)
    answer = executor.execute(TASK, Shareable(), FLContext(), Signal())
    assert answer.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert (
        CalibrateExecutor(BUNDLE, bundle_sha256(find_bundle(BUNDLE)))
        .execute("other", Shareable(), FLContext(), Signal())
        .get_return_code()
        == ReturnCode.TASK_UNKNOWN
    )


def test_a_folder_for_results_may_be_there_if_it_is_empty(tmp_path):
    arguments = {"sites": 2, "split": "val", "alpha": 0.1, "limit": None}
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="holds no manifest.csv"):  # what is checked next
        simulate_calibration(BUNDLE, tmp_path / "out", tmp_path / "out", **arguments)
    (tmp_path / "out" / "file").touch()
    with pytest.raises(OutputError, match=r"out is not empty\. Choose another --out"):
        simulate_calibration(BUNDLE, tmp_path, tmp_path / "out", **arguments)
    with pytest.raises(OutputError, match=r"file is not a folder\. Choose another folder"):
        simulate_calibration(BUNDLE, tmp_path, tmp_path / "out" / "file", **arguments)


@pytest.mark.slow
def test_the_command_calibrates_at_simulated_sites(tmp_path, capsys):
    write_windows(tmp_path / "data", "own", {"train": 3, "val": 54, "test": 3}, seed=7)
    arguments = ["federated", "calibrate", BUNDLE, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--sites", "2"]) == 0
    printed = capsys.readouterr().out
    assert "54 images of 54 patients at 2 sites | made to hold: 90 % of the pixels" in printed
    together = calibrate(BUNDLE, tmp_path / "data", sets=["own"])
    assert read_calibration(tmp_path / "out" / FILE, find_bundle(BUNDLE)).entries == together.entries
    coverage = json.loads((tmp_path / "out" / COVERAGE_FILE).read_text())
    assert {site: entry["patients"] for site, (entry,) in coverage.items()} == {"site-1": 27, "site-2": 27}
    assert main([*arguments, "--sites", "2"]) == 5  # the folder is not empty
    shutil.rmtree(tmp_path / "out")
