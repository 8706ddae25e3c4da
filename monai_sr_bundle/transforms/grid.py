"""The grid of an enlarged image, which MONAI does not know to be finer."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform

from monai_sr_bundle.degradation import along_slices
from monai_sr_bundle.images.geometry import scale_affine


class EnlargedGridd(MapTransform):
    """Give an enlarged image the grid of its source with more samples: same box, first centre moved by half a pixel.

    Args:
        keys: keys of enlarged images ``[1, scale * rows, scale * columns]`` or
            ``[1, scale * rows, scale * columns, slices]``; ``[1, rows, columns, scale * slices]`` for a through-plane
            operator.
        ref_key: key of the MetaTensor that was enlarged.
        scale: output pixels per input pixel along rows and columns, or thin slices per slice.
        operator: name of the degradation that the network undoes; a through-plane one enlarges along the slices.

    Returns:
        The item with a MetaTensor under each key, with the source's metadata and the finer affine.
    """

    def __init__(
        self, keys: Hashable | Sequence[Hashable], *, ref_key: Hashable, scale: int, operator: str = ""
    ) -> None:
        super().__init__(keys)
        self.ref_key = ref_key
        self.scales = (1, 1, scale) if along_slices(operator) else (scale, scale, 1)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        changed = dict(data)
        source = data[self.ref_key]
        affine = torch.from_numpy(scale_affine(source.affine.cpu().numpy(), self.scales))
        for key in self.key_iterator(data):
            changed[key] = MetaTensor(torch.as_tensor(data[key]), meta={**source.meta, "affine": affine})
        return changed
