"""Filters of a site: what leaves is on the list, and a difference only clipped and with noise."""

import numpy as np
import pytest
import torch

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.federated.filters import ClipAndNoise, ListedOnly, RefusedMessageError
from monai_sr_bundle.federated.ledger import BudgetSpentError, Ledger, Release, compute_epsilon
from monai_sr_bundle.federated.messages import EPSILON, LEAST_PATIENTS_OF_SITE, same_process
from monai_sr_bundle.federated.site_settings import SETTINGS_FILE, SiteSettings
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.training.weights import read_weights
from monai_sr_bundle.uncertainty.conformal import FACTORS
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants, StatisticsConstants
from nvflare.fuel.utils import fobs

from tests.federated.conftest import site_context

BUNDLE = "chest_xray_srcnn_x4"
SECRET = "PatientName^Doe /data/hospital/00000017_002.png"


@pytest.fixture(scope="module")
def weights():
    return {key: value.numpy() for key, value in read_weights(find_bundle(BUNDLE).weights("model.pt")[0]).items()}


@pytest.fixture(scope="module")
def listed_only():
    return ListedOnly(BUNDLE)


def difference(weights, size=1.0):
    rng = np.random.default_rng(0)
    return {key: (size * rng.standard_normal(value.shape)).astype(np.float32) for key, value in weights.items()}


def message(data, kind=DataKind.WEIGHT_DIFF, **meta):
    return DXO(kind, data, {MetaKey.NUM_STEPS_CURRENT_ROUND: 12, **meta}).to_shareable()


def curve(patients=LEAST_PATIENTS_OF_SITE, **changes):
    values = {"images": 9, "patients": patients, "cases": 9, "scale_sum": 0.5, "loss_sum": np.zeros(len(FACTORS))}
    return {"0": values | changes}


def private(clip=1.0, noise_multiplier=4.0):
    return ClipAndNoise(BUNDLE, clip, noise_multiplier)


@pytest.fixture
def site(tmp_path):
    """NVFlare's context of a filter at a site, and the site's own settings."""
    return site_with(tmp_path)


def site_with(folder, **changes):
    settings = {"ledger": folder / "ledger.jsonl", "epsilon": 8.0, "delta": 1e-5} | changes
    return site_context(folder, SiteSettings(folder, folder, **settings))


def ledger_of(folder):
    return Ledger(folder / "ledger.jsonl", 8.0, 1e-5)


def norm(data):
    return np.sqrt(sum(np.square(value, dtype=np.float64).sum() for value in data.values()))


def test_a_listed_answer_leaves_as_it_is(weights, listed_only, tmp_path):
    data = difference(weights)
    answer = message(data, **{MetaKey.INITIAL_METRICS: {"val_psnr": 31.5}})
    answer.set_header(AppConstants.CURRENT_ROUND, 3)
    left = listed_only.process(answer, site_with(tmp_path, ledger=None))
    dxo = from_shareable(left)
    assert dxo.data_kind == DataKind.WEIGHT_DIFF
    assert all(np.array_equal(dxo.data[key], data[key]) for key in weights)
    assert dxo.meta == {MetaKey.NUM_STEPS_CURRENT_ROUND: 12, MetaKey.INITIAL_METRICS: {"val_psnr": 31.5}}
    assert left.get_header(AppConstants.CURRENT_ROUND) == 3


@pytest.mark.parametrize("make", [lambda: ListedOnly(BUNDLE), private], ids=["ListedOnly", "ClipAndNoise"])
def test_whole_weights_never_leave(make, site, tmp_path, weights):
    with pytest.raises(RefusedMessageError, match="the answer is WEIGHTS, .* Whole weights never leave the site"):
        make().process(message(weights, DataKind.WEIGHTS), site)
    assert not (tmp_path / "ledger.jsonl").exists()


