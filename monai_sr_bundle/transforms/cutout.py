"""Cutout: rectangles without any signal.

DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017,
https://arxiv.org/abs/1708.04552. MONAI's RandCoarseDropout counts in pixels, not in shares of the image, and writes
into its input.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms.transform import MapTransform, Randomizable


class RandCutoutd(MapTransform, Randomizable):
    """Set random rectangles of a target to one value, before the input is made from it; its boxes stay.

    Args:
        key: key of the target ``[1, rows, columns]``, which is copied.
        prob: share of the images that are cut.
        count: smallest and largest number of rectangles.
        side: smallest and largest side of a rectangle, as a share of the image's side.
        value: value of the rectangles. Default 0.
    """

    def __init__(
        self,
        key: Hashable,
        *,
        prob: float = 1.0,
        count: tuple[int, int] = (1, 3),
        side: tuple[float, float] = (0.06, 0.2),
        value: float = 0.0,
    ) -> None:
        super().__init__([key])
        self.key, self.prob, self.count, self.side, self.value = key, prob, count, side, value

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        if self.R.random_sample() >= self.prob:
            return dict(data)
        image: torch.Tensor = data[self.key].clone()
        _, rows, columns = image.shape
        for _ in range(self.R.randint(self.count[0], self.count[1] + 1)):
            height, width = (max(1, round(n * self.R.uniform(*self.side))) for n in (rows, columns))
            top, left = self.R.randint(rows - height + 1), self.R.randint(columns - width + 1)
            image[:, top : top + height, left : left + width] = self.value
        return {**data, self.key: image}
