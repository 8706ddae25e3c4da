"""Weights of a training: those it begins from, their average, which it keeps, and its newest state.

The average needs statistics of batch normalisation of its own. Whoever only reads weights, as the server of a
federation does, imports neither MONAI nor ignite with this module.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from monai_sr_bundle.errors import BundleError, InputError
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

if TYPE_CHECKING:
    from ignite.engine import Engine
    from monai.fl.utils.exchange_object import ExchangeObject

BEST_WEIGHTS = "model.pt"
NUMBERED = "checkpoint_*.pt"
"""Checkpoints between the start and the end of a run."""
logger = logging.getLogger(__name__)


def latest_checkpoint(output_dir: str) -> str:
    """Return the file with everything that a resumed training needs, of several that of the most iterations.

    Checkpoints are written at the end of a run, at an interruption, and every few epochs.

    Raises:
        InputError: the folder holds none.
    """
    folder = Path(output_dir)
    checkpoints = [*folder.glob("last.pt"), *folder.glob(NUMBERED)]
    if not checkpoints:
        raise InputError(
            f"{folder}: no checkpoint to resume from, expected last.pt or checkpoint_*.pt. "
            "Train without --resume first, or pass the folder of the run to go on with."
        )
    return str(max(checkpoints, key=_iterations) if len(checkpoints) > 1 else checkpoints[0])


def _iterations(checkpoint: Path) -> int:
    # Not by their times, which a copy of the folder may have changed.
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["budget"]["iterations"])


def iterations_so_far(output_dir: str, resume: bool) -> int:
    """Return the iterations of the checkpoint that a training goes on from; 0 for a new one.

    Added to the seed, so that a resumed training goes on with other patches, and not with those of its beginning.
    """
    return _iterations(Path(latest_checkpoint(output_dir))) if resume else 0


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
        # PyTorch's own text advises to load it in a way that runs what the file holds.
        reason = str(error).partition("\n")[0] if isinstance(error, OSError | RuntimeError) else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as weights ({reason}). Expected a model.pt of `monai-sr train`."
        ) from error
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path}: holds no network's weights. Expected a model.pt of `monai-sr train`.")
    return state


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
        raise BundleError(_describe_difference(source, name, reason))
    network.load_state_dict(state)
    return network


def checked_weights(file: str, network: torch.nn.Module, bundle_root: str) -> str:
    """Return the path of a weights file after checking that it holds all weights of a network; empty for no file.

    Raises:
        InputError, BundleError: see `read_weights` and `load_state`.
    """
    if file and (reason := _difference(read_weights(Path(file)), network.state_dict())):
        raise BundleError(_describe_difference(f"{file}:", Path(bundle_root).resolve().name, reason))
    return file


def _describe_difference(source: str, name: str, reason: str) -> str:
    return f"{source} does not belong to {name} ({reason}). Name the weights of a run of the same bundle."


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
        InputError, BundleError: see `read_weights` and `load_state`, before anything is trained.
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
    load_edsr = getattr(network, "load_edsr", None)
    if load_edsr is not None and "tail.weight" in weights:
        load_edsr(weights)
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


def averaging_weight(steps: int, momentum: float) -> float:
    """Return the weight of the newest state in the average after `steps` steps: of a short run, the last tenth counts.

    A fixed momentum would keep the first, random weights in the average of a run of few hundred steps.
    """
    return max(momentum, 9 / (10 + steps))


class WeightAverage:
    """Engine handler: a running average of a network's weights; other state, as of batch normalisation, is copied.

    Weights that the network loads from elsewhere, as those of a federated round, begin a new average.

    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30(4), 1992.

    Args:
        model: the network that is trained.
        momentum: share of the newest weights in a long run; 0.002 averages about the last 500 steps.

    Attributes:
        averaged: the average and its number of steps, for checkpoints.
    """

    def __init__(self, model: torch.nn.Module, momentum: float = 0.002) -> None:
        self.model = model

        def mix(old: Sequence[torch.Tensor], new: Sequence[torch.Tensor], steps: torch.Tensor | int) -> None:
            # All at once, since a GPU would wait for each of them.
            get_ema_multi_avg_fn(1 - averaging_weight(int(steps), momentum))(old, new, steps)

        self.averaged = AveragedModel(model, multi_avg_fn=mix)
        # A copy of the network has the hook too.
        model.register_load_state_dict_post_hook(lambda module, keys: self.reset() if module is self.model else None)

    @property
    def network(self) -> torch.nn.Module:
        """The network with the averaged weights."""
        return self.averaged.module

    def reset(self) -> None:
        """Begin a new average with the weights that the trained network has now."""
        self.averaged.module.load_state_dict(self.model.state_dict())
        self.averaged.n_averaged.zero_()

    def attach(self, engine: Engine) -> None:
        """Follow the iterations of `engine`."""
        from ignite.engine import Events

        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def _update(self) -> None:
        self.averaged.update_parameters(self.model)


class BatchStatistics:
    """Engine handler: before a validation, measure a network's batch statistics on whole training images.

    Averaged weights never saw a batch (Izmailov et al., "Averaging weights leads to wider optima", UAI 2018, Section
    3.2), and patches have more zero padding in them than images. A network without batch normalisation is left alone.

    Args:
        network: network whose statistics are replaced; the average over batches.
        items: training images; the first time, `transform` loads them.
        transform: from an item to a mapping whose `image` is ``[1, rows, columns]``.
        batch_size: most images in a batch; only those of equal size share one.
    """

    def __init__(
        self,
        network: nn.Module,
        items: Sequence[Mapping[Hashable, Any]],
        transform: Callable[[Any], Any],
        batch_size: int = 4,
    ) -> None:
        self.network = network
        self.items, self.transform, self.batch_size = items, transform, batch_size
        self._batches: list[torch.Tensor] | None = None

    def attach(self, engine: Engine) -> None:
        """Come before `engine`'s run."""
        from ignite.engine import Events

        engine.add_event_handler(Events.STARTED, self.measure)

    def measure(self) -> None:
        """Replace the statistics; weights and the network's mode stay."""
        if not any(isinstance(layer, _BatchNorm) for layer in self.network.modules()):
            return
        if self._batches is None:
            self._batches = self._load_batches()
        update_bn(self._batches, self.network, next(self.network.parameters()).device)

    def _load_batches(self) -> list[torch.Tensor]:
        by_size: dict[torch.Size, list[torch.Tensor]] = {}
        for item in self.items:
            image = torch.as_tensor(self.transform(item)["image"])
            by_size.setdefault(image.shape, []).append(image)
        return [
            torch.stack(images[first : first + self.batch_size])
            for images in by_size.values()
            for first in range(0, len(images), self.batch_size)
        ]


class WithoutBatchStatistics:
    """Filter of MONAI's federated clients: leave out of the weights what batch normalisation has measured.

    Each site keeps its own, measured on its own images: they say more of these than weights do, and their mean over
    sites with other scanners fits none of them (Li et al., "FedBN", ICLR 2021).
    """

    measured = ("running_mean", "running_var", "num_batches_tracked")

    def __call__(self, data: ExchangeObject, extra: dict[str, Any] | None = None) -> ExchangeObject:
        """Return the weights, or their change, without the statistics."""
        weights = data.weights or {}
        data.weights = {key: value for key, value in weights.items() if key.rpartition(".")[2] not in self.measured}
        return data
