"""The tiles of `tiled.py` as a MONAI inferer: the same pixels in a MONAI workflow as from the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch
from monai.inferers.inferer import Inferer

from monai_sr_bundle.inferers.tiled import fitting_tile, infer_tiled

# What PyTorch's CPU allocator and oneDNN say; there is no class of its own for it.
_NO_HOST_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "bad_alloc",
    "could not create a primitive",
    "could not execute a primitive",
    "could not create a memory",
)


class TiledInferer(Inferer):
    """Enlarge images of any size, tile by tile and slice by slice.

    Args:
        scale: output pixels per input pixel along rows and columns.
        halo: pixels around a tile, at least the network's receptive radius.
        memory_per_pixel: bytes of working memory per input pixel of a tile.
        tile: side of a tile in input pixels; by default as large as free memory allows.
        grid: input pixels that the windows' edges are multiples of, for networks that pool.
    """

    def __init__(self, scale: int, halo: int, memory_per_pixel: int, tile: int | None = None, grid: int = 1) -> None:
        super().__init__()
        self.scale, self.halo, self.memory_per_pixel, self.tile, self.grid = scale, halo, memory_per_pixel, tile, grid

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Enlarge a batch.

        Args:
            inputs: ``[B, 1, rows, columns]`` or ``[B, 1, rows, columns, slices]``.
            network: takes ``[1, 1, rows, columns]``; further arguments are passed on to it.

        Returns:
            ``[B, 1, scale * rows, scale * columns]``, with the slices of a volume as the last axis; float32.

        Raises:
            OutOfMemoryError: even the smallest tile does not fit.
        """
        device = inputs.device
        batch, channels, rows, columns, *slices = inputs.shape
        images = inputs.detach().cpu().numpy().reshape(batch * channels, rows, columns, -1)
        shape = (batch * channels, self.scale * rows, self.scale * columns, images.shape[-1])
        enlarged = np.empty(shape, dtype=np.float32)
        tile = self.tile or fitting_tile(_free_bytes(device), self.memory_per_pixel, self.halo)

        def predict(window: np.ndarray) -> np.ndarray:
            return predict_array(lambda image: network(image, *args, **kwargs), window, device)

        for image, result in zip(images, enlarged, strict=True):
            for index in range(images.shape[-1]):
                result[..., index], tile = infer_tiled(
                    image[..., index], predict, scale=self.scale, halo=self.halo, tile=tile, grid=self.grid
                )
        return torch.from_numpy(enlarged.reshape(batch, channels, *shape[1:3], *slices)).to(device)


def predict_array(
    network: Callable[[torch.Tensor], torch.Tensor], window: np.ndarray, device: torch.device | str
) -> np.ndarray:
    """What a network makes of an array, in full float32 precision; every door calls the network here.

    Args:
        network: takes and gives ``[B, 1, rows, columns]``.
        window: float32.
        device: where the network is.

    Raises:
        MemoryError: it does not fit, on the device or in the host.
    """
    # TF32 keeps 10 bits of a factor, which would change stored pixels; cuDNN's choice of an algorithm by trial, and the
    # algorithms that add in any order, differ from run to run.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    try:
        with torch.inference_mode(), exact:
            result = network(torch.from_numpy(window).to(device))
            return np.asarray(result.float().contiguous().cpu().numpy())
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if any(words in str(error) for words in _NO_HOST_MEMORY):
            raise MemoryError(str(error)) from error
        raise


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else int(psutil.virtual_memory().available)
