"""ONNX Runtime: the light backend, for viewers and machines without PyTorch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
from monai_sr_bundle.backends.backend import DeviceName
from monai_sr_bundle.backends.onnx_files import OnnxFilesBackend
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import BundleError

_NO_MEMORY = ("Failed to allocate memory", "bad_alloc", "BFCArena")


class OnnxBackend(OnnxFilesBackend):
    """The parts of a bundle in ONNX Runtime.

    Args:
        bundle: the bundle to load; the hashes of its models are checked.
        device: "auto" takes a GPU if this build of ONNX Runtime has a CUDA provider that starts.

    Raises:
        BundleError: see `OnnxFilesBackend`; "cuda" without such a provider.
    """

    name = "onnx"
    runtime = "ONNX Runtime"

    def __init__(self, bundle: Bundle, device: DeviceName = "auto") -> None:
        has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        if device == "cuda" and not has_cuda:
            raise BundleError(
                "--device cuda: this ONNX Runtime has no CUDA provider. Install onnxruntime-gpu, "
                "or use --device auto or cpu."
            )
        self._providers = ["CUDAExecutionProvider"] if has_cuda and device != "cpu" else []
        super().__init__(bundle, device)

    def _load(self, path: Path) -> _Session:
        session = _Session(path, self._providers, self.threads)
        if session.on_gpu:
            self.device = "cuda:0"
        elif self._device_choice == "cuda":
            raise BundleError(
                "--device cuda: ONNX Runtime could not start its CUDA provider. Use --device auto or cpu."
            )
        return session


class _Session:
    """One file as an `OnnxModel`."""

    def __init__(self, path: Path, gpu_providers: list[str], threads: int) -> None:
        options = onnxruntime.SessionOptions()
        # The arena keeps every tile size it ever saw; without it, memory falls back after the largest tile.
        options.enable_cpu_mem_arena = False
        options.intra_op_num_threads = threads
        if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Whatever it would log as an error it also raises, and that is told in one line.
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=[*gpu_providers, "CPUExecutionProvider"]
        )
        self.on_gpu = self._session.get_providers()[0] == "CUDAExecutionProvider"
        inputs = self._session.get_inputs()
        self.input_channels = {node.name: node.shape[1] if len(node.shape) > 1 else None for node in inputs}
        self.outputs = [{node.name} for node in self._session.get_outputs()]

    def __call__(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        try:
            return np.asarray(self._session.run(None, feeds)[0])
        except Exception as error:  # ONNX Runtime raises classes that derive from Exception alone
            if any(words in str(error) for words in _NO_MEMORY):
                raise MemoryError(str(error)) from error
            raise
