"""Residual flows: an expected image in one pass, and texture on top of it, drawn by a rectified flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.families.family import Inference, InPlaneFamily, Networks, Part, SampledFamily
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.input_checks import crop_measured, measure_sharpness_and_noise
from monai_sr_bundle.images.unit import largest_around, reaches_an_edge, repeat_pixels
from monai_sr_bundle.inferers.processes import RectifiedFlow
from monai_sr_bundle.inferers.sampler import Denoiser, shuffle, unshuffle
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.inferers.tiling import middle

BLACK, WHITE = 0.02, 0.98
"""Up to and from which value a run of pixels that begins at an edge of the image is its frame or air, in the window."""
STEP = 0.4
"""Least step to the brightest value within one pixel that is a letter's: anatomy is never as steep."""
BRIGHT = 0.03
"""Farthest from the brightest value of the image that a letter is, which compression may darken."""
AROUND = 2
"""Pixels around a letter that belong to it."""


class Flow(SampledFamily):
    """A regression with a residual flow. At texture 0 the result is the expected image, in one pass."""

    name: ClassVar[str] = "flow"
    process: RectifiedFlow

    def __init__(self, facts: Mapping[str, Any], bundle: str = "this bundle") -> None:
        super().__init__(facts, bundle)
        self.process = RectifiedFlow.of(self.defaults)

    @property
    def parts(self) -> tuple[Part, ...]:
        model, *artifacts = super().parts
        velocity = Part(
            "velocity",
            "velocity",
            ("state", "condition", "time"),
            "velocity",
            lambda network: (network.channels, network.condition_channels, None),
        )
        return model, velocity, *artifacts

    def resolve(self, options: SamplerOptions) -> SamplerOptions:
        if options.sampler is not None:
            raise InputError(
                f"--sampler {options.sampler}: bundle {self.bundle} is a flow, which has one sampler. Leave the option "
                "out; --texture and --steps decide what it draws."
            )
        resolved = super().resolve(options)
        if options.chosen and options.texture is None and not resolved.texture:
            raise InputError(
                f"{options.flags}: bundle {self.bundle} gives the expected image, and draws nothing unless asked for "
                "texture. Leave the option out, or add --texture, above 0 to 1."
            )
        return resolved

    def generates(self, options: SamplerOptions) -> bool:
        return self.generative and self.sampling(options) is not None

    def predict(self, stack: np.ndarray, inference: Inference, region: Region | None = None) -> np.ndarray:
        if self.sampling(inference.options) is None:
            return InPlaneFamily.predict(self, stack, inference, region)
        low_res, consistency = middle(stack), self.data_consistency
        rows, columns = low_res.shape
        region = widened = region or Region.whole(rows, columns)
        if self.process.limit is not None:
            widened = region.grown(consistency.margin + consistency.spread, rows, columns)
        untextured = find_untextured(low_res)[widened.as_slices]
        super_res = super().predict(stack, inference, widened)
        if self.process.limit is None and not untextured.any():
            return super_res
        expected = self.run_tiled("model", stack, inference, scale=self.scale, region=widened)[0]
        texture = super_res - expected
        if self.process.limit is not None:
            # The input does not say more than its noise allows, and texture does not contradict what it says.
            noise = measure_sharpness_and_noise(crop_measured(low_res)).get("noise_percent", 0.0) / 100
            consistency.limit(texture, self.process.limit * noise, (rows, columns), widened)
        texture[repeat_pixels(untextured, (self.scale, self.scale))] = 0
        inner = region.relative_to(widened).scaled(self.scale).as_slices
        return np.ascontiguousarray((expected + texture)[inner])

    def denoiser(self, networks: Networks) -> FlowDenoiser:
        return FlowDenoiser(networks, self.scale, self.process.residual_std, self.slices)


class FlowDenoiser(Denoiser):
    """The networks of a residual flow.

    Args:
        networks: the parts `model` and `velocity` of a bundle.
        scale: output pixels per input pixel along each axis.
        residual_std: see `RectifiedFlow`.
        slices: number of slices that the network sees.
    """

    part = "velocity"

    def __init__(self, networks: Networks, scale: int, residual_std: float, slices: int = 1) -> None:
        super().__init__(networks.run, scale * scale, scale * scale + slices)
        self.scale, self.residual_std = scale, np.float32(residual_std)

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return np.concatenate((unshuffle(self._run("model", pixels), self.scale), pixels), axis=1)

    def decode(self, cells: np.ndarray, condition: np.ndarray) -> np.ndarray:
        return shuffle(condition[:, : self.channels] + self.residual_std * cells, self.scale)


def find_untextured(image: np.ndarray) -> np.ndarray:
    """Find the pixels that show no patient, in which no texture is drawn: beyond the exposed field, and at letters.

    Args:
        image: ``[rows, columns]`` in units of the window, the whole image.

    Returns:
        Booleans of the same shape.
    """
    beyond = np.zeros(image.shape, dtype=bool)
    for frame in (image <= BLACK, image >= WHITE):
        beyond |= reaches_an_edge(frame, 0) | reaches_an_edge(frame, 1)
    highest, lowest = largest_around(image, 1), -largest_around(-image, 1)
    letters = (highest - lowest > STEP) & (highest >= max(WHITE, float(image.max())) - BRIGHT)
    return beyond | largest_around(letters, AROUND)
