"""Begin a training stage with the weights of an earlier one."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from monai_sr_bundle.errors import BundleError, InputError


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The network's state in a file of `monai-sr train`, read as tensors only.

    Raises:
        InputError: the file is not there, or is no weights file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        told = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as weights ({told}). Expected a model.pt of `monai-sr train`."
        ) from error
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path}: holds no network's weights. Expected a model.pt of `monai-sr train`.")
    return state


def load_weights(network: torch.nn.Module, path: Path, name: str) -> torch.nn.Module:
    """Load the weights in `path` into `network`, all of them and no others.

    Args:
        network: it is changed.
        path: a file of `monai-sr train`.
        name: of the network, for the message.

    Raises:
        InputError: as `read_weights`.
        BundleError: weights of another network.
    """
    try:
        network.load_state_dict(read_weights(path))
    except RuntimeError as error:
        found = str(error).splitlines()[-1].strip()
        raise BundleError(
            f"{path}: does not belong to {name} ({found}). Name the weights of a run of the same bundle."
        ) from error
    return network


def start_from(network: torch.nn.Module, start: str) -> torch.nn.Module:
    """The network with the weights in the file `start`; as it is if that is empty.

    Raises:
        InputError, BundleError: as `load_weights`, before anything is trained.
    """
    return load_weights(network, Path(start), f"the network {type(network).__name__}") if start else network
