import copy

import pytest
import torch
from ignite.engine import Engine
from monai_sr_bundle.training.weights import WeightAverage, averaging_weight


def network(value=0.0):
    layers = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1))
    torch.nn.init.constant_(layers[0].weight, value)
    return layers


def train(average, values):
    """An engine whose steps give the weight these values, one after the other."""
    waiting = iter(values)

    def step(engine, batch):
        torch.nn.init.constant_(average.model[0].weight, next(waiting))
        average.model[1].running_mean += 1

    engine = Engine(step)
    average.attach(engine)
    engine.run(range(len(values)))


def test_the_newest_weights_count_for_ever_less_but_never_for_less_than_the_momentum():
    assert averaging_weight(0, 0.002) == 0.9
    assert averaging_weight(90, 0.002) == pytest.approx(0.09)
    assert averaging_weight(10**6, 0.002) == 0.002


def test_the_first_weights_are_taken_and_the_next_are_mixed_in():
    average = WeightAverage(network(7.0))
    train(average, [1.0, 2.0, 3.0])
    expected = 1.0
    for steps, value in ((1, 2.0), (2, 3.0)):
        expected += 9 / (10 + steps) * (value - expected)
    assert average.network[0].weight.item() == pytest.approx(expected)


def test_a_short_run_forgets_its_random_beginning():
    average = WeightAverage(network())
    train(average, [100.0] * 20 + [1.0] * 180)
    assert average.network[0].weight.item() == pytest.approx(1.0, abs=1e-3)


def test_other_state_is_that_of_the_trained_network():
    average = WeightAverage(network())
    train(average, [1.0, 2.0])
    assert average.network[1].running_mean.item() == 2.0


def test_weights_that_a_copy_of_the_network_loads_do_not_begin_a_new_average():
    average = WeightAverage(network())
    train(average, [1.0, 3.0])
    before = average.network[0].weight.item()
    copy.deepcopy(average.model).load_state_dict(network(9.0).state_dict())
    assert average.network[0].weight.item() == before
    assert int(average.averaged.n_averaged) == 2


def test_weights_that_come_from_elsewhere_begin_a_new_average():
    average = WeightAverage(network())
    train(average, [1.0, 2.0])
    average.model.load_state_dict(network(9.0).state_dict())
    assert average.network[0].weight.item() == 9.0
    train(average, [5.0])
    assert average.network[0].weight.item() == 5.0


def test_a_resumed_average_goes_on_where_it_stopped():
    whole, first, second = (WeightAverage(network()) for _ in range(3))
    train(whole, [1.0, 2.0, 3.0, 4.0])
    train(first, [1.0, 2.0])
    second.averaged.load_state_dict(first.averaged.state_dict())
    train(second, [3.0, 4.0])
    torch.testing.assert_close(second.network[0].weight, whole.network[0].weight)
