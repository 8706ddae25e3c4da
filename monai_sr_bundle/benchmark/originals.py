"""Originals of a protocol of real conditions, and the inputs that losses of resolution make of them."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from monai_sr_bundle.benchmark.film_protocol import FilmLoss
from monai_sr_bundle.inferers.tiling import neighbours
from monai_sr_bundle.transforms.native_patches import Scan, degrade_slices, read_scan, to_unit
from monai_sr_bundle.transforms.pairs import LoadHighResd

Item = Mapping[Hashable, Any]
SLICES = 3
"""Slices of an input: the most that a network of this project sees."""


class Original(ABC):
    """An image of high resolution.

    Args:
        item: an item of `transforms.pairs.pair_items`.
        reduce: whole factor that it is reduced by first, antialiased bicubic.
        multiple: number that its rows and columns are cropped to a multiple of.

    Attributes:
        kind: kind of its manifest.
        window: values that are 0 and 1.
        levels: steps of the storage between them.
        high_res: ``[rows, columns]`` float32 in units of the window.
        padding: pixels that were not reconstructed, which no error bar is measured on; booleans of the same shape, or
            False for none.
    """

    kind: ClassVar[Literal["cxr", "ct"]]
    window: ClassVar[tuple[float, float]]
    levels: ClassVar[int]
    padding: np.ndarray | bool = False

    @abstractmethod
    def __init__(self, item: Item, reduce: int, multiple: int) -> None:
        self.name, self.high_res = str(item["name"]), np.empty(0, dtype=np.float32)

    def degrade(self, loss: FilmLoss, scale: int) -> np.ndarray:
        """Make the input of a condition; its noise depends on the names of the image and the loss and on the factor.

        Args:
            loss: the loss of resolution.
            scale: high-resolution pixels per low-resolution pixel.

        Returns:
            ``[slices, rows / scale, columns / scale]`` float32 in units of the window.
        """
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), zlib.crc32(loss.label.encode()), scale])
        return self._degraded(loss, scale, rng)

    @abstractmethod
    def _degraded(self, loss: FilmLoss, scale: int, rng: np.random.Generator) -> np.ndarray: ...


class Film(Original):
    """A radiograph of 8 bits."""

    kind = "cxr"
    window, levels = (0.0, 255.0), 255

    def __init__(self, item: Item, reduce: int, multiple: int) -> None:
        super().__init__(item, reduce, multiple)
        load = LoadHighResd("label", window=self.window, reduce=reduce, multiple=multiple)
        self.high_res = load(item)["label"][0].numpy()

    def _degraded(self, loss: FilmLoss, scale: int, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(loss.degradation(scale)(self.high_res, rng))[None]


class ScanSlice(Original):
    """A CT slice with its neighbours, in whole HU, with air in place of padding."""

    kind = "ct"
    window, levels = (-1000.0, 400.0), 1400

    def __init__(self, item: Item, reduce: int, multiple: int) -> None:
        super().__init__(item, reduce, multiple)
        whole, index = read_scan(Path(item["path"]), reduce), int(item["slice_index"])
        rows, columns = (side - side % multiple for side in whole.shape[1:])
        self._scan, self._index = Scan(whole.hu[:, :rows, :columns], whole.padding[:, :rows, :columns]), index
        self.high_res = to_unit(self._scan.hu[index], self.window)
        self.padding = self._scan.padding[index]

    def _degraded(self, loss: FilmLoss, scale: int, rng: np.random.Generator) -> np.ndarray:
        degradation = loss.degradation(scale)
        indices = neighbours(self._index, len(self._scan.hu), SLICES)
        low_res = degrade_slices(self._scan, indices, lambda hu, padding: degradation(hu, rng, padding))
        return to_unit(low_res, self.window)


ORIGINALS: dict[str, type[Original]] = {"CXR": Film, "CT": ScanSlice}
"""The class of each modality."""
