"""Draw an enlarged image from a diffusion model or a flow: noise first, then step by step less of it.

All steps are taken on the whole image, every one of them tile by tile. So tiles have no seams: each sees in every step
what its neighbours have become. The noise belongs to places of the image, so a region gets what it has in the whole.

Only numpy; the steps are those of a solver, the network that of a backend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.inferers.processes import DiffusionProcess, RectifiedFlow
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.inferers.tiling import infer_tiled, tiles


class Denoiser(ABC):
    """A diffusion model or a flow as three functions of numpy arrays, ``[1, channels, rows, columns]`` float32.

    Each may raise MemoryError; the caller then tries smaller tiles.

    Args:
        run: runs a part of the network, by its name.
        channels: channels of the cells that are denoised.
        condition_channels: channels of the condition.

    Attributes:
        part: name of the part that denoises.
        cell: input pixels along each side of a cell.
        batch: number of samples that are best drawn together.
    """

    part: ClassVar[str]
    cell: int = 1
    batch: int = 1

    def __init__(self, run: Callable[..., np.ndarray], channels: int, condition_channels: int) -> None:
        self._run, self.channels, self.condition_channels = run, channels, condition_channels

    @abstractmethod
    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Return the condition of low-resolution pixels, as cells ``[1, slices * cell * cell, rows, columns]``."""

    def denoise(self, noisy: np.ndarray, condition: np.ndarray, level: float) -> np.ndarray:
        """Return the prediction of the process from noisy cells ``[B, channels, rows, columns]`` and one condition."""
        samples = len(noisy)
        conditions = condition if samples == 1 else np.repeat(condition, samples, axis=0)
        return self._run(self.part, noisy, conditions, np.full(samples, level, dtype=np.float32))

    @abstractmethod
    def decode(self, cells: np.ndarray, condition: np.ndarray) -> np.ndarray:
        """``[1, 1, k * rows, k * columns]`` in units of the window, with k the pixels along each side of a cell."""


def sample(
    image: np.ndarray,
    denoiser: Denoiser,
    process: DiffusionProcess | RectifiedFlow,
    options: SamplerOptions,
    *,
    scale: int,
    halo: int,
    grid: int,
    tile: int,
    region: Region | None = None,
    progress: Callable[[float], None] | None = None,
    on_step: Callable[[int, np.ndarray, np.ndarray], None] | None = None,
) -> tuple[np.ndarray, int]:
    """Enlarge an image by a diffusion model or a flow.

    The same options give the same image, whatever the tile or region, if the network looks no further than the halo: to
    the last bits of float32, because a window's coarse levels may be so small that another convolution takes them.

    Args:
        image: ``[rows, columns]`` float32, or ``[slices, rows, columns]`` of a model of several slices; padded by its
            edge to whole cells, and the result cropped back.
        denoiser: the model.
        process: the process that it was trained for.
        options: sampler, steps, number of samples, texture and seed; resolved by the model's family.
        scale: output pixels per input pixel along each axis.
        halo: receptive radius of the network in cells, in one step too where the process has no halo of its own.
        grid: cells that windows are multiples of.
        tile: side of a tile in cells.
        region: rows and columns to enlarge. Default: all.
        progress: called with the fraction of all steps that is done.
        on_step: called after every step with its number from 0, ``x_t`` before it, and the estimate of ``x_0``.

    Returns:
        ``[scale * rows, scale * columns]`` float32 of the region, not clipped, and the tile side that fitted.

    Raises:
        InputError: steps outside the process.
        OutOfMemoryError: even the smallest tile does not fit.
    """
    solver = process.solver(options)
    num_samples = options.samples or 1
    texture = np.float32(1.0 if options.texture is None else options.texture)
    region = region or Region.whole(*image.shape[-2:])
    reach = halo if process.halo is None else process.halo
    tiled = TiledDenoiser(image, denoiser, region, len(solver.levels), halo=halo, reach=reach, grid=grid, tile=tile)
    mean = np.zeros((), dtype=np.float32)
    for first in range(0, num_samples, denoiser.batch):
        generators = [options.generator(number) for number in range(first, min(first + denoiser.batch, num_samples))]

        def noise(generators: list[np.random.Generator] = generators) -> np.ndarray:
            return np.stack([tiled.noise(generator) for generator in generators])

        # From noise to cells, step by step.
        x_t = np.float32(solver.noise) * noise()
        for step, level in enumerate(solver.levels):
            prediction = tiled.denoise(x_t, level, step)
            x_next, x_0 = solver.step(step, x_t, prediction, noise)
            if on_step is not None:
                on_step(step, x_t, x_0)
            x_t = x_next
            if progress is not None:
                progress((first + float(tiled.shares[step]) * len(generators)) / num_samples)
        # From cells to pixels.
        for cells in x_t:
            mean = mean + tiled.decode(texture * cells, scale) / num_samples
    return np.ascontiguousarray(mean), tiled.tile


