"""One-pass networks: from image to image in one evaluation, as SRCNN, EDSR, ESRGAN or RUNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.families.family import InPlaneFamily, Networks, Part, Progress, artifact_part
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.inferers.tiling import infer_tiled


class OnePass(InPlaneFamily):
    """A network that enlarges in one pass."""

    name: ClassVar[str] = "one_pass"

    def __init__(self, facts: Mapping[str, Any], bundle: str = "this bundle") -> None:
        super().__init__(facts, bundle)
        if facts.get("diffusion"):
            raise BundleError("there is a `diffusion` block, which family one_pass has not. Take it out.")

    @property
    def parts(self) -> tuple[Part, ...]:
        model = Part("model", "forward", ("image",), "pred", lambda network: (self.slices,))
        return (model, artifact_part()) if self.finds_artifacts else (model,)

    def predict(
        self,
        stack: np.ndarray,
        networks: Networks,
        options: SamplerOptions,
        *,
        region: Region | None = None,
        tile: int,
        progress: Progress | None = None,
    ) -> tuple[np.ndarray, int]:
        return predict_one_pass(self, stack, networks, region=region, tile=tile, progress=progress)


def predict_one_pass(
    family: InPlaneFamily,
    stack: np.ndarray,
    networks: Networks,
    *,
    region: Region | None,
    tile: int,
    progress: Progress | None,
) -> tuple[np.ndarray, int]:
    """Enlarge one slice by the part "model"; see `InPlaneFamily.predict`."""
    high_res, tile = infer_tiled(
        stack,
        lambda window: networks.run("model", window),
        scale=family.scale,
        halo=family.halo,
        grid=family.grid,
        tile=tile,
        region=region,
        progress=progress,
        channels=1,
    )
    return high_res[0], tile
