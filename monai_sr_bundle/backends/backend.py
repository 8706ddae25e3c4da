"""The interface of every runtime: the parts of a bundle's network, numpy in and numpy out."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import psutil

BackendName = Literal["auto", "torch", "onnx"]
DeviceName = Literal["auto", "cpu", "cuda"]
ERROR_BARS_PART = "error_bars"
"""The part behind the error bars of a bundle; it belongs to no family."""


class Backend(Protocol):
    """The loaded networks of a bundle.

    Attributes:
        name: "torch" or "onnx".
        device: "cpu" or "cuda:0".
        weights_sha256: SHA-256 of the file that was loaded, `combined_sha256` of several; empty for a method without
            weights.
        threads: number of CPU threads; OMP_NUM_THREADS sets it for every backend.
        batch_size: samples of a diffusion model that are best drawn together.
        has_error_bars: whether the bundle has the part `ERROR_BARS_PART`.
    """

    name: str
    device: str
    weights_sha256: str
    threads: int
    batch_size: int
    has_error_bars: bool

    def run(self, part: str, *inputs: np.ndarray) -> np.ndarray:
        """Run a part of the network.

        Args:
            part: name of a `families.family.Part` of the bundle's family, or `ERROR_BARS_PART`.
            inputs: float32 arrays, in the part's order.

        Raises:
            MemoryError: the inputs do not fit; the caller may try smaller ones.
        """
        ...

    def input_channels(self, part: str) -> tuple[int, ...]:
        """Return the channels of the inputs of a part, without those that are one number per image."""
        ...

    def free_bytes(self) -> int:
        """Return the memory that is free on the device."""
        ...


def free_host_bytes() -> int:
    """Return the memory that this process can still take without swapping."""
    return int(psutil.virtual_memory().available)
