"""Structural similarity, at one scale and at five, with the constants fixed."""

import torch
from monai.metrics.regression import MultiScaleSSIMMetric, SSIMMetric

from monai_sr_bundle.metrics.stored import as_stored


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
