"""Choose a runtime and load a bundle into it."""

from __future__ import annotations

import importlib.util

from monai_sr_bundle.backends.backend import Backend, BackendName, DeviceName, RuntimeName
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import BundleError


def choose_backend(backend: BackendName) -> RuntimeName:
    """Return the backend that "auto" means here: torch where it is installed with MONAI, else ONNX Runtime.

    It depends on what is installed, never on speed, so that one machine always gives the same pixels.
    """
    if backend != "auto":
        return backend
    installed = all(importlib.util.find_spec(name) for name in ("torch", "monai"))
    return "torch" if installed else "onnx"


def open_backend(bundle: Bundle, backend: BackendName = "auto", device: DeviceName = "auto") -> Backend:
    """Load the networks of a bundle.

    Args:
        bundle: the bundle to load; the hashes of its weights are checked.
        backend: "torch", "onnx", "openvino", "openvino-bf16", or "auto".
        device: "cpu", "cuda", or "auto" for a GPU where the backend can use one.

    Raises:
        BundleError: the backend is not installed, the device is not there, or the weights are damaged.
    """
    bundle.family.check_installed()
    runtime = choose_backend(backend)
    if runtime == "torch":
        missing = [name for name in ("torch", "monai") if importlib.util.find_spec(name) is None]
        if missing:
            raise BundleError(
                f"--backend torch needs {' and '.join(missing)}, not installed here. Install with "
                "`pip install -c constraints.txt '.[torch]'` in this package's folder, or use --backend onnx."
            )
        from monai_sr_bundle.backends.torch_backend import TorchBackend

        return TorchBackend(bundle, device)
    if runtime in ("openvino", "openvino-bf16"):
        if importlib.util.find_spec("openvino") is None:
            raise BundleError(
                f"--backend {runtime} needs openvino, not installed here. Install with "
                "`pip install -c constraints.txt '.[openvino]'` in this package's folder, or use --backend onnx."
            )
        from monai_sr_bundle.backends.openvino_backend import OpenVinoBackend, OpenVinoBfloat16Backend

        return (OpenVinoBackend if runtime == "openvino" else OpenVinoBfloat16Backend)(bundle, device)
    from monai_sr_bundle.backends.onnx_backend import OnnxBackend

    return OnnxBackend(bundle, device)
