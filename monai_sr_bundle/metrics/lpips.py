"""LPIPS, if its weights are on this machine; they are never downloaded."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import torch
from monai.metrics.regression import RegressionMetric
from monai_sr_bundle import _compat
from monai_sr_bundle.metrics.fidelity import as_stored

BACKBONE = "alexnet-owt-7be5be79.pth"
"""Weights file of torchvision's AlexNet; the lpips package holds only the linear layers on top of it."""


def why_unavailable() -> str | None:
    """Return the reason why LPIPS cannot be computed here, for a table; None if it can."""
    if importlib.util.find_spec("lpips") is None:
        return "the package lpips is not installed (extra [metrics])"
    if not (Path(torch.hub.get_dir()) / "checkpoints" / BACKBONE).is_file():
        return f"its backbone {BACKBONE} is not in {Path('checkpoints')} of the torch hub folder"
    return None


class LPIPS(RegressionMetric):
    """Learned perceptual distance, AlexNet, version 0.1; lower is more alike.

    Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018. Grey images are
    repeated to three channels and mapped to [-1, 1], as the package expects.

    Args:
        levels: steps of the storage between 0 and 1.
        random_backbone: use an untrained backbone. Its numbers mean nothing; for tests of the arithmetic only.

    Shape:
        pred, target: ``[B, 1, rows, columns]``; returns ``[B, 1]``.

    Raises:
        RuntimeError: the weights are not on this machine; call `why_unavailable` first.
    """

    def __init__(self, levels: int = 255, *, random_backbone: bool = False) -> None:
        super().__init__()
        reason = None if random_backbone else why_unavailable()
        if reason:
            raise RuntimeError(f"LPIPS is unavailable: {reason}. It is left out and not replaced by another number.")
        _compat.import_torchvision()
        import lpips

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's deprecation of an argument that lpips still passes
            self.network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=random_backbone, verbose=False).eval()
        self.levels = levels

    @torch.no_grad()
    def _compute_metric(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        pred, target = (2 * as_stored(image, self.levels).repeat(1, 3, 1, 1) - 1 for image in (y_pred, y))
        return self.network(pred, target).flatten()[:, None]
