"""A distance in the features of a recognition network, not calibrated to readers."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.metrics.regression import RegressionMetric

from monai_sr_bundle.losses.feature import Features
from monai_sr_bundle.metrics.stored import as_stored


class FeatureDistance(RegressionMetric):
    """The square distance of unit feature vectors, averaged over positions, summed over depths.

    The form of LPIPS without its learned weights (Zhang et al., "The unreasonable effectiveness of deep features as a
    perceptual metric", CVPR 2018): every channel has the same weight, and no reader's judgement was fitted. It is not
    LPIPS, and its numbers cannot be compared with LPIPS.

    Args:
        backbone: weights file of SqueezeNet 1.0 or VGG-19, see `losses.feature.load_backbone`.
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
        self._last: tuple[torch.Tensor, list[torch.Tensor]] | None = None

    @torch.inference_mode()
    def _compute_metric(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.features.to(y.device)
        pred_features = self.features(as_stored(y_pred, self.levels))
        target_features = self._target_features(y)
        distance = torch.zeros(len(y), device=y.device)
        for predicted, expected in zip(pred_features, target_features, strict=True):
            difference = _normalise(predicted) - _normalise(expected)
            distance = distance + difference.square().sum(dim=1).mean(dim=(1, 2))
        return distance[:, None]

    def _target_features(self, y: torch.Tensor) -> list[torch.Tensor]:
        # Many methods are compared with one original, one after the other.
        if self._last is None or self._last[0] is not y:
            self._last = (y, self.features(as_stored(y, self.levels)))
        return self._last[1]


def _normalise(features: torch.Tensor) -> torch.Tensor:
    return features / features.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-10)
