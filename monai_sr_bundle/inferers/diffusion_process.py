"""The diffusion process of a bundle: how noise is added, and how diffusers' schedulers take it away again.

Without PyTorch, so that every interface can check the options of a sampler before anything heavy is loaded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from monai_sr_bundle.errors import BundleError, InputError
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
    """Its network looks as far in every step as in the first; see `inferers.flow_process.RectifiedFlow`."""
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
        process, sampler = {field.name for field in fields(cls)}, {"sampler", "steps", "samples"}
        unknown = set(facts) - process - sampler
        if unknown:
            expected = ", ".join(sorted(process | sampler))
            raise BundleError(f"`diffusion` has the unknown {', '.join(sorted(unknown))}; it states {expected}.")
        return cls(**{key: value for key, value in facts.items() if key in process})

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
        """Return what takes the steps of a sampler.

        Raises:
            InputError, BundleError: see `scheduler`.
        """
        return _DdimSolver(self.scheduler(options.steps), SAMPLERS[options.sampler or "ddim"])

    def alphas(self) -> np.ndarray:
        """Return `alphas_cumprod`: the cumulative alpha of every training step, ``[steps]`` float64, falling."""
        return self.scheduler().alphas_cumprod.double().numpy()

    def sampling(self, options: SamplerOptions) -> Sampling:
        """Return what a result's provenance says of its sampler.

        Raises:
            InputError: steps outside the process.
        """
        self.check_steps(options.steps)
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
                "Install with `pip install '.[torch,diffusion]'` in this package's folder, or choose a bundle of one "
                "pass."
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


class _DdimSolver:
    """DDIM or DDPM steps by diffusers, a `Solver`; `eta` 0 adds no noise, near 1 is ancestral."""

    noise = 1.0

    def __init__(self, scheduler: Any, eta: float) -> None:
        self._scheduler, self._eta = scheduler, eta
        self.levels = [float(scheduler.alphas_cumprod[step].sqrt()) for step in scheduler.timesteps]

    def step(
        self, index: int, state: np.ndarray, predicted: np.ndarray, noise: Callable[[], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        import torch

        stepped = self._scheduler.step(
            torch.from_numpy(predicted),
            self._scheduler.timesteps[index],
            torch.from_numpy(state),
            eta=self._eta,
            variance_noise=torch.from_numpy(noise()) if self._eta else None,
        )
        return stepped.prev_sample.numpy(), stepped.pred_original_sample.numpy()
