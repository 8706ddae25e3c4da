"""Bundles of a residual flow with a tiny network and random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai_sr_bundle.networks.residual_flow import FilmFlow, ResidualFlow
from monai_sr_bundle.packing.release import release
from monai_sr_bundle.shipped_bundles import find_bundle

from tests.changed_bundles import copied, with_facts, with_metadata
from tests.networks.measured import trained_like

FLOW_BUNDLE = "chest_xray_residual_flow_x4"
CT_FLOW_BUNDLE = "chest_ct_residual_flow_x4"
FILM_FLOW = "chest_xray_blind"
TINY = {"channels": 8, "blocks": 1, "refinement": 1, "flow_channels": 8, "flow_blocks": 1, "mirror": False}
HALO = 8
"""The tiny network looks 7 pixels far."""
TINY_FILM = {"channels": 8, "dilations": [1, 2], "flow_channels": 8, "flow_blocks": 1}


def tiny_flow(parent: Path, name: str = FLOW_BUNDLE, **facts: Any) -> Path:
    """Copy a shipped bundle with a tiny network and without weights."""
    folder = with_metadata(copied(parent, name), weights_sha256={})
    for weights in (*folder.glob("*.pt"), *folder.glob("*.onnx")):
        weights.unlink()
    network_def = find_bundle(name).facts["network_def"]
    return with_facts(folder, network_def={**network_def, **TINY}, halo=HALO, **facts)


def released_flow(parent: Path, name: str = FLOW_BUNDLE, **facts: Any) -> tuple[Path, list[str]]:
    """Release random weights in a tiny copy; return its folder and the lines of the release."""
    folder = tiny_flow(parent, name, **facts)
    torch.manual_seed(0)
    family = find_bundle(str(folder)).family
    network = trained_like(ResidualFlow(4, **TINY, slices=family.slices))
    for tail in (network.tail, network.flow.tail):  # images and velocities of the size of a trained network's
        tail.weight.data.mul_(0.1)
    return folder, _release_marked(network, folder, parent)


def film_flow(parent: Path, **facts: Any) -> Path:
    """Return a copy of the bundle for films whose facts are those of its variant with texture, for a tiny network."""
    bundle = find_bundle(FILM_FLOW)
    unchanged = {name: bundle.facts[name] for name in ("family", "generative", "diffusion", "training")}
    network_def = {**bundle.facts["network_def"], **TINY_FILM}
    folder = with_facts(copied(parent, bundle.name.partition(":")[0]), network_def=network_def, **(unchanged | facts))
    for weights in (*folder.glob("*.pt"), *folder.glob("*.onnx")):
        weights.unlink()
    # Drawn images are unlike those that the released bundle knows.
    return with_metadata(folder, weights_sha256={}, input_limits=None)


def released_film_flow(parent: Path) -> tuple[Path, list[str]]:
    """Release random weights in a tiny copy of the bundle for films; return its folder and the lines of the release."""
    folder = film_flow(parent)
    torch.manual_seed(0)
    network = trained_like(FilmFlow(**TINY_FILM))
    for tail in (*network.tails.values(), *network.flow.tails.values()):
        tail.weight.data.mul_(0.1)
    return folder, _release_marked(network, folder, parent)


def _release_marked(network: Any, folder: Path, parent: Path) -> list[str]:
    """Release the weights as those of the flow that the bundle states."""
    process = find_bundle(str(folder)).family.process
    network.process.copy_(torch.from_numpy(process.fingerprint()))
    torch.save(network.state_dict(), parent / "trained.pt")
    return release(str(folder), parent / "trained.pt")
