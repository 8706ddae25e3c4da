"""Bundles of a residual flow with a tiny network and random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from monai_sr_bundle.bundles import find_bundle
from monai_sr_bundle.networks.residual_flow import ResidualFlow
from monai_sr_bundle.packing.release import release
from tests.changed_bundles import copied, with_facts, with_metadata
from tests.networks.measured import trained_like

FLOW_BUNDLE = "chest_xray_residual_flow_x4"
CT_FLOW_BUNDLE = "chest_ct_residual_flow_x4"
TINY = {"channels": 8, "blocks": 1, "refinement": 1, "flow_channels": 8, "flow_blocks": 1, "mirror": False}
HALO = 8
"""The tiny network looks 7 pixels far."""


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
    network.process.copy_(torch.from_numpy(family.process.fingerprint()))
    torch.save(network.state_dict(), parent / "trained.pt")
    return folder, release(str(folder), parent / "trained.pt")
