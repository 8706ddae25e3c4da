"""SR3: a U-Net that turns noise into the high-resolution image, step by step, beside the interpolated image.

Saharia et al., "Image Super-Resolution via Iterative Refinement", IEEE TPAMI 45(4), 2023; the condition is the bicubic
enlargement, concatenated. The variational bottleneck is that of Roy and Paul, "Anomaly-focused Single Image
Super-resolution with Artifact Removal for Chest X-rays using Distribution-aware Diffusion Model", MIDL 2024: an encoder
(BLVE), a latent code (BLVL) and a decoder (BLVD) beside the bottom of the U-Net. Different there: the code is made for
every cell of a coarse grid instead of a dense layer over the whole image, which would fix the image's size; and it is
sampled, which the published code forgot.
"""

import torch
from torch import nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.noise_unet import NoiseUNet, Prediction

CODE_GRID = 2
"""Cells of the U-Net's bottom along each side of one code of the variational bottleneck."""


LARGEST_LOG_VARIANCE = 10.0
"""Beyond, the exponential of it would decide alone what is learnt."""


class VariationalBottleneck(nn.Module):
    """Encode features into normal distributions, draw a code (its mean outside training), and decode it.

    Args:
        channels: of the features.
        hidden: of the convolution before the code.
        code: numbers per code.
    """

    def __init__(self, channels: int, hidden: int = 32, code: int = 16) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(channels, hidden, 4, stride=2, padding=1), nn.SiLU())
        self.distribution = nn.Conv2d(hidden, 2 * code, 1)
        self.decode = nn.Sequential(
            nn.Conv2d(code, hidden, 1), nn.SiLU(), nn.ConvTranspose2d(hidden, channels, 4, stride=2, padding=1)
        )
        self.join = nn.Conv2d(2 * channels, channels, 1)
        # It joins as if it were not there: the U-Net learns what to take from it.
        nn.init.zeros_(self.join.weight)
        nn.init.zeros_(self.join.bias)  # type: ignore[arg-type]

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, log_variance = self.distribution(self.encode(features)).chunk(2, dim=1)
        log_variance = log_variance.clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)
        code = mean
        if self.training:
            code = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        decoded = self.decode(code)
        wanted = features.detach()
        # In units of the features: in their own, one that grows pulls the whole U-Net after it.
        reconstruction = (decoded - wanted).square().mean() / wanted.square().mean().clamp_min(1e-6)
        return features + self.join(torch.cat((features, decoded), dim=1)), divergence, reconstruction


class SR3(nn.Module):
    """Predict, from the noisy target and the enlarged image, what the diffusion process asks for.

    Everything is in cells: one per low-resolution pixel, with its ``scale * scale`` high-resolution pixels as channels.

    Args:
        scale: output pixels per input pixel along each axis.
        channels, blocks, groups, attention, dropout: of the U-Net; see `NoiseUNet`.
        patch: high-resolution pixels along each side of what the U-Net takes as one; 1 as published, `scale` by
            default, which is 16 times quicker for a scale of 4.
        residual_std: the target is the original minus its interpolation, in units of this; the original itself,
            scaled to ``[-1, 1]``, if None, as published.
        bottleneck: numbers per code of the variational bottleneck; none if 0.

    Shape:
        noisy: ``[B, scale * scale, rows, columns]``, rows and columns multiples of `grid`.
        condition: the same, from `encode`.
        level: ``[B]``, as in `NoiseUNet`.
        returns: as `noisy`.

    Raises:
        ValueError: as `NoiseUNet`; a patch that does not divide the scale.
    """

    process: torch.Tensor
    cell = 1
    """Low-resolution pixels along each side of a cell."""

    def __init__(
        self,
        scale: int = 4,
        channels: tuple[int, ...] = (48, 64, 96),
        blocks: int = 2,
        patch: int | None = None,
        residual_std: float | None = None,
        bottleneck: int = 0,
        groups: int = 0,
        attention: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        patch = scale if patch is None else patch
        if patch < 1 or scale % patch:
            raise ValueError(f"patch is {patch}, expected a divisor of the scale, which is {scale}.")
        self.scale, self.patch, self.spread, self.residual_std = scale, patch, scale // patch, residual_std
        self.channels = self.condition_channels = scale * scale
        self.enlarge = Bicubic(scale)
        self.unet = NoiseUNet(2 * patch * patch, patch * patch, channels, blocks, groups, attention, dropout)
        self.bottleneck = VariationalBottleneck(channels[-1], code=bottleneck) if bottleneck else None
        grid, radius = self.unet.grid, self.unet.receptive_radius
        if bottleneck:
            # Two convolutions of four at the bottom, and what is left to the end of a code's cell.
            grid, radius = grid * CODE_GRID, radius + grid * (2 * CODE_GRID + 1)
        self.grid = -(-grid // self.spread)
        self.receptive_radius = -(-radius // self.spread)
        # Which diffusion process the weights were trained for, as `Process.fingerprint`; zeros before training.
        self.register_buffer("process", torch.zeros(8))

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """The condition: the enlarged image ``[B, 1, rows, columns]`` as cells, ``[-1, 1]``."""
        return self.cells(2 * self.enlarge(image) - 1)

    def target(self, high: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """What the process ends at, from the original ``[B, 1, scale * rows, scale * columns]``."""
        cells = self.cells(2 * high - 1)
        return cells if self.residual_std is None else (cells - condition) / (2 * self.residual_std)

    def decode(self, cells: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The image ``[B, 1, scale * rows, scale * columns]``, not clipped, of cells the process has ended at."""
        if self.residual_std is not None:
            cells = condition + 2 * self.residual_std * cells
        return pixel_shuffle(pixel_shuffle(0.5 * cells + 0.5, self.spread), self.patch)

    def predict(self, noisy: torch.Tensor, condition: torch.Tensor, level: torch.Tensor) -> Prediction:
        """The prediction with the losses of the bottleneck."""
        rows, columns = noisy.shape[2], noisy.shape[3]
        if rows % self.grid or columns % self.grid:
            raise ValueError(f"{rows}x{columns} cells, expected multiples of {self.grid}, which the U-Net halves.")
        cells = torch.cat((pixel_shuffle(noisy, self.spread), pixel_shuffle(condition, self.spread)), dim=1)
        features, passed, embedded = self.unet.fall(cells, level)
        divergence = reconstruction = features.new_zeros(())
        if self.bottleneck is not None:
            features, divergence, reconstruction = self.bottleneck(features)
        predicted = self.unet.rise(features, passed, embedded)
        return Prediction(pixel_unshuffle(predicted, self.spread), divergence, reconstruction)

    def forward(self, noisy: torch.Tensor, condition: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return self.predict(noisy, condition, level).cells

    def cells(self, pixels: torch.Tensor) -> torch.Tensor:
        """``[B, 1, scale * rows, scale * columns]`` as ``[B, scale * scale, rows, columns]``."""
        # Patches first: shuffled by `spread` they lie where they were.
        return pixel_unshuffle(pixel_unshuffle(pixels, self.patch), self.spread)
