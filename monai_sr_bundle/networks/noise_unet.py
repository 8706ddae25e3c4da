"""The U-Net that removes noise of a given level, the denoiser of every diffusion bundle, and the steps it draws by.

The U-Net of SR3 (Saharia et al., "Image Super-Resolution via Iterative Refinement", IEEE TPAMI 45(4), 2023) with two
changes for a CPU. It works on cells of pixels (Hoogeboom et al., "Simple diffusion", ICML 2023, section 3.3). And it
has no group normalisation, whose mean and variance depend on the tile: every cell depends on a fixed neighbourhood, so
tiles have no seams, and inside its border a patch is equal to that part of the result for the complete image. `groups`
switches the published normalisation on, and with it the dependence on the tile.

The steps, DDIM and DDPM: Song, Meng and Ermon, "Denoising Diffusion Implicit Models", ICLR 2021, equations 12 and 16;
the schedules of Ho et al. (NeurIPS 2020) and of Nichol and Dhariwal (ICML 2021); zero terminal signal-to-noise ratio by
Lin et al. (WACV 2024), algorithm 1. The command line and MONAI's workflows take the same steps with diffusers, tile by
tile; these are for tools that call a network with an image and expect one, and need no package.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import interpolate, linear, scaled_dot_product_attention, silu


class Prediction(NamedTuple):
    """The prediction of a diffusion network in training, with the losses of its bottleneck.

    Attributes:
        cells: prediction, in the shape of the noisy cells.
        divergence: divergence of the codes from a normal distribution in nats, mean over all numbers; 0 without a
            bottleneck.
        reconstruction: mean squared error of the bottleneck's decoded features.
    """

    cells: torch.Tensor
    divergence: torch.Tensor
    reconstruction: torch.Tensor


class LevelEmbedding(nn.Module):
    """The noise level as features: sines and cosines of it at 16 frequencies from 1 to 1000, and two dense layers.

    Args:
        channels: features of the result.
    """

    frequencies: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(0, 3, 16, dtype=torch.float64).float(), persistent=False)
        self.layers = nn.Sequential(nn.Linear(32, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        angles = level[:, None] * self.frequencies
        return silu(self.layers(torch.cat((angles.sin(), angles.cos()), dim=1)))


def _norm(groups: int, channels: int) -> nn.Module:
    return nn.GroupNorm(groups, channels) if groups else nn.Identity()


class LevelBlock(nn.Module):
    """Two convolutions around a scale and a shift that follow the noise level, and a skip."""

    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm = _norm(groups, inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.middle_norm = _norm(groups, outputs)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        # A block that starts near identity keeps a deep stack trainable at a high learning rate.
        nn.init.normal_(self.second.weight, std=0.01)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, features: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        scale, shift = self.modulation(embedded)[:, :, None, None].chunk(2, dim=1)
        inner = self.middle_norm(self.first(silu(self.norm(features))))
        inner = torch.addcmul(shift, inner, scale + 1)
        return self.second(self.dropout(silu(inner))).add_(self.skip(features))


class Attention(nn.Module):
    """Attention of every cell to all others, as in the published network, at the coarsest level only."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.attend = nn.MultiheadAttention(channels, 1, batch_first=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        rows, columns = features.shape[2], features.shape[3]
        cells = self.norm(features).flatten(2).transpose(1, 2)
        # The module's own forward would be exported for one size only.
        query, key, value = linear(cells, self.attend.in_proj_weight, self.attend.in_proj_bias).chunk(3, dim=2)
        attended = self.attend.out_proj(scaled_dot_product_attention(query, key, value))
        return attended.transpose(1, 2).unflatten(2, (rows, columns)) + features


