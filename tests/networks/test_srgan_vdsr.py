import pytest
import torch
from torch.nn.functional import conv2d

from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.bundles import find_bundle
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.srgan_vdsr import SRGANVDSR
from tests.networks.measured import assert_onnx_agrees, reach, trained_like, without_gradient


def small():
    torch.manual_seed(0)
    return SRGANVDSR(channels=8, blocks=2, depth=3)


def test_the_default_size_is_the_one_on_the_card():
    network = SRGANVDSR()
    assert sum(p.numel() for p in network.parameters()) == 1_352_640
    # Head, 8 blocks of two, 20 plain ones, the up-block and two at the end.
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules()) == 1 + 16 + 20 + 1 + 2


def test_an_image_of_any_size_is_enlarged_into_the_open_range():
    result = small()(torch.rand(2, 1, 7, 11))
    assert result.shape == (2, 1, 28, 44)
    assert 0 < result.min() < result.max() < 1


def test_the_sharpening_is_fixed_and_in_no_checkpoint():
    network = small()
    assert not network.sharpening.requires_grad
    assert "sharpening" not in dict(network.named_parameters())
    assert [name for name in network.state_dict() if "sharpening" in name] == []


@torch.inference_mode()
def test_each_third_of_the_features_is_averaged_and_sharpened():
    network = trained_like(small())
    image = torch.rand(1, 1, 9, 7)
    features = network.head(2 * Bicubic(2)(image) - 1)
    features = features + network.body(features)
    means = torch.stack([features[:, third].mean(dim=1) for third in (slice(0, 3), slice(3, 6), slice(6, 8))], dim=1)
    kernel = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 5.0, -1.0], [0.0, -1.0, 0.0]])
    sharpened = torch.tanh(conv2d(means, kernel.expand(3, 1, 3, 3), padding=1, groups=3))
    expected = (torch.tanh(network.tail(network.enlarge(sharpened))) + 1) / 2
    torch.testing.assert_close(network(image), expected, atol=1e-5, rtol=0)


def test_the_bundles_halo_is_what_the_network_looks_far():
    bundle = find_bundle("chest_xray_srgan_vdsr_x4")
    network = trained_like(build_network(bundle))
    assert reach(network, 61, 30, 29) == network.receptive_radius == bundle.family.halo == 24


def test_every_parameter_is_trained():
    assert without_gradient(small(), torch.rand(2, 1, 8, 8)) == []


def test_onnx_gives_the_same_image(tmp_path):
    assert_onnx_agrees(small(), tmp_path / "model.onnx")


@pytest.mark.parametrize("sizes", [{"blocks": 0}, {"depth": 0}])
def test_no_blocks_or_convolutions_are_refused(sizes):
    with pytest.raises(ValueError, match=r"blocks is \d and depth \d+, expected at least 1 of each"):
        SRGANVDSR(**sizes)


def test_fewer_features_than_sharpening_filters_are_refused():
    with pytest.raises(ValueError, match="channels is 4, expected a number that makes three parts"):
        SRGANVDSR(channels=4)
