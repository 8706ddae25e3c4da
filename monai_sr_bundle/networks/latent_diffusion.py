"""Latent diffusion: a small autoencoder, and a U-Net that removes noise from the latents of the image.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022; for chest radiographs with a
U-Net of 813,220 weights on four channels at an eighth of the resolution, conditioned on the encoded interpolation
(Raad et al., "Medical Image Super Resolution", University of Toronto; see the card). The autoencoder is ours and
trained on radiographs, because none was published.
"""

from typing import NamedTuple

import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.noise_unet import Ddim, NoiseUNet, Prediction
from torch import nn
from torch.nn.functional import interpolate, pad, pixel_shuffle, pixel_unshuffle, silu

LARGEST_LOG_VARIANCE = 10.0


class Posterior(NamedTuple):
    """The normal distribution of an image's latents, ``[B, C, rows, columns]`` each."""

    mean: torch.Tensor
    log_variance: torch.Tensor

    def sample(self) -> torch.Tensor:
        """Draw latents from the distribution."""
        return self.mean + (0.5 * self.log_variance).exp() * torch.randn_like(self.mean)

    def divergence(self) -> torch.Tensor:
        """Return the divergence from the standard normal distribution in nats, mean over all latents."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).mean()


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.second.weight, std=0.01)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.second(silu(self.first(silu(features)))).add_(features)


class _Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(interpolate(features, scale_factor=2.0, mode="nearest"))


class Autoencoder(nn.Module):
    """A convolutional encoder of pixels to a few numbers per cell, and its decoder, without normalisation.

    Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, in the form of Rombach et al. 2022 ("KL").

    Args:
        factor: pixels along each side of a cell, a power of two from 4.
        latents: numbers per cell.
        channels: features at 2, 4, ... pixels, one number for each power of two in the factor.

    Raises:
        ValueError: another factor, or another number of channels.
    """

    def __init__(self, factor: int = 8, latents: int = 4, channels: tuple[int, ...] = (32, 64, 96)) -> None:
        super().__init__()
        if factor < 4 or factor != 2 ** len(channels):
            raise ValueError(
                f"factor is {factor} with {len(channels)} widths, expected a power of two from 4 with one width for "
                "each power."
            )
        first, last = channels[0], channels[-1]
        pairs = [(channels[number], channels[number + 1]) for number in range(len(channels) - 1)]
        self.encoder = nn.Sequential(nn.Conv2d(4, first, 3, padding=1), _Block(first))
        for fine, coarse in pairs:
            self.encoder.extend([nn.Conv2d(fine, coarse, 3, stride=2, padding=1), _Block(coarse)])
        self.encoder.extend([_Block(last), nn.Conv2d(last, 2 * latents, 1)])
        self.decoder = nn.Sequential(nn.Conv2d(latents, last, 3, padding=1), _Block(last), _Block(last))
        for fine, coarse in reversed(pairs):
            self.decoder.extend([_Up(coarse, fine), _Block(fine)])
        self.decoder.extend([nn.SiLU(), nn.Conv2d(first, 4, 3, padding=1)])

    def encode(self, pixels: torch.Tensor) -> Posterior:
        """Return the distribution of ``[B, latents, rows, columns]`` of ``[B, 1, factor * rows, factor * columns]``."""
        mean, log_variance = self.encoder(pixel_unshuffle(pixels, 2)).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-3 * LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the pixels of latents."""
        return pixel_shuffle(self.decoder(latents), 2)


