"""The beginning of a training: the weights of an earlier one, and the precision that suits the device."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from monai_sr_bundle.errors import BundleError, InputError

logger = logging.getLogger(__name__)


def bfloat16_pays(device: torch.device) -> bool:
    """Return whether this device multiplies matrices of bfloat16 faster than of float32.

    True for CUDA, and for CPUs that multiply it themselves (AMX or AVX-512 BF16), which takes about half the time. CPUs
    that only emulate it become slower.
    """
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    return device.type == "cuda"


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a network's state from a file of `monai-sr train`, as tensors only.

    Raises:
        InputError: the file does not exist, or is no weights file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as weights ({reason}). Expected a model.pt of `monai-sr train`."
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
        name: name of the network, for the message.

    Raises:
        InputError: see `read_weights`.
        BundleError: weights of another network.
    """
    return load_state(network, read_weights(path), f"{path}:", name)


def load_state(network: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str, name: str) -> torch.nn.Module:
    """Load a state dict into `network`, all of it or nothing.

    Args:
        network: it is changed; it stays as it was if the state does not belong to it.
        state: tensors by the names of the network's own state dict.
        source: origin of the state, as the beginning of a message.
        name: name of the network, for the message.

    Raises:
        BundleError: weights of another network.
    """
    reason = _difference(state, network.state_dict())
    if reason:  # what is loaded from elsewhere changes more than the network, as an average of its weights
        raise BundleError(
            f"{source} does not belong to {name} ({reason}). Name the weights of a run of the same bundle."
        )
    network.load_state_dict(state)
    return network


def _difference(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> str:
    """Return the first reason why a state is not one of a network; empty if it is."""
    for key in expected:
        if key not in state:
            return f"Missing key {key}"
        if state[key].shape != expected[key].shape:
            return f"size mismatch for {key}: {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}"
    return next((f"Unexpected key {key}" for key in state if key not in expected), "")


def recorded_stages(weights: Path) -> list[dict[str, Any]]:
    """Return the stages of the training that the weights in a file had, as far as they are recorded beside it."""
    packed = weights.parent.parent / "configs" / "metadata.json"
    for record in (weights.with_name("training.json"), weights.with_name("metadata.json"), packed):
        if record.is_file():
            content = json.loads(record.read_text(encoding="utf-8"))
            training = content if record.name == "training.json" else content.get("training", {})
            stages: list[dict[str, Any]] = training.get("stages", [])
            return stages
    return []


def start_from(network: torch.nn.Module, start: str, bundle_root: str = "") -> torch.nn.Module:
    """Return the network with the weights in the file `start`; as it is if that is empty.

    An `MDSR` may begin with the weights of an `EDSR`. Parts of the network that the earlier one did not have at all
    begin anew. A network of several slices begins as one that sees the middle one alone, where its weights are of such
    a network.

    Args:
        network: it is changed.
        start: file of an earlier training.
        bundle_root: folder of the bundle that is trained, for messages.

    Raises:
        InputError, BundleError: see `load_weights`, before anything is trained.
    """
    if not start:
        return network
    state, weights = network.state_dict(), read_weights(Path(start))
    name = f"the network {type(network).__name__}{f' of {Path(bundle_root).resolve().name}' if bundle_root else ''}"
    stages = recorded_stages(Path(start))
    source = f"{start}, trained as {stages[-1]['bundle']}," if stages else f"{start}:"
    slices = getattr(network, "slices", 1)
    single_slice = [key for key in weights if key in state and _lacks_neighbours(weights[key], state[key], slices)]
    if single_slice:
        logger.warning("%s knows single slices; their neighbours count nothing at the start", start)
        weights |= {key: _add_neighbours(weights[key], slices) for key in single_slice}
    begin_with_edsr = getattr(network, "begin_with_edsr", None)
    if begin_with_edsr is not None and "tail.weight" in weights:
        begin_with_edsr(weights)
        return network
    weight_parts, network_parts = ({key.partition(".")[0] for key in each} for each in (weights, state))
    if not weight_parts & network_parts:
        return load_state(network, weights, source, name)
    trained_parts = {key.partition(".")[0] for key, _ in network.named_parameters()}
    for part in sorted((network_parts - weight_parts) & trained_parts):
        logger.warning("%s has no %s, which begins anew", start, part)
    new = {key: value for key, value in state.items() if key.partition(".")[0] not in weight_parts}
    return load_state(network, {**weights, **new}, source, name)


def _lacks_neighbours(kernel: torch.Tensor, expected: torch.Tensor, slices: int) -> bool:
    """Return whether a convolution takes one slice where that of the network takes several."""
    if slices == 1 or kernel.ndim != 4:
        return False
    return expected.shape == (kernel.shape[0], kernel.shape[1] + slices - 1, *kernel.shape[2:])


def _add_neighbours(kernel: torch.Tensor, slices: int) -> torch.Tensor:
    """Return the kernel of a convolution whose last input is a slice with weight 0 for that slice's neighbours."""
    neighbours = torch.zeros_like(kernel[:, -1:]).repeat(1, slices // 2, 1, 1)
    return torch.cat((kernel[:, :-1], neighbours, kernel[:, -1:], neighbours), dim=1)
