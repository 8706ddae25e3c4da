"""What the engine needs of whatever computes: numpy in, numpy out, and how much memory is free."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import psutil

from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.inferers.consistency import DataConsistency
from monai_sr_bundle.inferers.flow import RectifiedFlow, process_of
from monai_sr_bundle.inferers.process import Draw
from monai_sr_bundle.inferers.sampling import Denoiser, sample
from monai_sr_bundle.inferers.slices import middle, stacked
from monai_sr_bundle.inferers.tiled import fitting_tile, infer_tiled

BackendName = Literal["auto", "torch", "onnx"]
DeviceName = Literal["auto", "cpu", "cuda"]


class Backend(Protocol):
    """A loaded network.

    Attributes:
        name: "torch" or "onnx".
        device: "cpu" or "cuda:0".
        weights_sha256: of the file that was loaded, `combined_sha256` of several; empty for a method without weights.
        threads: it computes with on the CPU; OMP_NUM_THREADS sets it for every backend.
        denoiser: of a diffusion model, which is not called itself, or of a flow, which is: then it gives the expected
            image; else None.
        error_scale: how large errors are around each pixel of a result, from cells as
            `networks.error_scale.ErrorScale` takes them; None for a bundle without error bars.
        artifacts: how probable it is that each pixel of ``[B, 1, rows, columns]`` holds what the network removes, of
            the same shape; None for a bundle that does not find it.
    """

    name: str
    device: str
    weights_sha256: str
    threads: int
    denoiser: Denoiser | None
    error_scale: Callable[[np.ndarray], np.ndarray] | None
    artifacts: Callable[[np.ndarray], np.ndarray] | None

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """``[B, slices, rows, columns]`` float32 to ``[B, 1, scale * rows, scale * columns]`` float32.

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
        process_of(bundle.diffusion).check_installed()
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
    bundle: Bundle,
    seed: int = 0,
    sampler: str | None = None,
    steps: int | None = None,
    samples: int | None = None,
    texture: float | None = None,
) -> Draw:
    """What a bundle is to draw.

    Args:
        bundle: a diffusion model, or one that makes nothing of the seed.
        seed, sampler, steps, samples, texture: as `Draw`; what the bundle states where None.

    Raises:
        InputError: one of them out of range, or asked of a bundle that draws nothing.
    """
    asked = {"sampler": sampler, "steps": steps, "samples": samples, "texture": texture}
    named = [name for name, value in asked.items() if value is not None]
    if bundle.diffusion is None:
        if named:
            raise InputError(
                f"{_options(named)}: bundle {bundle.name} is no diffusion model, it makes its result in one pass. "
                "Leave the option out, or name a diffusion bundle with --bundle."
            )
        return Draw(seed=seed)
    process = process_of(bundle.diffusion)
    flows = isinstance(process, RectifiedFlow)
    if flows and sampler is not None:
        raise InputError(
            f"--sampler {sampler}: bundle {bundle.name} is a flow, which has one way to draw. Leave the option out; "
            "--texture and --steps decide what it draws."
        )
    if not flows and texture is not None:
        raise InputError(
            f"--texture {texture:g}: bundle {bundle.name} is a diffusion model, which draws the whole image. Leave the "
            "option out, draw more --samples for a smoother result, or name a residual flow with --bundle."
        )
    draw = Draw.of(bundle.diffusion, seed=seed, **asked)
    process.check_steps(draw.steps)
    if named and texture is None and process.sampling(draw) is None:
        raise InputError(
            f"{_options(named)}: bundle {bundle.name} gives the expected image, and draws nothing unless asked for "
            "texture. Leave the option out, or add --texture, above 0 to 1."
        )
    return draw


def _options(names: Sequence[str]) -> str:
    return ", ".join(f"--{name}" for name in names)


