"""The position of what a network has enlarged: MONAI does not know that its grid is finer."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform

from monai_sr_bundle.geometry import scale_affine


class EnlargedGridd(MapTransform):
    """Give an enlarged image the grid of its source with more samples: same box, first centre moved by half a pixel.

    Args:
        keys: of ``[1, scale * rows, scale * columns]`` or ``[1, scale * rows, scale * columns, slices]``.
        ref_key: the MetaTensor it was made from.
        scale: output pixels per input pixel along rows and columns.

    Returns:
        The item with a MetaTensor under each key, with the source's metadata and the finer affine.
    """

    def __init__(self, keys: Hashable | Sequence[Hashable], *, ref_key: Hashable, scale: int) -> None:
        super().__init__(keys)
        self.ref_key, self.scale = ref_key, scale

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        changed = dict(data)
        source = data[self.ref_key]
        affine = torch.from_numpy(scale_affine(source.affine.cpu().numpy(), (self.scale, self.scale, 1)))
        for key in self.key_iterator(data):
            changed[key] = MetaTensor(torch.as_tensor(data[key]), meta={**source.meta, "affine": affine})
        return changed
