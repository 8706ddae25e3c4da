"""Grey levels and features together: sharper than grey levels alone, without a discriminator."""

import torch
from torch import nn


class PerceptualLoss(nn.Module):
    """The mean absolute difference plus a distance in features.

    Johnson et al., "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016; the grey levels
    are included because features alone carry little brightness.

    Args:
        features: module of `pred` and `target`, such as `losses.feature.FeatureLoss`.
        feature_weight: weight of the distance in features.

    Shape:
        pred, target: ``[B, 1, rows, columns]`` in ``[0, 1]``; returns a scalar.
    """

    def __init__(self, features: nn.Module, feature_weight: float) -> None:
        super().__init__()
        self.features, self.feature_weight = features, feature_weight

    def forward(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (pred - target).abs().mean() + self.feature_weight * self.features(pred, target)
