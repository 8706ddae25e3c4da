"""The part that diffusion models and flows share: a process, a sampler that follows it, and options for both."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.families.family import InPlaneFamily, Networks, Progress
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.provenance import Sampling
from monai_sr_bundle.inferers.processes import DiffusionProcess, RectifiedFlow
from monai_sr_bundle.inferers.sampler import Denoiser, sample
from monai_sr_bundle.inferers.sampler_options import SamplerOptions


class SampledFamily(InPlaneFamily):
    """A family whose results are drawn by a sampler, step by step.

    Attributes:
        process: the process that the network was trained for.
    """

    process: DiffusionProcess | RectifiedFlow

    def __init__(self, facts: Mapping[str, Any], bundle: str = "this bundle") -> None:
        super().__init__(facts, bundle)
        block = facts.get("diffusion")
        if not isinstance(block, dict):
            raise BundleError(f"there is no `diffusion` block, which family {self.name} needs. Write one.")
        self.defaults: dict[str, Any] = dict(block)

    @abstractmethod
    def denoiser(self, networks: Networks) -> Denoiser:
        """Return the loaded networks as the `Denoiser` that the sampler calls."""

    def check_weights(self, network: Any) -> None:
        self.process.check_fingerprint(network.get_buffer("process").cpu().numpy())

    def resolve(self, options: SamplerOptions) -> SamplerOptions:
        resolved = self.resolve_strength(options).with_defaults(self.defaults)
        self.process.check_steps(resolved.steps)
        return resolved

    def sampling(self, options: SamplerOptions) -> Sampling | None:
        return self.process.sampling(options)

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
        return sample(
            stack,
            self.denoiser(networks),
            self.process,
            options,
            scale=self.scale,
            halo=self.halo,
            grid=self.grid,
            tile=tile,
            region=region,
            progress=progress,
        )
