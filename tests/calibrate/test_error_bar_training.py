import json

import numpy as np
import pytest
import torch
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.calibrate import error_bar_training as module
from monai_sr_bundle.calibrate.calibration_cases import enlarge_cases
from monai_sr_bundle.calibrate.error_bar_training import QUANTILE, pinball, train_error_scale
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.networks.error_scale import ErrorScale
from monai_sr_bundle.packing.release import release_error_bars
from monai_sr_bundle.uncertainty.error_bars import error_scale

from tests.changed_bundles import copied, with_facts
from tests.with_error_bars import without_error_bars, write_windows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_windows(tmp_path_factory.mktemp("data"), "own", {"train": 12, "test": 6}, size=128, noise=20.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return with_facts(without_error_bars(tmp_path_factory.mktemp("bundle"), "bicubic"), sets=["own"], reduce=1)


@pytest.fixture(scope="module")
def trained(folder, data, tmp_path_factory):
    """The folder of a run of 120 training steps, smaller and bolder ones than those of minutes."""
    out = tmp_path_factory.mktemp("run") / "bars"
    words = ["--data", str(data), "--out", str(out), "--iterations", "120", "--progress", "none"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "BATCH", 2)
        patched.setattr(module, "LEARNING_RATE", 0.01)
        assert main(["train", str(folder), "--stage", "error_bars", *words]) == 0
    return out


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_the_pinball_loss_is_smallest_at_the_quantile(quantile):
    values = torch.from_numpy(np.random.default_rng(0).exponential(size=4001))
    guesses = torch.linspace(0, 5, 1001)
    best = guesses[int(torch.stack([pinball(values - guess, quantile) for guess in guesses]).argmin())]
    assert best == pytest.approx(np.quantile(values, quantile), abs=0.01)


def test_a_short_training_tells_the_errors_of_new_images_better_than_any_constant(trained, folder, data):
    release_error_bars(str(folder), trained / "error_bars.pt")
    bundle = open_bundle(folder)
    backend = open_backend(bundle)
    errors, scales = [], []
    for case in enlarge_cases(bundle, backend, data, "test"):
        errors.append(np.abs(case.high_res - case.super_res))
        scales.append(error_scale(case.super_res, case.low_res, bundle, backend))
    error, scale = torch.from_numpy(np.stack(errors)), torch.from_numpy(np.stack(scales))
    constant = pinball(error - float(np.quantile(error, QUANTILE)))  # the best there is, and it knows the answer
    assert pinball(error - scale) < 0.95 * constant
    assert np.corrcoef(error.flatten(), scale.flatten())[0, 1] > 0.2
    assert bundle.metadata["error_bars_training"]["iterations"] > 1


def test_a_run_is_recorded_and_its_weights_load(trained, folder, data):
    facts = json.loads((trained / "error_bars.json").read_text())
    assert (facts["bundle"], facts["stage"], facts["sets"]) == (folder.name, "error_bars", ["own"])
    assert (facts["images"], facts["seed"], facts["iterations"]) == (12, 0, 120)
    ErrorScale(4).load_state_dict(torch.load(trained / "error_bars.pt", weights_only=True))


def test_the_command_names_what_comes_next(folder, data, tmp_path, capsys):
    words = ["--data", str(data), "--out", str(tmp_path / "run"), "--iterations", "2", "--progress", "none"]
    assert main(["train", str(folder), "--stage", "error_bars", *words]) == 0
    weights = tmp_path / "run" / "error_bars.pt"
    assert f"release them with: monai-sr export {folder} --error-bars {weights}" in capsys.readouterr().out
    assert main(["export", str(folder), "--error-bars", str(weights)]) == 0
    assert "error_bars.onnx  " in capsys.readouterr().out


def test_a_formula_that_was_trained_on_nothing_gets_error_bars_too(data, tmp_path):
    bicubic = with_facts(copied(tmp_path, "bicubic"), reduce=1)
    train_error_scale(str(bicubic), data, tmp_path / "run", iterations=2, limit=2)
    assert json.loads((tmp_path / "run" / "error_bars.json").read_text())["images"] == 2


@pytest.mark.parametrize("length", [{"minutes": 0.0}, {"minutes": float("nan")}, {"iterations": -1}])
def test_a_training_of_no_length_is_refused(folder, data, tmp_path, length):
    ((unit, value),) = length.items()
    with pytest.raises(InputError, match=f"--{unit} {value:g}: expected a number above 0"):
        train_error_scale(str(folder), data, tmp_path / "run", **length)
    assert not (tmp_path / "run").exists()


def test_an_older_run_is_not_replaced(folder, data, trained):
    before = (trained / "error_bars.pt").read_bytes()
    with pytest.raises(OutputError, match="error_bars.pt is there already. Choose another --out"):
        train_error_scale(str(folder), data, trained, iterations=2)
    assert (trained / "error_bars.pt").read_bytes() == before


def test_images_too_small_for_a_patch_are_refused(folder, tmp_path):
    write_windows(tmp_path, "own", {"train": 2}, size=124)
    with pytest.raises(InputError, match="no training image has 32x32 low-resolution pixels, expected larger ones"):
        train_error_scale(str(folder), tmp_path, tmp_path / "run", iterations=2)


@pytest.mark.parametrize(
    "option", [["--start", "x.pt"], ["--backbone", "x.pt"], ["--set", "batch_size=2"], ["--resume"], ["--epochs", "1"]]
)
def test_options_of_other_trainings_are_refused(folder, data, option, capsys):
    assert main(["train", str(folder), "--stage", "error_bars", "--data", str(data), *option]) == 3
    message = f"{option[0]}: the training of error bars does not have this option. Leave it out."
    assert message in capsys.readouterr().err


def test_a_training_of_minutes_ends_with_them(folder, data, tmp_path):
    train_error_scale(str(folder), data, tmp_path / "run", minutes=1e-6, limit=2)
    assert json.loads((tmp_path / "run" / "error_bars.json").read_text())["iterations"] <= 1
