"""Thin slices from thick ones: a network sees a thick slice with its neighbours and makes the thin ones of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from monai_sr_bundle.degradation import SLAB
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.families.family import Block, Extent, Inference, ModelFamily, Volume, progress_of_part
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.input_checks import check_slices
from monai_sr_bundle.inferers.postprocessing import PostprocessingRecord, consistent_slices
from monai_sr_bundle.inferers.tiling import middle, neighbours


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

    def check_image(self, image: Image) -> tuple[str, ...]:
        return check_slices(image, self.bundle)

    def measure_input(self, image: Image, window: tuple[float, float]) -> dict[str, float]:
        return {"slice_spacing_mm": distance / self.scale} if (distance := image.grid.slice_distance_mm) else {}

    def enlarge(
        self, volume: Volume, inference: Inference, extent: Extent, record: PostprocessingRecord | None = None
    ) -> Iterator[Block]:
        region = extent.region
        for done, index in enumerate(range(*extent.slices)):
            stack = volume.to_unit(volume.pixels[neighbours(index, len(volume.pixels), self.slices)])
            progress = progress_of_part(inference.progress, done, extent.slice_count)
            thin = self.run_tiled("model", stack, inference, channels=self.scale, region=region, progress=progress)
            if self.consistency and volume.slices_touch:
                thick = middle(stack)[region.as_slices]
                consistent_slices(thin, thick[None], volume.limits, record)
            for part, high_res in enumerate(thin):
                yield Block(self.scale * done + part, high_res, None)
