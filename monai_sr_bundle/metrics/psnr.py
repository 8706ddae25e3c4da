"""Peak signal-to-noise ratio, with the one definition used everywhere in this project."""

import torch
from monai.metrics.regression import PSNRMetric

from monai_sr_bundle.metrics.stored import as_stored


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
