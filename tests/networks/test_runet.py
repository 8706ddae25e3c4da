import pytest
import torch
from torch.nn.functional import interpolate

from monai_sr_bundle.bundles import find_bundle
from monai_sr_bundle.networks.runet import RUNet
from tests.networks.measured import assert_onnx_agrees, reach, trained_like, without_gradient


def test_the_sizes_are_the_ones_on_the_card():
    assert sum(p.numel() for p in RUNet().parameters()) == 41_332_982
    assert sum(p.numel() for p in RUNet(channels=16).parameters()) == 2_588_942


@pytest.mark.parametrize(("scale", "shape"), [(2, (13, 9)), (2, (1, 40)), (4, (7, 11)), (5, (51, 51))])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_an_image_of_any_size_is_enlarged(scale, shape, interpolation):
    network = RUNet(scale, channels=4, interpolation=interpolation).eval()
    assert network(torch.rand(2, 1, *shape)).shape == (2, 1, scale * shape[0], scale * shape[1])


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@torch.inference_mode()
def test_an_untrained_network_is_almost_its_interpolation(interpolation):
    torch.manual_seed(0)
    image = torch.rand(1, 1, 19, 16)
    enlarged = interpolate(image, scale_factor=2.0, mode=interpolation)
    difference = RUNet(channels=16, interpolation=interpolation).eval()(image) - enlarged
    assert 0 < difference.abs().max() < 0.1


@torch.inference_mode()
def test_the_padding_to_a_whole_grid_repeats_the_last_rows_and_columns():
    network = trained_like(RUNet(channels=4, interpolation="nearest"))
    image = torch.rand(1, 1, 21, 30)
    repeated = torch.nn.functional.pad(image, (0, 2, 0, 3), mode="replicate")
    torch.testing.assert_close(network(image), network(repeated)[..., :42, :60])


@torch.inference_mode()
def test_an_image_moved_by_the_grid_gives_the_same_result_moved():
    network = trained_like(RUNet(channels=4))
    image = torch.rand(1, 1, 400, 400)
    whole, part = network(image)[..., 640:656], network(image[..., 8:])[..., 624:640]
    torch.testing.assert_close(part, whole, atol=1e-5, rtol=0)
    assert (network(image[..., 6:])[..., 628:644] - whole).abs().max() > 1e-3


def test_the_grid_is_sixteen_output_pixels_in_whole_input_pixels():
    assert find_bundle("chest_ct_runet_x2").family.grid == RUNet(2, channels=4).grid == 8
    assert [RUNet(scale, channels=4).grid for scale in (4, 5, 6, 16)] == [4, 16, 8, 1]


def test_the_bundles_halo_is_what_the_network_looks_far():
    """Where on the grid a pixel lies decides how far it is seen."""
    network = trained_like(RUNet(2, channels=4))
    farthest = max(reach(network, 328, 160 + offset, 160 + offset) for offset in range(8))
    bundle = find_bundle("chest_ct_runet_x2")
    assert farthest == 153
    assert farthest <= network.receptive_radius == bundle.family.halo <= farthest + 4


@pytest.mark.parametrize(("scale", "interpolation"), [(4, "bilinear"), (8, "nearest")])
def test_the_radius_is_enough_for_other_networks(scale, interpolation):
    network = trained_like(RUNet(scale, channels=4, interpolation=interpolation))
    middle = -(-network.receptive_radius // network.grid) * network.grid
    size = 2 * middle + network.grid
    farthest = max(reach(network, size, middle + offset, middle + offset) for offset in range(network.grid))
    assert farthest <= network.receptive_radius <= farthest + 2


def test_every_parameter_is_trained():
    assert without_gradient(RUNet(channels=8), torch.rand(2, 1, 32, 32)) == []


@pytest.mark.parametrize(("scale", "interpolation"), [(2, "bilinear"), (5, "nearest")])
def test_onnx_gives_the_same_image(tmp_path, scale, interpolation):
    assert_onnx_agrees(RUNet(scale, channels=8, interpolation=interpolation), tmp_path / "model.onnx")


def test_another_interpolation_is_refused():
    with pytest.raises(ValueError, match="interpolation is 'bicubic', expected 'bilinear' or 'nearest'"):
        RUNet(interpolation="bicubic")


@pytest.mark.parametrize("channels", [0, 6])
def test_channels_that_a_pixel_shuffle_does_not_divide_are_refused(channels):
    with pytest.raises(ValueError, match=f"channels is {channels}, expected a multiple of 4: pixel shuffles divide"):
        RUNet(channels=channels)
