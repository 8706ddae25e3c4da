"""The engine's prediction as a MONAI inferer: the same pixels in a MONAI workflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.inferers.inferer import Inferer
from monai_sr_bundle.backends.torch_networks import TorchNetworks
from monai_sr_bundle.errors import InputError, require_count
from monai_sr_bundle.families.family import ARTIFACTS, Inference, InPlaneFamily, open_family
from monai_sr_bundle.inferers.sampler_options import SamplerOptions


class TiledInferer(Inferer):
    """Enlarge images of any size, tile by tile and slice by slice, as the bundle's family does.

    Attributes:
        network: the network of the last call; None before.

    Args:
        family: name of the model family, as model.yaml states it.
        scale: output pixels per input pixel along rows and columns, or thin slices per slice.
        halo: pixels around a tile, at least the network's receptive radius.
        memory_per_pixel: bytes of working memory per input pixel of a tile.
        operator: name of the degradation that is undone.
        tile: side of a tile in input pixels. Default: as large as free memory allows.
        grid: input pixels that the windows' edges are multiples of, for networks that pool. Default 1.
        diffusion: process and sampler options of a diffusion model or a flow, as in its model.yaml; its halo, tile and
            grid are in cells. Default: none.
        seed: seed of the noise. Default 0.
        slices: slices of a volume that the network sees, an odd number; it enlarges the middle one. Default 1.
        strength: how much of the input's noise to take away, 0 to 1. Default: for a network not made to.

    Raises:
        BundleError, InputError: see `families.family.open_family` and `ModelFamily.resolve`.
        UsageError: a tile that is no whole number, or below 0.
    """

    def __init__(
        self,
        family: str,
        scale: int,
        halo: int,
        memory_per_pixel: int,
        operator: str,
        tile: int | None = None,
        grid: int = 1,
        diffusion: dict[str, Any] | None = None,
        seed: int = 0,
        slices: int = 1,
        strength: float | None = None,
    ) -> None:
        super().__init__()
        self.tile = require_count("tile", tile) if tile else None
        self.network: Callable[..., torch.Tensor] | None = None
        facts = {
            "family": family, "scale": scale, "halo": halo, "memory_per_pixel": memory_per_pixel, "operator": operator,
            "grid": grid, "diffusion": diffusion, "slices": slices, "strength": strength,
        }  # fmt: skip
        self.family = open_family(facts)
        self.options = self.family.resolve(SamplerOptions(seed=seed))

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Enlarge a batch.

        Args:
            inputs: ``[B, 1, rows, columns]`` or ``[B, 1, rows, columns, depth]``, whose slices are neighbours; or
                ``[B, slices, rows, columns]`` with the neighbours of a single slice.
            network: the bundle's network; further arguments are passed on to it.

        Returns:
            ``[B, 1, scale * rows, scale * columns]``, with the slices of a volume as the last axis; or
            ``[B, 1, rows, columns, scale * slices]``; float32.

        Raises:
            InputError: images without slices, to be enlarged along them.
            BundleError: a network whose weights were trained for another process.
            OutOfMemoryError: even the smallest tile does not fit.
            ValueError: another number of channels.
        """
        family, self.network = self.family, network
        batch, channels, rows, columns, *depth = inputs.shape
        if channels not in (1, family.slices):
            raise ValueError(
                f"the images have {channels} channels, expected 1 or the {family.slices} slices that the network sees; "
                "check that the pairs and the inferer have the same `slices`."
            )
        if family.scale_zyx[0] > 1 and not depth:
            raise InputError(
                f"images of shape {tuple(inputs.shape[2:])} have no slices, expected volumes, along whose slices this "
                "bundle enlarges. Give it volumes; `monai-sr evaluate` measures it."
            )
        if family.sampling(self.options):
            family.check_weights(network)
        networks = TorchNetworks(network, family.parts, inputs.device, (args, kwargs))
        inference = Inference(networks, self.options, self.tile)
        images = inputs.detach().cpu().numpy().reshape(batch, channels, rows, columns, -1)
        results = []
        for image in images:
            volume = np.moveaxis(image, -1, 1)
            # The neighbours of a single slice are channels of the batch; those of a volume are its own slices.
            if channels > 1:
                assert isinstance(family, InPlaneFamily)
                enlarged = family.enlarge_slice(volume[:, 0], inference)[None]
            else:
                enlarged = family.enlarge_array(volume[0], inference)
            results.append(np.moveaxis(enlarged, 0, -1))
        shape = [scale * side for scale, side in zip(family.scale_zyx[1:], (rows, columns), strict=True)]
        depth = [family.scale_zyx[0] * side for side in depth]
        return torch.from_numpy(np.stack(results).reshape(batch, 1, *shape, *depth)).to(inputs.device)

    def artifacts(self, inputs: torch.Tensor, network: Any) -> torch.Tensor:
        """Return the probability that each pixel holds an artifact, which the network removes.

        Args:
            inputs: see `__call__`.
            network: with `artifacts`, as that of `networks.residual_flow`.

        Returns:
            A tensor of the shape of `inputs`, 0 to 1.
        """
        family, batch_shape = self.family, inputs.shape
        assert isinstance(family, InPlaneFamily)
        inference = Inference(TorchNetworks(network, (ARTIFACTS,), inputs.device), self.options, self.tile)
        images = inputs.detach().cpu().numpy().reshape(-1, *batch_shape[2:4], int(np.prod(batch_shape[4:])))
        probability = np.empty(images.shape, dtype=np.float32)
        for image, result in zip(images, probability, strict=True):
            for index in range(images.shape[-1]):
                result[..., index] = family.find_artifacts(image[..., index], inference)
        return torch.from_numpy(probability.reshape(batch_shape)).to(inputs.device)
