import pytest
import torch
from monai_sr_bundle.networks.runet import RUNet

from tests.networks.measured import reach, trained_like


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
    assert [RUNet(scale, channels=4).grid for scale in (2, 4, 5, 6, 16)] == [8, 4, 16, 8, 1]


@pytest.mark.parametrize(
    ("scale", "interpolation", "radius"), [(2, "bilinear", 154), (4, "bilinear", 78), (8, "nearest", None)]
)
def test_the_radius_is_that_of_the_place_on_the_grid_from_where_a_pixel_counts_farthest(scale, interpolation, radius):
    network = trained_like(RUNet(scale, channels=4, interpolation=interpolation))
    middle = -(-network.receptive_radius // network.grid) * network.grid
    size = 2 * middle + network.grid
    farthest = max(reach(network, size, middle + offset, middle + offset) for offset in range(network.grid))
    assert farthest <= network.receptive_radius <= farthest + 2
    assert radius in (None, network.receptive_radius)
