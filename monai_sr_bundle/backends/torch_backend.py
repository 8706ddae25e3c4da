"""PyTorch: the reference. Weights are loaded as tensors only, after their hash was checked."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai_sr_bundle.backends.backend import ERROR_BARS_PART, DeviceName
from monai_sr_bundle.backends.torch_networks import TorchNetworks, run_network
from monai_sr_bundle.bundles import ERROR_BARS, ERROR_BARS_DEF, Bundle
from monai_sr_bundle.errors import BundleError, quote
from monai_sr_bundle.images.memory import free_memory
from monai_sr_bundle.networks.error_scale import ErrorScale

_OWN_NETWORKS = "monai_sr_bundle.networks."
MONAI_NETWORKS = frozenset({"monai.networks.nets.basic_unet.BasicUNet", "monai.networks.nets.unet.UNet"})
"""Networks of MONAI that a bundle may name. Others download weights when they are made, or run what they are given."""
LARGEST_NETWORK = 5_000
"""Modules and parameters of a network at most; the largest of this project has 1,240."""


def build_network(bundle: Bundle, key: str = "network_def") -> torch.nn.Module:
    """The network of a bundle's `network_def`, or of another key, without weights, in evaluation mode.

    MONAI's config parser would run whatever expression or function the text names. A bundle may come from anywhere, so
    here only a network class is called, with plain values and references (`@scale`) to plain values. It is built
    without memory first, so that a network beyond this machine is refused before it takes any.

    Raises:
        BundleError: the definition is missing, or names anything else, of which nothing was run; the network is too
            large.
    """
    content = bundle.facts
    definition = content.get(key)
    if not isinstance(definition, dict) or not isinstance(definition.get("_target_"), str):
        raise BundleError(
            f"bundle {bundle.name}: {bundle.texts[-1].name} has no {key} with a _target_, which names its "
            "network. Install the bundle again."
        )
    network_class = _network_class(bundle, key, definition["_target_"])
    arguments = {name: _plain(bundle, content, key, value) for name, value in definition.items() if name != "_target_"}
    if any("pretrained" in name for name in arguments):
        raise BundleError(
            f"bundle {bundle.name}: {key} asks for pretrained weights, which would be downloaded. Put them into the "
            "bundle's model.pt. Nothing of the bundle was run."
        )
    try:
        with torch.device("meta"), _limited_size():
            sizes = network_class(**arguments).state_dict().values()
        needed = 2 * sum(tensor.numel() * tensor.element_size() for tensor in sizes)  # and as much for the weights
        free = free_memory()
        if needed > free:
            raise MemoryError(f"it needs {needed:,} bytes of memory, and {free:,} are free")
        return network_class(**arguments).eval()
    except Exception as error:  # the values come from anywhere, and a constructor trusts them
        raise BundleError(
            f"bundle {bundle.name}: {network_class.__name__} cannot be made with {quote(arguments)} "
            f"({quote(error) or type(error).__name__}). Install the bundle again."
        ) from error


@contextmanager
def _limited_size() -> Iterator[None]:
    """Refuse to build a network of more than `LARGEST_NETWORK` modules and parameters."""
    count = 0

    def step(*_: object) -> None:
        nonlocal count
        count += 1
        if count > LARGEST_NETWORK:
            raise ValueError(f"it has more than {LARGEST_NETWORK:,} modules and parameters")

    modules = torch.nn.modules.module.register_module_module_registration_hook(step)
    parameters = torch.nn.modules.module.register_module_parameter_registration_hook(step)
    try:
        yield
    finally:
        modules.remove()
        parameters.remove()


def build_error_scale(bundle: Bundle) -> torch.nn.Module:
    """The network of a bundle's error bars, without weights: that of `error_bars_def`, else `ErrorScale`.

    Raises:
        BundleError: see `build_network`.
    """
    return build_network(bundle, ERROR_BARS_DEF) if ERROR_BARS_DEF in bundle.facts else ErrorScale(bundle.scale)


def _network_class(bundle: Bundle, key: str, target: str) -> type[torch.nn.Module]:
    module, _, name = target.rpartition(".")
    network_class: object = None
    if module.startswith(_OWN_NETWORKS) or target in MONAI_NETWORKS:
        try:
            network_class = getattr(importlib.import_module(module), name, None)
        except (ImportError, ValueError):  # of a name with empty parts
            network_class = None
    # Not what such a module imported for itself, as torch.load: what it defines.
    if not (
        isinstance(network_class, type)
        and issubclass(network_class, torch.nn.Module)
        and (network_class.__module__.startswith(_OWN_NETWORKS) or target in MONAI_NETWORKS)
    ):
        raise BundleError(
            f"bundle {bundle.name}: {key}._target_ is {quote(target)!r}, expected a network of "
            f"monai_sr_bundle.networks or {' or '.join(sorted(MONAI_NETWORKS))}. Nothing of the bundle was run."
        )
    return network_class


def _plain(bundle: Bundle, content: dict[str, Any], key: str, value: object) -> object:
    if isinstance(value, list):
        return [_plain(bundle, content, key, item) for item in value]
    if isinstance(value, str) and value.startswith("@"):
        value = content.get(value[1:])
        if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
            return value
        if isinstance(value, dict) and all(isinstance(item, int | float | str | None) for item in value.values()):
            return {name: _plain(bundle, {}, key, item) for name, item in value.items()}
    if isinstance(value, dict | list) or (isinstance(value, str) and value.startswith(("$", "@", "%"))):
        raise BundleError(
            f"bundle {bundle.name}: {key} holds {quote(value)!r}, expected plain values. Nothing of the bundle was run."
        )
    return value


def load_network(bundle: Bundle) -> tuple[torch.nn.Module, str]:
    """The network with its released weights, and their SHA-256 (empty for a method without weights).

    Raises:
        BundleError: the weights are damaged, hold more than tensors, or belong to another network.
    """
    network = build_network(bundle)
    if not bundle.has_file("model.pt"):
        if any(True for _ in network.parameters()):
            raise BundleError(
                f"bundle {bundle.name}: its network has parameters, but metadata.json lists no model.pt. Train it with "
                f"`monai-sr train {bundle.name}`, then `monai-sr export`, or name another bundle."
            )
        return network, ""
    load_state(bundle, "model.pt", network)
    try:
        bundle.family.check_weights(network)
    except BundleError as error:
        raise BundleError(f"bundle {bundle.name}: {error}") from error
    return network, str(bundle.metadata["weights_sha256"]["model.pt"])


def load_state(bundle: Bundle, name: str, network: torch.nn.Module) -> torch.nn.Module:
    """Load a hash-checked weights file of a bundle into a network.

    Raises:
        BundleError: the file is damaged, holds more than tensors, or belongs to another network.
    """
    state = read_tensors(bundle, bundle.weights(name)[0])
    try:
        network.load_state_dict({key: value.float() for key, value in state.items()})
    except RuntimeError as error:
        what = "error bars" if name == ERROR_BARS else "network_def"
        raise BundleError(
            f"bundle {bundle.name}: {name} does not belong to its {what} "
            f"({str(error).splitlines()[-1].strip()}). Install the bundle again."
        ) from error
    return network.eval()


def read_tensors(bundle: Bundle, path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict, as tensors alone.

    Raises:
        BundleError: the file holds anything else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise BundleError(
            f"bundle {bundle.name}: {path.name} cannot be read as tensors alone "
            f"({quote(error)}). Nothing of it was run. Install the bundle again."
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) and not value.is_complex()
        for key, value in state.items()
    ):
        raise BundleError(
            f"bundle {bundle.name}: {path.name} holds {type(state).__name__}, expected a state dict of tensors. "
            f"Put trained weights into a bundle with `monai-sr export {bundle.name} --weights FILE`."
        )
    return state


class TorchBackend:
    """A bundle's network in PyTorch, float32, channels last.

    Args:
        bundle: the bundle to load.
        device: "auto" takes the first GPU if there is one.

    Raises:
        BundleError: "cuda" was asked for and there is none, or as `load_network`.
    """

    name = "torch"

    def __init__(self, bundle: Bundle, device: DeviceName = "auto") -> None:
        available = torch.cuda.is_available()
        if device == "cuda" and not available:
            raise BundleError("--device cuda: PyTorch sees no GPU here. Use --device auto or cpu.")
        self.device = "cuda:0" if available and device != "cpu" else "cpu"
        self.threads = torch.get_num_threads()
        network, self.weights_sha256 = load_network(bundle)
        network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._networks = TorchNetworks(network, bundle.family.parts, self.device)
        self.batch_size = self._networks.batch_size
        self.has_error_bars = bundle.has_file(ERROR_BARS)
        if self.has_error_bars:
            self._error_scale = load_state(bundle, ERROR_BARS, build_error_scale(bundle)).to(self.device)

    def run(self, part: str, *inputs: np.ndarray) -> np.ndarray:
        if part == ERROR_BARS_PART:
            return run_network(self._error_scale, inputs, self.device)
        return self._networks.run(part, *inputs)

    def input_channels(self, part: str) -> tuple[int, ...]:
        return self._networks.input_channels(part)

    def free_bytes(self) -> int:
        """Return the free memory of the GPU, or of the host."""
        return self._networks.free_bytes()
