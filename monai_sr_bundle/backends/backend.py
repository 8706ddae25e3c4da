"""What the engine needs of whatever computes: numpy in, numpy out, and how much memory is free."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import psutil

from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.inferers.process import Draw, Process
from monai_sr_bundle.inferers.tiled import fitting_tile, infer_tiled

if TYPE_CHECKING:
    from monai_sr_bundle.inferers.sampling import Denoiser

BackendName = Literal["auto", "torch", "onnx"]
DeviceName = Literal["auto", "cpu", "cuda"]


class Backend(Protocol):
    """A loaded network.

    Attributes:
        name: "torch" or "onnx".
        device: "cpu" or "cuda:0".
        weights_sha256: of the file that was loaded; empty for a method without weights.
        threads: it computes with on the CPU; OMP_NUM_THREADS sets it for every backend.
        denoiser: of a diffusion model, which is not called itself; else None.
    """

    name: str
    device: str
    weights_sha256: str
    threads: int
    denoiser: Denoiser | None

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
    if bundle.diffusion is not None:
        Process.of(bundle.diffusion).check_installed()
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


def choose_draw(
    bundle: Bundle, seed: int = 0, sampler: str | None = None, steps: int | None = None, samples: int | None = None
) -> Draw:
    """What a bundle is to draw.

    Args:
        bundle: a diffusion model, or one that makes nothing of the seed.
        seed, sampler, steps, samples: as `Draw`; what the bundle states where None.

    Raises:
        InputError: one of them out of range, or asked of a bundle that draws nothing.
    """
    asked = {"sampler": sampler, "steps": steps, "samples": samples}
    if bundle.diffusion is None:
        named = [f"--{name}" for name, value in asked.items() if value is not None]
        if named:
            raise InputError(
                f"{', '.join(named)}: bundle {bundle.name} is no diffusion model, it makes its result in one pass. "
                "Leave the option out, or name a diffusion bundle with --bundle."
            )
        return Draw(seed=seed)
    draw = Draw.of(bundle.diffusion, seed=seed, **asked)
    Process.of(bundle.diffusion).check_steps(draw.steps)
    return draw


def enlarge(
    image: np.ndarray,
    bundle: Bundle,
    backend: Backend,
    *,
    draw: Draw,
    tile: int | None = None,
    region: tuple[int, int, int, int] | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[np.ndarray, int]:
    """Enlarge one image: in one pass, or by the draw of a diffusion model.

    Args:
        image: ``[rows, columns]`` float32 in units of the bundle's window.
        bundle, backend: that belong together.
        draw: of a diffusion model; another one makes nothing of it.
        tile: side of a tile in input pixels, or cells; by default as large as free memory allows.
        region: ``(row_start, row_stop, column_start, column_stop)`` to enlarge; the whole image if None.
        progress: called with the fraction that is done.

    Returns:
        ``[scale * region rows, scale * region columns]`` float32, and the tile side that fitted.

    Raises:
        InputError: more steps than the process has.
        OutOfMemoryError: even the smallest tile does not fit.
    """
    tile = tile or fitting_tile(backend.free_bytes(), bundle.memory_per_pixel, bundle.halo)
    sizes: dict[str, Any] = {"scale": bundle.scale, "halo": bundle.halo, "grid": bundle.grid, "tile": tile}
    if backend.denoiser is None:
        return infer_tiled(image, backend, **sizes, region=region, progress=progress)
    from monai_sr_bundle.inferers.sampling import sample

    assert bundle.diffusion is not None
    process = Process.of(bundle.diffusion)
    return sample(image, backend.denoiser, process, draw, **sizes, region=region, progress=progress)
