"""The options of a network, the same for every family and interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from monai_sr_bundle.errors import UsageError, quote

SAMPLERS = {"ddpm": 1 - 1e-6, "ddim": 0.0}
"""Name to eta of Song et al. (ICLR 2021): with 1 all steps but the last add noise (ancestral), with 0 none.

A hair below 1: in the step out of noise alone nothing else is left to add, and the scheduler would take the root of
what rounding leaves below 0.
"""
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class SamplerOptions:
    """Options of a diffusion model, a flow, or a network that reduces noise. None means: as the bundle states.

    Attributes:
        seed: seed of the noise, 0 to `LARGEST_SEED`. Default 0.
        steps: number of steps from noise to image.
        samples: number of images to draw; the result is their mean.
        texture: share of the generated texture that a flow adds to the expected image, 0 (none) to 1 (all).
        sampler: "ddpm" or "ddim", of a diffusion model.
        strength: how much of the input's noise a network takes away that reduces it, 0 (none) to 1 (all that it can).
        stream: number of an independent noise stream for the same seed, as for the slices of a volume. Default 0.

    Raises:
        UsageError: an unknown sampler, fewer than 1 sample, a seed, a texture or a strength out of range.
    """

    seed: int = 0
    steps: int | None = None
    samples: int | None = None
    texture: float | None = None
    sampler: str | None = None
    strength: float | None = None
    stream: int = 0

    def __post_init__(self) -> None:
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise UsageError(f"--sampler {self.sampler}: expected {' or '.join(SAMPLERS)}.")
        if self.samples is not None and self.samples < 1:
            raise UsageError(f"--samples {self.samples}: expected at least 1.")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UsageError(f"--seed {self.seed}: expected a whole number from 0 to {LARGEST_SEED}.")
        for name, value, ends in (
            ("texture", self.texture, "0, the most faithful, to 1, the most detailed"),
            ("strength", self.strength, "0, which keeps the input's noise, to 1, which takes away most of it"),
        ):
            if value is not None and not 0 <= value <= 1:
                # A whole number may be too large to be formatted as a float.
                raise UsageError(f"--{name} {quote(value).removesuffix('.0')}: expected a number from {ends}.")

    @property
    def chosen(self) -> list[str]:
        """Names of the options that were chosen, without the seed."""
        return [name for name in ("sampler", "steps", "samples", "texture") if getattr(self, name) is not None]

    @property
    def flags(self) -> str:
        """The chosen options as command-line flags, for messages."""
        return ", ".join(f"--{name}" for name in self.chosen)

    def with_defaults(self, defaults: Mapping[str, Any]) -> SamplerOptions:
        """Return the options with those of `defaults` (a bundle's `diffusion` block) where none was chosen."""
        names = ("sampler", "steps", "samples", "texture")
        missing = {name: defaults[name] for name in names if name in defaults and getattr(self, name) is None}
        return replace(self, **missing)

    def of_stream(self, stream: int) -> SamplerOptions:
        """Return the same options with another noise stream."""
        return replace(self, stream=stream)

    def generator(self, sample: int) -> np.random.Generator:
        """Return the noise generator of sample 0, 1, ...; each is the same whatever else is drawn."""
        return np.random.default_rng([self.seed, self.stream, sample])


AS_STATED = SamplerOptions()
"""All options as the bundle states them."""
