import pytest
import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.latent_diffusion import Autoencoder, LatentDiffusion
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import pixel_unshuffle

from tests.networks.measured import reach_in_cells, trained_like

SIZES = {
    "published": {"autoencoder_channels": (8, 8, 8), "channels": (8, 8), "blocks": 1},
    "residual": {
        "factor": 4, "latents": 3, "autoencoder_channels": (8, 8), "channels": (8, 8), "blocks": 1,
        "residual_std": 0.05,
    },
}  # fmt: skip


def small(kind="published", latent_std=1.3, **options):
    torch.manual_seed(0)
    network = trained_like(LatentDiffusion(**{**SIZES[kind], **options}))
    network.latent_std.fill_(latent_std)
    return network


def pair(rows=8, columns=16, batch=2):
    generator = torch.Generator().manual_seed(1)
    high = torch.rand(batch, 1, 4 * rows, 4 * columns, generator=generator)
    return torch.rand(batch, 1, rows, columns, generator=generator), high


def test_the_default_unet_has_the_published_size():
    weights = sum(value.numel() for value in LatentDiffusion().unet.parameters())
    assert weights == 813_836
    assert abs(weights / 813_220 - 1) < 0.01


@pytest.mark.parametrize(("factor", "latents", "channels"), [(8, 4, (8, 8, 8)), (4, 3, (8, 12)), (16, 2, (4, 4, 4, 4))])
@torch.inference_mode()
def test_an_image_becomes_few_numbers_per_cell_and_an_image_again(factor, latents, channels):
    autoencoder = Autoencoder(factor, latents, channels)
    posterior = autoencoder.encode(torch.rand(2, 1, 3 * factor, 5 * factor))
    assert posterior.mean.shape == posterior.log_variance.shape == (2, latents, 3, 5)
    assert autoencoder.decode(posterior.mean).shape == (2, 1, 3 * factor, 5 * factor)


@pytest.mark.parametrize(("factor", "widths"), [(8, 2), (4, 3), (2, 1), (6, 2)])
def test_a_factor_without_a_width_for_every_power_of_two_is_refused(factor, widths):
    with pytest.raises(ValueError, match=f"factor is {factor} with {widths} widths, expected a power of two from 4"):
        Autoencoder(factor, channels=(8,) * widths)


def test_cells_of_no_whole_number_of_pixels_are_refused():
    with pytest.raises(ValueError, match="factor is 8, expected a multiple of the scale, which is 3"):
        LatentDiffusion(scale=3)


@torch.inference_mode()
def test_the_divergence_is_that_of_the_latents_from_a_normal_distribution():
    posterior = small().autoencoder.encode(torch.rand(2, 1, 16, 16))
    latents = Normal(posterior.mean, (0.5 * posterior.log_variance).exp())
    torch.testing.assert_close(posterior.divergence(), kl_divergence(latents, Normal(0.0, 1.0)).mean())


@torch.inference_mode()
def test_latents_are_drawn_from_their_distribution():
    posterior = small().autoencoder.encode(torch.rand(1, 1, 16, 16).expand(4000, -1, -1, -1))
    std = (0.5 * posterior.log_variance).exp()[0]
    sample = posterior.sample()
    torch.testing.assert_close(sample.mean(dim=0), posterior.mean[0], atol=0.08 * float(std.max()), rtol=0)
    torch.testing.assert_close(sample.std(dim=0), std, atol=0, rtol=0.08)


