import pytest
import torch
from monai_sr_bundle.networks.srgan import Discriminator

from tests.networks.measured import without_gradient


@pytest.mark.parametrize("size", [16, 48, 96])
def test_every_patch_gets_one_logit(size):
    torch.manual_seed(0)
    logits = Discriminator(size, channels=4, hidden=8)(torch.rand(3, 1, size, size))
    assert logits.shape == (3, 1)
    assert logits.min() < 0 or logits.max() > 1  # no sigmoid has been at it


def test_the_size_is_that_of_the_paper():
    network = Discriminator(96)
    assert sum(p.numel() for p in network.features.parameters()) == 4_686_080
    convolutions = [layer for layer in network.features if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [layer.stride[0] for layer in convolutions] == [1, 2, 1, 2, 1, 2, 1, 2]


def test_every_parameter_is_trained():
    assert without_gradient(Discriminator(32, channels=4, hidden=8), torch.rand(4, 1, 32, 32)) == []
