"""Training of a regression with more weight inside boxes, and of the mask of what was drawn into its input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.utils.enums import CommonKeys
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.losses.fidelity import FidelityLoss
from monai_sr_bundle.training.step import Objective, full_precision

VISIBLE = 2 / 255
"""By how much a mark has to change one high-resolution pixel of a cell for the mask to be asked for it."""


class RegressionObjective(Objective):
    """The loss of a regression, each pixel weighted by 1, and by ``1 + box_weight`` inside the boxes of anomalies.

    Of a network with a mask, ``mask_weight`` times the mask's cross-entropy is added. Its truth are the low-resolution
    pixels in which dirty and clean original differ; as they are few, they count `mask_balance` times. A network that
    also has a flow is marked as one whose flow is still to be trained.

    Args:
        network: network to train; with `with_mask` if it has a `mask`.
        loss: takes `pred` and `target`, and the weight of each pixel where there are boxes.
        box_weight: the same as above; a batch then has the `mask` of the boxes, ``[B, 1, scale * rows, scale *
            columns]``, 1 inside them.
        mask_weight, mask_balance: the same as above; a batch then has `dirty`, the original with drawn marks.

    Shape:
        image: ``[B, C, rows, columns]`` of C slices, in ``[0, 1]``.
        high: ``[B, 1, scale * rows, scale * columns]`` or ``[B, scale, rows, columns]``.
        returns: `loss`, and `pred` with the shape of `high`, not clipped.

    Raises:
        InputError: a `box_weight` for another loss than `FidelityLoss`.
    """

    def __init__(
        self,
        network: Any,
        loss: nn.Module,
        box_weight: float = 0.0,
        mask_weight: float = 0.0,
        mask_balance: float = 1.0,
    ) -> None:
        if box_weight and not isinstance(loss, FidelityLoss):
            raise InputError(
                f"box_weight is {box_weight:g}, but {type(loss).__name__} weights no pixels. Train this stage with "
                "box_weight 0."
            )
        has_mask = bool(mask_weight) and getattr(network, "mask", None) is not None
        untrained = ("flow.",) if has_mask else ("flow.", "mask.")
        super().__init__(network, lambda name: not name.startswith(untrained))
        flow = getattr(network, "process", None)
        if flow is not None:
            # It drew what the expected image lacked before this training: its weights may begin another flow, no more.
            flow.zero_()
        self.loss, self.box_weight, self.has_mask = loss, box_weight, has_mask
        self.mask_weight, self.mask_balance = mask_weight, mask_balance

    def forward(self, image: torch.Tensor, high: torch.Tensor, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        network = self.network.train()
        # A network of several factors is told which one this batch has.
        scale = (high.shape[1] * high.shape[-1] // image.shape[-1],) if self.has_scales else ()
        pred, logits = network.with_mask(image) if self.has_mask else (network(image, *scale), None)
        with full_precision(image.device):
            weight = [1 + self.box_weight * batch["mask"].to(high)] if self.box_weight else []
            loss = self.loss(pred.float(), high, *weight)
            if logits is not None:
                difference = (batch["dirty"].to(high) - high).abs()
                marked = (max_pool2d(difference, network.scale) > VISIBLE).to(high)
                balance = torch.tensor(self.mask_balance, device=image.device)
                entropy = binary_cross_entropy_with_logits(logits.float(), marked, pos_weight=balance)
                loss = loss + self.mask_weight * entropy
        return {CommonKeys.LOSS: loss, CommonKeys.PRED: pred}
