"""Data consistency, which follows the network, in MONAI's terms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform

from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.inferers.consistency import DataConsistency, Limits
from monai_sr_bundle.inferers.removed import Removed
from monai_sr_bundle.inferers.slices import middle
from monai_sr_bundle.inferers.through_plane import consistent_slices

LIMITS = "stored_limits"
"""Where an image's metadata hold the smallest and largest number that its storage can hold."""
REMOVED = "removed_places"
"""Where they hold in how many places a network has removed something."""
REMOVED_TOLD = "removed_told"
"""Where they hold the sentence for the reader of the result; empty where nothing was removed."""


class Consistentd(MapTransform):
    """Make an enlarged image consistent with the one it was made from; see `inferers.consistency`.

    Args:
        keys: of ``[1, scale * rows, scale * columns]`` or ``[1, scale * rows, scale * columns, slices]``; of a slab's
            operator, ``[1, rows, columns, scale * slices]``.
        ref_key: the image, in units of the window; of a single slice with its neighbours, the middle one.
        operator: name of the degradation.
        levels: of the storage between 0 and 1, for an image whose metadata do not say what its storage can hold:
            255 ends at 0 and 1, others hold any number.
        network, inferer: that have enlarged it. What a network with a mask has removed is not put back, and what is
            told of it is noted in the image's metadata under `REMOVED` and `REMOVED_TOLD`.
    """

    def __init__(
        self,
        keys: Hashable | Sequence[Hashable],
        *,
        ref_key: Hashable,
        operator: str,
        levels: int = 255,
        network: Any = None,
        inferer: Any = None,
    ) -> None:
        super().__init__(keys)
        degradation = Degradation.parse(operator)
        self.ref_key, self.along_slices, self.project = ref_key, degradation.slab, DataConsistency(degradation)
        self.levels, self.network, self.inferer = levels, network, inferer

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        changed = dict(data)
        source = data[self.ref_key]
        low, limits = _slices(source), _limits(source, self.levels)
        followed: list[np.ndarray | None] = [None] * len(low)
        if getattr(self.network, "mask", None) is not None:
            probable = _slices(self.inferer.artifacts(source[None], self.network)[0])
            kept = [self.project.followed(one) for one in probable]
            followed = [*kept]
            if isinstance(source, MetaTensor):
                removed = Removed.of(probable, np.stack(kept))
                told = {REMOVED: removed.places, REMOVED_TOLD: removed.sentence}
                changed[self.ref_key] = MetaTensor(source, meta={**source.meta, **told})
        for key in self.key_iterator(data):
            high = _slices(data[key])
            if self.along_slices:
                consistent_slices(high, low, limits)
            else:
                for image, enlarged, follow in zip(low, high, followed, strict=True):
                    self.project(enlarged, image, limits=limits, followed=follow)
            changed[key] = _tensor(high, data[key])
        return changed


def _limits(source: torch.Tensor, levels: int) -> Limits | None:
    stated = source.meta.get(LIMITS) if isinstance(source, MetaTensor) else None
    if stated is not None:
        return float(stated[0]), float(stated[1])
    return (0.0, 1.0) if levels == 255 else None


def _tensor(slices: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(slices, 0, -1).reshape(like.shape)).to(like.device)


def _slices(image: torch.Tensor) -> np.ndarray:
    """``[1, rows, columns]`` or ``[1, rows, columns, slices]`` as an own ``[slices, rows, columns]`` float32."""
    pixels = middle(torch.as_tensor(image).detach().cpu().numpy()).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(pixels.reshape(*pixels.shape[:2], -1), -1, 0))
