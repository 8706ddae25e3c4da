"""PSNR and structural similarity, with the one definition used everywhere in this project.

Metrics compare images as a user stores them, not the network's floats: the images are rounded to the storage first.
"""

import torch
from monai.metrics.regression import PSNRMetric, SSIMMetric


def as_stored(image: torch.Tensor, levels: int = 255) -> torch.Tensor:
    """Clamp to ``[0, 1]`` and round to the steps of the storage.

    Args:
        image: any shape.
        levels: steps between 0 and 1: 255 for 8 bits, 1400 for whole HU in a window of 1400 HU.
    """
    return torch.round(image.clamp(0.0, 1.0) * levels) / levels


def level_limits(levels: int) -> tuple[float, float] | None:
    """Return the smallest and largest number that a storage of these levels can hold, or None for any.

    8 bits hold nothing outside the window; HU beyond it are stored like others.
    """
    return (0.0, 1.0) if levels == 255 else None


class PSNR(PSNRMetric):
    """PSNR in dB per image, then the mean over images; no border is cropped.

    Images are clamped to [0, 1] and rounded to the storage first, and the data range is 1. The mean square error of
    two images that are equal as stored counts as that of rounding, ``1 / (12 levels^2)`` (58.9 dB for 8 bits), so
    that one perfect image does not make a mean infinite.

    Args:
        levels: steps of the storage between 0 and 1.

    Shape:
        pred, target: ``[B, 1, rows, columns]``; returns ``[B, 1]``.
    """

    def __init__(self, levels: int = 255) -> None:
        super().__init__(max_val=1.0)
        self.levels = levels

    def _compute_metric(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = super()._compute_metric(as_stored(y_pred, self.levels), as_stored(y, self.levels))
        highest = 10.0 * torch.log10(torch.tensor(12.0 * self.levels**2))
        return value.clamp(max=float(highest))


class SSIM(SSIMMetric):
    """SSIM with a Gaussian window of 11 pixels and sigma 1.5, data range 1, valid positions only.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 13(4), 2004.
    Images are clamped and rounded to the storage first.

    Args:
        levels: steps of the storage between 0 and 1.

    Shape:
        pred, target: ``[B, 1, rows, columns]``, at least 11 on a side; returns ``[B, 1]``.
    """

    def __init__(self, levels: int = 255) -> None:
        super().__init__(spatial_dims=2, data_range=1.0, kernel_type="gaussian", win_size=11, kernel_sigma=1.5)
        self.levels = levels

    def _compute_metric(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return super()._compute_metric(as_stored(y_pred, self.levels), as_stored(y, self.levels))
