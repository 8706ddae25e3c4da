"""A diffusion network draws by itself what the sampler draws with diffusers."""

import numpy as np
import pytest
import torch
from monai_sr_bundle.backends.torch_backend import load_network
from monai_sr_bundle.backends.torch_networks import TorchNetworks
from monai_sr_bundle.families.family import Inference
from monai_sr_bundle.inferers.processes import PREDICTIONS, SCHEDULES, DiffusionProcess
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.networks.latent_diffusion import LatentDiffusion
from monai_sr_bundle.networks.noise_unet import Ddim
from monai_sr_bundle.networks.sr3 import SR3
from monai_sr_bundle.shipped_bundles import find_bundle

CASES = [
    (schedule, prediction, zero_terminal_snr)
    for schedule in SCHEDULES
    for prediction in PREDICTIONS
    for zero_terminal_snr in (False, True)
    if not (prediction == "epsilon" and zero_terminal_snr)
]


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize(("schedule", "prediction", "zero_terminal_snr"), CASES)
def test_the_steps_are_those_of_diffusers(schedule, prediction, zero_terminal_snr, sampler):
    process = DiffusionProcess(schedule, 300, prediction, zero_terminal_snr=zero_terminal_snr, clip_sample=True)
    solver = process.solver(SamplerOptions(steps=10, sampler=sampler))
    ddim = Ddim(
        schedule, 300, prediction, zero_terminal_snr=zero_terminal_snr, clip_sample=True, sampler=sampler, steps=10
    )
    generator = np.random.default_rng(0)
    x_t = 0.9 * generator.standard_normal((2, 3, 4, 4), dtype=np.float32)
    for step, level in enumerate(solver.levels):
        np.testing.assert_allclose(ddim.level(step, 2), [level] * 2, rtol=1e-4, atol=1e-7)
        predicted = generator.standard_normal(x_t.shape, dtype=np.float32)
        torch.manual_seed(step)
        stepped = ddim(step, torch.from_numpy(x_t), torch.from_numpy(predicted))
        torch.manual_seed(step)
        expected, _ = solver.step(step, x_t, predicted, lambda: torch.randn(2, 3, 4, 4).numpy())
        np.testing.assert_allclose(stepped, expected, rtol=1e-3, atol=1e-4)
        x_t = expected


@pytest.mark.parametrize(
    "name", ["chest_xray_sr3_x4", "chest_xray_sr3_anomaly_x4", "chest_ct_sr3_x8", "chest_xray_latent_diffusion_x4"]
)
@torch.inference_mode()
def test_a_bundles_network_enlarges_an_image_alone_as_the_sampler_does_it_from_the_same_noise(name):
    bundle = find_bundle(name)
    steps = min(10, bundle.facts["diffusion"]["steps"])
    bundle = bundle.with_facts(diffusion=bundle.facts["diffusion"] | {"sampler": "ddim", "steps": steps})
    network, family = load_network(bundle)[0], bundle.family
    image = torch.rand(1, 1, 13, 22)
    multiple = network.cell * network.grid
    size = [-(-side // multiple) * multiple // network.cell for side in image.shape[2:]]
    options = family.resolve(SamplerOptions(seed=3))
    noise = options.generator(0).standard_normal((network.channels, *size), dtype=np.float32)
    inference = Inference(TorchNetworks(network, family.parts, "cpu"), options, 64)
    expected = family.predict(image[0, 0].numpy(), inference)
    enlarged = network(image, torch.from_numpy(noise)[None])
    np.testing.assert_allclose(enlarged[0, 0], expected, rtol=0, atol=1e-5)
    assert not torch.equal(network(image), network(image))


@pytest.mark.parametrize("network_class", [SR3, LatentDiffusion])
def test_a_network_without_a_process_does_not_draw(network_class):
    with pytest.raises(ValueError, match="only denoises"):
        network_class()(torch.rand(1, 1, 8, 8))
