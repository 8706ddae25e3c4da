"""Training of a regression with more weight inside boxes, and of the mask of what was drawn into its input."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines.trainer import SupervisedTrainer
from monai.engines.utils import CommonKeys
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.losses.fidelity import FidelityLoss

VISIBLE = 2 / 255
"""By how much a mark has to change one high-resolution pixel of a cell for the mask to be asked for it."""


class RegressionStep:
    """One training step of an ignite trainer, as its `iteration_update`.

    The loss is that of the trainer, each pixel weighted by 1, and by ``1 + box_weight`` inside the boxes of anomalies.
    Of a network with a mask, ``mask_weight`` times the mask's cross-entropy is added. Its truth are the low-resolution
    pixels in which dirty and clean original differ; as they are few, they count `mask_balance` times. A network that
    also has a flow is marked as one whose flow is still to be trained.

    Args:
        network: network to train; with `with_mask` if it has a `mask`.
        loss: loss of the trainer.
        box_weight: the same as above; a batch then has the `mask` of the boxes, ``[B, 1, scale * rows, scale *
            columns]``, 1 inside them.
        mask_weight, mask_balance: the same as above; a batch then has `dirty`, the original with drawn marks.

    Raises:
        InputError: a `box_weight` for another loss than `FidelityLoss`; a network with a mask in several processes.
    """

    def __init__(
        self,
        network: Any,
        loss: Any,
        box_weight: float = 0.0,
        mask_weight: float = 0.0,
        mask_balance: float = 1.0,
    ) -> None:
        if box_weight and not isinstance(loss, FidelityLoss):
            raise InputError(
                f"box_weight is {box_weight:g}, but {type(loss).__name__} weights no pixels. Train this stage with "
                "box_weight 0."
            )
        inner = getattr(network, "module", network)
        masked = getattr(inner, "mask", None) is not None
        if masked and inner is not network:
            raise InputError(
                f"{type(inner).__name__} has a mask, which {type(network).__name__} does not train. Train it in one "
                "process, without multi_gpu_train.yaml, or with `mask: false` in its network_def."
            )
        flow = getattr(inner, "process", None)
        if flow is not None:
            # It drew what the expected image lacked before this training: its weights may begin another flow, no more.
            flow.zero_()
        self.box_weight, self.mask_weight, self.mask_balance = box_weight, mask_weight, mask_balance
        self.has_mask = bool(mask_weight) and masked
        self.has_scales = hasattr(inner, "scales")

    def __call__(self, engine: SupervisedTrainer, batch: Any) -> dict[str, Any]:
        """Take one step of the optimizer.

        Args:
            engine: trainer that holds the network.
            batch: `image`, ``[B, C, rows, columns]`` of C slices, and `label`, ``[B, 1, scale * rows, scale *
                columns]`` or ``[B, scale, rows, columns]``, in ``[0, 1]``.

        Returns:
            `image`, `label`, `pred` with the shape of `label`, not clipped, and `loss`, a number.
        """
        image, high = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        network: Any = engine.network
        network.train()
        with torch.autocast(image.device.type, enabled=engine.amp, **engine.amp_kwargs):
            # A network of several factors is told which one this batch has.
            scale = (high.shape[1] * high.shape[-1] // image.shape[-1],) if self.has_scales else ()
            pred, logits = network.with_mask(image) if self.has_mask else (network(image, *scale), None)
        weight = [1 + self.box_weight * batch["mask"].to(high)] if self.box_weight else []
        loss = engine.loss_function(pred.float(), high, *weight)
        if logits is not None:
            difference = (batch["dirty"].to(high) - high).abs()
            marked = (max_pool2d(difference, network.scale) > VISIBLE).to(high)
            balance = torch.tensor(self.mask_balance, device=image.device)
            loss = loss + self.mask_weight * binary_cross_entropy_with_logits(
                logits.float(), marked, pos_weight=balance
            )
        engine.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        engine.optimizer.step()
        return {
            CommonKeys.IMAGE: image,
            CommonKeys.LABEL: high,
            CommonKeys.PRED: pred.detach(),
            CommonKeys.LOSS: loss.item(),
        }
