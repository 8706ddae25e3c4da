"""Residual flows: an expected image in one pass, and texture on top of it, drawn by a rectified flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.families.family import Evaluation, Networks, Part
from monai_sr_bundle.families.sampled import SampledFamily, per_sample
from monai_sr_bundle.inferers.flow_process import RectifiedFlow
from monai_sr_bundle.inferers.pixel_shuffle import shuffle, unshuffle
from monai_sr_bundle.inferers.sampler_options import SamplerOptions


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

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"textures": True}

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

    def denoiser(self, networks: Networks) -> FlowDenoiser:
        def velocity(state: np.ndarray, condition: np.ndarray, time: float) -> np.ndarray:
            times = np.full(len(state), time, dtype=np.float32)
            return networks.run("velocity", state, per_sample(condition, len(state)), times)

        expected_image = partial(networks.run, "model")
        return FlowDenoiser(expected_image, velocity, self.scale, self.process.residual_std, self.slices)

    def evaluations(self, network: Any, rows: int, columns: int, options: SamplerOptions) -> list[Evaluation]:
        expected = super().evaluations(network, rows, columns, options)
        sampling = self.sampling(options)
        if sampling is None:
            return expected
        state, condition = (1, network.channels, rows, columns), (1, network.condition_channels, rows, columns)
        return [*expected, Evaluation("velocity", (state, condition, (1,)), sampling.samples * sampling.steps)]


class FlowDenoiser:
    """A residual flow as a `Denoiser`, whatever computes its two networks.

    Args:
        expect: ``[1, slices, rows, columns]`` to the expected image ``[1, 1, scale * rows, scale * columns]``.
        velocity: velocity of states ``[B, scale * scale, rows, columns]`` beside one condition at a time.
        scale: output pixels per input pixel along each axis.
        residual_std: see `RectifiedFlow`.
        slices: number of slices that the network sees.
    """

    cell = 1
    batch = 1

    def __init__(
        self,
        expect: Callable[[np.ndarray], np.ndarray],
        velocity: Callable[[np.ndarray, np.ndarray, float], np.ndarray],
        scale: int,
        residual_std: float,
        slices: int = 1,
    ) -> None:
        self.expect, self.denoise, self.scale, self.residual_std = expect, velocity, scale, np.float32(residual_std)
        self.channels, self.condition_channels = scale * scale, scale * scale + slices

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return np.concatenate((unshuffle(self.expect(pixels), self.scale), pixels), axis=1)

    def decode(self, cells: np.ndarray, condition: np.ndarray) -> np.ndarray:
        return shuffle(condition[:, : self.channels] + self.residual_std * cells, self.scale)
