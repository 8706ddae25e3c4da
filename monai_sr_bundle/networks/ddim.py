"""DDIM and DDPM: the steps from noise to an image, with which a diffusion network draws by itself.

Song, Meng and Ermon, "Denoising Diffusion Implicit Models", ICLR 2021, equations 12 and 16; the schedules of Ho et al.
(NeurIPS 2020) and of Nichol and Dhariwal (ICML 2021); zero terminal signal-to-noise ratio by Lin et al. (WACV 2024),
algorithm 1. The command line and MONAI's workflows take the same steps with diffusers, tile by tile; this is for tools
that call a network with an image and expect one, and needs no package.
"""

import math

import torch
from torch import nn

DDPM_ETA = 1 - 1e-6
"""Eta of an ancestral step, as in `inferers.sampler_options.SAMPLERS`."""


class Ddim(nn.Module):
    """The steps of a sampler: their noise levels, and the step from one to the next.

    The arguments are those of a bundle's `diffusion` block in model.yaml.

    Args:
        schedule, training_steps, beta_start, beta_end, zero_terminal_snr: the process in training.
        prediction: what the network predicts: "epsilon", "sample" or "v_prediction".
        clip_sample: clip the noise-free cells to ``[-1, 1]`` in every step.
        sampler: "ddim", or "ddpm", which adds noise in every step but the last.
        steps: number of steps, which divides `training_steps`.
        samples: for the workflows, which may draw several; here it is one.

    Raises:
        ValueError: an unknown schedule or prediction.
    """

    alphas: torch.Tensor

    def __init__(
        self,
        schedule: str = "squaredcos_cap_v2",
        training_steps: int = 1000,
        prediction: str = "v_prediction",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        zero_terminal_snr: bool = True,
        clip_sample: bool = False,
        sampler: str = "ddim",
        steps: int = 20,
        samples: int = 1,
    ) -> None:
        super().__init__()
        if prediction not in ("epsilon", "sample", "v_prediction"):
            raise ValueError(f"prediction is {prediction!r}, expected 'epsilon', 'sample' or 'v_prediction'.")
        self.prediction, self.clip_sample, self.steps = prediction, clip_sample, steps
        self.eta = DDPM_ETA if sampler == "ddpm" else 0.0
        alphas = alphas_cumprod(schedule, training_steps, beta_start, beta_end, zero_terminal_snr)
        # The first step begins in the last of training; after the last one no noise is left.
        visited = torch.cat((alphas.flip(0)[:: training_steps // steps], alphas.new_ones(1)))
        self.register_buffer("alphas", visited.float(), persistent=False)

    def level(self, step: int, images: int) -> torch.Tensor:
        """Return the noise level before a step, for each image of a batch: ``[B]``, 0 for noise alone."""
        return self.alphas[step].sqrt().expand(images)

    def forward(self, step: int, x_t: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        """Return the cells after a step.

        Args:
            step: number of the step, from 0.
            x_t: cells before it.
            predicted: the network's prediction at its noise level.
        """
        alpha, alpha_next = self.alphas[step], self.alphas[step + 1]
        signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
        if self.prediction == "epsilon":
            epsilon, x_0 = predicted, (x_t - noise * predicted) / signal
        elif self.prediction == "sample":
            epsilon, x_0 = (x_t - signal * predicted) / noise, predicted
        else:
            epsilon, x_0 = signal * predicted + noise * x_t, signal * x_t - noise * predicted
        if self.clip_sample:
            x_0 = x_0.clamp(-1.0, 1.0)
        deviation = self.eta * ((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)).sqrt()
        x_next = alpha_next.sqrt() * x_0 + (1 - alpha_next - deviation.square()).clamp_min(0).sqrt() * epsilon
        return x_next if self.eta == 0 else x_next + deviation * torch.randn_like(x_t)


def alphas_cumprod(
    schedule: str, training_steps: int, beta_start: float, beta_end: float, zero_terminal_snr: bool
) -> torch.Tensor:
    """Return the cumulative alpha of every training step, ``[steps]`` float64, falling.

    Raises:
        ValueError: an unknown schedule.
    """
    if schedule == "linear":
        betas = torch.linspace(beta_start, beta_end, training_steps, dtype=torch.float64)
    elif schedule == "scaled_linear":
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, training_steps, dtype=torch.float64).square()
    elif schedule == "squaredcos_cap_v2":
        times = torch.linspace(0, 1, training_steps + 1, dtype=torch.float64)
        bar = ((times + 0.008) / 1.008 * math.pi / 2).cos().square()
        betas = (1 - bar[1:] / bar[:-1]).clamp_max(0.999)
    else:
        raise ValueError(f"schedule is {schedule!r}, expected 'linear', 'scaled_linear' or 'squaredcos_cap_v2'.")
    alphas = (1 - betas).cumprod(0)
    if not zero_terminal_snr:
        return alphas
    root = alphas.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
