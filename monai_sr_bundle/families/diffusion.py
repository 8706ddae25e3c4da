"""Diffusion models: SR3 and latent diffusion. An encoder, a denoiser that is called step by step, and a decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.families.family import Networks, Part, SampledFamily
from monai_sr_bundle.inferers.processes import DiffusionProcess
from monai_sr_bundle.inferers.sampler import Denoiser
from monai_sr_bundle.inferers.sampler_options import SamplerOptions


class Diffusion(SampledFamily):
    """A diffusion model, in pixels or in the cells of an autoencoder."""

    name: ClassVar[str] = "diffusion"
    process: DiffusionProcess

    def __init__(self, facts: Mapping[str, Any], bundle: str = "this bundle") -> None:
        super().__init__(facts, bundle)
        self.process = DiffusionProcess.of(self.defaults)
        if self.slices > 1:
            raise BundleError(
                f"slices is {self.slices}, but a diffusion model sees one. Write slices: 1, or take a network of one "
                "pass or a flow."
            )

    @property
    def parts(self) -> tuple[Part, ...]:
        return (
            Part("encoder", "encode", ("image",), "condition", lambda network: (network.cell**2,), _grid),
            Part(
                "denoiser",
                "denoise",
                ("noisy", "condition", "level"),
                "predicted",
                lambda network: (network.channels, network.condition_channels, None),
                _grid,
            ),
            Part(
                "decoder",
                "decode",
                ("cells", "condition"),
                "pred",
                lambda network: (network.channels, network.condition_channels),
                _grid,
                # Where the image itself is decoded, the condition is not used.
                frozenset({"condition"}),
            ),
        )

    def check_installed(self) -> None:
        self.process.check_installed()

    def resolve(self, options: SamplerOptions) -> SamplerOptions:
        if options.texture is not None:
            raise InputError(
                f"--texture {options.texture:g}: bundle {self.bundle} is a diffusion model, which draws the whole "
                "image. Leave the option out, draw more --samples for a smoother result, or name a residual flow with "
                "--bundle."
            )
        return super().resolve(options)

    def denoiser(self, networks: Networks) -> DiffusionDenoiser:
        return DiffusionDenoiser(networks)


def _grid(network: Any) -> int:
    return int(network.grid)


class DiffusionDenoiser(Denoiser):
    """The three networks of a diffusion model.

    Args:
        networks: loaded networks of the bundle.
    """

    part = "denoiser"

    def __init__(self, networks: Networks) -> None:
        (pixels,) = networks.input_channels("encoder")
        super().__init__(networks.run, *networks.input_channels("denoiser"))
        self.cell, self.batch = math.isqrt(pixels), networks.batch_size

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return self._run("encoder", pixels)

    def decode(self, cells: np.ndarray, condition: np.ndarray) -> np.ndarray:
        return self._run("decoder", cells, condition)
