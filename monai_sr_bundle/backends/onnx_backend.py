"""ONNX Runtime: the light backend, for viewers and machines without PyTorch."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
import psutil

from monai_sr_bundle.backends.backend import ERROR_BARS_PART, DeviceName, free_host_bytes
from monai_sr_bundle.bundles import Bundle, combined_sha256
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.families.family import Part

_NO_MEMORY = ("Failed to allocate memory", "bad_alloc", "BFCArena")
_ERROR_SCALE = Part(ERROR_BARS_PART, "forward", ("cells",), "scale", lambda network: (1,))


class OnnxBackend:
    """The parts of a bundle in ONNX Runtime, one file each.

    Args:
        bundle: the bundle to load; the hashes of its models are checked.
        device: "auto" takes a GPU if this build of ONNX Runtime has a CUDA provider that starts.

    Raises:
        BundleError: a model is missing, damaged, or has other inputs and outputs than it should; "cuda" without such a
            provider.
    """

    name = "onnx"
    batch_size = 1

    def __init__(self, bundle: Bundle, device: DeviceName = "auto") -> None:
        # ONNX Runtime has threads of its own; they follow the settings of everyone else's.
        self.threads = int(os.environ.get("OMP_NUM_THREADS") or psutil.cpu_count(logical=False) or 1)
        parts, names = bundle.family.parts, bundle.onnx_files
        self._sessions = {
            part.name: self._open_session(bundle, part, name, device) for part, name in zip(parts, names, strict=True)
        }
        self._input_names = {part.name: part.inputs for part in (*parts, _ERROR_SCALE)}
        hashes = {name: str(bundle.metadata["weights_sha256"][name]) for name in names}
        self.weights_sha256 = next(iter(hashes.values())) if len(hashes) == 1 else combined_sha256(hashes)
        self.has_error_bars = bundle.has_file(bundle.error_bars_onnx)
        if self.has_error_bars:
            self._sessions[ERROR_BARS_PART] = self._open_session(bundle, _ERROR_SCALE, bundle.error_bars_onnx, device)
        on_gpu = self._sessions[parts[0].name].get_providers()[0] == "CUDAExecutionProvider"
        self.device = "cuda:0" if on_gpu else "cpu"

    def run(self, part: str, *inputs: np.ndarray) -> np.ndarray:
        session, names = self._sessions[part], self._input_names[part]
        # The exporter leaves out inputs that a network does not use.
        there = {node.name for node in session.get_inputs()}
        feeds = {name: array for name, array in zip(names, inputs, strict=True) if name in there}
        try:
            return np.asarray(session.run(None, feeds)[0])
        except Exception as error:  # ONNX Runtime raises classes that derive from Exception alone
            if any(words in str(error) for words in _NO_MEMORY):
                raise MemoryError(str(error)) from error
            raise

    def input_channels(self, part: str) -> tuple[int, ...]:
        shapes = [node.shape for node in self._sessions[part].get_inputs()]
        return tuple(shape[1] for shape in shapes if len(shape) > 1)

    def free_bytes(self) -> int:
        """Return the free memory of the host; ONNX Runtime does not tell that of a GPU."""
        return free_host_bytes()

    def _open_session(self, bundle: Bundle, part: Part, name: str, device: DeviceName) -> onnxruntime.InferenceSession:
        path, _ = bundle.weights(name)
        has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        if device == "cuda" and not has_cuda:
            raise BundleError(
                "--device cuda: this ONNX Runtime has no CUDA provider. Install onnxruntime-gpu, "
                "or use --device auto or cpu."
            )
        gpu_providers = ["CUDAExecutionProvider"] if has_cuda and device != "cpu" else []
        options = onnxruntime.SessionOptions()
        # The arena keeps every tile size it ever saw; without it, memory falls back after the largest tile.
        options.enable_cpu_mem_arena = False
        options.intra_op_num_threads = self.threads
        if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Whatever it would log as an error it also raises, and that is told in one line.
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=[*gpu_providers, "CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises classes that derive from Exception alone
            raise BundleError(
                f"bundle {bundle.name}: ONNX Runtime cannot load {name} ({' '.join(str(error).split())}). "
                "Install the bundle again, or update ONNX Runtime."
            ) from error
        ends = [node.name for node in session.get_inputs()], [node.name for node in session.get_outputs()]
        unused = part.optional - set(ends[0])
        expected_ends = [end for end in part.inputs if end not in unused], [part.output]
        if ends != expected_ends:
            actual, expected = (
                f"from {' and '.join(one)} to {' and '.join(other)}" for one, other in (ends, expected_ends)
            )
            raise BundleError(
                f"bundle {bundle.name}: {name} goes {actual}, expected a network {expected}. "
                f"Make it again with `monai-sr export {bundle.name}`."
            )
        channels = session.get_inputs()[0].shape[1]
        if part.name == "model" and channels != bundle.family.slices:
            raise BundleError(
                f"bundle {bundle.name}: {name} sees {channels} slices, but model.yaml states {bundle.family.slices}. "
                f"Make it again with `monai-sr export {bundle.name}`."
            )
        started = session.get_providers()[0] == "CUDAExecutionProvider"
        if device == "cuda" and not started:
            raise BundleError(
                "--device cuda: ONNX Runtime could not start its CUDA provider. Use --device auto or cpu."
            )
        return session
