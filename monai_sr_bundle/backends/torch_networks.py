"""Networks in PyTorch, called on arrays, and the memory that is left on their device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai_sr_bundle.images.memory import free_memory

# What PyTorch's CPU allocator and oneDNN say; there is no class of its own for it.
_NO_HOST_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "bad_alloc",
    "could not create a primitive",
    "could not execute a primitive",
    "could not create a memory",
)


def run_network(
    function: Callable[..., torch.Tensor], inputs: Sequence[np.ndarray], device: torch.device | str
) -> np.ndarray:
    """Run a function of a network on arrays, in full float32 precision; every interface calls networks here.

    Args:
        function: takes and gives tensors.
        inputs: float32 arrays.
        device: device of the network.

    Raises:
        MemoryError: it does not fit, on the device or in the host.
    """
    # TF32 keeps 10 bits of a factor, which would change stored pixels; cuDNN's choice of an algorithm by trial, and the
    # algorithms that add in any order, differ from run to run.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    try:
        with torch.inference_mode(), exact:
            result = function(*(torch.from_numpy(array).to(device) for array in inputs))
            return np.asarray(result.float().contiguous().cpu().numpy())
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if any(words in str(error) for words in _NO_HOST_MEMORY):
            raise MemoryError(str(error)) from error
        raise


class PartNetwork(torch.nn.Module):
    """One part of a network as a network of its own, for exporters.

    Args:
        network: with a method for the part.
        part: a part of its family.
    """

    def __init__(self, network: Any, part: Any) -> None:
        super().__init__()
        self.network = network
        method = getattr(network, part.method)

        def forward(*inputs: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = method(*inputs)
            return result

        # Exporters read the names of the inputs there.
        names = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in part.inputs]
        forward.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
        self.forward = forward


class TorchNetworks:
    """The parts of a PyTorch network, as `families.family.Networks`.

    Args:
        network: with a method for every part.
        parts: parts of its family.
        device: device of the network.
        arguments: further arguments of the network, as MONAI's inferers pass them on.
    """

    GPU_BATCH_SIZE = 8

    def __init__(
        self,
        network: Any,
        parts: Sequence[Any],
        device: torch.device | str,
        arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {}),
    ) -> None:
        self._network, self._device, self._arguments = network, torch.device(device), arguments
        self._parts = {part.name: part for part in parts}
        # A CPU gains nothing from more than one sample at a time.
        self.batch_size = 1 if self._device.type == "cpu" else self.GPU_BATCH_SIZE

    def run(self, part: str, *inputs: np.ndarray) -> np.ndarray:
        method, (more, named) = self._parts[part].method, self._arguments
        function = self._network if method == "forward" else getattr(self._network, method)
        return run_network(lambda *tensors: function(*tensors, *more, **named), inputs, self._device)

    def input_channels(self, part: str) -> tuple[int, ...]:
        return tuple(channels for channels in self._parts[part].channels(self._network) if channels is not None)

    def free_bytes(self) -> int:
        on_gpu = self._device.type == "cuda"
        return torch.cuda.mem_get_info(self._device)[0] if on_gpu else free_memory()
