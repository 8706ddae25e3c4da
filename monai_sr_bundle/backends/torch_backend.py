"""PyTorch: the reference. Weights are loaded as tensors only, after their hash was checked."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_sr_bundle.backends.backend import DeviceName, free_host_bytes
from monai_sr_bundle.bundles import ERROR_BARS, Bundle
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.inferers.denoiser import torch_denoiser
from monai_sr_bundle.inferers.device import predict_array
from monai_sr_bundle.inferers.flow import process_of
from monai_sr_bundle.inferers.sampling import Denoiser
from monai_sr_bundle.networks.error_scale import ErrorScale

_NETWORKS = ("monai_sr_bundle.networks.", "monai.networks.")


def build_network(bundle: Bundle) -> torch.nn.Module:
    """The network of a bundle's `network_def`, without weights, in evaluation mode.

    MONAI's config parser would run whatever expression or function the text names. A bundle may come from anywhere, so
    here only a network class is called, with plain values and references (`@scale`) to plain values.

    Raises:
        BundleError: `network_def` is missing, or names anything else; nothing of it was run.
    """
    content = bundle.facts
    definition = content.get("network_def")
    if not isinstance(definition, dict) or not isinstance(definition.get("_target_"), str):
        raise BundleError(
            f"bundle {bundle.name}: {bundle.texts[-1].name} has no network_def with a _target_, which names its "
            "network. Install the bundle again."
        )
    network_class = _network_class(bundle, definition["_target_"])
    arguments = {key: _plain(bundle, content, value) for key, value in definition.items() if key != "_target_"}
    try:
        return network_class(**arguments).eval()
    except (TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"bundle {bundle.name}: {network_class.__name__} cannot be made with {arguments} ({error}). "
            "Install the bundle again."
        ) from error


def _network_class(bundle: Bundle, target: str) -> type[torch.nn.Module]:
    module, _, name = target.rpartition(".")
    found: object = None
    if module.startswith(_NETWORKS):
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError:
            found = None
    # Not what such a module imported for itself, as torch.load: what it defines.
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module) and found.__module__.startswith(_NETWORKS)):
        raise BundleError(
            f"bundle {bundle.name}: network_def._target_ is {target!r}, expected a network of monai_sr_bundle.networks "
            "or monai.networks. Nothing of the bundle was run."
        )
    return found


def _plain(bundle: Bundle, content: dict[str, Any], value: object) -> object:
    if isinstance(value, list):
        return [_plain(bundle, content, item) for item in value]
    if isinstance(value, str) and value.startswith("@"):
        value = content.get(value[1:])
    if isinstance(value, dict | list) or (isinstance(value, str) and value.startswith(("$", "@", "%"))):
        raise BundleError(
            f"bundle {bundle.name}: network_def holds {value!r}, expected plain values. Nothing of the bundle was run."
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
    _loaded(bundle, "model.pt", network)
    sha256 = str(bundle.metadata["weights_sha256"]["model.pt"])
    if bundle.diffusion is not None:
        try:
            process_of(bundle.diffusion).check_belongs(network.get_buffer("process").numpy())
        except BundleError as error:
            raise BundleError(f"bundle {bundle.name}: {error}") from error
    return network, sha256


def _loaded(bundle: Bundle, name: str, network: torch.nn.Module) -> torch.nn.Module:
    state = _tensors(bundle, bundle.weights(name)[0])
    try:
        network.load_state_dict({key: value.float() for key, value in state.items()})
    except RuntimeError as error:
        what = "error bars" if name == ERROR_BARS else "network_def"
        raise BundleError(
            f"bundle {bundle.name}: {name} does not belong to its {what} "
            f"({str(error).splitlines()[-1].strip()}). Install the bundle again."
        ) from error
    return network.eval()


def _tensors(bundle: Bundle, path: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise BundleError(
            f"bundle {bundle.name}: {path.name} cannot be read as tensors alone "
            f"({' '.join(str(error).split())[:200]}). Nothing "
            "of it was run. Install the bundle again."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BundleError(
            f"bundle {bundle.name}: {path.name} holds {type(state).__name__}, expected a state dict of tensors. "
            f"Put trained weights into a bundle with `monai-sr export {bundle.name} --weights FILE`."
        )
    return state


class TorchBackend:
    """A bundle's network in PyTorch, float32, channels last.

    Args:
        bundle: whose network and weights to load.
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
        self._network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.denoiser: Denoiser | None = None
        if bundle.diffusion:
            self.denoiser = torch_denoiser(self._network, process_of(bundle.diffusion), self.device)
        self.error_scale: Callable[[np.ndarray], np.ndarray] | None = None
        if bundle.has_file(ERROR_BARS):
            scale = _loaded(bundle, ERROR_BARS, ErrorScale(bundle.scale)).to(self.device)
            self.error_scale = lambda cells: predict_array(scale, cells, self.device)
        self.artifacts: Callable[[np.ndarray], np.ndarray] | None = None
        if bundle.finds_artifacts:
            finds: Any = self._network
            self.artifacts = lambda batch: predict_array(finds.artifacts, batch, self.device)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return predict_array(self._network, batch, self.device)

    def free_bytes(self) -> int:
        """Free memory of the GPU, or of the host."""
        return torch.cuda.mem_get_info()[0] if self.device != "cpu" else free_host_bytes()
