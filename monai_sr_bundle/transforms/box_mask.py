"""The boxes of an image as a mask, which unlike boxes can be cropped, flipped and batched."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms.transform import MapTransform

from monai_sr_bundle.transforms.moved_boxes import BOXES


class BoxMaskd(MapTransform):
    """Add the union of an item's boxes as an image.

    Args:
        ref_key: key of the image ``[1, rows, columns]``, in whose pixels ``boxes_xyxy`` are.
        out_key: key of the mask: float32 of the same shape, 1 in pixels that a box touches, else 0.
    """

    def __init__(self, ref_key: Hashable, out_key: Hashable = "mask") -> None:
        super().__init__([ref_key])
        self.ref_key, self.out_key = ref_key, out_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        mask = torch.zeros_like(data[self.ref_key], dtype=torch.float32)
        for left, top, right, bottom in data[BOXES]:
            mask[:, int(top) : -int(-bottom // 1), int(left) : -int(-right // 1)] = 1.0
        return {**data, self.out_key: mask}