def changed(key, value):
    return lambda data: data | {key: value}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(SECRET, np.zeros(3, np.float32)), "an unlisted name among its 6 weights"),
        (changed("map.bias", np.zeros(32, np.float64)), "map.bias is float64 .32,., expected float32 .32,."),
        (changed("map.bias", np.zeros(33, np.float32)), "map.bias is float32 .33,., expected float32 .32,."),
        (changed("map.bias", SECRET), "map.bias is no array, expected float32"),
        (changed("map.bias", np.full(32, np.nan, np.float32)), "map.bias holds values that are not finite"),
        (lambda data: {}, "without content"),
    ],
)
def test_what_is_not_on_the_list_of_weights_is_refused(change, reason, weights, listed_only, site):
    for each in (listed_only, private()):
        with pytest.raises(RefusedMessageError, match=reason) as caught:
            each.process(message(change(difference(weights))), site)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        message({"val_psnr": 31.0, SECRET: 1.0}, DataKind.METRICS),
        message({"val_psnr": SECRET}, DataKind.METRICS),
        message({"val_psnr": True}, DataKind.METRICS),
        message({"val_psnr": float("nan")}, DataKind.METRICS),
        message({"val_psnr": 31.0}, DataKind.METRICS, note=SECRET),
        message({"val_psnr": 31.0}, DataKind.METRICS, **{MetaKey.INITIAL_METRICS: {SECRET: 1.0}}),
        message({"val_psnr": 31.0}, DataKind.APP_DEFINED),
        message({"0": DXO(DataKind.METRICS, {"val_psnr": 31.0})}, DataKind.COLLECTION),
        message(curve(patients=LEAST_PATIENTS_OF_SITE - 1), DataKind.ANALYTIC),
        message(curve(names=[SECRET]), DataKind.ANALYTIC),
        message(curve(loss_sum=np.zeros(400)), DataKind.ANALYTIC),
        message({SECRET: curve()["0"]}, DataKind.ANALYTIC),
        Shareable({"image": SECRET}),
    ],
)
def test_any_other_answer_is_refused_without_its_content(answer, listed_only):
    with pytest.raises(RefusedMessageError) as caught:
        listed_only.process(answer, FLContext())
    assert SECRET not in str(caught.value)


def test_figures_and_curves_of_enough_patients_leave(listed_only):
    for data, kind in (({"val_psnr": 31.0}, DataKind.METRICS), (curve(), DataKind.ANALYTIC)):
        np.testing.assert_equal(from_shareable(listed_only.process(message(data, kind), FLContext())).data, data)


def test_statistics_leave_without_any_other_name(listed_only):
    task = StatisticsConstants.STATS_2nd_STATISTICS
    for name, is_listed in (("intensity", True), (SECRET, False)):
        counted = {"count": {"train": {name: 12}}}
        answer = DXO(
            DataKind.STATISTICS, {StatisticsConstants.STATISTICS_TASK_KEY: task, task: fobs.dumps(counted)}
        ).to_shareable()
        if is_listed:
            assert fobs.loads(from_shareable(listed_only.process(answer, FLContext())).data[task]) == counted
        else:
            with pytest.raises(RefusedMessageError, match="statistics hold something that is not listed"):
                listed_only.process(answer, FLContext())


def test_of_a_failure_only_its_code_leaves(listed_only):
    answer = make_reply(ReturnCode.EXECUTION_EXCEPTION, {"error": SECRET})
    answer["traceback"] = SECRET
    left = listed_only.process(answer, FLContext())
    assert left.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert SECRET not in repr(left)
    answer.set_return_code(SECRET)
    assert listed_only.process(answer, FLContext()).get_return_code() == ReturnCode.ERROR


def test_what_hides_beside_an_answer_stays(weights, listed_only, tmp_path):
    answer = message(difference(weights))
    answer["image"] = SECRET
    answer.set_header("note", SECRET)
    assert SECRET not in repr(listed_only.process(answer, site_with(tmp_path, ledger=None)))


