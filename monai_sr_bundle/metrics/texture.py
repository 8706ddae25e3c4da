"""Texture: its distribution over the frequencies, and a distance in features.

Regression gives too little above the Nyquist frequency of the input, a GAN the right amount of the wrong detail; PSNR
shows neither. Spectral metrics compare radially averaged power spectra between the Nyquist frequencies of the input and
of the original. The features are those of a recognition network, and their distance is not calibrated to readers.
"""

from __future__ import annotations

from pathlib import Path

import torch
from monai.metrics.regression import RegressionMetric
from monai_sr_bundle.losses.perceptual import Features
from monai_sr_bundle.metrics.fidelity import as_stored

HIGHEST = 0.43
"""Cycles per pixel of the last ring, 86 % of Nyquist; above it, the original's own reduction left almost no energy."""


def ring_power(image: torch.Tensor, scale: int) -> torch.Tensor:
    """Return the radially averaged power spectrum of mean-free images, above the Nyquist frequency of their reduction.

    Rings are one cycle of the shorter side wide and centred on whole cycles: the first is the first one above
    ``0.5 / scale`` cycles per pixel, the last one lies at or below `HIGHEST` (rings 33 to 110 for 256 pixels reduced
    by 4). Frequencies are per pixel, so that the rings are round for any shape.

    The image is faded to its mean towards the borders (Hann). A Fourier transform repeats it; without the fading, the
    steps between opposite borders have power at all frequencies, as much in a blurred image as in a sharp one:
    bicubic radiographs would seem to keep 0.59 of the energy and keep 0.06.

    Args:
        image: ``[B, 1, rows, columns]``.
        scale: factor of the reduction, 2 or more.

    Returns:
        ``[B, rings]`` float64, mean power of each ring; no rings for an image that is too small for one.
    """
    rows, columns = image.shape[-2:]
    image = image[:, 0].double()
    image = image - image.mean(dim=(-2, -1), keepdim=True)
    fade = [torch.hann_window(size, periodic=False, dtype=image.dtype) for size in (rows, columns)]
    image = image * torch.outer(*fade).to(image.device)
    power = torch.fft.fft2(image).abs() ** 2
    frequency = torch.hypot(torch.fft.fftfreq(rows)[:, None].double(), torch.fft.fftfreq(columns)[None, :].double())
    side = min(rows, columns)
    ring = torch.round(frequency * side).long().flatten().to(image.device)
    first, last = side // (2 * scale) + 1, int(HIGHEST * side)
    sums = torch.stack([torch.bincount(ring, weights=one.flatten()) for one in power])
    return sums[:, first : last + 1] / torch.bincount(ring)[first : last + 1]


class SpectralMetric(RegressionMetric):
    """The base of the metrics that compare `ring_power`.

    Args:
        scale: factor of the degradation.
        levels: steps of the storage between 0 and 1; both images are clamped and rounded to them first.

    Shape:
        pred, target: ``[B, 1, rows, columns]``; returns ``[B, 1]``.
    """

    def __init__(self, scale: int, levels: int = 255) -> None:
        super().__init__()
        self.scale, self.levels = scale, levels

    def rings(self, image: torch.Tensor) -> torch.Tensor:
        """Return the `ring_power` of images as they are stored."""
        return ring_power(as_stored(image, self.levels), self.scale)


class LogSpectralDistance(SpectralMetric):
    """Root mean square over the rings of ``10 log10`` of the ratio of `ring_power`, in dB; 0 is right.

    A ring without any energy counts as if it held that of rounding to the storage, white noise of ``1 / (12 levels^2)``
    per pixel. Not-a-number for an image too small for a ring.
    """

    def _compute_metric(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # Power of white noise per frequency; 3/8 is the mean square of a Hann window along each axis.
        rounding = (3 / 8) ** 2 * y.shape[-2] * y.shape[-1] / (12.0 * self.levels**2)
        pred, target = self.rings(y_pred), self.rings(y)
        decibels = 10.0 * torch.log10(pred.clamp_min(rounding) / target.clamp_min(rounding))
        return decibels.square().mean(dim=1, keepdim=True).sqrt().float()


class FeatureDistance(RegressionMetric):
    """The square distance of unit feature vectors, averaged over positions, summed over depths.

    The form of LPIPS without its learned weights (Zhang et al., "The unreasonable effectiveness of deep features as a
    perceptual metric", CVPR 2018): every channel has the same weight, and no reader's judgement was fitted. It is not
    LPIPS, and its numbers cannot be compared with LPIPS.

    Args:
        backbone: weights file of SqueezeNet 1.0 or VGG-19, see `losses.perceptual.load_backbone`.
        levels: steps of the storage between 0 and 1; both images are clamped and rounded to them first.

    Shape:
        pred, target: ``[B, 1, rows, columns]``; returns ``[B, 1]``, 0 for equal images.

    Raises:
        InputError: weights that cannot be read or belong to another network.
    """

    def __init__(self, backbone: Path | str, levels: int = 255) -> None:
        super().__init__()
        self.levels = levels
        self.features = Features(backbone)

    @torch.inference_mode()
    def _compute_metric(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.features.to(y.device)
        pred_features = self.features(as_stored(y_pred, self.levels))
        target_features = self.features(as_stored(y, self.levels))
        distance = torch.zeros(len(y), device=y.device)
        for predicted, expected in zip(pred_features, target_features, strict=True):
            difference = _normalise(predicted) - _normalise(expected)
            distance = distance + difference.square().sum(dim=1).mean(dim=(1, 2))
        return distance[:, None]


def _normalise(features: torch.Tensor) -> torch.Tensor:
    return features / features.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-10)