def enlarge(
    image: np.ndarray,
    bundle: Bundle,
    backend: Backend,
    *,
    draw: Draw,
    tile: int | None = None,
    region: tuple[int, int, int, int] | None = None,
    limits: tuple[float, float] | None = None,
    missing: Callable[[np.ndarray], None] | None = None,
    found: Callable[[np.ndarray, np.ndarray], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[np.ndarray, int]:
    """Enlarge one image: in one pass, or by the draw of a diffusion model or a flow.

    Where the bundle asks for it, the result is made consistent with the image; not with what the network has removed.

    Args:
        image: ``[rows, columns]`` float32 in units of the bundle's window; of a bundle of several slices,
            ``[slices, rows, columns]`` around the one to enlarge, or that one alone for its own neighbours too.
        bundle, backend: that belong together.
        draw: of a diffusion model; another one makes nothing of it.
        tile: side of a tile in input pixels, or cells; by default as large as free memory allows.
        region: ``(row_start, row_stop, column_start, column_stop)`` to enlarge; the whole image if None.
        limits: the smallest and largest number that the storage of the result can hold; any if None.
        missing: called with what the reduction of the network's result lacks of the region, ``[rows, columns]``, before
            it is made consistent; of a bundle that finds artifacts, the pixels it follows, ``[pixels]``.
        found: of a bundle that finds artifacts, called with how probable they are and how much the result follows each
            pixel of the region, both ``[rows, columns]`` from 0 to 1.
        progress: called with the fraction that is done.

    Returns:
        ``[scale * region rows, scale * region columns]`` float32, and the tile side that fitted.

    Raises:
        InputError: more steps than the process has.
        OutOfMemoryError: even the smallest tile does not fit.
    """
    stack = stacked(image, bundle.slices)
    finds = backend.artifacts
    if not bundle.is_consistent and finds is None:
        return _enlarged(stack, bundle, backend, draw, tile, region, progress)
    project = DataConsistency(bundle.degradation)
    image = middle(stack)
    rows, columns = image.shape
    top, bottom, left, right = region or (0, rows, 0, columns)
    margin = result_margin(bundle) + (project.spread if finds is not None else 0)
    wide = (max(0, top - margin), min(rows, bottom + margin), max(0, left - margin), min(columns, right + margin))
    inner = (slice(top - wide[0], bottom - wide[0]), slice(left - wide[2], right - wide[2]))
    high, tile = _enlarged(stack, bundle, backend, draw, tile, wide, progress)
    followed = None
    if finds is not None:
        # A pass of its own, with the tile that has fitted: what the sampler and the inferers take of a network stays.
        probable, tile = infer_tiled(image, finds, scale=1, halo=bundle.halo, grid=bundle.grid, tile=tile, region=wide)
        followed = project.followed(probable)
        if found is not None:
            found(probable[inner], followed[inner])
    if bundle.is_consistent:
        if missing is not None:
            lacks = project.missing(high if limits is None else high.clip(*limits), image, wide)[inner]
            missing(lacks if followed is None else lacks[followed[inner] == 1])
        project(high, image, wide, limits, followed)
    lines, across = (
        slice(bundle.scale * (start - first), bundle.scale * (stop - first))
        for start, stop, first in ((top, bottom, wide[0]), (left, right, wide[2]))
    )
    return np.ascontiguousarray(high[lines, across]), tile


def result_margin(bundle: Bundle) -> int:
    """Low-resolution pixels around a region that what follows the network depends on."""
    return DataConsistency(bundle.degradation).margin * bundle.is_consistent


def _enlarged(
    stack: np.ndarray,
    bundle: Bundle,
    backend: Backend,
    draw: Draw,
    tile: int | None,
    region: tuple[int, int, int, int] | None,
    progress: Callable[[float], None] | None,
) -> tuple[np.ndarray, int]:
    """As `enlarge`, before data consistency, of ``[slices, rows, columns]``."""
    tile = tile or fitting_tile(backend.free_bytes(), bundle.memory_per_pixel, bundle.halo)
    sizes: dict[str, Any] = {"scale": bundle.scale, "halo": bundle.halo, "grid": bundle.grid, "tile": tile}
    if backend.denoiser is None or not draw.texture:
        high, tile = infer_tiled(stack, backend, **sizes, region=region, progress=progress, channels=1)
        return high[0], tile
    assert bundle.diffusion is not None
    process = process_of(bundle.diffusion)
    return sample(stack, backend.denoiser, process, draw, **sizes, region=region, progress=progress)
