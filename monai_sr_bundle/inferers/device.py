"""What every door does with a network in PyTorch: call it on an array, and ask how much memory is left."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import psutil
import torch

# What PyTorch's CPU allocator and oneDNN say; there is no class of its own for it.
_NO_HOST_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "bad_alloc",
    "could not create a primitive",
    "could not execute a primitive",
    "could not create a memory",
)


def predict_array(
    network: Callable[[torch.Tensor], torch.Tensor], window: np.ndarray, device: torch.device | str
) -> np.ndarray:
    """What a network makes of an array, in full float32 precision; every door calls the network here.

    Args:
        network: takes and gives ``[B, channels, rows, columns]``.
        window: float32.
        device: where the network is.

    Raises:
        MemoryError: it does not fit, on the device or in the host.
    """
    # TF32 keeps 10 bits of a factor, which would change stored pixels; cuDNN's choice of an algorithm by trial, and the
    # algorithms that add in any order, differ from run to run.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    try:
        with torch.inference_mode(), exact:
            result = network(torch.from_numpy(window).to(device))
            return np.asarray(result.float().contiguous().cpu().numpy())
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if any(words in str(error) for words in _NO_HOST_MEMORY):
            raise MemoryError(str(error)) from error
        raise


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else int(psutil.virtual_memory().available)
