import pytest
import torch
from ignite.engine import Engine
from monai_sr_bundle.networks.edsr import EDSR
from monai_sr_bundle.training.weights import BatchStatistics
from torch import nn

IMAGES = [{"image": torch.full((1, 4, 4), value)} for value in (1.0, 3.0, 6.0)]


def load(item):
    return item


def normalising():
    return nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1)).eval()


def test_statistics_are_those_of_the_whole_images_before_an_evaluation():
    network = normalising()
    nn.init.constant_(network[0].weight, 2.0)
    evaluator = Engine(lambda engine, batch: network(batch))
    BatchStatistics(network, IMAGES, load, batch_size=3).attach(evaluator)
    evaluator.run([IMAGES[0]["image"][None]])
    values = torch.tensor([2.0, 6.0, 12.0]).repeat_interleave(16)
    assert network[1].running_mean.item() == pytest.approx(values.mean().item())
    assert network[1].running_var.item() == pytest.approx(values.var().item(), rel=1e-4)


def test_batches_count_alike_and_a_second_time_forgets_the_first():
    network = normalising()
    nn.init.constant_(network[0].weight, 1.0)
    handler = BatchStatistics(network, IMAGES, load, batch_size=2)
    handler.measure()
    assert network[1].running_mean.item() == pytest.approx((2.0 + 6.0) / 2)
    nn.init.constant_(network[0].weight, 10.0)
    handler.measure()
    assert network[1].running_mean.item() == pytest.approx(40.0)


def test_images_of_different_sizes_are_measured_apart():
    network = normalising()
    nn.init.constant_(network[0].weight, 1.0)
    images = [*IMAGES[:2], {"image": torch.full((1, 6, 2), 5.0)}]
    BatchStatistics(network, images, load).measure()
    assert network[1].running_mean.item() == pytest.approx((2.0 + 5.0) / 2)


def test_a_network_without_normalisation_needs_no_image():
    def never(item):
        raise AssertionError("read")

    BatchStatistics(EDSR(scale=2, channels=4, blocks=1), IMAGES, never).measure()
