"""The engine's prediction as a MONAI inferer: the same pixels in a MONAI workflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import Inferer
from monai_sr_bundle.backends.torch_networks import TorchNetworks
from monai_sr_bundle.errors import InputError, require_bool, require_count
from monai_sr_bundle.families.family import Inference, InPlaneFamily, Volume, open_family
from monai_sr_bundle.inferers.data_consistency import ArtifactReport
from monai_sr_bundle.inferers.postprocessing import PostprocessingRecord
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.metrics.fidelity import level_limits
from monai_sr_bundle.transforms.image_files import LIMITS, NAME, SLICES_TOUCH


class TiledInferer(Inferer):
    """Enlarge images of any size, tile by tile and slice by slice, as the bundle's family does.

    Attributes:
        removed: the artifacts that the network removed from the images of the last call, by their ``filename_or_obj``;
            None for a network that removes none.

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
        consistency: whether results are made consistent with the input; see `inferers.data_consistency`. Default False.
        levels: steps of the storage between 0 and 1, which say what it can hold where the metadata do not. Default 255.
        finds_artifacts: whether the network removes artifacts and says where. Default False.

    Raises:
        BundleError, InputError: see `families.family.open_family` and `ModelFamily.resolve`.
        UsageError: a tile that is no whole number, or below 0; a `consistency` that is neither True nor False.
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
        consistency: bool = False,
        levels: int = 255,
        finds_artifacts: bool = False,
    ) -> None:
        super().__init__()
        self.tile = require_count("tile", tile) if tile else None
        self.levels = levels
        self.removed: dict[str, ArtifactReport | None] = {}
        facts = {
            "family": family, "scale": scale, "halo": halo, "memory_per_pixel": memory_per_pixel, "operator": operator,
            "grid": grid, "diffusion": diffusion, "slices": slices, "strength": strength,
            "consistency": require_bool("consistency", consistency),
            "network_def": {"slices": slices, "mask": finds_artifacts},
        }  # fmt: skip
        self.family = open_family(facts)
        self.options = self.family.resolve(SamplerOptions(seed=seed))

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Enlarge a batch.

        Args:
            inputs: ``[B, 1, rows, columns]`` or ``[B, 1, rows, columns, depth]``, whose slices are neighbours; or
                ``[B, slices, rows, columns]`` with the neighbours of a single slice. Of a MetaTensor of `ReadImaged`,
                the metadata say what the storage can hold, and whether the slices touch.
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
        family = self.family
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
        meta = inputs.meta if isinstance(inputs, MetaTensor) else {}
        # MONAI joins the metadata of the images of a batch.
        names, touching = np.resize(meta.get(NAME, ""), batch), np.resize(meta.get(SLICES_TOUCH, True), batch)
        limits = np.reshape(meta[LIMITS], (2, -1)).T.tolist() if LIMITS in meta else [level_limits(self.levels)] * batch
        results, self.removed = [], {}
        for number, image in enumerate(images):
            volume, record = np.moveaxis(image, -1, 1), PostprocessingRecord()
            # The neighbours of a single slice are channels of the batch; those of a volume are its own slices.
            if channels > 1:
                assert isinstance(family, InPlaneFamily)
                enlarged = family.enlarge_slice(volume[:, 0], inference, limits=limits[number], record=record)[None]
            else:
                stored = Volume(volume[0], limits=limits[number], slices_touch=bool(touching[number]))
                enlarged = family.enlarge_array(stored, inference, record)
            self.removed[str(names[number])] = record.removed
            results.append(np.moveaxis(enlarged, 0, -1))
        shape = [scale * side for scale, side in zip(family.scale_zyx[1:], (rows, columns), strict=True)]
        depth = [family.scale_zyx[0] * side for side in depth]
        return torch.from_numpy(np.stack(results).reshape(batch, 1, *shape, *depth)).to(inputs.device)