class NoiseUNet(nn.Module):
    """The prediction of a diffusion process from noisy cells, their condition and the noise level.

    Args:
        inputs: channels of noisy cells and condition together.
        outputs: channels of the prediction.
        channels: features of each level, from the finest to the coarsest; each halves rows and columns.
        blocks: residual blocks of each level on the way down; as many on the way up, and two at the bottom.
        groups: groups of the group normalisation; 0, the default, for none.
        attention: attention at the bottom; needs `groups`. Default False.
        dropout: share of the features left out in training.

    Shape:
        cells: ``[B, inputs, rows, columns]``, rows and columns multiples of `grid`.
        level: ``[B]``, the square root of the cumulative alpha, 0 (noise alone) to 1 (no noise).
        returns: ``[B, outputs, rows, columns]``.

    Without `groups`, a cell of the result depends on cells within `receptive_radius` and on no others; it moves with
    its surroundings by multiples of `grid`.

    Raises:
        ValueError: channels that `groups` does not divide; attention without `groups`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: tuple[int, ...] = (64, 96, 128),
        blocks: int = 1,
        groups: int = 0,
        attention: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if attention and not groups:
            raise ValueError("attention needs groups, the normalisation before it.")
        first, *_, last = *channels, channels[-1]
        embedding = 4 * first

        def stack(widths: list[tuple[int, int]]) -> nn.ModuleList:
            return nn.ModuleList([LevelBlock(*width, embedding, groups, dropout) for width in widths])

        self.grid = 2 ** (len(channels) - 1)
        self.receptive_radius = _receptive_radius(len(channels), blocks)
        self.embed = LevelEmbedding(embedding)
        self.head = nn.Conv2d(inputs, first, 3, padding=1)
        self.falls = nn.ModuleList([stack([(width, width)] * blocks) for width in channels[:-1]])
        pairs = [(channels[number], channels[number + 1]) for number in range(len(channels) - 1)]
        self.shrink = nn.ModuleList([nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairs])
        self.bottom = stack([(last, last)] * 2)
        self.attention = Attention(last, groups) if attention else nn.Identity()
        self.enlarge = nn.ModuleList([nn.Conv2d(coarse, fine, 3, padding=1) for fine, coarse in pairs])
        self.rises = nn.ModuleList(
            [stack([(2 * width, width), *[(width, width)] * (blocks - 1)]) for width in channels[:-1]]
        )
        self.tail_norm = _norm(groups, first)
        self.tail = nn.Conv2d(first, outputs, 3, padding=1)
        nn.init.normal_(self.tail.weight, std=1e-3)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def encode(self, cells: torch.Tensor, level: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        """Return the features at the bottom, the skip connections, and the embedded level of cells."""
        embedded = self.embed(level)
        features = self.head(cells)
        skips: list[torch.Tensor] = []
        for stage, shrink in zip(self.falls, self.shrink, strict=True):
            for block in stage:  # type: ignore[attr-defined]
                features = block(features, embedded)
            skips.append(features)
            features = shrink(features)
        first, second = self.bottom
        return second(self.attention(first(features, embedded)), embedded), skips, embedded

    def decode(self, features: torch.Tensor, skips: list[torch.Tensor], embedded: torch.Tensor) -> torch.Tensor:
        """Return the prediction from the features at the bottom."""
        for stage, enlarge in zip(reversed(self.rises), reversed(self.enlarge), strict=True):
            features = enlarge(interpolate(features, scale_factor=2.0, mode="nearest"))
            features = torch.cat((features, skips.pop()), dim=1)
            for block in stage:  # type: ignore[attr-defined]
                features = block(features, embedded)
        return self.tail(silu(self.tail_norm(features)))

    def forward(self, cells: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        rows, columns = cells.shape[2], cells.shape[3]
        if rows % self.grid or columns % self.grid:
            raise ValueError(f"{rows}x{columns} cells, expected multiples of {self.grid}, which the U-Net halves.")
        return self.decode(*self.encode(cells, level))


def _receptive_radius(levels: int, blocks: int) -> int:
    """Return the receptive radius in cells, counting every convolution at its own level."""
    sides = sum(2**level * (4 * blocks + 3) for level in range(levels - 1))
    # Nearest-neighbour enlargement extends it to the end of a cell of the coarsest level.
    return 2 + sides + 2 ** (levels - 1) * 4 + 2 ** (levels - 1) - 1


DDPM_ETA = 1 - 1e-6
"""Eta of an ancestral step, as in `inferers.sampler_options.SAMPLERS`."""


class Ddim(nn.Module):
    """The steps of a sampler: their noise levels, and the step from one to the next.

    The arguments are those of a bundle's `diffusion` block in model.yaml, which `DiffusionProcess` checks.

    Args:
        schedule, training_steps, beta_start, beta_end, zero_terminal_snr: the process in training.
        prediction: prediction of the network: "epsilon", "sample" or "v_prediction".
        clip_sample: clip the noise-free cells to ``[-1, 1]`` in every step.
        sampler: "ddim", or "ddpm", which adds noise in every step but the last.
        steps: number of steps, which divides `training_steps`.
        samples: for the workflows, which may draw several; here it is one.
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
        self.prediction, self.clip_sample, self.steps = prediction, clip_sample, steps
        self.eta = DDPM_ETA if sampler == "ddpm" else 0.0
        alphas = alphas_cumprod(schedule, training_steps, beta_start, beta_end, zero_terminal_snr)
        # The first step begins in the last of training; after the last one no noise is left.
        step_alphas = torch.cat((alphas.flip(0)[:: training_steps // steps], alphas.new_ones(1)))
        self.register_buffer("alphas", step_alphas.float(), persistent=False)

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
    """Return the cumulative alpha of every training step, ``[steps]`` float64, falling."""
    if schedule == "linear":
        betas = torch.linspace(beta_start, beta_end, training_steps, dtype=torch.float64)
    elif schedule == "scaled_linear":
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, training_steps, dtype=torch.float64).square()
    else:  # squaredcos_cap_v2
        times = torch.linspace(0, 1, training_steps + 1, dtype=torch.float64)
        bar = ((times + 0.008) / 1.008 * math.pi / 2).cos().square()
        betas = (1 - bar[1:] / bar[:-1]).clamp_max(0.999)
    alphas = (1 - betas).cumprod(0)
    if not zero_terminal_snr:
        return alphas
    root = alphas.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
