"""The privacy section of a study, and the curve of epsilon against PSNR."""

import json

import pytest

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")
pytest.importorskip("opacus", reason="federated training: opacus is not installed (extra [federated])")

from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.federated.ledger import Release, compute_epsilon
from monai_sr_bundle.federated.privacy_curve import CURVE_FILE, draw_privacy_curve
from monai_sr_bundle.federated.site_settings import SiteSettings
from monai_sr_bundle.federated.site_training import SiteTraining

from tests.federated.conftest import TASK, study
from tests.with_error_bars import write_windows

PRIVACY = {"protect": "training", "noise_multiplier": 1.5, "clip": 0.1, "delta": 1e-5}


def test_dp_sgd_is_a_value_of_the_task_and_clip_and_noise_a_filter():
    training = study(privacy=PRIVACY)
    assert (training.task.private_noise, training.task.private_clip) == (1.5, 0.1)
    assert training.privacy.result_filters("a")[0]["path"].endswith(".ListedOnly")
    difference = study(privacy={**PRIVACY, "protect": "difference"})
    assert (difference.task.private_noise, difference.task.private_clip) == (None, None)
    (one,) = difference.privacy.result_filters("a")
    assert one["path"].endswith(".ClipAndNoise")
    assert one["args"] == {"bundle": "a", "clip": 0.1, "noise_multiplier": 1.5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protect": "nothing"}, "protect is 'nothing', expected training or difference"),
        ({"clip": 0}, "clip is 0, expected a number above 0"),
        ({"delta": 1.0}, "delta is 1.0, expected a number between 0 and 1"),
        ({"noise": 1.0}, "expected protect and perhaps"),
        ({"noise_multiplier": 0.01}, "private_noise is 0.01, expected a number from 0.1"),
    ],
)
def test_a_privacy_that_protects_nobody_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        study(privacy=PRIVACY | changes)


def test_a_site_without_a_budget_does_not_train_a_private_study(sites, tmp_path):
    task = study(privacy=PRIVACY).task
    settings = SiteSettings(sites["north"].data, tmp_path, reduce=1)
    with pytest.raises(InputError, match="this site has no privacy budget"):
        SiteTraining(task, task.require_bundle(), settings, "north", tmp_path / "out")


def test_a_round_of_dp_sgd_is_paid_for_before_it_is_trained(sites, tmp_path):
    task = study(privacy=PRIVACY).task
    settings = SiteSettings(
        sites["north"].data, tmp_path, reduce=1, ledger=tmp_path / "ledger.jsonl", epsilon=50.0, delta=1e-5
    )
    training = SiteTraining(task, task.require_bundle(), settings, "north", tmp_path / "out")
    training.load(training.training.weights())
    result = training.run_round(0)
    rate = training.training.sample_rate
    assert result.privacy["epsilon"] == compute_epsilon([Release(1.5, rate, task.iterations)], 1e-5)
    assert result.privacy["sample_rate"] == rate == 1.0  # two patients, and two in a step


@pytest.mark.slow
def test_the_curve_states_epsilon_and_psnr_of_every_noise(tmp_path):
    write_windows(tmp_path / "data", "drawn", {"train": 8, "val": 2, "test": 2}, size=128)
    text = tmp_path / "curve.yaml"
    text.write_text(json.dumps(TASK))
    with pytest.raises(InputError, match="has no privacy section"):
        draw_privacy_curve(str(text), tmp_path / "data", tmp_path / "out", [2.0])
    text.write_text(json.dumps({**TASK, "privacy": PRIVACY}))
    table = draw_privacy_curve(str(text), tmp_path / "data", tmp_path / "out", [2.0], sites=2)
    rows = json.loads((tmp_path / "out" / CURVE_FILE).read_text())["rows"]
    assert list(rows) == ["bicubic", "before training", "no noise", "noise 2"]
    epsilon = compute_epsilon([Release(2.0, 0.5, TASK["rounds"] * TASK["iterations"])], 1e-5)
    assert rows["noise 2"]["epsilon"] == {site: pytest.approx(epsilon) for site in ("site-1", "site-2")}
    assert rows["no noise"]["epsilon"] == {}
    assert f"{epsilon:.3g}" in table
    with pytest.raises(OutputError, match="is not empty"):
        draw_privacy_curve(str(text), tmp_path / "data", tmp_path / "out", [2.0], sites=2)
