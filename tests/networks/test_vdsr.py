import pytest
import torch

from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.bundles import find_bundle
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.vdsr import VDSR
from tests.networks.measured import assert_onnx_agrees, reach, trained_like, without_gradient


def test_the_default_size_is_that_of_the_paper():
    network = VDSR()
    assert sum(p.numel() for p in network.parameters()) == 665_921
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules()) == 20


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_image_of_any_size_is_enlarged(scale):
    assert VDSR(scale, channels=4, depth=3)(torch.rand(2, 1, 7, 11)).shape == (2, 1, 7 * scale, 11 * scale)


@torch.inference_mode()
def test_an_untrained_network_is_almost_bicubic():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 16, 16)
    assert 0 < (VDSR()(image) - Bicubic(4)(image)).abs().max() < 0.1


@torch.inference_mode()
def test_the_network_makes_only_what_is_added_to_the_interpolation():
    network = trained_like(VDSR(channels=4, depth=3))
    image = torch.rand(1, 1, 9, 12)
    enlarged = Bicubic(4)(image)
    torch.testing.assert_close(network(image) - enlarged, network.residual(enlarged))


def test_the_bundles_halo_is_what_the_network_looks_far():
    bundle = find_bundle("chest_xray_vdsr_x4")
    network = trained_like(build_network(bundle))
    assert reach(network, 31, 15, 14) == network.receptive_radius == bundle.family.halo == 7


def test_every_parameter_is_trained():
    assert without_gradient(VDSR(channels=8), torch.rand(2, 1, 8, 8)) == []


def test_onnx_gives_the_same_image(tmp_path):
    assert_onnx_agrees(VDSR(channels=8, depth=6), tmp_path / "model.onnx")


def test_one_layer_is_refused():
    with pytest.raises(ValueError, match="depth is 1, expected at least 2: a first and a last convolution"):
        VDSR(depth=1)
