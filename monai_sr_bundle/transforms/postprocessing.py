"""After the network: data consistency as a MONAI transform."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.inferers.data_consistency import Limits
from monai_sr_bundle.inferers.postprocessing import Postprocessing, PostprocessingRecord, consistent_slices
from monai_sr_bundle.inferers.tiling import middle
from monai_sr_bundle.metrics.fidelity import level_limits

LIMITS = "stored_limits"
"""Metadata key of the smallest and largest number that the image's storage can hold."""
SLICES_TOUCH = "slices_touch"
"""Metadata key of whether the slices are as thick as they are apart; the means of thin ones are set only then."""
REMOVED = "removed_places"
"""Metadata key of the number of places where a network has removed an artifact."""
REMOVED_SENTENCE = "removed_told"
"""Metadata key of the sentence about removed artifacts; empty if there were none."""


class Consistentd(MapTransform):
    """Make an enlarged image consistent with its input; see `inferers.data_consistency`.

    Args:
        keys: keys of enlarged images ``[1, scale * rows, scale * columns]`` or
            ``[1, scale * rows, scale * columns, slices]``; ``[1, rows, columns, scale * slices]`` for a through-plane
            operator.
        ref_key: key of the input, in units of the window; only the middle one of neighbouring slices is used.
        operator: name of the degradation.
        levels: steps of the storage between 0 and 1, for `level_limits` if the metadata have no limits.
        inferer: inferer that enlarged the input. Artifacts that its network removed, if it has a mask, are not put
            back; the input's metadata hold their number under `REMOVED` and a sentence under `REMOVED_SENTENCE`.
    """

    def __init__(
        self,
        keys: Hashable | Sequence[Hashable],
        *,
        ref_key: Hashable,
        operator: str,
        levels: int = 255,
        inferer: Any = None,
    ) -> None:
        super().__init__(keys)
        self.ref_key, self.levels, self.inferer = ref_key, levels, inferer
        self.through_plane = Degradation.parse(operator).slab
        self.postprocessing = Postprocessing(operator, consistency=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        changed = dict(data)
        source = data[self.ref_key]
        low_res, limits = _to_slices(source), _read_limits(source, self.levels)
        probability: Sequence[np.ndarray | None] = [None] * len(low_res)
        record = PostprocessingRecord()
        # Of the network that ran: MONAI Label loads the weights into another one than the config's.
        network = getattr(self.inferer, "network", None)
        if getattr(network, "mask", None) is not None:
            probability = [*_to_slices(self.inferer.artifacts(source[None], network)[0])]
        for key in self.key_iterator(data):
            high_res = _to_slices(data[key])
            if self.through_plane:
                if not isinstance(source, MetaTensor) or source.meta.get(SLICES_TOUCH, True):
                    consistent_slices(high_res, low_res, limits)
            else:
                for image, enlarged, artifacts in zip(low_res, high_res, probability, strict=True):
                    self.postprocessing(enlarged, image, limits=limits, artifact_probability=artifacts, record=record)
            changed[key] = _to_tensor(high_res, data[key])
        if (removed := record.removed) is not None and isinstance(source, MetaTensor):
            remarks = {REMOVED: removed.count, REMOVED_SENTENCE: removed.sentence}
            changed[self.ref_key] = MetaTensor(source, meta={**source.meta, **remarks})
        return changed


def _read_limits(source: torch.Tensor, levels: int) -> Limits | None:
    limits = source.meta.get(LIMITS) if isinstance(source, MetaTensor) else None
    if limits is not None:
        return float(limits[0]), float(limits[1])
    return level_limits(levels)


def _to_tensor(slices: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(slices, 0, -1).reshape(like.shape)).to(like.device)


def _to_slices(image: torch.Tensor) -> np.ndarray:
    """Copy ``[1, rows, columns]`` or ``[1, rows, columns, slices]`` to ``[slices, rows, columns]`` float32."""
    pixels = middle(torch.as_tensor(image).detach().cpu().numpy()).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(pixels.reshape(*pixels.shape[:2], -1), -1, 0))
