"""ONNX Runtime: the light backend, for viewers and machines without PyTorch."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
import psutil

from monai_sr_bundle.backends.backend import DeviceName, free_host_bytes
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import BundleError

_NO_MEMORY = ("Failed to allocate memory", "bad_alloc", "BFCArena")


class OnnxBackend:
    """A bundle's `model.onnx` in ONNX Runtime.

    Args:
        bundle: whose hash-checked model to load.
        device: "auto" takes a GPU if this build of ONNX Runtime has a CUDA provider that starts.

    Raises:
        BundleError: no model.onnx, or one that is damaged or no network from `image` to `pred`; "cuda" without such a
            provider.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle, device: DeviceName = "auto") -> None:
        path, self.weights_sha256 = bundle.weights("model.onnx")
        has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        if device == "cuda" and not has_cuda:
            raise BundleError(
                "--device cuda: this ONNX Runtime has no CUDA provider. Install onnxruntime-gpu, "
                "or use --device auto or cpu."
            )
        wanted = ["CUDAExecutionProvider"] if has_cuda and device != "cpu" else []
        options = onnxruntime.SessionOptions()
        # The arena keeps every tile size it ever saw; without it, memory falls back after the largest tile.
        options.enable_cpu_mem_arena = False
        # ONNX Runtime has threads of its own; they follow the settings of everyone else's.
        self.threads = int(os.environ.get("OMP_NUM_THREADS") or psutil.cpu_count(logical=False) or 1)
        options.intra_op_num_threads = self.threads
        if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Whatever it would log as an error it also raises, and that is told in one line.
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=[*wanted, "CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises classes that derive from Exception alone
            raise BundleError(
                f"bundle {bundle.name}: ONNX Runtime cannot load model.onnx ({' '.join(str(error).split())}). "
                "Install the bundle again, or update ONNX Runtime."
            ) from error
        ends = [node.name for node in (*session.get_inputs(), *session.get_outputs())]
        if ends != ["image", "pred"]:
            raise BundleError(
                f"bundle {bundle.name}: model.onnx goes from {' to '.join(ends)}, expected a network from image "
                f"to pred. Make it again with `monai-sr export {bundle.name}`."
            )
        self._session = session
        started = session.get_providers()[0] == "CUDAExecutionProvider"
        if device == "cuda" and not started:
            raise BundleError(
                "--device cuda: ONNX Runtime could not start its CUDA provider. Use --device auto or cpu."
            )
        self.device = "cuda:0" if started else "cpu"

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(self._session.run(["pred"], {"image": batch})[0])
        except Exception as error:  # as above
            if any(words in str(error) for words in _NO_MEMORY):
                raise MemoryError(str(error)) from error
            raise

    def free_bytes(self) -> int:
        """Free memory of the host; ONNX Runtime does not tell that of a GPU."""
        return free_host_bytes()