def test_a_site_with_a_budget_lets_no_difference_leave_without_noise(weights, listed_only, site):
    with pytest.raises(RefusedMessageError, match="has a privacy budget, and the study trains without noise"):
        listed_only.process(message(difference(weights)), site)
    paid = listed_only.process(message(difference(weights), **{EPSILON: 2.0}), site)  # by DP-SGD
    assert from_shareable(paid).meta[EPSILON] == 2.0
    listed_only.process(message({"val_psnr": 31.0}, DataKind.METRICS), site)  # figures hold no weights


def test_a_difference_is_clipped_over_all_its_weights(weights, tmp_path):
    site = site_with(tmp_path, epsilon=1e15)
    sent = difference(weights, size=10.0)
    data = from_shareable(private(noise_multiplier=1e-6).process(message(sent), site)).data
    assert norm(sent) > 1000
    assert norm(data) == pytest.approx(1.0, abs=1e-3)
    for key, value in data.items():  # its direction stays
        np.testing.assert_allclose(value, sent[key] / norm(sent), atol=1e-5)


def test_noise_has_the_stated_deviation_and_is_never_the_same(weights, site):
    nothing = {key: np.zeros_like(value) for key, value in weights.items()}
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        data = from_shareable(private(clip=0.5).process(message(nothing), site)).data
        draws.append(np.concatenate([value.ravel() for value in data.values()]))
    assert len(draws[0]) > 50_000
    assert np.std(draws[0]) == pytest.approx(4.0 * 0.5, rel=0.02)
    assert abs(np.corrcoef(*draws)[0, 1]) < 0.05


def test_the_ledger_counts_how_far_apart_two_clipped_differences_can_lie(weights, site, tmp_path):
    left = from_shareable(private().process(message(difference(weights)), site))
    (release,) = ledger_of(tmp_path).read()
    assert (release.noise_multiplier, release.sample_rate, release.steps) == (2.0, 1.0, 1)
    assert left.meta[EPSILON] == compute_epsilon([Release(2.0)], 1e-5)


def test_rounds_end_when_the_budget_is_spent_and_a_restart_changes_nothing(weights, tmp_path):
    site = site_with(tmp_path, epsilon=4.0)
    epsilons = [compute_epsilon([Release(2.0)] * count, 1e-5) for count in range(1, 100)]
    for _ in range(sum(each <= 4.0 for each in epsilons)):  # a filter of its own for every job
        private().process(message(difference(weights)), site)
    with pytest.raises(BudgetSpentError):
        private().process(message(difference(weights)), site)
    # Figures hold no weights.
    private().process(message({"val_psnr": 31.0}, DataKind.METRICS), site)


def test_without_a_ledger_nothing_leaves(weights, tmp_path):
    site = site_with(tmp_path, ledger=tmp_path / "missing" / "ledger.jsonl")
    with pytest.raises(OutputError, match="the privacy ledger cannot be written"):
        private().process(message(difference(weights)), site)
    with pytest.raises(InputError, match="this site has no privacy budget, and nothing that spends one may run here"):
        private().process(message(difference(weights)), site_with(tmp_path, ledger=None))
    (tmp_path / "local" / SETTINGS_FILE).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        private().process(message(difference(weights)), site)


@pytest.mark.parametrize("changes", [{"clip": 0.0}, {"noise_multiplier": 0.0}, {"noise_multiplier": float("inf")}])
def test_a_filter_that_protects_nobody_is_refused(changes):
    with pytest.raises(InputError, match="expected numbers above 0"):
        private(**changes)


def test_processors_round_the_numbers_of_a_process_in_different_ways():
    numbers = np.array([1, 1000, 1.0, 0.85, 0.5, 0.2, 0.04, 6e-5], dtype=np.float32)
    assert same_process((numbers * np.float32(1 + 2e-6)).tolist(), numbers.tolist())
    assert not same_process([*numbers[:-1], 9e-5], numbers)
    assert not same_process(numbers[:-1], numbers)
    assert not same_process("a patient's name", numbers)
