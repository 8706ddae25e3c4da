"""Diffusion sampling: diffusers' steps, one image whatever the tiles, the same pixels for the same draw."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from monai_sr_bundle.backends.torch_networks import TorchNetworks
from monai_sr_bundle.engine.monai_inferer import TiledInferer
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.inferers.processes import DiffusionProcess
from monai_sr_bundle.inferers.sampler import sample
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.networks.latent_diffusion import LatentDiffusion
from monai_sr_bundle.networks.sr3 import SR3

from tests.families.stated import stated_family

PROCESS = DiffusionProcess(training_steps=100)
SR3_SIZE = {"channels": (8, 8), "blocks": 1, "residual_std": 0.025}
LATENT_SIZE = {"autoencoder_channels": (8, 8, 8), "channels": (8, 8), "blocks": 1}


def rough(network: torch.nn.Module) -> torch.nn.Module:
    """Weights that matter everywhere, also in layers that begin at zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    if hasattr(network, "latent_std"):
        network.latent_std.fill_(1.3)
    return network.eval()


NETWORKS = {
    "sr3": lambda: rough(SR3(**SR3_SIZE)),
    "sr3 with bottleneck": lambda: rough(SR3(**SR3_SIZE, bottleneck=4)),
    "sr3 in half patches": lambda: rough(SR3(**SR3_SIZE, patch=2)),
    "sr3 by pixels": lambda: rough(SR3(**SR3_SIZE, patch=1)),
    "latent diffusion": lambda: rough(LatentDiffusion(**LATENT_SIZE)),
    "latent diffusion of residuals": lambda: rough(
        LatentDiffusion(factor=4, latents=3, autoencoder_channels=(8, 8), channels=(8, 8), blocks=1, residual_std=0.025)
    ),
}


@pytest.fixture(params=NETWORKS, ids=lambda name: name.replace(" ", "-"))
def network(request):
    return NETWORKS[request.param]()


def image(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(3).random((rows, columns), dtype=np.float32)


TWO_STEPS = SamplerOptions(steps=2)


def denoiser_of(network):
    family = stated_family("diffusion")
    return family.denoiser(TorchNetworks(network, family.parts, "cpu"))


def sample_image(network, low, options=TWO_STEPS, tile=10_000, halo=None, **sizes) -> np.ndarray:
    halo = network.receptive_radius if halo is None else halo
    denoiser = denoiser_of(network)
    return sample(low, denoiser, PROCESS, options, scale=4, halo=halo, grid=network.grid, tile=tile, **sizes)[0]


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (9, 8)])
def test_any_size_is_enlarged_to_exactly_four_times_the_size(network, size):
    result = sample_image(network, image(*size))
    assert result.shape == (4 * size[0], 4 * size[1])
    assert np.isfinite(result).all()


def test_padding_is_by_the_edge_and_cut_away_again(network):
    low = image(33, 47)
    multiple = network.cell * network.grid
    wider = np.pad(low, ((0, -33 % multiple), (0, -47 % multiple)), mode="edge")
    np.testing.assert_array_equal(sample_image(network, low), sample_image(network, wider)[: 4 * 33, : 4 * 47])


def test_without_the_halo_there_would_be_seams():
    network, low = NETWORKS["sr3"](), image(40, 1100)
    whole = sample_image(network, low)
    assert np.abs(sample_image(network, low, tile=512, halo=0) - whole).max() > 1e-2 * np.abs(whole).max()


def test_samples_drawn_together_are_those_drawn_one_by_one(network):
    low, options = image(32, 48), SamplerOptions(sampler="ddpm", steps=2, samples=3)
    denoiser = denoiser_of(network)
    sizes = {"scale": 4, "halo": network.receptive_radius, "grid": network.grid, "tile": 64}
    one_by_one, _ = sample(low, denoiser, PROCESS, options, **sizes)
    denoiser.batch = 2
    together, _ = sample(low, denoiser, PROCESS, options, **sizes)
    np.testing.assert_allclose(together, one_by_one, atol=1e-5 * np.abs(one_by_one).max())


class _Fixed:
    """A denoiser that always predicts the same cells, and whose condition is the image."""

    cell, channels, condition_channels, batch = 1, 1, 1, 1

    def __init__(self, predicted: float) -> None:
        self.predicted = predicted

    def encode(self, pixels):
        return pixels

    def denoise(self, noisy, condition, level):
        return np.full_like(noisy, self.predicted)

    def decode(self, cells, condition):
        return cells.repeat(4, axis=2).repeat(4, axis=3)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1000, 50])
