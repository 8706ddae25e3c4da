"""Copies of shipped bundles with tiny networks, for the tests of their training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_sr_bundle.shipped_bundles import find_bundle

from tests.changed_bundles import copied, with_facts

NETWORKS: dict[str, dict[str, Any]] = {
    "chest_xray_edsr_x4": {"channels": 4, "blocks": 1},
    "chest_ct_edsr_x4": {"channels": 4, "blocks": 1},
    "chest_xray_srgan_x4": {"channels": 4, "blocks": 1},
    "chest_xray_esrgan_x4": {"channels": 4, "growth": 4, "blocks": 1},
    "chest_xray_sr3_x4": {"channels": [8, 8], "blocks": 1, "residual_std": 0.1},
    "chest_xray_latent_diffusion_x4": {"autoencoder_channels": [8, 8, 8], "channels": [8, 8], "blocks": 1},
}


def tiny_bundle(folder: Path, name: str, network: dict[str, Any] | None = None, **facts: Any) -> str:
    """Write a copy of a bundle with a tiny network that is trained on the image set `drawn`.

    Args:
        folder: folder of the copy, which has the bundle's name.
        name: shipped bundle.
        network: more arguments of the network. Default none.
        facts: keys of `model.yaml` that are replaced.

    Returns:
        The path of the copy.
    """
    shipped = find_bundle(name).facts
    definition = {
        "_target_": shipped["network_def"]["_target_"],
        "scale": "@scale",
        **NETWORKS[name],
        **(network or {}),
    }
    changes: dict[str, Any] = {"network_def": definition, "sets": ["drawn"], "reduce": 1}
    if "discriminator_def" in shipped:
        changes["discriminator_def"] = {**shipped["discriminator_def"], "channels": 4}
    return str(with_facts(copied(folder, name), **changes, **facts))
