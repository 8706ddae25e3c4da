"""One step of an optimizer on a module whose `forward` is the loss, on one device or on many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from monai.data.samplers import DistributedSampler as UnpaddedSampler
from monai.engines.trainer import SupervisedTrainer
from monai.utils.enums import CommonKeys
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler, IterableDataset

from monai_sr_bundle.errors import InputError


class Objective(nn.Module):
    """A network and the loss that it is trained by, as one module.

    The whole of it is what `DistributedDataParallel` gets, so that a loss may use every method of the network. A
    subclass's `forward` takes ``image``, ``[B, C, rows, columns]``, ``high``, the original in the high resolution, and
    the rest of the batch; it returns ``loss``, its parts, scalars, and ``pred`` if it makes one. It runs in the
    precision of the trainer.

    Args:
        network: network to train; it stays the caller's.
        is_trained: whether the parameter of this name is changed; the others get no gradients. Default: all are.
    """

    def __init__(self, network: nn.Module, is_trained: Callable[[str], bool] = lambda name: True) -> None:
        super().__init__()
        self.network: Any = network
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(is_trained(name))

    @property
    def has_scales(self) -> bool:
        """Whether the network serves several scales, of which a batch has one."""
        return hasattr(self.network, "scales")

    def begin(self, image: torch.Tensor, high: torch.Tensor) -> None:
        """Prepare for the first batch, after a checkpoint may have been loaded."""


class TrainingStep:
    """The `iteration_update` of a `SupervisedTrainer`: one step of its optimizer on an objective.

    Args:
        objective: holds the trainer's network; in several processes they share its gradients.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self._shared: nn.Module | None = None

    def __call__(self, engine: SupervisedTrainer, batch: Any) -> dict[str, Any]:
        """Take the step.

        Args:
            engine: trainer.
            batch: `image` and `label`, and what the objective asks for.

        Returns:
            `image`, `label`, `pred` if the objective makes one; `loss` and its parts, numbers.
        """
        image, high = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        if self._shared is None:
            self.objective.begin(image, high)
            self._shared = share_gradients(self.objective)
        with torch.autocast(image.device.type, enabled=engine.amp, **engine.amp_kwargs):
            parts = self._shared(image, high, batch)
        minimise(engine.optimizer, parts[CommonKeys.LOSS])
        return {CommonKeys.IMAGE: image, CommonKeys.LABEL: high, **as_numbers(parts)}


def share_gradients(objective: Objective) -> nn.Module:
    """Return the module for all processes of a run, whose gradients are the mean over them; as it is in a single one.

    All processes go on from the weights of the first, and from what it has measured on its first batch.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return objective
    for value in objective.network.buffers():
        dist.broadcast(value, src=0)
    # What batch normalisation measures later is measured anew before every validation; other buffers are constants.
    buffers = [name for name, _ in objective.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(objective, buffers)
    device = next(objective.parameters()).device
    return DistributedDataParallel(
        objective,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=objective.has_scales,  # a batch has one scale
    )


def share_images(dataset: Any) -> DistributedSampler | None:
    """Return what gives each process its part of the training images; None for patches that are drawn without end."""
    if isinstance(dataset, IterableDataset):
        return None
    return DistributedSampler(dataset, shuffle=True)  # every process takes as many steps as the others


def share_validation(dataset: Any) -> DistributedSampler:
    """Return what gives each process its part of the validation images, none twice, which would change the mean.

    Raises:
        InputError: a process would have no image, and the others would wait for its figures for ever.
    """
    if len(dataset) < dist.get_world_size():
        raise InputError(
            f"the number of validation images is {len(dataset)}, expected at least one for each of "
            f"{dist.get_world_size()} processes. Start fewer processes, or take more images."
        )
    return UnpaddedSampler(dataset, even_divisible=False, shuffle=False)


def full_precision(device: torch.device) -> torch.autocast:
    """Return a context in which nothing is multiplied in half precision."""
    return torch.autocast(device.type, enabled=False)


def minimise(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """Take one step of an optimizer."""
    # bfloat16 has float32's range: nothing underflows, so no loss scaling is needed.
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def as_numbers(parts: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return scalars as numbers, and images without their gradients."""
    return {name: value.item() if value.ndim == 0 else value.detach() for name, value in parts.items()}
