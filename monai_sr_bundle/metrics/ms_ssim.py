"""Multi-scale structural similarity, of the images as they would be stored."""

import torch
from monai.metrics.regression import MultiScaleSSIMMetric
from monai_sr_bundle.metrics.fidelity import as_stored

SMALLEST_SIDE = 11 * 16
"""Smallest side of an image in which the window of 11 pixels fits after four halvings."""


class MSSSIM(MultiScaleSSIMMetric):
    """SSIM at five scales, same window and constants.

    Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality assessment", Asilomar 2003.

    Shape:
        pred, target: ``[B, 1, rows, columns]``; returns ``[B, 1]``, not-a-number for a side below `SMALLEST_SIDE`.
    """

    def __init__(self, levels: int = 255) -> None:
        super().__init__(spatial_dims=2, data_range=1.0, kernel_type="gaussian", kernel_size=11, kernel_sigma=1.5)
        self.levels = levels

    def _compute_metric(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if min(y.shape[-2:]) < SMALLEST_SIDE:
            return torch.full((len(y), 1), torch.nan)
        return super()._compute_metric(as_stored(y_pred, self.levels), as_stored(y, self.levels))
