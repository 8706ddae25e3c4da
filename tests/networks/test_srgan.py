import pytest
import torch

from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.bundles import find_bundle
from monai_sr_bundle.networks.srgan import SRResNet
from tests.networks.measured import assert_onnx_agrees, reach, trained_like, without_gradient


def test_the_default_size_is_that_of_the_paper_in_grey():
    of_two_more_colours = 2 * 9 * 9 * 64
    assert sum(p.numel() for p in SRResNet().parameters()) == 1_547_350 - 2 * of_two_more_colours - 2


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_an_image_of_any_size_is_enlarged(scale):
    network = SRResNet(scale, channels=4, blocks=1)
    assert network(torch.rand(2, 1, 7, 11)).shape == (2, 1, 7 * scale, 11 * scale)


@torch.inference_mode()
def test_the_inside_works_from_minus_one_to_one():
    """With a last convolution of nothing the middle of the range comes out."""
    network = trained_like(SRResNet(channels=4, blocks=1))
    network.tail.weight.zero_()
    network.tail.bias.zero_()
    torch.testing.assert_close(network(torch.rand(1, 1, 5, 6)), torch.full((1, 1, 20, 24), 0.5))
    seen = []
    network.head.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    network(torch.tensor([[[[0.0, 1.0]]]]))
    assert seen[0].flatten().tolist() == [-1.0, 1.0]


def test_the_bundles_halo_is_what_the_network_looks_far():
    bundle = find_bundle("chest_xray_srgan_x4")
    network = trained_like(build_network(bundle))
    assert reach(network, 91, 45, 44) == network.receptive_radius == bundle.family.halo == 40


@pytest.mark.parametrize("scale", [2, 8])
def test_the_radius_is_right_for_other_scales(scale):
    network = trained_like(SRResNet(scale, channels=4, blocks=2))
    assert reach(network, 31, 15, 14) <= network.receptive_radius <= reach(network, 31, 15, 14) + 1


def test_every_parameter_is_trained():
    assert without_gradient(SRResNet(channels=8, blocks=3), torch.rand(2, 1, 8, 8)) == []


def test_onnx_gives_the_same_image(tmp_path):
    assert_onnx_agrees(SRResNet(channels=8, blocks=2), tmp_path / "model.onnx")


def test_a_scale_that_is_no_power_of_two_is_refused():
    with pytest.raises(ValueError, match="scale is 3, expected 2, 4 or 8: every pixel shuffle enlarges by two"):
        SRResNet(scale=3)


def test_no_blocks_are_refused():
    with pytest.raises(ValueError, match="blocks is 0, expected at least 1"):
        SRResNet(blocks=0)
