"""Data consistency as a step after the network, in MONAI's terms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform

from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.inferers.consistency import DataConsistency
from monai_sr_bundle.inferers.through_plane import consistent_slices

LIMITS = "stored_limits"
"""Where an image's metadata hold the smallest and largest number that its storage can hold."""


class Consistentd(MapTransform):
    """Make an enlarged image consistent with the one it was made from; see `inferers.consistency`.

    Args:
        keys: of ``[1, scale * rows, scale * columns]`` or ``[1, scale * rows, scale * columns, slices]``; of a slab's
            operator, ``[1, rows, columns, scale * slices]``.
        ref_key: the image, in units of the window.
        operator: name of the degradation.
        levels: of the storage between 0 and 1, for an image whose metadata do not say what its storage can hold:
            255 ends at 0 and 1, others hold any number.
    """

    def __init__(
        self, keys: Hashable | Sequence[Hashable], *, ref_key: Hashable, operator: str, levels: int = 255
    ) -> None:
        super().__init__(keys)
        degradation = Degradation.parse(operator)
        self.ref_key, self.along_slices, self.project = ref_key, degradation.slab, DataConsistency(degradation)
        self.limits = (0.0, 1.0) if levels == 255 else None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        changed = dict(data)
        source = data[self.ref_key]
        stated = source.meta.get(LIMITS) if isinstance(source, MetaTensor) else None
        limits = self.limits if stated is None else (float(stated[0]), float(stated[1]))
        low = _slices(source)
        for key in self.key_iterator(data):
            high = _slices(data[key])
            if self.along_slices:
                consistent_slices(high, low, limits)
            else:
                for image, enlarged in zip(low, high, strict=True):
                    self.project(enlarged, image, limits=limits)
            made = torch.from_numpy(np.moveaxis(high, 0, -1).reshape(data[key].shape))
            changed[key] = made.to(data[key].device)
        return changed


def _slices(image: torch.Tensor) -> np.ndarray:
    """``[1, rows, columns]`` or ``[1, rows, columns, slices]`` as an own ``[slices, rows, columns]`` float32."""
    pixels = torch.as_tensor(image).detach().cpu().numpy()[0].astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(pixels.reshape(*pixels.shape[:2], -1), -1, 0))
