"""Thin slices from thick ones: a network enlarges coronal and sagittal planes along the slices of a volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from monai_sr_bundle.degradation import SLAB
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.families.family import (
    Block,
    Evaluation,
    Extent,
    ModelFamily,
    Networks,
    Progress,
    Volume,
    window_area,
)
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.slice_checks import check_slices
from monai_sr_bundle.inferers.interpolate import cubic_slice
from monai_sr_bundle.inferers.postprocessing import PostprocessingRecord, postprocess_thin_slices
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.inferers.thin_slices import STRIP_BYTES, enlarge_slices, strips
from monai_sr_bundle.inferers.tiling import infer_tiled


class ThroughPlane(ModelFamily):
    """A network that makes thin slices of thick ones, and leaves rows and columns as they are."""

    name: ClassVar[str] = "through_plane"
    error_bars: ClassVar[bool] = False
    # MONAI compares image by image, and thin slices are made of a whole volume.
    workflows: ClassVar[tuple[str, ...]] = ("inference",)
    # Planes along the slices may be flatter and longer than a TensorRT engine takes.
    overlays: ClassVar[tuple[str, ...]] = ("multi_gpu_inference",)

    def __init__(self, facts: Mapping[str, Any], bundle: str = "this bundle") -> None:
        super().__init__(facts, bundle)
        expected = {"operator": f"{SLAB}_x{self.scale}", "modality": "CT", "grid": 1, "slices": 1, "diffusion": None}
        for key, value in expected.items():
            if (facts.get(key, value) or None) != value:
                raise BundleError(
                    f"{key} is {facts[key]}, but a bundle that enlarges by {self.scale} along the slices has "
                    f"{'none' if value is None else value}. Correct it, or name another family."
                )
        if self.finds_artifacts:
            raise BundleError(
                "its network_def has a mask, but a bundle that enlarges along the slices removes nothing. Write "
                "mask: false, or name another family."
            )

    @property
    def scale_zyx(self) -> tuple[int, int, int]:
        return self.scale, 1, 1

    def check_image(self, image: Image) -> tuple[str, ...]:
        return check_slices(image, self.bundle)

    def measure_input(self, image: Image, window: tuple[float, float]) -> dict[str, float]:
        has_spacing = image.grid.in_millimetres and image.pixels.shape[0] > 1
        return {"slice_spacing_mm": float(image.grid.spacing_xyz[2])} if has_spacing else {}

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
        region = extent.region
        tile = tile or self.fitting_tile(networks)
        # Strips of rows bound the memory and change no pixel.
        for strip in strips(region, extent.slice_count, self.scale):

            def strip_progress(fraction: float, strip: Region = strip) -> None:
                if progress is not None:
                    progress((strip.top - region.top + fraction * strip.rows) / region.rows)

            thin, tile = enlarge_slices(
                volume.pixels,
                partial(networks.run, "model"),
                scale=self.scale,
                halo=self.halo,
                tile=tile,
                region=strip,
                span=extent.slices,
                to_unit=volume.to_unit,
                progress=strip_progress,
            )
            if self.consistency:
                rows, columns = strip.as_slices
                thick = np.stack([volume.to_unit(one[rows, columns]) for one in volume.pixels[slice(*extent.slices)]])
                postprocess_thin_slices(thin, thick, volume.limits, record)
            for index, high_res in enumerate(thin):
                yield Block(index, strip.top - region.top, high_res, None)

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

    def enlarge_trial(self, image: np.ndarray, networks: Networks, options: SamplerOptions) -> np.ndarray:
        predict = partial(networks.run, "model")
        return infer_tiled(image, predict, scale=(self.scale, 1), halo=self.halo, tile=len(image))[0]

    def result_bytes(self, extent: Extent) -> int:
        thin = 4 * self.scale * extent.slice_count * extent.region.rows * extent.region.columns
        # A strip twice: as the network made it, and what consistency adds.
        return 2 * min(thin, STRIP_BYTES)

    def count_pixels(self, extent: Extent, networks: Networks, options: SamplerOptions) -> tuple[int, int]:
        count, rows, columns = extent.shape
        (first, last), region, tile = extent.slices, extent.region, self.fitting_tile(networks)
        coronal = window_area((count, columns), Region(first, last, region.left, region.right), tile, self.halo)
        sagittal = window_area((count, rows), Region(first, last, region.top, region.bottom), tile, self.halo)
        return region.rows * coronal + region.columns * sagittal, 0

    def evaluations(self, network: Any, rows: int, columns: int, options: SamplerOptions) -> list[Evaluation]:
        # Of one thin slice: each of the two directions sees every pixel of a thick one, which makes `scale` of them.
        return [Evaluation("forward", ((1, 1, rows, columns),), 2 / self.scale)]
