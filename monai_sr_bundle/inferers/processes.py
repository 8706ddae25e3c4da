"""The processes from noise to an image: diffusion, whose steps diffusers' schedulers take, and the rectified flow.

Without PyTorch, so that every interface can check the options of a sampler before anything heavy is loaded.

The flow goes straight from noise to the residual, in as many steps as are wanted (Liu et al., "Flow Straight and Fast:
Learning to Generate and Transfer Data with Rectified Flow", ICLR 2023, https://arxiv.org/abs/2209.03003). States are
``(1 - time) * noise + time * residual``; the network knows how fast they move, ``residual - noise``; and steps of the
second-order method of Adams and Bashforth follow it. A step asks the network once, as one of Euler's, and keeps more of
the texture. The first steps are the shortest, as the velocity changes most where noise becomes texture.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from monai_sr_bundle.errors import BundleError, InputError, quote
from monai_sr_bundle.images.provenance import Sampling
from monai_sr_bundle.inferers.sampler_options import SAMPLERS, SamplerOptions

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "sample", "v_prediction")


@dataclass(frozen=True)
class DiffusionProcess:
    """A diffusion process, in the words of diffusers.

    Attributes:
        schedule: "linear" (Ho et al. 2020), "scaled_linear" or "squaredcos_cap_v2" (the cosine of Nichol and Dhariwal
            2021).
        training_steps: from no noise to the most.
        prediction: the network's prediction: the noise ("epsilon"), the noise-free cells ("sample"), or
            "v_prediction" (Salimans and Ho 2022).
        beta_start, beta_end: ends of the linear schedules.
        zero_terminal_snr: shift the schedule so that the last step is noise alone (Lin et al., WACV 2024).
        clip_sample: clip what is taken for the noise-free cells to [-1, 1] in every step, as DDPM and SR3 do; only
            where these are pixels.

    Raises:
        BundleError: an unknown name, fewer than 2 steps, betas out of order, or epsilon with `zero_terminal_snr`: where
            there is only noise, knowing it tells nothing of the image.
    """

    halo: ClassVar[None] = None
    """Its network looks as far in every step as in the first; see `inferers.processes.RectifiedFlow`."""
    schedule: str = "squaredcos_cap_v2"
    training_steps: int = 1000
    prediction: str = "v_prediction"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    zero_terminal_snr: bool = True
    clip_sample: bool = False

    def __post_init__(self) -> None:
        for value, what, names in (
            (self.schedule, "schedule", SCHEDULES),
            (self.prediction, "prediction", PREDICTIONS),
        ):
            if value not in names:
                raise BundleError(f"the diffusion process has the {what} {value!r}, expected {', '.join(names)}.")
        if self.training_steps < 2 or not 0 < self.beta_start <= self.beta_end < 1:
            raise BundleError(
                f"the diffusion process has {self.training_steps} steps and betas from {self.beta_start} to "
                f"{self.beta_end}, expected at least 2 steps and 0 < beta_start <= beta_end < 1."
            )
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise BundleError(
                "the diffusion process ends in noise alone (zero_terminal_snr), from which a network that predicts "
                "epsilon cannot find the image. Use v_prediction or sample, or zero_terminal_snr: false."
            )

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> DiffusionProcess:
        """Return the process that a bundle's `diffusion` block states.

        Raises:
            BundleError: an unknown key, or as above.
        """
        return cls(**_select_stated(cls, facts, {"sampler", "steps", "samples"}))

    def scheduler(self, steps: int | None = None) -> Any:
        """Return the DDIMScheduler of diffusers that takes `steps` steps from noise to image.

        Args:
            steps: number of steps. Default: as many as in training.

        Raises:
            InputError: steps outside the process.
            BundleError: diffusers is not installed.
        """
        self.check_steps(steps)
        self.check_installed()
        import diffusers

        scheduler: Any = diffusers.DDIMScheduler(
            num_train_timesteps=self.training_steps,
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            beta_schedule=self.schedule,
            prediction_type=self.prediction,
            rescale_betas_zero_snr=self.zero_terminal_snr,
            timestep_spacing="trailing",  # the first step begins in the noise it was trained for
            clip_sample=self.clip_sample,
        )
        scheduler.set_timesteps(steps or self.training_steps)
        return scheduler

    def solver(self, options: SamplerOptions) -> _DdimSolver:
        """Return the solver that takes the steps of a sampler.

        Raises:
            InputError, BundleError: see `scheduler`.
        """
        return _DdimSolver(self.scheduler(options.steps), SAMPLERS[options.sampler or "ddim"])

    def alphas(self) -> np.ndarray:
        """Return `alphas_cumprod`: the cumulative alpha of every training step, ``[steps]`` float64, falling."""
        return self.scheduler().alphas_cumprod.double().numpy()

    def sampling(self, options: SamplerOptions) -> Sampling:
        """Return the sampling as a result's provenance states it."""
        return Sampling(options.sampler or "ddim", options.steps or self.training_steps, options.samples or 1)

    def fingerprint(self) -> np.ndarray:
        """Return eight float32 numbers that tell processes apart: prediction, steps, and alphas along the way.

        They travel with the weights, so that a checkpoint of another process is refused.
        """
        timesteps = np.linspace(0, self.training_steps - 1, 6).round().astype(int)
        kind = 1 + PREDICTIONS.index(self.prediction)
        return np.array([kind, self.training_steps, *self.alphas()[timesteps]], dtype=np.float32)

    def check_fingerprint(self, fingerprint: np.ndarray) -> None:
        """Refuse weights that were trained for another process.

        Args:
            fingerprint: the one that travels with the weights.

        Raises:
            BundleError: it is not that of this process.
        """
        if np.allclose(fingerprint, self.fingerprint(), rtol=1e-4, atol=1e-7):
            return
        expected = f"{self.prediction} in {self.training_steps} steps that end at {self.alphas()[-1]:.3g}"
        kind, steps, *alphas = fingerprint.tolist()
        trained = (
            f"{PREDICTIONS[int(kind) - 1]} in {steps:.0f} steps that end at {alphas[-1]:.3g}" if kind else "nothing"
        )
        raise BundleError(
            f"the weights were trained to predict {trained} of the signal, but model.yaml states {expected}. "
            "Take the weights and the model.yaml of one training."
        )

    def check_installed(self) -> None:
        """Refuse to go on without the packages of a diffusion model.

        Raises:
            BundleError: PyTorch or diffusers is not installed.
        """
        missing = [name for name in ("torch", "diffusers") if importlib.util.find_spec(name) is None]
        if missing:
            raise BundleError(
                f"a diffusion model needs {' and '.join(missing)}, not installed here. "
                "Install with `pip install -c constraints.txt '.[torch,diffusion]'` in this package's folder (beside a "
                "packed bundle: as its docs/README.md says), or choose a bundle of one pass."
            )

    def check_steps(self, steps: int | None) -> None:
        """Refuse steps that the process does not have.

        Raises:
            InputError: fewer than 1, more than those of training, or a number that does not divide them: the scheduler
                would then use a wrong step length.
        """
        if steps is None:
            return
        if not 1 <= steps <= self.training_steps:
            raise InputError(
                f"--steps {steps}: this method was trained with {self.training_steps} steps, expected 1 to "
                f"{self.training_steps}."
            )
        if self.training_steps % steps:
            divisors = [each for each in range(1, self.training_steps + 1) if self.training_steps % each == 0]
            below = max(each for each in divisors if each < steps)
            above = min(each for each in divisors if each > steps)
            raise InputError(
                f"--steps {steps}: the {self.training_steps} steps of training cannot be taken in {steps} equal parts. "
                f"Expected a divisor, as {below} or {above}."
            )


