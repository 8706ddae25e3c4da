import contextlib
import os

import pytest
import torch
from ignite.engine import Engine, Events

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.losses.fidelity import FidelityLoss
from monai_sr_bundle.training.budget import TimeBudget, learning_rate_factor
from monai_sr_bundle.training.resume import latest_checkpoint


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    now = [100.0]
    monkeypatch.setattr("monai_sr_bundle.training.budget.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def training(budget, clock, seconds_per_iteration=1.0, max_epochs=100):
    def step(engine, batch):
        clock[0] += seconds_per_iteration

    engine = Engine(step)
    budget.attach(engine)
    engine.run(range(10), max_epochs=max_epochs)
    return engine


def test_the_learning_rate_rises_then_falls_to_its_final_fraction():
    assert learning_rate_factor(0.0) == 0.0
    assert learning_rate_factor(0.03) == 1.0
    assert learning_rate_factor(0.5) < learning_rate_factor(0.3) < 1.0
    assert learning_rate_factor(1.0) == pytest.approx(0.02)
    assert learning_rate_factor(1.5) == pytest.approx(0.02)


def test_training_ends_when_the_time_is_spent(clock, optimizer):
    budget = TimeBudget(0.5, optimizer)
    training(budget, clock, seconds_per_iteration=2.0)
    assert budget.iterations == 15
    assert budget.progress == 1.0


def test_the_loss_and_the_rate_follow_the_budget(clock, optimizer):
    loss = FidelityLoss()
    rates = []
    budget = TimeBudget(1.0, optimizer, loss)
    engine = Engine(lambda engine, batch: clock.__setitem__(0, clock[0] + 6))
    budget.attach(engine)
    engine.add_event_handler(Events.ITERATION_STARTED, lambda: rates.append(optimizer.param_groups[0]["lr"]))
    engine.run(range(100), max_epochs=1)
    assert len(rates) == 10
    assert rates[1] > rates[5] > rates[9]
    assert loss.progress == pytest.approx(0.9)


def test_a_resumed_run_has_only_the_rest_of_the_time(clock, optimizer):
    first = TimeBudget(1.0, optimizer)
    training(first, clock, max_epochs=2)
    assert first.iterations == 20
    clock[0] += 1000  # the machine was off
    second = TimeBudget(1.0, optimizer)
    second.load_state_dict(first.state_dict())
    training(second, clock)
    assert second.iterations == 60


def test_what_is_done_in_a_pause_is_not_counted(clock, optimizer):
    budget = TimeBudget(1.0, optimizer)

    def step(engine, batch):
        clock[0] += 1
        with budget.paused():
            clock[0] += 500

    engine = Engine(step)
    budget.attach(engine)
    engine.run(range(10), max_epochs=2)
    assert (budget.iterations, budget.spent_seconds) == (20, 20.0)


def test_a_pause_that_fails_is_not_counted_either(clock, optimizer):
    budget = TimeBudget(1.0, optimizer)

    def step(engine, batch):
        clock[0] += 1
        with contextlib.suppress(KeyError), budget.paused():
            clock[0] += 500
            raise KeyError

    engine = Engine(step)
    budget.attach(engine)
    engine.run(range(3))
    assert budget.spent_seconds == 3.0


def test_a_budget_of_nothing_is_refused(optimizer):
    with pytest.raises(ValueError, match="minutes is 0, expected a number above 0"):
        TimeBudget(0, optimizer)


def test_the_newest_checkpoint_is_resumed(tmp_path):
    for age, name in enumerate(["checkpoint_epoch=10.pt", "last.pt", "checkpoint_epoch=5.pt"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    assert latest_checkpoint(str(tmp_path)).endswith("checkpoint_epoch=10.pt")


def test_nothing_to_resume_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match=r"expected last.pt or checkpoint_\*.pt. Train without --resume first"):
        latest_checkpoint(str(tmp_path))
