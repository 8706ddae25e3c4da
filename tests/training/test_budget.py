import pytest
import torch
from ignite.engine import Engine, Events
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.losses.fidelity import FidelityLoss
from monai_sr_bundle.training.budget import Budget, Duration, learning_rate_factor


@pytest.fixture
def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def train(budget, clock, seconds_per_iteration=1.0, max_epochs=100):
    """Run epochs of ten iterations; returns the learning rate of every iteration."""

    def step(engine, batch):
        clock[0] += seconds_per_iteration

    engine, rates = Engine(step), []
    budget.attach(engine)
    engine.add_event_handler(Events.ITERATION_STARTED, lambda: rates.append(budget.optimizer.param_groups[0]["lr"]))
    engine.run(range(10), max_epochs=max_epochs)
    return rates


def test_the_learning_rate_rises_then_falls_to_its_final_fraction():
    assert learning_rate_factor(0.0) == 0.02  # with 0, a run of one iteration would learn nothing
    assert learning_rate_factor(0.03) == 1.0
    assert learning_rate_factor(0.5) < learning_rate_factor(0.3) < 1.0
    assert learning_rate_factor(1.0) == pytest.approx(0.02)
    assert learning_rate_factor(1.5) == pytest.approx(0.02)


@pytest.mark.parametrize("length", [{"minutes": 0.5}, {"iterations": 15}, {"epochs": 1.5}])
def test_training_ends_when_its_length_is_reached(clock, optimizer, length):
    budget = Budget(optimizer, **length)
    train(budget, clock, seconds_per_iteration=2.0)
    assert (budget.iterations, budget.spent_seconds, budget.progress) == (15, 30.0, 1.0)


def test_the_rate_follows_iterations_and_epochs_as_it_follows_minutes(clock, optimizer):
    rates = []
    for length in ({"minutes": 20 / 60}, {"iterations": 20}, {"epochs": 2}):
        optimizer.param_groups[0]["lr"] = 0.1
        rates.append(train(Budget(optimizer, **length), clock))
    assert len(rates[0]) == 20
    assert rates[1] == rates[2] == pytest.approx(rates[0])


def test_the_loss_and_the_rate_follow_the_budget(clock, optimizer):
    loss = FidelityLoss()
    rates = train(Budget(optimizer, minutes=1.0, loss=loss), clock, seconds_per_iteration=6)
    assert len(rates) == 10
    assert rates[1] > rates[5] > rates[9]
    assert loss.progress == pytest.approx(0.9)


def test_a_resumed_run_has_only_the_rest_of_the_time(clock, optimizer):
    first = Budget(optimizer, minutes=1.0)
    train(first, clock, max_epochs=2)
    assert first.iterations == 20
    clock[0] += 1000  # the machine was off
    second = Budget(optimizer, minutes=1.0)
    second.load_state_dict(first.state_dict())
    train(second, clock)
    assert second.iterations == 60


def test_a_checkpoint_of_version_0_1_0_is_resumed(clock, optimizer):
    budget = Budget(optimizer, iterations=30)
    budget.load_state_dict({"spent_seconds": 20.0, "iterations": 20})
    assert len(train(budget, clock)) == 10


def test_a_run_of_a_stated_length_goes_on_in_the_schedule(clock, optimizer):
    expected = train(Budget(optimizer, iterations=20), clock)
    optimizer.param_groups[0]["lr"] = 0.1
    parts, rates = Budget(optimizer, iterations=20), []
    for iterations in (5, 15):
        parts.limit_next_run(Duration(iterations=iterations))
        rates += train(parts, clock)
    assert rates == expected


def test_after_the_schedule_a_run_of_a_stated_length_trains_on_at_the_lowest_rate(clock, optimizer):
    budget = Budget(optimizer, iterations=20)
    train(budget, clock)
    budget.limit_next_run(Duration(iterations=7))
    assert train(budget, clock) == pytest.approx([0.002] * 7)
    assert budget.iterations == 27


def test_after_a_spent_budget_a_further_run_has_another_as_long(clock, optimizer):
    budget = Budget(optimizer, minutes=0.25)
    first, second = train(budget, clock), train(budget, clock)
    assert (len(first), budget.iterations) == (15, 30)
    assert second == pytest.approx(first)


def test_a_restarted_schedule_begins_at_its_first_rate(clock, optimizer):
    budget = Budget(optimizer, iterations=20)
    budget.limit_next_run(Duration(iterations=10))
    first = train(budget, clock)
    budget.restart_schedule()
    budget.limit_next_run(Duration(iterations=10))
    assert train(budget, clock) == first
    budget.restart_schedule(Duration(iterations=4))
    assert len(train(budget, clock)) == 4
    assert budget.state_dict()["schedule_start_iterations"] == 20


def test_time_in_a_pause_is_not_counted(clock, optimizer):
    budget = Budget(optimizer, minutes=1.0)

    def step(engine, batch):
        clock[0] += 1
        with budget.paused():
            clock[0] += 500

    engine = Engine(step)
    budget.attach(engine)
    engine.run(range(10), max_epochs=2)
    assert (budget.iterations, budget.spent_seconds) == (20, 20.0)


@pytest.mark.parametrize("unit", ["iterations", "epochs", "minutes"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_training_of_no_length_is_refused(unit, value):
    with pytest.raises(InputError, match=f"--{unit} {value:g}: expected a number above 0"):
        Duration(**{unit: value})


@pytest.mark.parametrize(
    ("lengths", "given"), [({}, "not given"), ({"iterations": 3, "minutes": 1.0}, "iterations, minutes")]
)
def test_a_length_is_given_in_one_unit(lengths, given):
    with pytest.raises(InputError, match=f"the length of a training is {given}, expected exactly one of iterations"):
        Duration(**lengths)
