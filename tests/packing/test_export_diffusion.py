"""The encoder, denoiser and decoder of a diffusion model as ONNX, and the same image from both backends."""

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from monai_sr_bundle.backends.onnx_backend import OnnxBackend
from monai_sr_bundle.backends.onnx_files import exported_process
from monai_sr_bundle.backends.torch_networks import TorchNetworks
from monai_sr_bundle.families.diffusion import Diffusion
from monai_sr_bundle.families.family import Inference
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.networks.latent_diffusion import LatentDiffusion
from monai_sr_bundle.networks.sr3 import SR3
from monai_sr_bundle.packing.onnx_export import TOLERANCE, export_parts

from tests.networks.measured import trained_like

SR3_SIZE = {"channels": (8, 8), "blocks": 1}
LATENT_SIZE = {"autoencoder_channels": (8, 8, 8), "channels": (8, 8), "blocks": 1}
QUARTER = {"factor": 4, "latents": 3, "autoencoder_channels": (8, 8), "channels": (8, 8), "blocks": 1}
NETWORKS = {
    "sr3": lambda: SR3(**SR3_SIZE, residual_std=0.025),
    "sr3-with-attention": lambda: SR3(channels=(8, 8, 8), groups=4, attention=True, dropout=0.2),
    "sr3-with-bottleneck": lambda: SR3(**SR3_SIZE, bottleneck=4, patch=2),
    "latent-diffusion": lambda: LatentDiffusion(**LATENT_SIZE),
    "latent-diffusion-of-residuals": lambda: LatentDiffusion(**QUARTER, residual_std=0.025),
}


def calm(network):
    """Weights that matter in every layer, but with results of the size of a trained network's."""
    trained_like(network)
    network.unet.tail.weight.data.mul_(0.1)
    if isinstance(network, LatentDiffusion):
        network.latent_std.fill_(1.3)
        network.autoencoder.encoder[-1].weight.data.mul_(0.1)
        network.autoencoder.decoder[-1].weight.data.mul_(0.1)
    return network


def family_of(network):
    return Diffusion({
        "scale": 4, "halo": network.receptive_radius, "grid": network.grid, "memory_per_pixel": 1000,
        "operator": "bicubic_antialias_x4", "diffusion": {"training_steps": 100, "sampler": "ddim", "steps": 4},
    })  # fmt: skip


def networks_of(network, folder):
    """The same parts in both runtimes."""
    family = family_of(network)
    bundle = SimpleNamespace(
        name="a test",
        family=family,
        parameters=1,
        facts={},
        metadata={"weights_sha256": defaultdict(str)},
        has_file=lambda name: (folder / name).is_file(),
        weights=lambda name: (folder / name, ""),
    )
    bundle.metadata |= exported_process(bundle)
    return OnnxBackend(bundle, "cpu"), TorchNetworks(network, family.parts, "cpu")


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request, tmp_path_factory):
    """A network, its folder of ONNX files and their differences from PyTorch."""
    torch.manual_seed(0)
    network = calm(NETWORKS[request.param]())
    folder = tmp_path_factory.mktemp(request.param)
    return network, folder, export_parts(network, family_of(network), folder)


def test_three_files_are_written_that_differ_little_from_pytorch_and_that_tensorrt_reads(exported):
    _, folder, differences = exported
    assert sorted(path.name for path in folder.iterdir()) == sorted(differences)
    assert sorted(differences) == ["decoder.onnx", "denoiser.onnx", "encoder.onnx"]
    assert all(0 <= difference < TOLERANCE for difference in differences.values())
    for name in differences:
        model = onnx.load(folder / name)
        assert [opset.version for opset in model.opset_import if opset.domain == ""] == [17]
        assert b"/monai_sr_bundle/" not in (folder / name).read_bytes()


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_both_backends_draw_the_same_image(exported, sampler):
    network, folder, _ = exported
    low_res = np.random.default_rng(3).random((21, 30), dtype=np.float32)
    family = family_of(network)
    options = family.resolve(SamplerOptions(sampler=sampler, steps=4, samples=2, seed=4))
    image, expected = (
        family.enlarge_slice(low_res, Inference(networks, options, 256)) for networks in networks_of(network, folder)
    )
    assert expected.shape == (84, 120)
    assert 0.01 < expected.std() < 3
    np.testing.assert_allclose(image, expected, atol=1e-4)
