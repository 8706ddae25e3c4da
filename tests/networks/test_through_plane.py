import numpy as np
import pytest
import torch
from monai_sr_bundle.networks.through_plane import LinearSlices, ThroughPlane

from tests.networks.measured import trained_like, without_gradient


def network(scale=4):
    return trained_like(ThroughPlane(scale=scale, channels=8, blocks=2))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_interpolation_is_linear_along_the_slices_with_the_thick_slice_as_its_mean(scale):
    thick = torch.rand(1, 5, 7, 9, generator=torch.Generator().manual_seed(0))
    thin = LinearSlices(scale, slices=5)(thick)
    linear = torch.nn.functional.interpolate(thick[:, None], (5 * scale, 7, 9), mode="trilinear", align_corners=False)
    linear = linear[:, 0, 2 * scale : 3 * scale]
    torch.testing.assert_close(thin.mean(dim=1), thick[:, 2])
    shift = thin - linear
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), atol=1e-6, rtol=0)
    assert LinearSlices(scale, slices=5).state_dict() == {}


def test_half_precision_does_not_round_what_detail_is_added_to():
    interpolate, thick = LinearSlices(4, slices=5), torch.rand(1, 5, 13, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        thin = interpolate(thick)
    torch.testing.assert_close(thin, interpolate(thick), atol=0, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("scale", [2, 4])
def test_one_set_of_weights_makes_the_thin_slices_of_every_factor(scale):
    image = torch.rand(2, 5, 9, 14)
    other = ThroughPlane(scale=scale, channels=8, blocks=2).eval()
    other.load_state_dict(network().state_dict())
    assert other(image).shape == (2, scale, 9, 14)
    torch.testing.assert_close(other(image), network()(image, scale))
    assert not torch.equal(other(image.flip(1)), other(image))
    with pytest.raises(ValueError, match="scale is 3, expected one of those the network was built for"):
        other(image, 3)


@torch.inference_mode()
def test_it_begins_almost_as_the_interpolation():
    torch.manual_seed(0)
    image = torch.rand(1, 5, 19, 16)
    assert 0 < (ThroughPlane().eval()(image) - LinearSlices(4, 5)(image)).abs().max() < 0.1


@torch.inference_mode()
def test_a_pixel_beyond_the_receptive_radius_changes_nothing():
    image = torch.full((1, 5, 32, 32), 0.5)
    image[:, 0, 16, 15] = torch.nan
    rows, columns = network()(image)[0].isnan().any(dim=0).nonzero().T
    assert network().receptive_radius == 7
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 23, 8, 22)


@pytest.mark.parametrize("scale", [2, 4])
def test_every_parameter_but_the_other_tail_is_trained(scale):
    unused = without_gradient(ThroughPlane(scale=scale, channels=8, blocks=2), torch.rand(2, 5, 16, 16))
    assert sorted(unused) == [f"tails.x{6 - scale}.bias", f"tails.x{6 - scale}.weight"]


@torch.inference_mode()
def test_torchscript_gives_the_same_slices():
    image = torch.rand(2, 5, 9, 14)
    np.testing.assert_allclose(torch.jit.script(network())(image), network()(image), atol=1e-5)
