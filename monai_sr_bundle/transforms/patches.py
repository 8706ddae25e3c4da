"""Random patches of a training pair, at one position in both resolutions, and of images that are degraded at random."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from monai.transforms.transform import MapTransform, Randomizable
from monai_sr_bundle.errors import InputError, require_count
from torch.utils.data import IterableDataset, get_worker_info


class RandPairedPatchd(MapTransform, Randomizable):
    """Crop one random patch of the low-resolution image and the same patch of the high-resolution image.

    Args:
        low_key, high_key: keys of ``[1, rows, columns]`` and ``[1, scale * rows, scale * columns]``.
        size: side of the low-resolution patch.
        scale: high-resolution pixels per low-resolution pixel.
        other_keys: keys of other high-resolution images, cropped at the same position.

    Raises:
        InputError: a size that is no whole number above 0; an image smaller than the patch.
        ValueError: a pair whose sizes do not match the scale.
    """

    def __init__(
        self, low_key: Hashable, high_key: Hashable, size: int, scale: int, other_keys: Sequence[Hashable] = ()
    ) -> None:
        super().__init__([low_key, high_key, *other_keys])
        self.low_key, self.high_key, self.other_keys = low_key, high_key, other_keys
        self.size, self.scale = require_count("patch_size", size), scale

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
            raise InputError(
                f"{Path(str(data.get('path', 'an image'))).name}: {rows}x{columns} pixels at low resolution, expected "
                f"at least the patch of {self.size}. Lower patch_size, or take the image out of the manifest."
            )
        row = int(self.R.randint(rows - self.size + 1))
        column = int(self.R.randint(columns - self.size + 1))
        n = self.size
        patches = {self.low_key: low[:, row : row + n, column : column + n]}
        for key in (self.high_key, *self.other_keys):
            patches[key] = data[key][:, scale * row : scale * (row + n), scale * column : scale * (column + n)]
        return {**data, **patches}


OWN_IMAGES = (
    "training takes the image sets that manifests in dataset_dir list, not images and labels given one by one, as the "
    "app of MONAI Label gives them. Train with the commands of the bundle's card, or in `monai-sr label`."
)
"""Message for items that are not those of `pairs.pair_items`."""
MARGIN = 12
"""Low-resolution pixels around a patch that are degraded with it, so that no kernel sees the edge of the patch."""


class PatchSource(NamedTuple):
    """Images of one set and resolution, and how often they are drawn.

    Attributes:
        set: name of the folder of the data.
        reduce: whole factor that the stored images are reduced by, antialiased bicubic.
        share: weight of this source among all; a patch is of it with its part of their sum.
        files: pattern of the file names, such as "kermany*". Default: all.
    """

    set: str
    reduce: int
    share: float
    files: str = "*"


class RandomPatches(IterableDataset, Randomizable, ABC):
    """Endless batches of random patches, all of one batch at one scale.

    Args:
        images: images of each source, with the `shape` of an array that ends in rows and columns.
        sources: sources of the images, in the same order.
        degrade: a `Randomizable` that makes the low resolution; it gets the generator of the patches.
        patch_size: side of the low-resolution patch.
        scales: factors, and `scale_shares` how often each is drawn.
        batch_size: patches.
        seed: seed of the patches and their degradation. Default: a random one.

    Yields:
        `image`, ``[B, slices, patch_size, patch_size]``, and `label`, ``[B, 1, scale * patch_size, ...]``, 0 and 1 at
        the ends of the window.

    Raises:
        InputError: `patch_size` is no whole number above 0; no image of a source is large enough for a patch; images
            are given as `data`.
    """

    turn: bool = False
    """True to turn patches upside down and by right angles, too; they are mirrored in any case."""
    in_plane: bool = True
    """True if the scale divides rows and columns; else they stay, and the target has `scale` slices."""

    def __new__(cls, *_args: Any, data: Any = None, **_options: Any) -> Self:
        # MONAI's applications replace `train#dataset#data`, which other data sets have.
        if data is not None:
            raise InputError(OWN_IMAGES)
        return super().__new__(cls)

    def __init__(
        self,
        images: Sequence[Sequence[Any]],
        sources: Sequence[PatchSource],
        degrade: Any,
        *,
        patch_size: int,
        scales: Sequence[int] = (2, 3, 4),
        scale_shares: Sequence[float] = (0.25, 0.15, 0.6),
        batch_size: int = 8,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.scales, self.scale_shares = tuple(scales), tuple(scale_shares)
        self.patch_size, self.batch_size, self.degrade = require_count("patch_size", patch_size), batch_size, degrade
        total = sum(source.share for source in sources)
        self.shares = [source.share / total for source in sources]
        smallest = (max(self.scales) if self.in_plane else 1) * patch_size
        self.images: list[list[Any]] = []
        for source, of_source in zip(sources, images, strict=True):
            large = [image for image in of_source if min(image.shape[-2:]) >= smallest]
            if not large:
                raise InputError(
                    f"{source.set}/{source.files} reduced by {source.reduce}: none of {len(of_source)} images has "
                    f"{smallest} pixels along both axes. Lower patch_size, or leave this source out."
                )
            self.images.append(large)
        self.set_random_state(seed)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandomPatches:
        super().set_random_state(seed, state)
        self.degrade.set_random_state(state=self.R)  # one generator, which a checkpoint can keep
        return self

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        if worker := get_worker_info():
            self.set_random_state(worker.seed % 2**32)  # several processes, which draw others each
        while True:
            scale = int(self.R.choice(self.scales, p=self.scale_shares))
            pairs = [self._draw_pair(scale) for _ in range(self.batch_size)]
            low_res, high_res = (np.stack(patches) for patches in zip(*pairs, strict=True))
            yield {"image": torch.from_numpy(low_res), "label": torch.from_numpy(high_res)}

    @abstractmethod
    def make_pair(self, image: Any, rows: slice, columns: slice, scale: int) -> tuple[np.ndarray, np.ndarray]:
        """Degrade a region of an image.

        Args:
            image: one of the images.
            rows, columns: the region, multiples of `scale`.
            scale: high-resolution pixels per low-resolution pixel along each axis.

        Returns:
            Low resolution ``[slices, rows / scale, columns / scale]`` and target ``[1, rows, columns]``, float32.
        """

    def _draw_pair(self, scale: int) -> tuple[np.ndarray, np.ndarray]:
        images = self.images[self.R.choice(len(self.images), p=self.shares)]
        image = images[self.R.randint(len(images))]
        in_plane = scale if self.in_plane else 1
        sides = [size // in_plane for size in image.shape[-2:]]
        corner = [int(self.R.randint(size - self.patch_size + 1)) for size in sides]
        # A margin of any size, so that the 8x8 blocks of JPEG lie anywhere in the patch.
        first = [max(0, start - int(self.R.randint(MARGIN - 7, MARGIN + 1))) for start in corner]
        last = [min(size, start + self.patch_size + MARGIN) for start, size in zip(corner, sides, strict=True)]
        rows, columns = (slice(in_plane * start, in_plane * stop) for start, stop in zip(first, last, strict=True))
        low_res, high_res = self.make_pair(image, rows, columns, scale)
        row, column = corner[0] - first[0], corner[1] - first[1]
        low_res = low_res[:, row : row + self.patch_size, column : column + self.patch_size]
        size = in_plane * self.patch_size
        high_res = high_res[:, in_plane * row : in_plane * row + size, in_plane * column : in_plane * column + size]
        if self.R.random_sample() < 0.5:
            low_res, high_res = low_res[..., ::-1], high_res[..., ::-1]
        if self.turn:
            turns = self.R.randint(4)
            low_res, high_res = (np.rot90(patch, turns, axes=(1, 2)) for patch in (low_res, high_res))
        return low_res.copy(), high_res.copy()
