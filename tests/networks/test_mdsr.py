import pytest
import torch

from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.edsr import EDSR
from monai_sr_bundle.networks.mdsr import MDSR
from tests.networks.measured import assert_onnx_agrees, reach, trained_like


@pytest.fixture
def network():
    return trained_like(MDSR(channels=8, dilations=(1, 2)))


@torch.inference_mode()
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_scale_enlarges_by_its_factor_and_alone_gives_the_same(network, scale):
    image = torch.rand(2, 1, 9, 14)
    enlarged = network(image, scale)
    assert enlarged.shape == (2, 1, 9 * scale, 14 * scale)
    torch.testing.assert_close(network.at_scale(scale)(image), enlarged)


@torch.inference_mode()
def test_an_untrained_network_is_almost_bicubic():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 16, 16)
    network = MDSR()
    for scale in network.scales:
        assert (network(image, scale) - Bicubic(scale)(image)).abs().max() < 0.05


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_pixel_beyond_the_receptive_radius_changes_nothing(network, scale):
    assert network.receptive_radius == 9
    assert reach(network.at_scale(scale), 32, 16, 15) == 9


@torch.inference_mode()
def test_a_region_is_the_crop_of_the_whole(network):
    image = torch.rand(1, 1, 48, 48)
    halo = network.receptive_radius
    region = network(image[..., 16 - halo : 32 + halo, 16 - halo : 32 + halo], 4)
    inside = slice(4 * halo, -4 * halo)
    torch.testing.assert_close(region[..., inside, inside], network(image, 4)[..., 64:128, 64:128])


@torch.inference_mode()
def test_it_begins_as_the_edsr_that_it_takes_over():
    torch.manual_seed(0)
    edsr = trained_like(EDSR(scale=4, channels=8, blocks=2))
    network = MDSR(channels=8, dilations=(1, 1, 2)).eval()
    network.begin_with_edsr(edsr.state_dict())
    image = torch.rand(1, 1, 20, 20)
    torch.testing.assert_close(network(image, 4), edsr(image))


@torch.inference_mode()
@pytest.mark.parametrize("scale", [2, 3])
def test_the_tail_of_another_scale_begins_as_the_mean_detail_over_its_pixels(scale):
    torch.manual_seed(0)
    edsr = trained_like(EDSR(scale=4, channels=8, blocks=2))
    network = MDSR(channels=8, dilations=(1, 1)).eval()
    network.begin_with_edsr(edsr.state_dict())
    image = torch.rand(1, 1, 21, 21)
    fine = torch.nn.functional.interpolate(edsr(image) - Bicubic(4)(image), scale_factor=scale)
    expected = torch.nn.functional.avg_pool2d(fine, 4)
    torch.testing.assert_close(network(image, scale) - Bicubic(scale)(image), expected, atol=1e-5, rtol=1e-4)


def test_onnx_gives_the_same_output(network, tmp_path):
    assert_onnx_agrees(network.at_scale(3), tmp_path / "model.onnx")


def test_weights_with_more_blocks_are_refused():
    with pytest.raises(ValueError, match="the weights have 3 residual blocks, this network 2"):
        MDSR(channels=8, dilations=(1, 1)).begin_with_edsr(EDSR(channels=8, blocks=3).state_dict())


@pytest.mark.parametrize("arguments", [{"scales": ()}, {"dilations": ()}, {"channels": 0}])
def test_a_network_without_scale_block_or_channel_is_refused(arguments):
    with pytest.raises(ValueError, match="expected at least one scale, one block and one channel"):
        MDSR(**arguments)


def test_the_default_stays_within_its_size():
    network = MDSR()
    assert sum(parameter.numel() for parameter in network.parameters()) == 449_501
    # Multiplications from 64 to 256 pixels: every weight of head, body and tail once a pixel, and the enlargement.
    alone = sum(parameter.numel() for parameter in network.at_scale(4).parameters() if parameter.ndim > 1)
    assert (alone + 16 * 25) * 64 * 64 < 2.0e9
