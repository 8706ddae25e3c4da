"""ONNX Runtime: the light backend, for viewers and machines without PyTorch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import onnxruntime
import psutil

from monai_sr_bundle.backends.backend import DeviceName, free_host_bytes
from monai_sr_bundle.bundles import Bundle, combined_sha256
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.inferers.flow import RectifiedFlow, process_of
from monai_sr_bundle.inferers.sampling import Denoiser, ResidualCells

DIFFUSION_ENDS = {
    "encoder": (["image"], ["condition"]),
    "denoiser": (["noisy", "condition", "level"], ["predicted"]),
    "decoder": (["cells", "condition"], ["pred"]),
}
"""The models of a diffusion bundle, with what goes in and comes out."""
FLOW_ENDS = {
    "model": (["image"], ["pred"]),
    "velocity": (["state", "condition", "time"], ["velocity"]),
}
"""Those of a residual flow."""
ARTIFACTS = "artifacts.onnx"
"""The mask of what a network removes."""
_NO_MEMORY = ("Failed to allocate memory", "bad_alloc", "BFCArena")


class OnnxBackend:
    """A bundle's `model.onnx` in ONNX Runtime; of a diffusion model, its encoder, denoiser and decoder; of a flow, the
    expected image and the velocity. Of a bundle that finds artifacts, `artifacts.onnx` too.

    Args:
        bundle: whose hash-checked models to load.
        device: "auto" takes a GPU if this build of ONNX Runtime has a CUDA provider that starts.

    Raises:
        BundleError: a model is missing, damaged, or has other inputs and outputs than it should; "cuda" without such a
            provider.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle, device: DeviceName = "auto") -> None:
        # ONNX Runtime has threads of its own; they follow the settings of everyone else's.
        self.threads = int(os.environ.get("OMP_NUM_THREADS") or psutil.cpu_count(logical=False) or 1)
        self.denoiser: Denoiser | None = None
        process = process_of(bundle.diffusion) if bundle.diffusion else None
        if process is None:
            self._session, self.weights_sha256 = self._opened(bundle, "model.onnx", device, ["image"], ["pred"])
        elif isinstance(process, RectifiedFlow):
            both = {name: self._opened(bundle, f"{name}.onnx", device, *ends) for name, ends in FLOW_ENDS.items()}
            self._session, velocity = both["model"][0], both["velocity"][0]
            self.weights_sha256 = combined_sha256({f"{part}.onnx": sha256 for part, (_, sha256) in both.items()})

            def moving(state: np.ndarray, condition: np.ndarray, time: float) -> np.ndarray:
                times = np.full(len(state), time, dtype=np.float32)
                return _run(velocity, {"state": state, "condition": condition, "time": times})

            self.denoiser = ResidualCells(self, moving, bundle.scale, process.residual_std, bundle.slices)
        else:
            parts = {name: self._opened(bundle, f"{name}.onnx", device, *ends) for name, ends in DIFFUSION_ENDS.items()}
            self._session = parts["denoiser"][0]
            self.weights_sha256 = combined_sha256({f"{part}.onnx": sha256 for part, (_, sha256) in parts.items()})
            self.denoiser = OnnxDenoiser({name: session for name, (session, _) in parts.items()})
        self.artifacts: Callable[[np.ndarray], np.ndarray] | None = None
        if bundle.finds_artifacts:
            finds, _ = self._opened(bundle, ARTIFACTS, device, ["image"], ["artifacts"])
            self.artifacts = lambda batch: _run(finds, {"image": batch})
            used = [name for name in ("model.onnx", "velocity.onnx", ARTIFACTS) if bundle.has_file(name)]
            self.weights_sha256 = combined_sha256({name: bundle.metadata["weights_sha256"][name] for name in used})
        self.error_scale: Callable[[np.ndarray], np.ndarray] | None = None
        if bundle.has_file("error_bars.onnx"):
            bars = self._opened(bundle, "error_bars.onnx", device, ["cells"], ["scale"])[0]
            self.error_scale = lambda cells: _run(bars, {"cells": cells})
        self.device = "cuda:0" if self._session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"

    def _opened(
        self, bundle: Bundle, name: str, device: DeviceName, inputs: list[str], outputs: list[str]
    ) -> tuple[onnxruntime.InferenceSession, str]:
        path, sha256 = bundle.weights(name)
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
        options.intra_op_num_threads = self.threads
        if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Whatever it would log as an error it also raises, and that is told in one line.
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=[*wanted, "CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises classes that derive from Exception alone
            raise BundleError(
                f"bundle {bundle.name}: ONNX Runtime cannot load {name} ({' '.join(str(error).split())}). "
                "Install the bundle again, or update ONNX Runtime."
            ) from error
        ends = [node.name for node in session.get_inputs()], [node.name for node in session.get_outputs()]
        # The exporter leaves out what a network makes nothing of: the condition, where the image itself is decoded.
        unused = {"condition"} - set(ends[0]) if name == "decoder.onnx" else set()
        if ends != ([end for end in inputs if end not in unused], outputs):
            found, expected = (
                f"from {' and '.join(one)} to {' and '.join(other)}" for one, other in (ends, (inputs, outputs))
            )
            raise BundleError(
                f"bundle {bundle.name}: {name} goes {found}, expected a network {expected}. "
                f"Make it again with `monai-sr export {bundle.name}`."
            )
        channels = session.get_inputs()[0].shape[1]
        if name == "model.onnx" and channels != bundle.slices:
            raise BundleError(
                f"bundle {bundle.name}: {name} sees {channels} slices, but model.yaml states {bundle.slices}. "
                f"Make it again with `monai-sr export {bundle.name}`."
            )
        started = session.get_providers()[0] == "CUDAExecutionProvider"
        if device == "cuda" and not started:
            raise BundleError(
                "--device cuda: ONNX Runtime could not start its CUDA provider. Use --device auto or cpu."
            )
        return session, sha256

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return _run(self._session, {"image": batch})

    def free_bytes(self) -> int:
        """Free memory of the host; ONNX Runtime does not tell that of a GPU."""
        return free_host_bytes()


class OnnxDenoiser:
    """The models of a diffusion bundle as a `Denoiser`.

    Args:
        sessions: by name, as `DIFFUSION_ENDS`.
    """

    def __init__(self, sessions: dict[str, onnxruntime.InferenceSession]) -> None:
        self._sessions = sessions
        noisy, condition, _ = sessions["denoiser"].get_inputs()
        self._decoded = [node.name for node in sessions["decoder"].get_inputs()]
        pixels = sessions["encoder"].get_inputs()[0].shape[1]
        self.cell = math.isqrt(pixels)
        self.channels, self.condition_channels, self.batch = noisy.shape[1], condition.shape[1], 1

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return _run(self._sessions["encoder"], {"image": pixels})

    def denoise(self, noisy: np.ndarray, condition: np.ndarray, level: float) -> np.ndarray:
        levels = np.full(len(noisy), level, dtype=np.float32)
        return _run(self._sessions["denoiser"], {"noisy": noisy, "condition": condition, "level": levels})

    def decode(self, cells: np.ndarray, condition: np.ndarray) -> np.ndarray:
        feeds = {"cells": cells, "condition": condition}
        return _run(self._sessions["decoder"], {name: feeds[name] for name in self._decoded})


def _run(session: onnxruntime.InferenceSession, feeds: dict[str, np.ndarray]) -> np.ndarray:
    try:
        return np.asarray(session.run(None, feeds)[0])
    except Exception as error:  # ONNX Runtime raises classes that derive from Exception alone
        if any(words in str(error) for words in _NO_MEMORY):
            raise MemoryError(str(error)) from error
        raise