class LatentDiffusion(nn.Module):
    """A drawn high-resolution image (`forward`), and the denoiser of its latents (`denoise`), given a condition.

    Args:
        scale: output pixels per input pixel along each axis.
        factor, latents, autoencoder_channels: arguments of the `Autoencoder`; a cell has `factor` output pixels a side.
        channels, blocks: arguments of the U-Net; see `NoiseUNet`.
        residual_std: unit of the residual (original minus interpolation) that the autoencoder encodes, with the
            interpolation as condition. None, as published, encodes the original, with the interpolation's latents.
        diffusion: the bundle's `diffusion` block, by which `forward` draws; see `Ddim`. None, the default, for a
            network that only denoises.

    Shape:
        image: ``[B, 1, rows, columns]``, intensities near ``[0, 1]``.
        noise: latents to begin with, ``[B, latents, rows, columns]`` of the image padded to whole cells. None, the
            default, draws them.
        returns: ``[B, 1, scale * rows, scale * columns]``, not clipped: one sample.

    Raises:
        ValueError: a factor that is no multiple of the scale, or arguments that `NoiseUNet` or `Autoencoder` refuses.
    """

    process: torch.Tensor
    latent_std: torch.Tensor

    def __init__(
        self,
        scale: int = 4,
        factor: int = 8,
        latents: int = 4,
        autoencoder_channels: tuple[int, ...] = (32, 64, 96),
        channels: tuple[int, ...] = (32, 60, 68),
        blocks: int = 2,
        residual_std: float | None = None,
        diffusion: dict[str, object] | None = None,
    ) -> None:
        super().__init__()
        if factor % scale:
            raise ValueError(f"factor is {factor}, expected a multiple of the scale, which is {scale}.")
        self.scale, self.factor, self.cell, self.residual_std = scale, factor, factor // scale, residual_std
        self.channels = latents
        self.enlarge = Bicubic(scale)
        self.autoencoder = Autoencoder(factor, latents, autoencoder_channels)
        self.condition_channels = latents if residual_std is None else factor * factor
        self.unet = NoiseUNet(latents + self.condition_channels, latents, channels, blocks)
        self.grid = self.unet.grid
        # The receptive radius of the autoencoder, interpolation included, is below ten cells at each end.
        self.receptive_radius = max(self.unet.receptive_radius, 9)
        # Latents are divided by it (Rombach et al., appendix G); measured on the first batch of the second stage.
        self.register_buffer("latent_std", torch.zeros(()))
        self.register_buffer("process", torch.zeros(8))
        self.ddim = None if diffusion is None else Ddim(**diffusion)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        if self.ddim is None:
            raise ValueError("this network only denoises; it draws an image if it was made with `diffusion`.")
        rows, columns = image.shape[2], image.shape[3]
        multiple = self.cell * self.grid
        condition = self.encode(pad(image, [0, -columns % multiple, 0, -rows % multiple], mode="replicate"))
        if noise is None:
            noise = torch.randn_like(condition[:, :1].expand(-1, self.channels, -1, -1))
        cells = noise
        for step in range(self.ddim.steps):
            cells = self.ddim(step, cells, self.denoise(cells, condition, self.ddim.level(step, len(image))))
        return self.decode(cells, condition)[:, :, : self.scale * rows, : self.scale * columns]

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Return the condition of a low-resolution image, or of its pixels ``[B, cell * cell, rows, columns]``."""
        image = pixel_shuffle(image, self.cell) if image.shape[1] > 1 else image
        enlarged = 2 * self.enlarge(image) - 1
        if self.residual_std is not None:
            return pixel_unshuffle(enlarged, self.factor)
        return self._scaled(self.autoencoder.encode(enlarged).mean)

    def target(self, high: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the latents at the end of the process for the original ``[B, 1, scale * rows, scale * columns]``."""
        posterior = self.autoencoder.encode(self._pixels(high, condition))
        latents = posterior.sample() if self.training else posterior.mean
        if not self.latent_std:
            self.latent_std.copy_(latents.std())
        return self._scaled(latents)

    def decode(self, cells: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the image ``[B, 1, factor * rows, factor * columns]``, not clipped, of the process's last latents."""
        return self._image(self.autoencoder.decode(cells * self.latent_std), condition)

    def reconstruct(self, high: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the original after encoding and decoding, and the divergence of its latents."""
        posterior = self.autoencoder.encode(self._pixels(high, condition))
        latents = posterior.sample() if self.training else posterior.mean
        return self._image(self.autoencoder.decode(latents), condition), posterior.divergence()

    def cells(self, pixels: torch.Tensor) -> torch.Tensor:
        """Convert a mask of pixels to one of cells; a cell is inside a box if any of its pixels is."""
        return nn.functional.max_pool2d(pixels, self.factor).expand(-1, self.channels, -1, -1)

    def predict(self, noisy: torch.Tensor, condition: torch.Tensor, level: torch.Tensor) -> Prediction:
        """Return the prediction in the form of all diffusion networks in training."""
        none = noisy.new_zeros(())
        return Prediction(self.denoise(noisy, condition, level), none, none)

    def denoise(self, noisy: torch.Tensor, condition: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Return the prediction, in the shape of `noisy`.

        Args:
            noisy: ``[B, latents, rows, columns]``, rows and columns multiples of `grid`.
            condition: from `encode`.
            level: ``[B]``, as in `NoiseUNet`.
        """
        return self.unet(torch.cat((noisy, condition), dim=1), level)

    def _scaled(self, latents: torch.Tensor) -> torch.Tensor:
        return latents / self.latent_std if self.latent_std else latents

    def _pixels(self, high: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the autoencoder's input for an original."""
        pixels = 2 * high - 1
        if self.residual_std is None:
            return pixels
        return (pixels - pixel_shuffle(condition, self.factor)) / (2 * self.residual_std)

    def _image(self, pixels: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        if self.residual_std is not None:
            pixels = pixel_shuffle(condition, self.factor) + 2 * self.residual_std * pixels
        return 0.5 * pixels + 0.5
