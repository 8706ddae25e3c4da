"""Begin a training stage with the weights of an earlier one."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import torch

from monai_sr_bundle.errors import BundleError, InputError

logger = logging.getLogger(__name__)


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
    return _loaded(network, read_weights(path), path, name)


def _loaded(network: torch.nn.Module, state: dict[str, torch.Tensor], path: Path, name: str) -> torch.nn.Module:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        found = str(error).splitlines()[-1].strip()
        raise BundleError(
            f"{path}: does not belong to {name} ({found}). Name the weights of a run of the same bundle."
        ) from error
    return network


def start_from(network: torch.nn.Module, start: str) -> torch.nn.Module:
    """The network with the weights in the file `start`; as it is if that is empty.

    Parts of the network that the earlier one did not have at all begin anew. A network of several slices begins as one
    that sees the middle one alone, where its weights are of such a network.

    Raises:
        InputError, BundleError: as `load_weights`, before anything is trained.
    """
    if not start:
        return network
    own, found = network.state_dict(), read_weights(Path(start))
    name = f"the network {type(network).__name__}"
    there, wanted = ({key.partition(".")[0] for key in state} for state in (found, own))
    if not there & wanted:
        return _loaded(network, found, Path(start), name)
    slices = getattr(network, "slices", 1)
    alone = [key for key in found if key in own and _lacks_neighbours(found[key], own[key], slices)]
    if alone:
        logger.warning("%s knows single slices; their neighbours count nothing at the start", start)
        found |= {key: _among_neighbours(found[key], slices) for key in alone}
    learnt = {key.partition(".")[0] for key, _ in network.named_parameters()}
    for part in sorted((wanted - there) & learnt):
        logger.warning("%s has no %s, which begins anew", start, part)
    new = {key: value for key, value in own.items() if key.partition(".")[0] not in there}
    return _loaded(network, {**found, **new}, Path(start), name)


def _lacks_neighbours(kernel: torch.Tensor, wanted: torch.Tensor, slices: int) -> bool:
    """Whether a convolution takes one slice where that of the network takes several."""
    if slices == 1 or kernel.ndim != 4:
        return False
    return wanted.shape == (kernel.shape[0], kernel.shape[1] + slices - 1, *kernel.shape[2:])


def _among_neighbours(kernel: torch.Tensor, slices: int) -> torch.Tensor:
    """The kernel of a convolution whose last input is a slice, now that slice amid neighbours, which count nothing."""
    aside = torch.zeros_like(kernel[:, -1:]).repeat(1, slices // 2, 1, 1)
    return torch.cat((kernel[:, :-1], aside, kernel[:, -1:], aside), dim=1)
