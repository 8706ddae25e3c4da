"""The weights that a study begins with."""

from __future__ import annotations

from pathlib import Path

import torch
from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.training.weights import load_state, read_weights

SHIPPED, RANDOM = "shipped", "random"
START_FILE = "start.pt"
"""File with the weights that a study began with: in the configuration of a job, and beside its global model."""


def start_state(bundle: Bundle, start: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the weights that a study begins with, as a state dict in single precision.

    Args:
        bundle: the bundle that is trained.
        start: "shipped" for the bundle's weights, "random", or a file.
        seed: seed of random weights. Default 0.

    Raises:
        BundleError: the bundle has no weights, or the file has those of another network.
        InputError: the file cannot be read.
    """
    torch.manual_seed(seed)
    network = build_network(bundle)
    if start != RANDOM:
        path = bundle.weights("model.pt")[0] if start == SHIPPED else Path(start)
        if start != SHIPPED and not path.is_file():
            raise InputError(f"start is {start!r}, expected shipped, random or a file on the server.")
        weights = {
            key: value.float() if value.is_floating_point() else value for key, value in read_weights(path).items()
        }
        load_state(network, weights, f"{path}:", f"the network of {bundle.name}")
    return {key: value.detach().clone() for key, value in network.state_dict().items()}
