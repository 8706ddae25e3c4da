import pytest
import torch

from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.bundles import find_bundle
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.srcnn import SRCNN
from tests.networks.measured import assert_onnx_agrees, reach, trained_like, without_gradient


def test_the_default_size_is_that_of_the_paper():
    assert sum(p.numel() for p in SRCNN().parameters()) == 57_281


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_image_of_any_size_is_enlarged(scale):
    assert SRCNN(scale, channels=(8, 4))(torch.rand(2, 1, 7, 11)).shape == (2, 1, 7 * scale, 11 * scale)


@torch.inference_mode()
def test_the_kernels_lie_on_the_pixels_they_sharpen():
    """With kernels that only pass their middle on, the bicubic image comes out."""
    network = SRCNN(channels=(1, 1))
    for layer in (network.extract, network.map, network.reconstruct):
        layer.weight.zero_()
        layer.weight[..., layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1
        layer.bias.zero_()
    image = torch.rand(1, 1, 9, 12) + 1  # nothing for a ReLU to cut
    torch.testing.assert_close(network(image), Bicubic(4)(image))


def test_the_bundles_halo_is_what_the_network_looks_far():
    bundle = find_bundle("chest_xray_srcnn_x4")
    network = trained_like(build_network(bundle))
    assert reach(network, 31, 15, 14) == network.receptive_radius == bundle.family.halo == 4


def test_every_parameter_is_trained():
    assert without_gradient(SRCNN(channels=(8, 4)), torch.rand(2, 1, 8, 8)) == []


def test_onnx_gives_the_same_image(tmp_path):
    assert_onnx_agrees(SRCNN(channels=(16, 8)), tmp_path / "model.onnx")


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match=r"kernels are \(9, 4, 5\), expected odd sides"):
        SRCNN(kernels=(9, 4, 5))
