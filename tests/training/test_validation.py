import pytest
import torch
from ignite.engine import Engine
from monai_sr_bundle.training.budget import Budget
from monai_sr_bundle.training.progress import EvenValidation


class Validator:
    """Notes when it was run, and takes its time."""

    def __init__(self, budget, clock):
        self.budget, self.clock, self.progress = budget, clock, []

    def run(self, epoch):
        self.progress.append(self.budget.progress)
        self.clock[0] += 1000


def new_budget(minutes=1.0):
    return Budget(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), minutes=minutes)


def train(budget, clock, count, seconds=1.0, epoch_length=10, max_epochs=1000):
    """One-second steps with `count` validations."""
    engine = Engine(lambda engine, batch: clock.__setitem__(0, clock[0] + seconds))
    validator = Validator(budget, clock)
    budget.attach(engine)
    EvenValidation(validator, budget, count).attach(engine)
    engine.run(range(epoch_length), max_epochs=max_epochs)
    return validator


@pytest.mark.parametrize("epoch_length", [1, 7, 1000])
def test_validations_are_evenly_spread_however_long_an_epoch_is(clock, epoch_length):
    validator = train(new_budget(), clock, 4, epoch_length=epoch_length)
    assert validator.progress == [0.25, 0.5, 0.75]  # the workflow ends with the fourth


def test_validation_takes_nothing_of_the_budget(clock):
    budget = new_budget()
    train(budget, clock, 4)
    assert (budget.iterations, budget.spent_seconds) == (60, 60.0)


def test_a_step_longer_than_a_part_is_followed_by_one_validation(clock):
    assert train(new_budget(), clock, 10, seconds=18.0).progress == [0.3, 0.6, 0.9]


def test_a_resumed_run_does_not_catch_up_on_earlier_validations(clock):
    first, second = new_budget(), new_budget()
    train(first, clock, 4, max_epochs=2)
    second.load_state_dict(first.state_dict())
    assert train(second, clock, 4).progress == [0.5, 0.75]


def test_no_validation_is_refused(clock):
    budget = new_budget()
    with pytest.raises(ValueError, match="validations is 0, expected at least 1"):
        EvenValidation(Validator(budget, clock), budget, 0)
