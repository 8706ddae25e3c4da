import pytest
import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.sr3 import SR3, VariationalBottleneck
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import pixel_unshuffle

from tests.networks.measured import reach_in_cells, trained_like

SIZE = {"channels": (8, 8), "blocks": 1}


def small(**options):
    torch.manual_seed(0)
    return trained_like(SR3(**{**SIZE, **options}))


def pair(scale=4, rows=8, columns=12, batch=2):
    generator = torch.Generator().manual_seed(1)
    high = torch.rand(batch, 1, scale * rows, scale * columns, generator=generator)
    return torch.rand(batch, 1, rows, columns, generator=generator), high


@torch.inference_mode()
def unets_input(network, high, image):
    """Return the input of the U-Net for the original itself as the noisy image."""
    inputs_of_unet = []
    network.unet.head.register_forward_pre_hook(lambda layer, inputs: inputs_of_unet.append(inputs[0]))
    condition = network.encode(image)
    network.denoise(network.target(high, condition), condition, torch.ones(len(image)))
    return inputs_of_unet[0]


@pytest.mark.parametrize("residual_std", [None, 0.025])
@pytest.mark.parametrize(("scale", "patch"), [(2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (8, 2), (8, 8)])
@torch.inference_mode()
def test_the_target_of_an_image_is_decoded_to_the_image(scale, patch, residual_std):
    network = SR3(scale, **SIZE, patch=patch, residual_std=residual_std)
    image, high = pair(scale)
    condition = network.encode(image)
    target = network.target(high, condition)
    assert target.shape == condition.shape == (2, scale * scale, 8, 12)
    torch.testing.assert_close(network.decode(target, condition), high, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_target_is_the_image_or_what_the_interpolation_lacks_in_units_of_its_spread():
    image, high = pair()
    published, ours = SR3(**SIZE), SR3(**SIZE, residual_std=0.05)
    residual = (high - Bicubic(4)(image)) / 0.05
    torch.testing.assert_close(published.target(high, published.encode(image)), pixel_unshuffle(2 * high - 1, 4))
    torch.testing.assert_close(ours.target(high, ours.encode(image)), pixel_unshuffle(residual, 4), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("scale", "patch"), [(4, 1), (4, 2), (4, 4), (8, 2)])
def test_the_unet_sees_patches_of_the_image_at_their_place_beside_those_of_the_interpolation(scale, patch):
    image, high = pair(scale)
    inputs_of_unet = unets_input(small(scale=scale, patch=patch), high, image)
    noisy, condition = inputs_of_unet.split(patch * patch, dim=1)
    torch.testing.assert_close(noisy, pixel_unshuffle(2 * high - 1, patch))
    torch.testing.assert_close(condition, pixel_unshuffle(2 * Bicubic(scale)(image) - 1, patch))


@pytest.mark.parametrize("patch", [1, 2, 4])
@torch.inference_mode()
def test_what_the_unet_predicts_of_a_patch_is_decoded_to_its_place(patch):
    network = small(patch=patch)
    image, high = pair()
    # A U-Net that predicts the noisy patch it is given: the result is the original.
    network.unet.decode = lambda features, passed, embedded: pixel_unshuffle(2 * high - 1, patch)
    condition = network.encode(image)
    predicted = network.denoise(network.target(high, condition), condition, torch.ones(2))
    torch.testing.assert_close(network.decode(predicted, condition), high)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"patch": 2},
        {"patch": 1, "channels": (4, 4, 4)},
        {"bottleneck": 4},
        {"bottleneck": 4, "patch": 2},
        {"bottleneck": 4, "channels": (4,)},
    ],
)
def test_the_network_looks_no_farther_than_it_says(options):
    network = small(**options).double()
    grid, radius = network.grid, network.receptive_radius
    middle = -(-(radius + 1) // grid) * grid
    distances = [
        reach_in_cells(
            lambda c: network.denoise(c, c, torch.full((1,), 0.5).double()), 16, 2 * middle + grid, middle + offset
        )
        for offset in range(grid)
    ]
    assert 0.7 * radius < max(distances) <= radius


@pytest.mark.parametrize(
    ("options", "grid"),
    [({}, 2), ({"patch": 2}, 1), ({"bottleneck": 4}, 4), ({"bottleneck": 4, "patch": 2}, 2), ({"groups": 4}, 2)],
)
@torch.inference_mode()
def test_the_grid_is_what_the_network_halves(options, grid):
    network = small(**options)
    assert network.grid == grid
    noisy = torch.randn(1, 16, 3 * grid, 5 * grid)
    assert network.denoise(noisy, noisy, torch.ones(1)).shape == noisy.shape
    if grid > 1:
        with pytest.raises(ValueError, match=f"{3 * grid}x{5 * grid - 1} cells, expected multiples of {grid}"):
            network.denoise(noisy[..., 1:], noisy[..., 1:], torch.ones(1))


@torch.inference_mode()
def test_a_bottleneck_begins_as_if_it_were_not_there():
    torch.manual_seed(0)
    network = SR3(**SIZE, bottleneck=4)
    noisy = torch.randn(1, 16, 8, 8)
    with_it = network.denoise(noisy, noisy, torch.ones(1))
    network.bottleneck = None
    torch.testing.assert_close(network.denoise(noisy, noisy, torch.ones(1)), with_it, rtol=0, atol=0)


@pytest.fixture
def bottleneck():
    torch.manual_seed(0)
    return trained_like(VariationalBottleneck(8, hidden=6, code=4))


def code_of(bottleneck, features):
    mean, log_variance = bottleneck.distribution(bottleneck.encode(features)).chunk(2, dim=1)
    return mean, (0.5 * log_variance).exp()


@torch.inference_mode()
def test_the_divergence_is_that_of_the_codes_from_a_normal_distribution(bottleneck):
    features = torch.randn(2, 8, 6, 4)
    codes = Normal(*code_of(bottleneck, features))
    assert codes.mean.shape == (2, 4, 3, 2)
    expected = kl_divergence(codes, Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(bottleneck(features)[1], expected)
    assert expected > 0.1


@torch.inference_mode()
def test_outside_training_the_code_is_its_mean(bottleneck):
    features = torch.randn(2, 8, 6, 4)
    joined, _, reconstruction = bottleneck(features)
    decoded = bottleneck.decode(code_of(bottleneck, features)[0])
    torch.testing.assert_close(joined, features + bottleneck.join(torch.cat((features, decoded), dim=1)))
    torch.testing.assert_close(reconstruction, (decoded - features).square().mean() / features.square().mean())


def test_features_that_grow_do_not_carry_the_losses_away(bottleneck):
    torch.manual_seed(0)
    features = torch.randn(2, 8, 6, 4)
    _, _, small = bottleneck(features)
    _, divergence, large = bottleneck.train()(1e4 * features)
    assert torch.isfinite(divergence)
    assert large < 100 * small  # in their own units it would be 1e8 times as much


@torch.inference_mode()
def test_in_training_the_code_is_drawn_from_its_distribution(bottleneck):
    features = torch.randn(1, 8, 4, 4)
    mean, std = code_of(bottleneck, features)
    codes = []
    bottleneck.decode.register_forward_pre_hook(lambda layer, inputs: codes.append(inputs[0]))
    bottleneck.train()(features.expand(4000, -1, -1, -1))
    torch.testing.assert_close(codes[0].mean(dim=0), mean[0], atol=0.08 * float(std.max()), rtol=0)
    torch.testing.assert_close(codes[0].std(dim=0), std[0], atol=0, rtol=0.08)