@pytest.mark.parametrize("kind", SIZES)
@torch.inference_mode()
def test_pixels_and_cells_of_pixels_give_the_same_condition(kind):
    network = small(kind)
    assert network.cell == {"published": 2, "residual": 1}[kind]
    image, _ = pair()
    condition = network.encode(image)
    assert condition.shape == (2, network.condition_channels, 8 // network.cell, 16 // network.cell)
    torch.testing.assert_close(network.encode(pixel_unshuffle(image, network.cell)), condition, rtol=0, atol=0)


@torch.inference_mode()
def test_the_condition_is_the_interpolation_or_its_scaled_latents():
    image, _ = pair()
    enlarged = 2 * Bicubic(4)(image) - 1
    published, residual = small(), small("residual")
    torch.testing.assert_close(published.encode(image), published.autoencoder.encode(enlarged).mean / 1.3)
    torch.testing.assert_close(residual.encode(image), pixel_unshuffle(enlarged, 4))


@pytest.mark.parametrize("kind", SIZES)
@torch.inference_mode()
def test_a_decoded_target_is_the_reconstruction(kind):
    network = small(kind).double()
    image, high = (pixels.double() for pixels in pair())
    condition = network.encode(image)
    reconstructed, divergence = network.reconstruct(high, condition)
    assert reconstructed.shape == high.shape
    assert reconstructed.std() > 0.01
    torch.testing.assert_close(network.decode(network.target(high, condition), condition), reconstructed)
    assert divergence > 0


@torch.inference_mode()
def test_the_autoencoder_of_residuals_sees_and_makes_only_what_the_interpolation_lacks():
    network = small("residual")
    image, high = pair()
    enlarged = Bicubic(4)(image)
    network.autoencoder.encode = lambda pixels: encoded.append(pixels) or latents
    network.autoencoder.decode = lambda cells: torch.ones_like(high)
    latents = small("residual").autoencoder.encode(high)
    encoded = []
    reconstructed, _ = network.reconstruct(high, network.encode(image))
    torch.testing.assert_close(encoded[0], (high - enlarged) / 0.05, atol=1e-5, rtol=0)
    torch.testing.assert_close(reconstructed, enlarged + 0.05)


@torch.inference_mode()
def test_in_training_targets_and_reconstructions_are_drawn():
    network = small().train()
    image, high = pair()
    condition = network.encode(image)
    assert not torch.equal(network.target(high, condition), network.target(high, condition))
    assert not torch.equal(network.reconstruct(high, condition)[0], network.reconstruct(high, condition)[0])
    torch.testing.assert_close(network.encode(image), condition, rtol=0, atol=0)


@torch.inference_mode()
def test_the_spread_of_the_latents_is_measured_once_and_kept_with_the_weights():
    network = small(latent_std=0.0)
    image, high = pair()
    target = network.target(high, network.encode(image))
    spread = network.autoencoder.encode(2 * high - 1).mean.std()
    assert abs(spread - 1) > 0.05
    torch.testing.assert_close(network.latent_std, spread)
    torch.testing.assert_close(target.std(), torch.tensor(1.0))
    network.target(0.1 * high, network.encode(image))
    torch.testing.assert_close(network.latent_std, spread)
    other = LatentDiffusion(**SIZES["published"])
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other.latent_std, spread)


@pytest.mark.parametrize("kind", SIZES)
@torch.inference_mode()
def test_a_prediction_is_made_for_every_cell_and_has_no_losses_of_its_own(kind):
    network = small(kind)
    noisy, condition = torch.randn(2, network.channels, 4, 6), torch.randn(2, network.condition_channels, 4, 6)
    predicted = network.predict(noisy, condition, torch.tensor([0.3, 0.9]))
    assert predicted.cells.shape == noisy.shape
    assert (predicted.divergence.item(), predicted.reconstruction.item()) == (0.0, 0.0)
    torch.testing.assert_close(network.denoise(noisy, condition, torch.tensor([0.3, 0.9])), predicted.cells)


def test_a_cell_is_inside_a_box_where_any_of_its_pixels_is():
    network = small()
    mask = torch.zeros(1, 1, 24, 32)
    mask[..., 7, 8:17] = 1.0
    cells = network.cells(mask)
    assert cells.shape == (1, 4, 3, 4)
    assert cells[0, 3].tolist() == [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("part", ["encode", "unet", "decode"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channels": (8,)},
        {"channels": (8,), "scale": 8},
        {"channels": (8,), "factor": 4, "latents": 3, "autoencoder_channels": (8, 8)},
        {"channels": (8,), "factor": 4, "latents": 3, "autoencoder_channels": (8, 8), "residual_std": 0.05},
    ],
)
def test_no_part_of_the_network_looks_farther_than_it_says(part, options):
    network = small(**options).double()
    condition_channels, size = network.condition_channels, 40

    def condition(cells):
        return torch.zeros(1, condition_channels, *cells.shape[2:], dtype=torch.float64)

    call, channels = {
        "encode": (network.encode, network.cell**2),
        "unet": (lambda cells: network.denoise(cells, condition(cells), torch.ones(1).double()), network.channels),
        "decode": (lambda cells: network.decode(cells, condition(cells)), network.channels),
    }[part]
    assert 0 < reach_in_cells(call, channels, size, 20) <= network.receptive_radius
