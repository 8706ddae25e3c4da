import pytest
import torch

from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.bundles import find_bundle
from monai_sr_bundle.networks.esrgan import RRDBNet
from tests.networks.measured import assert_onnx_agrees, reach, trained_like, without_gradient


def test_the_default_size_is_that_of_the_paper_in_grey():
    assert sum(p.numel() for p in RRDBNet().parameters()) == 16_695_681


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_an_image_of_any_size_is_enlarged(scale):
    network = RRDBNet(scale, channels=4, growth=2, blocks=1)
    assert network(torch.rand(2, 1, 7, 11)).shape == (2, 1, 7 * scale, 11 * scale)


@torch.inference_mode()
def test_a_dense_block_adds_a_fifth_of_what_all_before_it_show():
    block = trained_like(RRDBNet(channels=4, growth=2, blocks=1)).body[0].blocks[0]
    features = torch.rand(1, 4, 6, 5)
    before = features.clone()
    seen = [features]
    for layer in block.layers[:4]:
        seen.append(torch.nn.functional.leaky_relu(layer(torch.cat(seen, dim=1)), 0.2))
    torch.testing.assert_close(block(features), features + 0.2 * block.layers[4](torch.cat(seen, dim=1)))
    assert torch.equal(features, before)


def test_the_bundles_halo_is_what_the_network_looks_far():
    bundle = find_bundle("chest_xray_esrgan_x4")
    network = trained_like(build_network(bundle))
    assert reach(network, 135, 67, 66) == network.receptive_radius == bundle.family.halo == 64


@pytest.mark.parametrize("scale", [2, 8])
def test_the_radius_is_right_for_other_scales(scale):
    network = trained_like(RRDBNet(scale, channels=4, growth=2, blocks=1))
    assert reach(network, 45, 22, 21) <= network.receptive_radius <= reach(network, 45, 22, 21) + 1


def test_every_parameter_is_trained():
    assert without_gradient(RRDBNet(channels=8, growth=4, blocks=2), torch.rand(2, 1, 8, 8)) == []


def test_onnx_gives_the_same_image(tmp_path):
    assert_onnx_agrees(RRDBNet(channels=8, growth=4, blocks=1), tmp_path / "model.onnx")


def test_a_scale_that_is_no_power_of_two_is_refused():
    with pytest.raises(ValueError, match="scale is 6, expected 2, 4 or 8: every step enlarges by two"):
        RRDBNet(scale=6)


def test_no_blocks_are_refused():
    with pytest.raises(ValueError, match="blocks is 0, expected at least 1"):
        RRDBNet(blocks=0)
