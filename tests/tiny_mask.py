"""A bundle that removes artifacts, with a tiny network that takes bright pixels for them."""

from __future__ import annotations

from pathlib import Path

import torch
from monai_sr_bundle.networks.residual_flow import ResidualFlow
from monai_sr_bundle.packing.release import release
from monai_sr_bundle.shipped_bundles import find_bundle

from tests.changed_bundles import with_facts
from tests.networks.measured import trained_like
from tests.tiny_flow import TINY, tiny_flow


def finding_network() -> ResidualFlow:
    """Return a network with random weights whose mask holds the pixels brighter than 0.9."""
    torch.manual_seed(0)
    network = trained_like(ResidualFlow(4, **TINY, mask=True))
    network.tail.weight.data.mul_(0.1)
    # The first feature is the brightness, all the way to the mask.
    for convolution in (network.head, network.body[0].second, network.refine[0].second, network.body[-1]):
        convolution.weight.data[0], convolution.bias.data[0] = 0.0, 0.0
    network.head.weight.data[0, 0, 1, 1] = 1.0
    assert network.mask is not None
    network.mask.weight.data.zero_()
    network.mask.weight.data[0, 0, 1, 1], network.mask.bias.data[0] = 100.0, -40.0
    return network


def released_mask(parent: Path) -> tuple[Path, list[str]]:
    """Release this network in a copy of the flow bundle that makes one pass; return its folder and the lines."""
    folder = tiny_flow(parent, family="one_pass", diffusion={}, generative=False)
    definition = find_bundle(str(folder)).facts["network_def"]
    with_facts(folder, network_def={**definition, "mask": True})
    torch.save(finding_network().state_dict(), parent / "trained.pt")
    return folder, release(str(folder), parent / "trained.pt")
