"""The privacy ledger: what a site has spent, over rounds, jobs and restarts."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("opacus", reason="federated training: opacus is not installed (extra [federated])")

from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.federated.ledger import BudgetSpentError, Ledger, Release, compute_epsilon
from opacus.accountants import RDPAccountant


@pytest.mark.parametrize(
    ("noise_multiplier", "sample_rate", "steps", "delta"),
    [(1.1, 256 / 60000, 14062, 1e-5), (2.0, 1.0, 10, 1e-5), (0.6, 0.1, 100, 1e-3)],
)
def test_epsilon_is_that_of_the_library(noise_multiplier, sample_rate, steps, delta):
    accountant = RDPAccountant()
    for _ in range(steps):
        accountant.step(noise_multiplier=noise_multiplier, sample_rate=sample_rate)
    release = Release(noise_multiplier, sample_rate, steps)
    assert compute_epsilon([release], delta) == pytest.approx(accountant.get_epsilon(delta), rel=1e-12)


def test_one_round_of_noise_is_the_gaussian_mechanism():
    """Without sampling, the Renyi divergence of order a is a / (2 sigma^2): epsilon is its best conversion."""
    sigma, delta = 3.0, 1e-5
    orders = [1 + step / 10 for step in range(1, 100)] + list(range(12, 64))
    by_hand = min(a / (2 * sigma**2) + _conversion(a, delta) for a in orders)
    assert compute_epsilon([Release(sigma)], delta) == pytest.approx(by_hand, rel=1e-9)


def _conversion(order, delta):
    """From an order and delta to what is added to its divergence (Balle et al., AISTATS 2020, Theorem 21)."""
    return math.log((order - 1) / order) - (math.log(delta) + math.log(order)) / (order - 1)


def test_a_ledger_survives_the_process_that_wrote_it(tmp_path):
    path = tmp_path / "ledger.jsonl"
    code = (
        "import sys; from pathlib import Path\n"
        "from monai_sr_bundle.federated.ledger import Ledger, Release\n"
        f"print(Ledger(Path({str(path)!r}), 8.0, 1e-5).spend(Release(4.0, job=sys.argv[1])))"
    )
    epsilons = [
        float(subprocess.run([sys.executable, "-c", code, job], capture_output=True, text=True, check=True).stdout)
        for job in ("first", "second")
    ]
    assert epsilons == [compute_epsilon([Release(4.0)] * count, 1e-5) for count in (1, 2)]
    assert [each.job for each in Ledger(path, 8.0, 1e-5).read()] == ["first", "second"]


def test_a_spent_budget_refuses_the_next_release_and_writes_nothing(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", epsilon=3.0, delta=1e-5)
    epsilons = [compute_epsilon([Release(4.0)] * count, 1e-5) for count in range(1, 100)]
    rounds = sum(each <= 3.0 for each in epsilons)
    assert [ledger.spend(Release(4.0)) for _ in range(rounds)] == epsilons[:rounds]
    with pytest.raises(BudgetSpentError, match=r"epsilon would be [\d.]+ with the next release, .* site is 3 "):
        ledger.spend(Release(4.0))
    assert len(ledger.read()) == rounds > 1


def test_two_kinds_of_release_share_a_budget(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", epsilon=8.0, delta=1e-5)
    releases = [Release(4.0), Release(1.0, 0.05, 200)]
    epsilons = [ledger.spend(each) for each in releases]
    assert epsilons[1] == compute_epsilon(releases, 1e-5) > epsilons[0]


def test_a_ledger_that_cannot_be_written_or_read_lets_nothing_out(tmp_path):
    with pytest.raises(OutputError, match="the privacy ledger cannot be written .*there is no folder"):
        Ledger(tmp_path / "missing" / "ledger.jsonl", 8.0, 1e-5).spend(Release(4.0))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be read as a privacy ledger"):
        Ledger(tmp_path / "folder", 8.0, 1e-5).spend(Release(4.0))
    path = tmp_path / "ledger.jsonl"
    Ledger(path, 8.0, 1e-5).spend(Release(4.0))
    whole = path.read_text()
    for damaged, reason in (
        (whole.rstrip("\n"), "its last line is cut off"),
        (whole + "{\n", "privacy ledger"),
        (whole + json.dumps({"noise_multiplier": -1.0}) + "\n", "no epsilon"),
    ):
        path.write_text(damaged)
        with pytest.raises(InputError, match=reason):
            Ledger(path, 8.0, 1e-5).spend(Release(4.0))
        assert path.read_text() == damaged


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full of Linux")
def test_a_full_disk_lets_nothing_out(tmp_path):
    os.symlink("/dev/full", tmp_path / "ledger.jsonl")
    ledger = Ledger(tmp_path / "ledger.jsonl", 8.0, 1e-5)
    ledger.read = list  # reading /dev/full never ends
    with pytest.raises(OutputError, match="cannot be written .*No space left"):
        ledger.spend(Release(4.0))


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 1e-5), (float("inf"), 1e-5), (8.0, 0.0), (8.0, 1.0)])
def test_a_budget_that_is_none_is_refused(tmp_path, epsilon, delta):
    with pytest.raises(InputError, match="the privacy budget is epsilon"):
        Ledger(tmp_path / "ledger.jsonl", epsilon, delta)


def test_a_release_without_noise_has_no_epsilon():
    with pytest.raises(InputError, match="noise multiplier 0.0, .* has no epsilon"):
        Release(0.0)
