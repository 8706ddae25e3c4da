"""Thin slices from thick ones: a network sees a thick slice with its neighbours and makes the thin ones of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from monai_sr_bundle.degradation import SLAB
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.families.family import (
    Block,
    Extent,
    ModelFamily,
    Networks,
    Progress,
    Volume,
    progress_of_part,
    window_area,
)
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.input_checks import check_slices
from monai_sr_bundle.inferers.interpolate import cubic_slice
from monai_sr_bundle.inferers.postprocessing import PostprocessingRecord, postprocess_thin_slices
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.inferers.tiling import infer_tiled, middle, neighbours

LEAST_DISTANCE_MM = 0.799
"""Distance of new slices that the scale "auto" does not fall below: that of the finest scan which the model has learnt
from, 0.8 mm, and what the rounding of positions in a file takes away."""


class ThroughPlane(ModelFamily):
    """A network that makes thin slices of thick ones, and leaves rows and columns as they are."""

    name: ClassVar[str] = "through_plane"
    error_bars: ClassVar[bool] = False

    def __init__(self, facts: Mapping[str, Any], bundle: str = "this bundle") -> None:
        super().__init__(facts, bundle)
        expected = {"operator": f"{SLAB}_x{self.scale}", "modality": "CT", "grid": 1, "diffusion": None}
        for key, value in expected.items():
            if (facts.get(key, value) or None) != value:
                raise BundleError(
                    f"{key} is {facts[key]}, but a bundle that enlarges by {self.scale} along the slices has "
                    f"{'none' if value is None else value}. Correct it, or name another family."
                )
        if self.slices < 3:
            raise BundleError(
                f"slices is {self.slices}, but a bundle that enlarges along the slices sees neighbours, at least 3 in "
                "all. Correct it, or name another family."
            )

    @property
    def scale_zyx(self) -> tuple[int, int, int]:
        return self.scale, 1, 1

    def has_room(self, image: Image, scale: int) -> bool:
        return not image.grid.in_millimetres or image.grid.spacing_xyz[2] / scale >= LEAST_DISTANCE_MM

    def check_image(self, image: Image) -> tuple[str, ...]:
        return check_slices(image, self.bundle)

    def measure_input(self, image: Image, window: tuple[float, float]) -> dict[str, float]:
        has_spacing = image.grid.in_millimetres and image.pixels.shape[0] > 1
        return {"slice_spacing_mm": float(image.grid.spacing_xyz[2]) / self.scale} if has_spacing else {}

    def enlarge(
        self,
        volume: Volume,
        networks: Networks,
        options: SamplerOptions,
        extent: Extent,
        *,
        tile: int | None = None,
        record: PostprocessingRecord | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Block]:
        region, (first, last) = extent.region, extent.slices
        tile = tile or self.fitting_tile(networks)
        for done, index in enumerate(range(first, last)):
            stack = volume.to_unit(volume.pixels[neighbours(index, len(volume.pixels), self.slices)])
            thin, tile = infer_tiled(
                stack,
                partial(networks.run, "model"),
                scale=1,
                halo=self.halo,
                tile=tile,
                region=region,
                channels=self.scale,
                progress=progress_of_part(progress, done, last - first),
            )
            if self.consistency and volume.slices_touch:
                thick = middle(stack)[region.as_slices]
                postprocess_thin_slices(thin, thick[None], volume.limits, record)
            for part, high_res in enumerate(thin):
                yield Block(self.scale * done + part, high_res, None)

    def reduce(self, high_res_slice: Callable[[int], np.ndarray], index: int) -> np.ndarray:
        parts = [high_res_slice(self.scale * index + part) for part in range(self.scale)]
        return np.asarray(np.mean(parts, axis=0, dtype=np.float64))

    def interpolate(
        self, low_res_slice: Callable[[int], np.ndarray], index: int, slices: tuple[int, int], region: Region
    ) -> np.ndarray:
        first, last = slices
        return cubic_slice(
            lambda thick: low_res_slice(first + thick)[region.as_slices], last - first, index, self.scale
        )

    def uncompared_margin(self, reach: int) -> int:
        return 0

    def result_bytes(self, extent: Extent) -> int:
        # The thin slices of one thick slice, and what consistency adds.
        return 2 * 4 * self.scale * extent.region.rows * extent.region.columns

    def count_pixels(self, extent: Extent, networks: Networks, options: SamplerOptions) -> tuple[int, int]:
        _, rows, columns = extent.shape
        area = window_area((rows, columns), extent.region, self.fitting_tile(networks), self.halo)
        return extent.slice_count * area, 0