class TiledDenoiser:
    """A denoiser on the cells of a whole image, tile by tile, and only where its result reaches a region.

    Args:
        image: ``[rows, columns]`` or ``[slices, rows, columns]`` float32.
        denoiser: the model.
        region: rows and columns of the image that are to be enlarged.
        num_steps: number of sampler steps; every step reaches `reach` cells further.
        halo: receptive radius of the encoder in cells.
        reach: receptive radius of the network of a step, and of the decoder, in cells.
        grid: cells that windows are multiples of.
        tile: side of a tile in cells.

    Attributes:
        tile: side of a tile that fitted so far.
        shares: share of all steps' work that is done after each step.
    """

    def __init__(
        self,
        image: np.ndarray,
        denoiser: Denoiser,
        region: Region,
        num_steps: int,
        *,
        halo: int,
        reach: int,
        grid: int,
        tile: int,
    ) -> None:
        self._denoiser, self._reach, self._grid, self.tile = denoiser, reach, grid, tile
        rows, columns = image.shape[-2:]
        cell = denoiser.cell
        stack = image.reshape(-1, 1, rows, columns)
        padding = (0, -rows % (cell * grid)), (0, -columns % (cell * grid))
        padded = np.pad(stack, ((0, 0), (0, 0), *padding), mode="edge")
        pixels = unshuffle(np.asarray(padded, dtype=np.float32), cell)
        self._size = pixels.shape[2], pixels.shape[3]
        pixels = pixels.reshape(-1, *self._size)
        # Cells of the region, and those of the image that its result depends on, which are kept.
        self._region = region
        self._cells = Region(
            region.top // cell, -(-region.bottom // cell), region.left // cell, -(-region.right // cell)
        )
        needed = needed_regions(self._cells, num_steps, reach)
        margin = self._cells.top - needed[0].top + halo  # the condition of the first step depends on pixels around it
        self._kept = next(tiles(self._size, self._cells, max(self._size), margin, grid)).window
        for_condition, *self._for_steps = (self._within_kept(cells) for cells in needed)
        areas = np.cumsum([cells.rows * cells.columns for cells in self._for_steps])
        self.shares = areas / areas[-1]
        kept_pixels = pixels[:, *self._kept.as_slices]
        self._condition = self._compute(kept_pixels, denoiser.encode, denoiser.condition_channels, for_condition, halo)

    def noise(self, generator: np.random.Generator) -> np.ndarray:
        """Draw noise of standard deviation 1 for the whole image, and return that of the cells that are kept."""
        noise = generator.standard_normal((self._denoiser.channels, *self._size), dtype=np.float32)
        return noise[:, *self._kept.as_slices]

    def denoise(self, x_t: np.ndarray, level: float, step: int) -> np.ndarray:
        """Return the network's prediction from ``[samples, channels, rows, columns]`` at a noise level."""
        channels = self._denoiser.channels

        def predict(window: np.ndarray) -> np.ndarray:
            noisy, condition = self._split(window)
            return self._denoiser.denoise(noisy, condition, level).reshape(1, -1, *window.shape[2:])

        stacked = np.concatenate((x_t.reshape(-1, *x_t.shape[2:]), self._condition))
        prediction = self._compute(stacked, predict, len(x_t) * channels, self._for_steps[step], self._reach)
        return prediction.reshape(x_t.shape)

    def decode(self, cells: np.ndarray, scale: int) -> np.ndarray:
        """Return the pixels of the region, ``[scale * rows, scale * columns]``, from ``[channels, rows, columns]``."""
        cell, region = self._denoiser.cell, self._region

        pixels, self.tile = infer_tiled(
            np.concatenate((cells, self._condition)),
            lambda window: self._denoiser.decode(*self._split(window)),
            scale=scale * cell,
            halo=self._reach,
            grid=self._grid,
            tile=self.tile,
            region=self._within_kept(self._cells),
        )
        outer = Region(cell * self._cells.top, 0, cell * self._cells.left, 0)
        return pixels[0][region.relative_to(outer).scaled(scale).as_slices]

    def _compute(
        self, cells: np.ndarray, network: Callable[[np.ndarray], np.ndarray], channels: int, region: Region, halo: int
    ) -> np.ndarray:
        """Run a network on a region of the kept cells; zeros elsewhere, from where nothing reaches the result."""
        result, self.tile = infer_tiled(
            cells, network, scale=1, channels=channels, halo=halo, grid=self._grid, tile=self.tile, region=region
        )
        if result.shape[1:] == cells.shape[1:]:
            return result
        filled = np.zeros((channels, *cells.shape[1:]), dtype=np.float32)
        filled[:, *region.as_slices] = result
        return filled

    def _within_kept(self, cells: Region) -> Region:
        """Return where cells of the image stand among those that are kept."""
        return cells.relative_to(self._kept).grown(0, self._kept.rows, self._kept.columns)

    def _split(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the noisy cells of the samples in a window, and the condition that stands behind them."""
        channels, condition_channels = self._denoiser.channels, self._denoiser.condition_channels
        noisy = window[0, :-condition_channels].reshape(-1, channels, *window.shape[2:])
        return noisy, window[:, -condition_channels:]


def needed_regions(region: Region, num_steps: int, reach: int) -> list[Region]:
    """Return the cells that must be computed for a region: of the condition, then of each step, fewer every time.

    Args:
        region: cells that are asked for.
        num_steps: number of sampler steps.
        reach: receptive radius of a step, and of the decoder, in cells.

    Returns:
        One region for the condition and one for each step, not cut off at the image's borders.
    """
    margins = (reach * further for further in range(num_steps + 1, 0, -1))
    top, bottom, left, right = region
    return [Region(top - margin, bottom + margin, left - margin, right + margin) for margin in margins]


def unshuffle(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Turn squares of pixels into channels.

    Args:
        pixels: ``[B, 1, factor * rows, factor * columns]``.
        factor: pixels along each side of a square.

    Returns:
        ``[B, factor**2, rows, columns]``.
    """
    batch, _, rows, columns = pixels.shape
    squares = pixels.reshape(batch, rows // factor, factor, columns // factor, factor)
    return np.ascontiguousarray(squares.transpose(0, 2, 4, 1, 3)).reshape(
        batch, factor * factor, rows // factor, columns // factor
    )


def shuffle(cells: np.ndarray, factor: int) -> np.ndarray:
    """Turn channels back into squares of pixels; the inverse of `unshuffle`."""
    batch, _, rows, columns = cells.shape
    squares = cells.reshape(batch, factor, factor, rows, columns).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(squares).reshape(batch, 1, factor * rows, factor * columns)
