"""What the engine needs of whatever computes: numpy in, numpy out, and how much memory is free."""

from __future__ import annotations

import importlib.util
from typing import Literal, Protocol

import numpy as np
import psutil

from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import BundleError

BackendName = Literal["auto", "torch", "onnx"]
DeviceName = Literal["auto", "cpu", "cuda"]


class Backend(Protocol):
    """A loaded network.

    Attributes:
        name: "torch" or "onnx".
        device: "cpu" or "cuda:0".
        weights_sha256: of the file that was loaded; empty for a method without weights.
        threads: it computes with on the CPU; OMP_NUM_THREADS sets it for every backend.
    """

    name: str
    device: str
    weights_sha256: str
    threads: int

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """``[B, 1, rows, columns]`` float32 to ``[B, 1, scale * rows, scale * columns]`` float32.

        Raises:
            MemoryError: the batch does not fit; the caller may try a smaller one.
        """
        ...

    def free_bytes(self) -> int:
        """Memory that is free on the device."""
        ...


def free_host_bytes() -> int:
    """Memory this process can still take without swapping."""
    return int(psutil.virtual_memory().available)


def choose_backend(backend: BackendName) -> Literal["torch", "onnx"]:
    """The backend that "auto" means here: torch where it is installed with MONAI, else ONNX Runtime.

    Decided by what is installed, never by speed, so that one machine always gives the same pixels.
    """
    if backend != "auto":
        return backend
    installed = all(importlib.util.find_spec(name) for name in ("torch", "monai"))
    return "torch" if installed else "onnx"


def open_backend(bundle: Bundle, backend: BackendName = "auto", device: DeviceName = "auto") -> Backend:
    """Load a bundle's network.

    Args:
        bundle: whose hash-checked weights are loaded.
        backend: "torch", "onnx", or "auto".
        device: "cpu", "cuda", or "auto": a GPU where the backend can use one.

    Raises:
        BundleError: the backend is not installed, the device is not there, or the weights are damaged.
    """
    chosen = choose_backend(backend)
    if chosen == "torch":
        missing = [name for name in ("torch", "monai") if importlib.util.find_spec(name) is None]
        if missing:
            raise BundleError(
                f"--backend torch needs {' and '.join(missing)}, not installed here. "
                "Install with `pip install 'monai-sr-bundle[torch]'`, or use --backend onnx."
            )
        from monai_sr_bundle.backends.torch_backend import TorchBackend

        return TorchBackend(bundle, device)
    if importlib.util.find_spec("onnxruntime") is None:
        raise BundleError(
            "--backend onnx needs onnxruntime, not installed here. Install it with `pip install onnxruntime`, "
            "or use --backend torch."
        )
    from monai_sr_bundle.backends.onnx_backend import OnnxBackend

    return OnnxBackend(bundle, device)
