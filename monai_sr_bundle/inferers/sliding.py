"""The tiles of `tiled.py` as a MONAI inferer: the same pixels in a MONAI workflow as from the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.inferers.inferer import Inferer

from monai_sr_bundle.degradation import along_slices
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.inferers.denoiser import torch_denoiser
from monai_sr_bundle.inferers.device import free_bytes, predict_array
from monai_sr_bundle.inferers.flow import process_of
from monai_sr_bundle.inferers.process import Draw
from monai_sr_bundle.inferers.sampling import sample
from monai_sr_bundle.inferers.slices import neighbours
from monai_sr_bundle.inferers.through_plane import enlarge_slices
from monai_sr_bundle.inferers.tiled import fitting_tile, infer_tiled


class TiledInferer(Inferer):
    """Enlarge images of any size, tile by tile and slice by slice; or volumes along their slices.

    Args:
        scale: output pixels per input pixel along rows and columns, or thin slices per slice.
        halo: pixels around a tile, at least the network's receptive radius.
        memory_per_pixel: bytes of working memory per input pixel of a tile.
        tile: side of a tile in input pixels; by default as large as free memory allows.
        grid: input pixels that the windows' edges are multiples of, for networks that pool.
        diffusion: the process and the draw of a diffusion model or a flow, as in its model.yaml; its halo, tile and
            grid are in cells. None for one pass through the network.
        seed: of the noise of a diffusion model.
        slices: of a volume that the network sees, an odd number; it enlarges the middle one.
        operator: name of the degradation that is undone; that of a slab enlarges along the slices.

    Raises:
        BundleError, InputError: as `Process` and `Draw`.
    """

    def __init__(
        self,
        scale: int,
        halo: int,
        memory_per_pixel: int,
        tile: int | None = None,
        grid: int = 1,
        diffusion: dict[str, Any] | None = None,
        seed: int = 0,
        slices: int = 1,
        operator: str = "",
    ) -> None:
        super().__init__()
        self.slices, self.along_slices = slices, along_slices(operator)
        self.scale, self.halo, self.memory_per_pixel, self.tile, self.grid = scale, halo, memory_per_pixel, tile, grid
        self.process = process_of(diffusion) if diffusion else None
        self.draw = Draw.of(diffusion or {}, seed=seed)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Enlarge a batch.

        Args:
            inputs: ``[B, 1, rows, columns]`` or ``[B, 1, rows, columns, depth]``, whose slices are neighbours; or
                ``[B, slices, rows, columns]`` with the neighbours of a single slice.
            network: takes ``[1, slices, rows, columns]``, further arguments are passed on to it; or a diffusion
                network.

        Returns:
            ``[B, 1, scale * rows, scale * columns]``, with the slices of a volume as the last axis; or
            ``[B, 1, rows, columns, scale * slices]``; float32.

        Raises:
            InputError: images without slices, to be enlarged along them.
            BundleError: a diffusion network whose weights were trained for another process.
            OutOfMemoryError: even the smallest tile does not fit.
            ValueError: another number of channels.
        """
        if self.along_slices:
            return self._thin(inputs, network, *args, **kwargs)
        batch, channels, rows, columns, *depth = inputs.shape
        if channels not in (1, self.slices):
            raise ValueError(
                f"the images have {channels} channels, expected 1 or the {self.slices} slices that the network sees; "
                "check that the pairs and the inferer have the same `slices`."
            )
        images = inputs.detach().cpu().numpy().reshape(batch, channels, rows, columns, -1)
        count = images.shape[-1]
        shape = (batch, self.scale * rows, self.scale * columns, count)
        enlarged = np.empty(shape, dtype=np.float32)
        tile = self.tile or fitting_tile(free_bytes(inputs.device), self.memory_per_pixel, self.halo)
        enlarge = self._one_pass if self.process is None or not self.draw.texture else self._drawn
        for image, result in zip(images, enlarged, strict=True):
            for index in range(count):
                near = neighbours(index, count, self.slices) if channels == 1 else [index]
                stack = np.concatenate([image[..., each] for each in near])
                result[..., index], tile = enlarge(stack, network, inputs.device, tile, index, *args, **kwargs)
        return torch.from_numpy(enlarged.reshape(batch, 1, *shape[1:3], *depth)).to(inputs.device)

    def artifacts(self, inputs: torch.Tensor, network: Any) -> torch.Tensor:
        """How probable it is that each pixel holds what a network removes.

        Args:
            inputs: as above.
            network: with `artifacts`, as that of `networks.residual_flow`.

        Returns:
            As `inputs`, 0 to 1.
        """
        batch, channels, rows, columns = inputs.shape[:4]
        images = inputs.detach().cpu().numpy().reshape(batch * channels, rows, columns, -1)
        tile = self.tile or fitting_tile(free_bytes(inputs.device), self.memory_per_pixel, self.halo)
        found = np.empty(images.shape, dtype=np.float32)

        def predict(window: np.ndarray) -> np.ndarray:
            return predict_array(network.artifacts, window, inputs.device)

        for image, result in zip(images, found, strict=True):
            for index in range(images.shape[-1]):
                result[..., index], tile = infer_tiled(
                    image[..., index], predict, scale=1, halo=self.halo, tile=tile, grid=self.grid
                )
        return torch.from_numpy(found.reshape(inputs.shape)).to(inputs.device)

    def _thin(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if inputs.ndim != 5:
            raise InputError(
                f"images of shape {tuple(inputs.shape[2:])} have no slices, expected volumes, along whose slices this "
                "bundle enlarges. Give it volumes; `monai-sr evaluate` measures it."
            )

        def predict(window: np.ndarray) -> np.ndarray:
            return predict_array(lambda pixels: network(pixels, *args, **kwargs), window, inputs.device)

        tile = self.tile or fitting_tile(free_bytes(inputs.device), self.memory_per_pixel, self.halo)
        made = []
        for image in inputs.detach().cpu().numpy().reshape(-1, *inputs.shape[2:]):
            volume = np.moveaxis(image, -1, 0)
            region = (0, volume.shape[1], 0, volume.shape[2])
            thin, tile = enlarge_slices(volume, predict, scale=self.scale, halo=self.halo, tile=tile, region=region)
            made.append(np.moveaxis(thin, 0, -1))
        thick = inputs.shape
        shape = (*thick[:4], self.scale * thick[4])
        return torch.from_numpy(np.stack(made).reshape(shape)).to(inputs.device)

    def _one_pass(
        self, stack: np.ndarray, network: Any, device: torch.device, tile: int, index: int, *args: Any, **kwargs: Any
    ) -> tuple[np.ndarray, int]:
        def predict(window: np.ndarray) -> np.ndarray:
            return predict_array(lambda pixels: network(pixels, *args, **kwargs), window, device)

        sizes: dict[str, Any] = {"scale": self.scale, "halo": self.halo, "grid": self.grid, "tile": tile}
        enlarged, tile = infer_tiled(stack, predict, **sizes, channels=1)
        return enlarged[0], tile

    def _drawn(
        self, stack: np.ndarray, network: Any, device: torch.device, tile: int, index: int
    ) -> tuple[np.ndarray, int]:
        assert self.process is not None
        denoiser = torch_denoiser(network, self.process, device)
        draw = self.draw.of_stream(index)
        return sample(stack, denoiser, self.process, draw, scale=self.scale, halo=self.halo, grid=self.grid, tile=tile)
