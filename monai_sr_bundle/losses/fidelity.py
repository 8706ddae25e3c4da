"""The loss of a network that is trained for PSNR: robust first, exact at the end."""

import torch
from torch import Tensor, nn


class FidelityLoss(nn.Module):
    """L1 for the first part of the training, then the PSNR itself.

    L1 finds a good region quickly and ignores the few very hard pixels (Zhao et al., "Loss functions for image
    restoration with neural networks", IEEE TCI 2017). The second part minimises the mean of ``log MSE`` per patch,
    which is the reported metric up to a factor (as in Chen et al., "HINet", CVPR Workshops 2021).

    Args:
        switch_at: fraction of the training after which the second part begins; `progress` is the fraction so far.
        floor: mean square error below which a patch counts as solved, so that black borders do not dominate.
        harm: weight of the amount by which the log error of a patch exceeds the baseline's, in the second part.

    Shape:
        pred, target: ``[B, 1, rows, columns]`` in ``[0, 1]``; returns a scalar.
        weight: weight of each pixel, in the same shape. Default: 1 everywhere.
        baseline: image that `pred` should nowhere be worse than, in the same shape. Default: none.
    """

    progress: float

    def __init__(self, switch_at: float = 0.5, floor: float = 2e-5, harm: float = 0.0) -> None:
        super().__init__()
        self.switch_at, self.floor, self.harm = switch_at, floor, harm
        self.progress = 0.0

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | float = 1.0, baseline: Tensor | None = None
    ) -> Tensor:
        if self.progress < self.switch_at:
            return (weight * (pred - target).abs()).mean()
        loss = self._log_error(pred, target, weight)
        if baseline is not None:
            loss = loss + self.harm * torch.relu(loss - self._log_error(baseline, target, weight))
        # Scaled so that the gradient is of the order of the first part's: 0.01 is a usual L1 error.
        return 0.01 * loss.mean()

    def _log_error(self, pred: Tensor, target: Tensor, weight: Tensor | float) -> Tensor:
        return torch.log((weight * (pred - target).square()).flatten(1).mean(dim=1) + self.floor)
