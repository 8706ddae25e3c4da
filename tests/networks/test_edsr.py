import pytest
import torch

from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.edsr import EDSR


@pytest.fixture
def trained_like():
    """A network whose weights are all away from their special starting values, so that a comparison can fail."""
    torch.manual_seed(0)
    network = EDSR(scale=4, channels=8, blocks=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def test_an_untrained_network_is_almost_bicubic():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 16, 16)
    assert (EDSR()(image) - Bicubic(4)(image)).abs().max() < 0.05


@torch.inference_mode()
def test_a_pixel_beyond_the_receptive_radius_changes_nothing(trained_like):
    image = torch.rand(1, 1, 32, 32)
    changed = image.clone()
    changed[..., 16, 16] += 1.0
    moved = (trained_like(changed) - trained_like(image)).abs()[0, 0] > 1e-6
    rows = moved.any(dim=1).nonzero().flatten()
    radius = trained_like.receptive_radius
    assert radius == 7
    assert rows.min() == 4 * (16 - radius)
    assert rows.max() == 4 * (16 + radius) + 3


@torch.inference_mode()
def test_torchscript_gives_the_same_output(trained_like):
    image = torch.rand(2, 1, 9, 14)
    torch.testing.assert_close(torch.jit.script(trained_like)(image), trained_like(image))


def test_the_default_size_is_the_one_on_the_card():
    assert sum(p.numel() for p in EDSR().parameters()) == 360_736


def test_no_blocks_are_refused():
    with pytest.raises(ValueError, match="blocks is 0 and channels 8"):
        EDSR(channels=8, blocks=0)
