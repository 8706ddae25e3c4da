"""Universal image quality index, inside the body."""

import torch
from monai.metrics.regression import RegressionMetric
from monai_sr_bundle.metrics.fidelity import as_stored
from torch.nn.functional import avg_pool2d


class UQI(RegressionMetric):
    """SSIM without its stabilising constants, over a sliding uniform window, averaged over the body.

    Wang and Bovik, "A universal image quality index", IEEE Signal Processing Letters 9(3), 2002. Without constants a
    flat black border is 0 / 0, so only windows count whose target is brighter than `background` on average and not
    constant. An image without any such window gets not-a-number.

    Args:
        levels: steps of the storage between 0 and 1; both images are clamped and rounded to them first.
        window: side of the window, 8 in the paper.
        background: mean intensity up to which a window of the target counts as air.

    Shape:
        pred, target: ``[B, 1, rows, columns]``, at least `window` on a side; returns ``[B, 1]``.
    """

    def __init__(self, levels: int = 255, window: int = 8, background: float = 0.05) -> None:
        super().__init__()
        self.levels, self.window, self.background = levels, window, background

    def _compute_metric(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # In float64: without constants, a variance of one grey level in one pixel must not drown in rounding.
        pred, target = as_stored(y_pred, self.levels).double(), as_stored(y, self.levels).double()

        def local(image: torch.Tensor) -> torch.Tensor:
            return avg_pool2d(image, self.window, stride=1)

        mean_pred, mean_target = local(pred), local(target)
        variance_pred = local(pred * pred) - mean_pred**2
        variance_target = local(target * target) - mean_target**2
        covariance = local(pred * target) - mean_pred * mean_target
        denominator = (variance_pred + variance_target) * (mean_pred**2 + mean_target**2)
        counts = (mean_target > self.background) & (variance_target > 1e-9) & (denominator > 0)
        quality = torch.where(counts, 4 * covariance * mean_pred * mean_target / denominator.clamp_min(1e-30), 0.0)
        return (quality.flatten(1).sum(dim=1) / counts.flatten(1).sum(dim=1)).float()[:, None]
