import pytest
import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.edsr import EDSR, MDSR

from tests.networks.measured import reach, trained_like


@pytest.fixture
def network():
    return trained_like(MDSR(channels=8, dilations=(1, 2)))


def at_scale(network, scale):
    """Return a network of another scale with the same weights."""
    other = MDSR(scale=scale, channels=8, dilations=(1, 2), slices=network.slices).eval()
    other.load_state_dict(network.state_dict())
    return other


@torch.inference_mode()
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_scale_of_the_constructor_is_that_of_a_call_without_one(network, scale):
    image = torch.rand(2, 1, 9, 14)
    torch.testing.assert_close(at_scale(network, scale)(image), network(image, scale))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_pixel_beyond_the_receptive_radius_changes_nothing(network, scale):
    assert network.receptive_radius == 9
    assert reach(at_scale(network, scale), 32, 16, 15) == 9


@torch.inference_mode()
@pytest.mark.parametrize("scale", [2, 4])
def test_of_several_slices_the_middle_one_is_enlarged_and_the_others_are_seen(scale):
    network = trained_like(MDSR(channels=8, dilations=(1, 2), slices=3))
    image = torch.rand(2, 3, 9, 14)
    result = network(image, scale)
    assert result.shape == (2, 1, 9 * scale, 14 * scale)
    torch.testing.assert_close(at_scale(network, scale)(image), result)
    assert not torch.equal(network(image.flip(1), scale), result)
    for tail in network.tails.values():
        torch.nn.init.zeros_(tail.weight)
        torch.nn.init.zeros_(tail.bias)
    torch.testing.assert_close(network(image, scale), Bicubic(scale)(image[:, 1:2]))


@torch.inference_mode()
def test_it_begins_as_the_edsr_that_it_takes_over():
    torch.manual_seed(0)
    edsr = trained_like(EDSR(scale=4, channels=8, blocks=2))
    network = MDSR(channels=8, dilations=(1, 1, 2)).eval()
    network.load_edsr(edsr.state_dict())
    image = torch.rand(1, 1, 20, 20)
    torch.testing.assert_close(network(image, 4), edsr(image))


@torch.inference_mode()
@pytest.mark.parametrize("scale", [2, 3])
def test_the_tail_of_another_scale_begins_as_the_mean_detail_over_its_pixels(scale):
    torch.manual_seed(0)
    edsr = trained_like(EDSR(scale=4, channels=8, blocks=2))
    network = MDSR(channels=8, dilations=(1, 1)).eval()
    network.load_edsr(edsr.state_dict())
    image = torch.rand(1, 1, 21, 21)
    fine = torch.nn.functional.interpolate(edsr(image) - Bicubic(4)(image), scale_factor=scale)
    expected = torch.nn.functional.avg_pool2d(fine, 4)
    torch.testing.assert_close(network(image, scale) - Bicubic(scale)(image), expected, atol=1e-5, rtol=1e-4)


def test_weights_with_more_blocks_are_refused():
    with pytest.raises(ValueError, match="the weights have 3 residual blocks, this network 2"):
        MDSR(channels=8, dilations=(1, 1)).load_edsr(EDSR(channels=8, blocks=3).state_dict())


def test_the_default_takes_at_most_two_billion_multiplications():
    network = MDSR()
    # Multiplications from 64 to 256 pixels: every weight of head, body and tail once a pixel, and the enlargement.
    parts = (network.head, network.body, network.tails["x4"])
    alone = sum(parameter.numel() for part in parts for parameter in part.parameters() if parameter.ndim > 1)
    assert (alone + 16 * 25) * 64 * 64 < 2.0e9


def test_a_scale_that_it_was_not_built_for_is_refused(network):
    with pytest.raises(ValueError, match="scale is 5, expected one of those"):
        network(torch.zeros(1, 1, 8, 8), 5)
