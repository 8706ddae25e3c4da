"""Draw an enlarged image from a diffusion model: noise first, then step by step less of it.

All steps are taken on the whole image, every one of them tile by tile. So tiles have no seams: each sees in every step
what its neighbours have become. The noise belongs to places of the image, so a region gets what it has in the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn.functional import pixel_unshuffle

from monai_sr_bundle.inferers.device import predict_array
from monai_sr_bundle.inferers.process import SAMPLERS, Draw, Process
from monai_sr_bundle.inferers.tiled import infer_tiled, tiles


class Denoiser(Protocol):
    """A diffusion model as three functions of numpy arrays, ``[1, channels, rows, columns]`` float32.

    Each may raise MemoryError; the caller then tries smaller tiles.

    Attributes:
        cell: input pixels along each side of a cell.
        channels: of the cells that are denoised.
        condition_channels: of the condition.
        batch: samples that are best drawn together.
    """

    cell: int
    channels: int
    condition_channels: int
    batch: int

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """The condition of ``[1, cell * cell, rows, columns]``: low-resolution pixels, unshuffled into cells."""
        ...

    def denoise(self, noisy: np.ndarray, condition: np.ndarray, level: float) -> np.ndarray:
        """What the process predicts from noisy cells ``[B, channels, rows, columns]`` and one condition."""
        ...

    def decode(self, cells: np.ndarray, condition: np.ndarray) -> np.ndarray:
        """``[1, 1, k * rows, k * columns]`` in units of the window, with k the pixels along each side of a cell."""
        ...


def sample(
    image: np.ndarray,
    denoiser: Denoiser,
    process: Process,
    draw: Draw,
    *,
    scale: int,
    halo: int,
    grid: int,
    tile: int,
    region: tuple[int, int, int, int] | None = None,
    progress: Callable[[float], None] | None = None,
    watch: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None,
) -> tuple[np.ndarray, int]:
    """Enlarge an image by a diffusion model.

    The same draw gives the same image, whatever the tile or region, if the network looks no further than the halo: to
    the last bits of float32, because a window's coarse levels may be so small that another convolution takes them.

    Args:
        image: ``[rows, columns]`` float32; padded by its edge to whole cells, and the result cropped back.
        denoiser: the model.
        process: it was trained for.
        draw: sampler, steps, number of samples, seed.
        scale: output pixels per input pixel along each axis.
        halo: cells that the network looks far in one step.
        grid: cells that windows are multiples of.
        tile: side of a tile in cells.
        region: ``(row_start, row_stop, column_start, column_stop)`` to enlarge; the whole image if None.
        progress: called with the fraction of all steps that is done.
        watch: called after every step with its number from 0, the cells before it, and what the model takes for the
            cells without noise.

    Returns:
        ``[scale * region rows, scale * region columns]`` float32, not clipped, and the tile side that fitted.

    Raises:
        InputError: steps outside the process.
        OutOfMemoryError: even the smallest tile does not fit.
    """
    scheduler = process.scheduler(draw.steps)
    rows, columns = image.shape
    top, bottom, left, right = region or (0, rows, 0, columns)
    cell, channels = denoiser.cell, denoiser.channels
    padded = np.pad(image, ((0, -rows % (cell * grid)), (0, -columns % (cell * grid))), mode="edge")
    cells = pixel_unshuffle(torch.from_numpy(np.asarray(padded, dtype=np.float32))[None], cell).numpy()
    size = (cells.shape[1], cells.shape[2])
    # Whatever can reach the region in all steps together, and through both ends of the model.
    margin = halo * (len(scheduler.timesteps) + 2)
    inside = (top // cell, -(-bottom // cell), left // cell, -(-right // cell))
    kept_rows, kept_columns = next(tiles(size, inside, max(size), margin, grid)).window
    kept = (slice(None), kept_rows, kept_columns)
    windows: dict[str, Any] = {"halo": halo, "grid": grid}
    condition, tile = infer_tiled(
        cells[kept], denoiser.encode, scale=1, channels=denoiser.condition_channels, tile=tile, **windows
    )
    total = np.zeros((), dtype=np.float32)
    for first in range(0, draw.samples, denoiser.batch):
        numbers = range(first, min(first + denoiser.batch, draw.samples))
        randoms = [draw.random(number) for number in numbers]

        def noise(randoms: list[np.random.Generator] = randoms) -> torch.Tensor:
            # Of the whole image, also for a region of it.
            whole = (channels, *size)
            drawn = [random.standard_normal(whole, dtype=np.float32)[kept] for random in randoms]
            return torch.from_numpy(np.stack(drawn))

        state = noise()
        for index, step in enumerate(scheduler.timesteps, start=1):
            level = float(scheduler.alphas_cumprod[step].sqrt())

            def predict(window: np.ndarray, level: float = level) -> np.ndarray:
                noisy, beside = _parted(window, channels, denoiser.condition_channels)
                return denoiser.denoise(noisy, beside, level).reshape(1, -1, *window.shape[2:])

            together = np.concatenate((state.flatten(0, 1).numpy(), condition))
            predicted, tile = infer_tiled(
                together, predict, scale=1, channels=len(numbers) * channels, tile=tile, **windows
            )
            eta = SAMPLERS[draw.sampler]
            stepped = scheduler.step(
                torch.from_numpy(predicted).reshape(state.shape),
                step,
                state,
                eta=eta,
                variance_noise=noise() if eta else None,
            )
            if watch is not None:
                watch(index - 1, state, stepped.pred_original_sample)
            state = stepped.prev_sample
            if progress is not None:
                progress((first + index / len(scheduler.timesteps) * len(numbers)) / draw.samples)

        def decode(window: np.ndarray) -> np.ndarray:
            return denoiser.decode(*_parted(window, channels, denoiser.condition_channels))

        for sampled in state.numpy():
            together = np.concatenate((sampled, condition))
            decoded, tile = infer_tiled(together, decode, scale=scale * cell, channels=1, tile=tile, **windows)
            total = total + decoded[0] / draw.samples
    out_rows, out_columns = (
        slice(scale * (start - cell * kept.start), scale * (stop - cell * kept.start))
        for start, stop, kept in ((top, bottom, kept_rows), (left, right, kept_columns))
    )
    return np.ascontiguousarray(total[out_rows, out_columns]), tile


def _parted(window: np.ndarray, channels: int, condition_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The noisy cells of some samples, and the condition that stands behind them."""
    noisy = window[0, :-condition_channels].reshape(-1, channels, *window.shape[2:])
    return noisy, window[:, -condition_channels:]


class TorchDenoiser:
    """A network of `networks.sr3` or `networks.latent_diffusion` as a `Denoiser`.

    Args:
        network: with `encode`, `decode`, and forward from noisy cells, condition and level.
        device: where it is.
    """

    def __init__(self, network: Any, device: torch.device | str) -> None:
        self.network, self.device = network, device
        self.cell, self.channels, self.condition_channels = network.cell, network.channels, network.condition_channels
        # A CPU gains nothing from more than one.
        self.batch = 1 if torch.device(device).type == "cpu" else 8

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return predict_array(self.network.encode, pixels, self.device)

    def denoise(self, noisy: np.ndarray, condition: np.ndarray, level: float) -> np.ndarray:
        levels = torch.full((len(noisy),), level, device=self.device)
        beside = torch.from_numpy(condition).to(self.device).expand(len(noisy), -1, -1, -1)
        return predict_array(lambda cells: self.network(cells, beside, levels), noisy, self.device)

    def decode(self, cells: np.ndarray, condition: np.ndarray) -> np.ndarray:
        beside = torch.from_numpy(condition).to(self.device)
        return predict_array(lambda state: self.network.decode(state, beside), cells, self.device)
