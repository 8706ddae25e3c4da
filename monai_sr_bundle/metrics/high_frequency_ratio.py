"""High-frequency energy: how much texture a result has above the Nyquist frequency of its input."""

import torch
from monai_sr_bundle.metrics.texture import SpectralMetric


class HighFrequencyRatio(SpectralMetric):
    """High-frequency energy of the result in units of the original's: 1 is right, less is blurred, more is invented.

    The sum of `ring_power` over the rings, of the result by that of the original. Not-a-number if the original has
    no such energy.
    """

    def _compute_metric(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        pred, target = self.rings(y_pred).sum(dim=1), self.rings(y).sum(dim=1)
        return torch.where(target > 0, pred / target, torch.nan).float()[:, None]
