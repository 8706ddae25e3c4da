"""In which precision a network is trained on this machine."""

import torch


def bfloat16_pays(device: torch.device) -> bool:
    """Whether this device multiplies matrices of bfloat16 faster than of float32.

    True for CUDA, and for CPUs with the matrix unit AMX. CPUs that only emulate it become slower.
    """
    if device.type == "cpu":
        return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return device.type == "cuda"