def _select_stated(process: type, facts: Mapping[str, Any], options: set[str]) -> dict[str, Any]:
    """Return the attributes of a process that a `diffusion` block states; beside them it has `options` of sampling."""
    names = {field.name for field in fields(process)}
    if unknown := set(facts) - names - options:
        expected = ", ".join(sorted(names | options))
        raise BundleError(f"`diffusion` has the unknown {', '.join(sorted(unknown))}; it states {expected}.")
    return {key: value for key, value in facts.items() if key in names}


class _DdimSolver:
    """DDIM or DDPM steps by diffusers; `eta` 0 adds no noise, near 1 is ancestral.

    Attributes:
        noise: standard deviation of the cells that the first step begins with.
        levels: number that the network is conditioned on in each step: the square root of the cumulative alpha, 1
            without noise and 0 for noise alone; of a flow, the time.
    """

    noise = 1.0

    def __init__(self, scheduler: Any, eta: float) -> None:
        self._scheduler, self._eta = scheduler, eta
        self.levels = [float(scheduler.alphas_cumprod[step].sqrt()) for step in scheduler.timesteps]

    def step(
        self, index: int, state: np.ndarray, predicted: np.ndarray, noise: Callable[[], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take a step.

        Args:
            index: index of the step; 0 begins a new image, of which no earlier step is known.
            state: cells ``[B, channels, rows, columns]`` before it.
            predicted: prediction of the network, of the same shape.
            noise: draws new noise of this shape, of standard deviation 1.

        Returns:
            The cells after it, and what they are taken to end at.
        """
        import torch

        stepped = self._scheduler.step(
            torch.from_numpy(predicted),
            self._scheduler.timesteps[index],
            torch.from_numpy(state),
            eta=self._eta,
            variance_noise=torch.from_numpy(noise()) if self._eta else None,
        )
        return stepped.prev_sample.numpy(), stepped.pred_original_sample.numpy()


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
        attributes = _select_stated(cls, facts, {"steps", "samples", "texture"})
        if "texture" not in facts:
            raise BundleError("`diffusion` states a flow without its `texture`; expected 0 for the expected image.")
        return cls(**attributes)

    def check_steps(self, steps: int | None) -> None:
        """Refuse steps that make no sense.

        Raises:
            InputError: fewer than 1, or more than `MOST_STEPS`.
        """
        if steps is not None and not 1 <= steps <= MOST_STEPS:
            raise InputError(f"--steps {steps}: a flow takes 1 to {MOST_STEPS} steps; 1, 2, 4 and 8 are usual.")

    def sampling(self, options: SamplerOptions) -> Sampling | None:
        """Return the sampling as a result's provenance states it; None where nothing is drawn."""
        if not options.texture:
            return None
        return Sampling("flow", options.steps or 1, options.samples or 1, options.texture)

    def solver(self, options: SamplerOptions) -> _AdamsBashforth:
        """Return the solver that takes the steps of a sampler."""
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
    """Steps of the second-order method of Adams and Bashforth, as `_DdimSolver`; the first is one of Euler's."""

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
