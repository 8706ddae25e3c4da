"""Diffusion bundles with tiny networks and random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.networks.latent_diffusion import LatentDiffusion
from monai_sr_bundle.networks.sr3 import SR3
from monai_sr_bundle.packing.release import release
from monai_sr_bundle.shipped_bundles import find_bundle

from tests.changed_bundles import copied, with_facts, with_metadata
from tests.networks.measured import trained_like

TINY = {
    "chest_xray_sr3_x4": {"channels": [8, 8], "blocks": 1, "residual_std": 0.025},
    "chest_xray_latent_diffusion_x4": {"autoencoder_channels": [8, 8, 8], "channels": [8, 8], "blocks": 1},
}
NETWORKS = {"chest_xray_sr3_x4": SR3, "chest_xray_latent_diffusion_x4": LatentDiffusion}
SR3_BUNDLE, LATENT_BUNDLE = TINY


def released_diffusion(parent: Path, name: str) -> tuple[Path, list[str]]:
    """Release random weights in a copy of a shipped bundle; return its folder and the lines of the release."""
    folder = with_metadata(copied(parent, name), weights_sha256={})
    target = find_bundle(name).facts["network_def"]["_target_"]
    with_facts(folder, network_def={"_target_": target, "scale": "@scale", "diffusion": "@diffusion", **TINY[name]})
    torch.manual_seed(0)
    network = trained_like(NETWORKS[name](4, **TINY[name]))
    network.unet.tail.weight.data.mul_(0.1)
    if name == LATENT_BUNDLE:
        network.latent_std.fill_(1.3)
        network.autoencoder.encoder[-1].weight.data.mul_(0.1)
        network.autoencoder.decoder[-1].weight.data.mul_(0.1)
    network.process.copy_(torch.from_numpy(open_bundle(folder).family.process.fingerprint()))
    torch.save(network.state_dict(), parent / "trained.pt")
    return folder, release(str(folder), parent / "trained.pt")
