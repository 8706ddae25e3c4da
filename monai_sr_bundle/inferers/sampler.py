"""Draw an enlarged image from a diffusion model or a flow: noise first, then step by step less of it.

All steps are taken on the whole image, every one of them tile by tile. So tiles have no seams: each sees in every step
what its neighbours have become. The noise belongs to places of the image, so a region gets what it has in the whole.

Only numpy; the steps are those of a solver, the network that of a backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.inferers.diffusion_process import Process
from monai_sr_bundle.inferers.flow_process import RectifiedFlow
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.inferers.tiling import infer_tiled, tiles


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
        """The condition of low-resolution pixels, as cells ``[1, slices * cell * cell, rows, columns]``."""
        ...

    def denoise(self, noisy: np.ndarray, condition: np.ndarray, level: float) -> np.ndarray:
        """What the process predicts from noisy cells ``[B, channels, rows, columns]`` and one condition."""
        ...

    def decode(self, cells: np.ndarray, condition: np.ndarray) -> np.ndarray:
        """``[1, 1, k * rows, k * columns]`` in units of the window, with k the pixels along each side of a cell."""
        ...


class Solver(Protocol):
    """What takes the steps from noise to cells.

    Attributes:
        noise: standard deviation of the cells the first step begins with.
        levels: what the network is told before each step.
    """

    noise: float
    levels: list[float]

    def step(
        self, index: int, state: np.ndarray, predicted: np.ndarray, noise: Callable[[], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """One step.

        Args:
            index: of the step, from 0.
            state: cells ``[B, channels, rows, columns]`` before it.
            predicted: by the network, of the same shape.
            noise: draws new noise of this shape, of standard deviation 1.

        Returns:
            The cells after it, and what they are taken to end at.
        """
        ...


def sample(
    image: np.ndarray,
    denoiser: Denoiser,
    process: Process | RectifiedFlow,
    options: SamplerOptions,
    *,
    scale: int,
    halo: int,
    grid: int,
    tile: int,
    region: Region | None = None,
    progress: Callable[[float], None] | None = None,
    watch: Callable[[int, np.ndarray, np.ndarray], None] | None = None,
) -> tuple[np.ndarray, int]:
    """Enlarge an image by a diffusion model.

    The same draw gives the same image, whatever the tile or region, if the network looks no further than the halo: to
    the last bits of float32, because a window's coarse levels may be so small that another convolution takes them.

    Args:
        image: ``[rows, columns]`` float32, or ``[slices, rows, columns]`` of a model of several slices; padded by its
            edge to whole cells, and the result cropped back.
        denoiser: the model.
        process: it was trained for.
        options: sampler, steps, number of samples, texture and seed; resolved by the model's family.
        scale: output pixels per input pixel along each axis.
        halo: cells that the network looks far, in one step too where the process does not say how far it looks there.
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
    solver: Solver = process.solver(options)
    samples = options.samples or 1
    texture = np.float32(1.0 if options.texture is None else options.texture)
    rows, columns = image.shape[-2:]
    top, bottom, left, right = region or Region.whole(rows, columns)
    cell, channels = denoiser.cell, denoiser.channels
    stack = image.reshape(-1, 1, rows, columns)
    padded = np.pad(stack, ((0, 0), (0, 0), (0, -rows % (cell * grid)), (0, -columns % (cell * grid))), mode="edge")
    cells = unshuffled(np.asarray(padded, dtype=np.float32), cell)
    size = (cells.shape[2], cells.shape[3])
    cells = cells.reshape(-1, *size)
    inside = Region(top // cell, -(-bottom // cell), left // cell, -(-right // cell))
    reach = halo if process.halo is None else process.halo
    needed = needed_regions(inside, len(solver.levels), reach)
    # The condition of the first step is made of pixels around it.
    margin = inside[0] - needed[0][0] + halo
    kept_rows, kept_columns = next(tiles(size, inside, max(size), margin, grid)).window
    kept = (slice(None), kept_rows, kept_columns)

    def within(cells: Region) -> Region:
        """Where cells of the image that are kept stand among them."""
        high, wide = (
            (max(start, side.start) - side.start, min(stop, side.stop) - side.start)
            for start, stop, side in ((*cells[:2], kept_rows), (*cells[2:], kept_columns))
        )
        return Region(*high, *wide)

    of_condition, *of_steps = (within(cells) for cells in needed)
    areas = np.cumsum([(low - high) * (right - left) for high, low, left, right in of_steps])

    def computed(
        cells: np.ndarray, network: Callable[[np.ndarray], np.ndarray], made: int, region: Region, halo: int
    ) -> np.ndarray:
        """What a network makes of a region; zeros elsewhere, from where nothing reaches what is asked for."""
        nonlocal tile
        sizes: dict[str, Any] = {"scale": 1, "channels": made, "halo": halo, "grid": grid, "tile": tile}
        result, tile = infer_tiled(cells, network, **sizes, region=region)
        if result.shape[1:] == cells.shape[1:]:
            return result
        high, low, left, right = region
        whole = np.zeros((made, *cells.shape[1:]), dtype=np.float32)
        whole[:, high:low, left:right] = result
        return whole

    condition = computed(cells[kept], denoiser.encode, denoiser.condition_channels, of_condition, halo)
    total = np.zeros((), dtype=np.float32)
    for first in range(0, samples, denoiser.batch):
        numbers = range(first, min(first + denoiser.batch, samples))
        randoms = [options.generator(number) for number in numbers]

        def noise(randoms: list[np.random.Generator] = randoms) -> np.ndarray:
            # Of the whole image, also for a region of it.
            whole = (channels, *size)
            return np.stack([random.standard_normal(whole, dtype=np.float32)[kept] for random in randoms])

        state = np.float32(solver.noise) * noise()
        for index, level in enumerate(solver.levels):

            def predict(window: np.ndarray, level: float = level) -> np.ndarray:
                noisy, beside = _parted(window, channels, denoiser.condition_channels)
                return denoiser.denoise(noisy, beside, level).reshape(1, -1, *window.shape[2:])

            together = np.concatenate((state.reshape(-1, *state.shape[2:]), condition))
            predicted = computed(together, predict, len(numbers) * channels, of_steps[index], reach)
            before = state
            state, clean = solver.step(index, before, predicted.reshape(before.shape), noise)
            if watch is not None:
                watch(index, before, clean)
            if progress is not None:
                progress((first + areas[index] / areas[-1] * len(numbers)) / samples)

        def decode(window: np.ndarray) -> np.ndarray:
            return denoiser.decode(*_parted(window, channels, denoiser.condition_channels))

        for sampled in state:
            together = np.concatenate((texture * sampled, condition))
            sizes: dict[str, Any] = {"scale": scale * cell, "channels": 1, "halo": reach, "grid": grid, "tile": tile}
            decoded, tile = infer_tiled(together, decode, **sizes, region=within(inside))
            total = total + decoded[0] / samples
    out_rows, out_columns = (
        slice(scale * (start - cell * first), scale * (stop - cell * first))
        for start, stop, first in ((top, bottom, inside[0]), (left, right, inside[2]))
    )
    return np.ascontiguousarray(total[out_rows, out_columns]), tile


def needed_regions(inside: Region, steps: int, reach: int) -> list[Region]:
    """Which cells have to be computed for some of an image's: of the condition, then of each step, fewer every time.

    Args:
        inside: ``(row_start, row_stop, column_start, column_stop)`` of the cells asked for.
        steps: that are taken.
        reach: cells that the network looks far in a step, and in decoding.

    Returns:
        Regions, not cut off at the image's borders: one, and one for each step.
    """
    top, bottom, left, right = inside
    margins = (reach * more for more in range(steps + 1, 0, -1))
    return [Region(top - margin, bottom + margin, left - margin, right + margin) for margin in margins]


def _parted(window: np.ndarray, channels: int, condition_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The noisy cells of some samples, and the condition that stands behind them."""
    noisy = window[0, :-condition_channels].reshape(-1, channels, *window.shape[2:])
    return noisy, window[:, -condition_channels:]


class ResidualCells:
    """A residual flow as a `Denoiser`, whatever computes its two networks.

    Args:
        expect: ``[1, slices, rows, columns]`` to the expected image ``[1, 1, scale * rows, scale * columns]``.
        velocity: of states ``[B, scale * scale, rows, columns]`` beside one condition at a time.
        scale: output pixels per input pixel along each axis.
        residual_std: as `RectifiedFlow`.
        slices: of a volume that are seen.
    """

    cell = 1
    batch = 1

    def __init__(
        self,
        expect: Callable[[np.ndarray], np.ndarray],
        velocity: Callable[[np.ndarray, np.ndarray, float], np.ndarray],
        scale: int,
        residual_std: float,
        slices: int = 1,
    ) -> None:
        self.expect, self.denoise, self.scale, self.residual_std = expect, velocity, scale, np.float32(residual_std)
        self.channels, self.condition_channels = scale * scale, scale * scale + slices

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return np.concatenate((unshuffled(self.expect(pixels), self.scale), pixels), axis=1)

    def decode(self, cells: np.ndarray, condition: np.ndarray) -> np.ndarray:
        return shuffled(condition[:, : self.channels] + self.residual_std * cells, self.scale)


def unshuffled(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Squares of pixels as channels: ``[B, 1, factor * rows, factor * columns]`` to ``[B, factor**2, rows, columns]``.

    In the order of PyTorch's `pixel_unshuffle`.
    """
    batch, _, rows, columns = pixels.shape
    parted = pixels.reshape(batch, rows // factor, factor, columns // factor, factor)
    return np.ascontiguousarray(parted.transpose(0, 2, 4, 1, 3)).reshape(
        batch, factor * factor, rows // factor, columns // factor
    )


def shuffled(cells: np.ndarray, factor: int) -> np.ndarray:
    """Back: ``[B, factor**2, rows, columns]`` to ``[B, 1, factor * rows, factor * columns]``."""
    batch, _, rows, columns = cells.shape
    parted = cells.reshape(batch, factor, factor, rows, columns).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(parted).reshape(batch, 1, factor * rows, factor * columns)