def test_ddpm_takes_the_steps_of_diffusers_ancestral_scheduler(prediction, steps):
    process = DiffusionProcess("linear", 1000, prediction, zero_terminal_snr=False)
    solver = process.solver(SamplerOptions(sampler="ddpm", steps=steps))
    theirs = DDPMScheduler(
        1000, 1e-4, 0.02, "linear", prediction_type=prediction, clip_sample=False, timestep_spacing="trailing"
    )
    theirs.set_timesteps(steps)
    levels = [float(theirs.alphas_cumprod[step].sqrt()) for step in theirs.timesteps]
    assert solver.levels == pytest.approx(levels)
    state = torch.linspace(-2, 2, 24).reshape(1, 1, 4, 6)
    for index in range(0, steps, steps // 10):
        step = theirs.timesteps[index]
        predicted = torch.sin(3 * state)
        seed = torch.Generator().manual_seed(int(step))
        expected = theirs.step(predicted, step, state, generator=seed).prev_sample
        noise = torch.randn(state.shape, generator=torch.Generator().manual_seed(int(step))).numpy()
        result, _ = solver.step(index, state.numpy(), predicted.numpy(), lambda noise=noise: noise)
        np.testing.assert_allclose(result, expected, atol=2e-5, rtol=1e-5)


def test_a_perfect_prediction_of_the_sample_is_the_result():
    process = DiffusionProcess(training_steps=50, prediction="sample")
    for sampler in ("ddim", "ddpm"):
        options = SamplerOptions(sampler=sampler, steps=5)
        result, _ = sample(image(8, 8), _Fixed(0.25), process, options, scale=4, halo=1, grid=1, tile=64)
        np.testing.assert_allclose(result, 0.25, atol=1e-5)


def test_progress_counts_every_step_of_every_sample():
    shares: list[float] = []
    sample_image(NETWORKS["sr3"](), image(16, 16), SamplerOptions(steps=4, samples=2), progress=shares.append)
    np.testing.assert_allclose(shares, np.arange(1, 9) / 8)


def test_volumes_and_batches_get_another_noise_for_every_slice():
    network = NETWORKS["sr3"]()
    network.process.copy_(torch.from_numpy(PROCESS.fingerprint()))
    facts = {"training_steps": 100, "sampler": "ddim", "steps": 2}
    inferer = TiledInferer(
        "diffusion", 4, network.receptive_radius, 1000, "area_x4", grid=network.grid, diffusion=facts, seed=4
    )
    low = image(16, 16)
    volume = torch.from_numpy(np.stack([low, low], axis=-1))[None, None]
    enlarged = inferer(volume, network)
    assert enlarged.shape == (1, 1, 64, 64, 2)
    for index in range(2):
        expected = sample_image(network, low, SamplerOptions(steps=2, seed=4, stream=index))
        np.testing.assert_array_equal(enlarged[0, 0, ..., index].numpy(), expected)


def test_weights_of_another_process_are_refused():
    network = NETWORKS["sr3"]()
    facts = {"training_steps": 100, "steps": 2}
    inferer = TiledInferer(
        "diffusion", 4, network.receptive_radius, 1000, "area_x4", grid=network.grid, diffusion=facts
    )
    with pytest.raises(BundleError, match="trained to predict nothing of the signal, but model.yaml states v_pred"):
        inferer(torch.zeros(1, 1, 8, 8), network)
    network.process.copy_(
        torch.from_numpy(DiffusionProcess("linear", 300, "epsilon", zero_terminal_snr=False).fingerprint())
    )
    with pytest.raises(BundleError, match="predict epsilon in 300 steps that end at 0.0481 .* one training"):
        inferer(torch.zeros(1, 1, 8, 8), network)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"sampler": "euler"}, "--sampler euler: expected ddpm or ddim"),
        ({"samples": 0}, "--samples 0: expected at least 1"),
        ({"seed": -1}, "--seed -1: expected a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "--seed 4294967296: expected"),
    ],
)
def test_options_out_of_range_are_refused(facts, message):
    with pytest.raises(InputError, match=message):
        SamplerOptions(**facts)


@pytest.mark.parametrize(("steps", "divisors"), [(3, "2 or 4"), (30, "25 or 50"), (99, "50 or 100")])
def test_steps_that_do_not_part_the_schedule_evenly_are_refused(steps, divisors):
    with pytest.raises(
        InputError, match=f"--steps {steps}: .* {steps} equal parts. Expected a divisor, as {divisors}."
    ):
        DiffusionProcess(training_steps=100).check_steps(steps)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"schedule": "cosine"}, "schedule 'cosine', expected linear"),
        ({"prediction": "noise"}, "prediction 'noise', expected epsilon"),
        ({"training_steps": 1}, "1 steps and betas"),
        ({"beta_start": 0.5, "beta_end": 0.1}, "betas from 0.5 to 0.1"),
        ({"prediction": "epsilon"}, "noise alone"),
        ({"betas": 3}, "unknown betas; it states beta_end"),
    ],
)
def test_a_process_that_cannot_be_is_refused(facts, message):
    with pytest.raises(BundleError, match=message):
        DiffusionProcess.of(facts)


def test_without_diffusers_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BundleError, match=r"needs torch and diffusers.*'\.\[torch,diffusion\]'"):
        DiffusionProcess().check_installed()


def test_zero_terminal_snr_ends_in_noise_alone_and_the_published_schedule_does_not():
    assert DiffusionProcess().alphas()[-1] == 0
    published = DiffusionProcess("linear", 300, "epsilon", zero_terminal_snr=False)
    assert published.alphas()[-1] == pytest.approx(0.048, abs=0.001)
