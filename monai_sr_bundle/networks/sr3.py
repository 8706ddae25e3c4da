"""SR3: a U-Net that turns noise into the high-resolution image, step by step, given the interpolated image.

Saharia et al., "Image Super-Resolution via Iterative Refinement", IEEE TPAMI 45(4), 2023; the condition is the bicubic
enlargement, concatenated. The variational bottleneck is that of Roy and Paul, "Anomaly-focused Single Image
Super-resolution with Artifact Removal for Chest X-rays using Distribution-aware Diffusion Model", MIDL 2024: an encoder
(BLVE), a latent code (BLVL) and a decoder (BLVD) parallel to the bottom of the U-Net. Different from there: every cell
of a coarse grid has a code, because a dense layer over the image would fix its size; and the code is sampled, which the
published implementation omits.
"""

import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.noise_unet import Ddim, NoiseUNet, Prediction
from torch import nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

CODE_GRID = 2
"""Number of cells of the U-Net's bottom along each side of one code of the variational bottleneck."""


LARGEST_LOG_VARIANCE = 10.0
"""Limit of the log variance, beyond which its exponential would dominate the loss."""


class VariationalBottleneck(nn.Module):
    """A bottleneck that encodes features as normal distributions and decodes a sample (the mean outside training).

    Args:
        channels: channels of the features.
        hidden: channels of the convolution before the code.
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
        # The bottleneck starts without effect: the U-Net learns what to use of it.
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
        target = features.detach()
        # Relative to the energy of the features: an absolute error grows with them and would dominate the U-Net.
        reconstruction = (decoded - target).square().mean() / target.square().mean().clamp_min(1e-6)
        return features + self.join(torch.cat((features, decoded), dim=1)), divergence, reconstruction


class SR3(nn.Module):
    """A drawn high-resolution image (`forward`), and the denoiser of the diffusion process that draws it (`denoise`).

    The denoiser works on cells: one per low-resolution pixel, with its ``scale * scale`` high-resolution pixels as
    channels.

    Args:
        scale: output pixels per input pixel along each axis.
        channels, blocks, groups, attention, dropout: arguments of the U-Net; see `NoiseUNet`.
        patch: side of a cell of the U-Net in high-resolution pixels; 1 as published, `scale` by default, which is 16
            times faster for a scale of 4.
        residual_std: unit of the residual (original minus interpolation) that is the target. None, as published, makes
            the original, scaled to ``[-1, 1]``, the target.
        bottleneck: numbers per code of the variational bottleneck; 0, the default, for none.
        diffusion: the bundle's `diffusion` block, by which `forward` draws; see `Ddim`. None, the default, for a
            network that only denoises.

    Shape:
        image: ``[B, 1, rows, columns]``, intensities near ``[0, 1]``.
        noise: cells to begin with, ``[B, channels, rows, columns]`` of the image padded to whole cells. None, the
            default, draws them.
        returns: ``[B, 1, scale * rows, scale * columns]``, not clipped: one sample.

    Raises:
        ValueError: a patch that does not divide the scale, or arguments that `NoiseUNet` refuses.
    """

    process: torch.Tensor
    cell = 1
    """Number of low-resolution pixels along each side of a cell."""

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
        diffusion: dict[str, object] | None = None,
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
            # Two 4x4 convolutions at the bottom, and the distance to the end of a code's cell.
            grid, radius = grid * CODE_GRID, radius + grid * (2 * CODE_GRID + 1)
        self.grid = -(-grid // self.spread)
        self.receptive_radius = -(-radius // self.spread)
        # The diffusion process that the weights were trained for, as its `fingerprint`; zeros before training.
        self.register_buffer("process", torch.zeros(8))
        self.ddim = None if diffusion is None else Ddim(**diffusion)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        if self.ddim is None:
            raise ValueError("this network only denoises; it draws an image if it was made with `diffusion`.")
        rows, columns = image.shape[2], image.shape[3]
        padding = [0, -columns % self.grid, 0, -rows % self.grid]
        condition = self.encode(pad(image, padding, mode="replicate"))
        cells = torch.randn_like(condition) if noise is None else noise
        for step in range(self.ddim.steps):
            cells = self.ddim(step, cells, self.denoise(cells, condition, self.ddim.level(step, len(image))))
        return self.decode(cells, condition)[:, :, : self.scale * rows, : self.scale * columns]

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Return the condition: the enlarged image of ``[B, 1, rows, columns]`` as cells in ``[-1, 1]``."""
        return self.cells(2 * self.enlarge(image) - 1)

    def target(self, high: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the cells at the end of the process for the original ``[B, 1, scale * rows, scale * columns]``."""
        cells = self.cells(2 * high - 1)
        return cells if self.residual_std is None else (cells - condition) / (2 * self.residual_std)

    def decode(self, cells: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the image ``[B, 1, scale * rows, scale * columns]``, not clipped, of the process's last cells."""
        if self.residual_std is not None:
            cells = condition + 2 * self.residual_std * cells
        return pixel_shuffle(pixel_shuffle(0.5 * cells + 0.5, self.spread), self.patch)

    def predict(self, noisy: torch.Tensor, condition: torch.Tensor, level: torch.Tensor) -> Prediction:
        """Return the prediction with the losses of the bottleneck."""
        rows, columns = noisy.shape[2], noisy.shape[3]
        if rows % self.grid or columns % self.grid:
            raise ValueError(f"{rows}x{columns} cells, expected multiples of {self.grid}, which the U-Net halves.")
        cells = torch.cat((pixel_shuffle(noisy, self.spread), pixel_shuffle(condition, self.spread)), dim=1)
        features, skips, embedded = self.unet.encode(cells, level)
        divergence = reconstruction = features.new_zeros(())
        if self.bottleneck is not None:
            features, divergence, reconstruction = self.bottleneck(features)
        predicted = self.unet.decode(features, skips, embedded)
        return Prediction(pixel_unshuffle(predicted, self.spread), divergence, reconstruction)

    def denoise(self, noisy: torch.Tensor, condition: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Return the prediction, in the shape of `noisy`.

        Args:
            noisy: ``[B, scale * scale, rows, columns]``, rows and columns multiples of `grid`.
            condition: cells of the same shape, from `encode`.
            level: ``[B]``, as in `NoiseUNet`.
        """
        return self.predict(noisy, condition, level).cells

    def cells(self, pixels: torch.Tensor) -> torch.Tensor:
        """Convert ``[B, 1, scale * rows, scale * columns]`` to cells ``[B, scale * scale, rows, columns]``."""
        # Patches first, so that a shuffle by `spread` puts them back in their positions.
        return pixel_unshuffle(pixel_unshuffle(pixels, self.patch), self.spread)
