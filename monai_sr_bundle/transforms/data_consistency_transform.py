"""Data consistency, which follows the network, in MONAI's terms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform

from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.inferers.data_consistency import Limits
from monai_sr_bundle.inferers.neighbours import middle
from monai_sr_bundle.inferers.postprocessing import Postprocessing, PostprocessingRecord, postprocess_thin_slices

LIMITS = "stored_limits"
"""Where an image's metadata hold the smallest and largest number that its storage can hold."""
REMOVED = "removed_places"
"""Where they hold in how many places a network has removed something."""
REMOVED_TOLD = "removed_told"
"""Where they hold the sentence for the reader of the result; empty where nothing was removed."""


class Consistentd(MapTransform):
    """Make an enlarged image consistent with the one it was made from; see `inferers.data_consistency`.

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
        self.ref_key, self.levels, self.network, self.inferer = ref_key, levels, network, inferer
        self.through_plane = Degradation.parse(operator).slab
        self.postprocessing = Postprocessing(operator, consistency=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        changed = dict(data)
        source = data[self.ref_key]
        low_res, limits = _slices(source), _limits(source, self.levels)
        probability: Sequence[np.ndarray | None] = [None] * len(low_res)
        record = PostprocessingRecord()
        if getattr(self.network, "mask", None) is not None:
            probability = [*_slices(self.inferer.artifacts(source[None], self.network)[0])]
        for key in self.key_iterator(data):
            high_res = _slices(data[key])
            if self.through_plane:
                postprocess_thin_slices(high_res, low_res, limits)
            else:
                for image, enlarged, artifacts in zip(low_res, high_res, probability, strict=True):
                    self.postprocessing(enlarged, image, limits=limits, artifact_probability=artifacts, record=record)
            changed[key] = _tensor(high_res, data[key])
        if (removed := record.removed) is not None and isinstance(source, MetaTensor):
            noted = {REMOVED: removed.count, REMOVED_TOLD: removed.sentence}
            changed[self.ref_key] = MetaTensor(source, meta={**source.meta, **noted})
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
