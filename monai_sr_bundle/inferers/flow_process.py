"""A rectified flow: straight from noise to residual, in as many steps as are wanted, without PyTorch.

Liu et al., "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", ICLR 2023,
https://arxiv.org/abs/2209.03003. States are ``(1 - time) * noise + time * residual``; the network knows how fast they
move, ``residual - noise``; and steps of the second-order method of Adams and Bashforth follow it. A step asks the
network once, as one of Euler's, and keeps more of the texture. The first steps are the shortest, as the velocity
changes most where noise becomes texture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_sr_bundle.errors import BundleError, InputError, quote
from monai_sr_bundle.images.provenance import Sampling
from monai_sr_bundle.inferers.sampler_options import SamplerOptions

MOST_STEPS = 64
STEP_POWER = 1.25
"""Step i of N begins at time ``(i / N) ** STEP_POWER``; above 1, the first steps are the shortest."""


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


@dataclass(frozen=True)
class RectifiedFlow:
    """The process of a residual flow.

    Attributes:
        noise: standard deviation it begins with, in units of the residual's.
        residual_std: standard deviation of original minus expected image, in units of the window.
        halo: cells that the network of the velocity looks far; as far as that of the expected image if None.
        limit: largest change of the reduced image by texture, in standard deviations of the input's noise; any if None.

    Raises:
        BundleError: one of them is not above 0.
    """

    noise: float = 0.5
    residual_std: float = 0.0175
    halo: int | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.halo is not None and not (isinstance(self.halo, int) and self.halo > 0):
            raise BundleError(f"the flow has halo {quote(self.halo)}, expected a whole number of cells above 0.")
        if self.limit is not None and not _is_positive(self.limit):
            raise BundleError(f"the flow has limit {quote(self.limit)}, expected a number above 0, or no limit.")
        if not (_is_positive(self.noise) and _is_positive(self.residual_std)):
            raise BundleError(
                f"the flow has noise {quote(self.noise)} and residual_std {quote(self.residual_std)}, expected numbers "
                "above 0."
            )

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> RectifiedFlow:
        """Return the flow that a bundle's `diffusion` block states.

        Raises:
            BundleError: an unknown key, no texture, or as above.
        """
        keys = {"noise", "residual_std", "halo", "limit", "steps", "samples", "texture"}
        unknown = set(facts) - keys
        if unknown:
            raise BundleError(
                f"`diffusion` has the unknown {', '.join(sorted(unknown))}; a flow states {', '.join(sorted(keys))}."
            )
        if "texture" not in facts:
            raise BundleError("`diffusion` states a flow without its `texture`; expected 0 for the expected image.")
        return cls(**{key: facts[key] for key in ("noise", "residual_std", "halo", "limit") if key in facts})

    def check_installed(self) -> None:
        """Do nothing: a flow needs no further package."""

    def check_steps(self, steps: int | None) -> None:
        """Refuse steps that make no sense.

        Raises:
            InputError: fewer than 1, or more than `MOST_STEPS`.
        """
        if steps is not None and not 1 <= steps <= MOST_STEPS:
            raise InputError(f"--steps {steps}: a flow takes 1 to {MOST_STEPS} steps; 1, 2, 4 and 8 are usual.")

    def sampling(self, options: SamplerOptions) -> Sampling | None:
        """Return what a result's provenance says of its sampler; None where nothing is drawn.

        Raises:
            InputError: see `check_steps`.
        """
        self.check_steps(options.steps)
        if not options.texture:
            return None
        return Sampling("flow", options.steps or 1, options.samples or 1, options.texture)

    def solver(self, options: SamplerOptions) -> _AdamsBashforth:
        """Return what takes the steps of a sampler.

        Raises:
            InputError: see `check_steps`.
        """
        self.check_steps(options.steps)
        return _AdamsBashforth(self.noise, options.steps or 1)

    def fingerprint(self) -> np.ndarray:
        """Return two float32 numbers that tell flows apart; they travel with the weights."""
        return np.array([self.noise, self.residual_std], dtype=np.float32)

    def check_fingerprint(self, fingerprint: np.ndarray) -> None:
        """Refuse weights that were trained for another flow.

        Args:
            fingerprint: the one that travels with the weights.

        Raises:
            BundleError: it is not that of this flow.
        """
        if np.allclose(fingerprint, self.fingerprint(), rtol=1e-4, atol=1e-7):
            return
        noise, residual_std = fingerprint.tolist()
        trained = f"noise {noise:g} and residual_std {residual_std:g}" if residual_std else "no flow yet"
        raise BundleError(
            f"the weights were trained for {trained}, but model.yaml states noise {self.noise:g} and residual_std "
            f"{self.residual_std:g}. Take the weights and the model.yaml of one training."
        )


class _AdamsBashforth:
    """Steps of the second-order method of Adams and Bashforth, a `Solver`; the first is one of Euler's."""

    _previous: np.ndarray

    def __init__(self, noise: float, steps: int) -> None:
        self.noise = noise
        self.times = [(index / steps) ** STEP_POWER for index in range(steps + 1)]
        self.levels = self.times[:-1]

    def step(
        self, index: int, state: np.ndarray, predicted: np.ndarray, noise: Callable[[], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        time, step_length = self.times[index], self.times[index + 1] - self.times[index]
        clean = state + np.float32(1 - time) * predicted
        velocity = predicted
        if index:
            # Extrapolate the velocity linearly to the middle of the step.
            further = np.float32(step_length / (2 * (time - self.times[index - 1])))
            velocity = (1 + further) * predicted - further * self._previous
        self._previous = predicted
        return state + np.float32(step_length) * velocity, clean
