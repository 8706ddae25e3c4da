"""The first stage of latent diffusion: numbers per cell from which an image can be made again."""

import numpy as np
import pytest
import torch
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.networks.latent_diffusion import LatentDiffusion
from monai_sr_bundle.training.generative_step import AutoencoderObjective, AutoencoderValidation

from tests.training.steps import run_training_steps, run_validation_steps

SIZE = {"autoencoder_channels": (8, 8, 8), "channels": (8,), "blocks": 1}


def small(**options):
    torch.manual_seed(0)
    return LatentDiffusion(**{**SIZE, **options})


def batch_of(seed=0):
    high = torch.from_numpy(draw_phantom(64, seed=seed)).float()[None, None]
    return {"image": torch.nn.functional.avg_pool2d(high, 4), "label": high}


def trained(network, steps=1, rate=0.0, **weights):
    """Return the outputs of training steps on one batch."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    return run_training_steps(network, [batch_of()] * steps, AutoencoderObjective(network, **weights), optimizer)


def validated(network, batch):
    return run_validation_steps(network, [batch], AutoencoderValidation())[0]


def test_the_loss_is_the_weighted_sum_of_its_parts():
    (output,) = trained(small(), square_weight=3.0, divergence_weight=0.2)
    difference = output["pred"] - output["label"]
    assert output["absolute"] == pytest.approx(float(difference.abs().mean()))
    assert output["divergence"] > 0
    expected = output["absolute"] + 3.0 * float(difference.square().mean()) + 0.2 * output["divergence"]
    assert output["loss"] == pytest.approx(expected, rel=1e-5)
    assert not output["pred"].requires_grad


@pytest.mark.parametrize(
    "options", [{}, {"factor": 4, "latents": 3, "autoencoder_channels": (8, 8), "residual_std": 0.05}]
)
def test_an_image_is_learned_and_the_denoiser_is_left_alone(options):
    network = small(**options)
    before = {name: value.clone() for name, value in network.named_parameters()}
    outputs = trained(network, steps=120, rate=3e-3)
    absolute = [output["absolute"] for output in outputs]
    assert np.mean(absolute[-10:]) < 0.6 * np.mean(absolute[:5])
    moved = {name.split(".")[0] for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"autoencoder"}


def test_the_divergence_pulls_the_latents_to_a_normal_distribution():
    free, bound = (trained(small(), steps=60, rate=3e-3, divergence_weight=weight) for weight in (0.0, 1.0))
    assert bound[-1]["divergence"] < 0.5 * free[-1]["divergence"]


def test_a_first_stage_knows_neither_process_nor_spread():
    network = small()
    trained(network, steps=2, rate=1e-3)
    assert not network.process.any()
    assert not network.latent_std


def test_a_validation_reconstructs_from_the_mean_latents():
    network, batch = small().train(), batch_of()
    first, second = validated(network, batch)["pred"], validated(network.train(), batch)["pred"]
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    with torch.inference_mode():
        expected = network.eval().reconstruct(batch["label"], network.encode(batch["image"]))[0]
    torch.testing.assert_close(first, expected)
    assert first.shape == batch["label"].shape
