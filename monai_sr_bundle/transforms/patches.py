"""Random patches of training pairs, cropped at the same position in both resolutions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms.transform import MapTransform, Randomizable


class RandPairedPatchd(MapTransform, Randomizable):
    """Crop one random patch of the low-resolution image and the same patch of the high-resolution image.

    Args:
        low_key, high_key: keys of ``[1, rows, columns]`` and ``[1, scale * rows, scale * columns]``.
        size: side of the low-resolution patch.
        scale: high-resolution pixels per low-resolution pixel.
        other_keys: keys of other high-resolution images, cropped at the same position.

    Raises:
        ValueError: an image smaller than the patch, or a pair whose sizes do not match the scale.
    """

    def __init__(
        self,
        low_key: Hashable,
        high_key: Hashable,
        size: int,
        scale: int,
        other_keys: Sequence[Hashable] = (),
    ) -> None:
        super().__init__([low_key, high_key, *other_keys])
        self.low_key, self.high_key, self.size, self.other_keys = low_key, high_key, size, other_keys
        self.scale = scale

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        low, high = data[self.low_key], data[self.high_key]
        _, rows, columns = low.shape
        scale = self.scale
        if tuple(high.shape[1:]) != (rows * scale, columns * scale):
            raise ValueError(
                f"the pair's sizes are {rows}x{columns} and {high.shape[1]}x{high.shape[2]}, expected a factor of "
                f"{scale}; check that the degradation and the network have the same scale."
            )
        if min(rows, columns) < self.size:
            raise ValueError(
                f"the low-resolution image is {rows}x{columns}, smaller than the patch of {self.size}; "
                "lower patch_size or leave the image out."
            )
        row = int(self.R.randint(rows - self.size + 1))
        column = int(self.R.randint(columns - self.size + 1))
        n = self.size
        patches = {self.low_key: low[:, row : row + n, column : column + n]}
        for key in (self.high_key, *self.other_keys):
            patches[key] = data[key][:, scale * row : scale * (row + n), scale * column : scale * (column + n)]
        return {**data, **patches}
