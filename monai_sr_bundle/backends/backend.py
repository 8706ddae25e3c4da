"""What the engine needs of whatever computes: numpy in, numpy out, and how much memory is free."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import psutil

from monai_sr_bundle.bundles import Bundle, combined_sha256
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
        weights_sha256: of the file that was loaded, `combined_sha256` of several; empty for a method without weights.
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


@dataclass(frozen=True)
class Cascade:
    """The loaded networks of a cascade, in the order in which they enlarge.

    Attributes:
        parts: each with its bundle.
    """

    parts: tuple[tuple[Bundle, Backend], ...]

    @property
    def name(self) -> str:
        return self.parts[0][1].name

    @property
    def device(self) -> str:
        return self.parts[0][1].device

    @property
    def threads(self) -> int:
        return self.parts[0][1].threads

    @property
    def weights_sha256(self) -> str:
        """Of all parts, as `combined_sha256`; their names are those of their folders."""
        return combined_sha256({bundle.folder.name: backend.weights_sha256 for bundle, backend in self.parts})

    def free_bytes(self) -> int:
        return self.parts[0][1].free_bytes()


Opened: TypeAlias = Backend | Cascade
"""What a bundle is loaded as."""


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


def open_backend(bundle: Bundle, backend: BackendName = "auto", device: DeviceName = "auto") -> Opened:
    """Load a bundle's network, or those of its cascade.

    Args:
        bundle: whose hash-checked weights are loaded.
        backend: "torch", "onnx", or "auto".
        device: "cpu", "cuda", or "auto": a GPU where the backend can use one.

    Raises:
        BundleError: the backend is not installed, the device is not there, or the weights are damaged; as
            `Bundle.parts`.
    """
    if bundle.is_cascade:
        return Cascade(tuple((part, _open(part, backend, device)) for part in bundle.parts))
    return _open(bundle, backend, device)


def _open(bundle: Bundle, backend: BackendName, device: DeviceName) -> Backend:
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
    backend: Opened,
    *,
    draw: Draw,
    tile: int | None = None,
    region: tuple[int, int, int, int] | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[np.ndarray, int]:
    """Enlarge one image: in one pass, by the draw of a diffusion model, or by those of a cascade.

    Args:
        image: ``[rows, columns]`` float32 in units of the bundle's window.
        bundle, backend: that belong together.
        draw: of a diffusion model; another one makes nothing of it.
        tile: side of a tile in input pixels, or cells; by default as large as free memory allows.
        region: ``(row_start, row_stop, column_start, column_stop)`` to enlarge; the whole image if None. Of a cascade,
            all parts but the last enlarge the whole.
        progress: called with the fraction that is done.

    Returns:
        ``[scale * region rows, scale * region columns]`` float32, and the tile side that fitted.

    Raises:
        InputError: more steps than the process has.
        OutOfMemoryError: even the smallest tile does not fit.
    """
    if isinstance(backend, Cascade):
        return _in_turn(image, backend, draw, tile, region, progress)
    tile = tile or fitting_tile(backend.free_bytes(), bundle.memory_per_pixel, bundle.halo)
    sizes: dict[str, Any] = {"scale": bundle.scale, "halo": bundle.halo, "grid": bundle.grid, "tile": tile}
    if backend.denoiser is None:
        return infer_tiled(image, backend, **sizes, region=region, progress=progress)
    from monai_sr_bundle.inferers.sampling import sample

    assert bundle.diffusion is not None
    process = Process.of(bundle.diffusion)
    return sample(image, backend.denoiser, process, draw, **sizes, region=region, progress=progress)


def _in_turn(
    image: np.ndarray,
    cascade: Cascade,
    draw: Draw,
    tile: int | None,
    region: tuple[int, int, int, int] | None,
    progress: Callable[[float], None] | None,
) -> tuple[np.ndarray, int]:
    """As `enlarge`. A sample is one draw of every part, of what the part before has drawn; the result is their mean."""
    total = np.zeros((), dtype=np.float32)
    shares = _shares([bundle for bundle, _ in cascade.parts])
    tiles: list[int | None] = [tile] * len(cascade.parts)
    for number in range(draw.samples):
        made, scale = image, 1
        for index, (bundle, backend) in enumerate(cascade.parts):

            def part_progress(fraction: float, number: int = number, index: int = index) -> None:
                if progress is not None:
                    progress((number + sum(shares[:index]) + fraction * shares[index]) / draw.samples)

            of_part = None
            if region is not None and index == len(cascade.parts) - 1:
                top, bottom, left, right = region
                of_part = (scale * top, scale * bottom, scale * left, scale * right)
            made, tiles[index] = enlarge(
                made,
                bundle,
                backend,
                draw=replace(draw, samples=1, first=draw.first + number, part=index),
                tile=tiles[index],
                region=of_part,
                progress=part_progress,
            )
            scale *= bundle.scale
        total = total + made / np.float32(draw.samples)
    return total, min(side for side in tiles if side is not None)


def _shares(parts: Sequence[Bundle]) -> list[float]:
    """How much of the work of a cascade each part does, roughly: its weights, at every pixel of its input."""
    work, scale = [], 1
    for part in parts:
        work.append(float(part.parameters * scale**2))
        scale *= part.scale
    return [each / sum(work) for each in work]
