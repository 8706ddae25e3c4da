"""Training of a residual flow: the velocity between noise and the residual that the expected image leaves.

Liu et al., "Flow Straight and Fast", ICLR 2023, equation 1; the coupling is that of Ohayon et al., "Posterior-Mean
Rectified Flow", ICLR 2025, in residuals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines.evaluator import SupervisedEvaluator
from monai.engines.utils import CommonKeys

from monai_sr_bundle.inferers.flow_process import RectifiedFlow
from monai_sr_bundle.training.diffusion_step import box_error
from monai_sr_bundle.training.step import Objective

TIMES = 8
"""Places along the flow at which a validation measures."""


class FlowObjective(Objective):
    """The error of the velocity at drawn times. The expected image stays as it is.

    Args:
        network: a network of `networks.residual_flow` or `networks.film_flow`.
        diffusion: `diffusion` block of its bundle.
        box_weight: weight of the mean square error inside the boxes of anomalies, beside that of all pixels; a batch
            then has their `mask`, ``[B, 1, scale * rows, scale * columns]``, 1 inside boxes.

    Shape:
        image: ``[B, C, rows, columns]`` of C slices, in ``[0, 1]``.
        high: ``[B, 1, scale * rows, scale * columns]``.

    Raises:
        BundleError: see `RectifiedFlow.of`; a network whose flow was trained as another.
    """

    def __init__(self, network: Any, diffusion: dict[str, Any], box_weight: float = 0.0) -> None:
        super().__init__(network, lambda name: name.startswith("flow."))
        self.flow, self.box_weight = RectifiedFlow.of(diffusion), box_weight
        if network.process.any():  # weights to start from
            self.flow.check_fingerprint(network.process.cpu().numpy())
        network.process.copy_(torch.from_numpy(self.flow.fingerprint()))

    def begin(self, image: torch.Tensor, high: torch.Tensor) -> None:
        self.flow.check_fingerprint(self.network.process.cpu().numpy())  # of a checkpoint, or of a federated round

    def forward(self, image: torch.Tensor, high: torch.Tensor, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        network = self.network.eval()  # the expected image as it will be used; what is trained asks for no mode
        scale = high.shape[-1] // image.shape[-1]
        with torch.no_grad():
            # A network of several scales is told which one this batch has.
            condition = network.encode(image, scale) if self.has_scales else network.encode(image)
            residual = network.target(high, condition) / self.flow.residual_std
            noise = self.flow.noise * torch.randn_like(residual)
            time = torch.rand(len(image), device=image.device)
            state = torch.lerp(noise, residual, time[:, None, None, None])
        difference = network.velocity(state, condition, time).float() - (residual - noise)
        loss = difference.square().mean()
        if self.box_weight:
            mask = torch.nn.functional.pixel_unshuffle(batch["mask"].to(image.device), scale)
            loss = loss + self.box_weight * box_error(difference, mask)
        return {CommonKeys.LOSS: loss}


class FlowValidation:
    """One validation step: the loss at fixed noise and evenly spread times, and the image with all its texture.

    Args:
        diffusion: `diffusion` block, the same as in training.
    """

    def __init__(self, diffusion: dict[str, Any]) -> None:
        self.flow = RectifiedFlow.of(diffusion)

    def __call__(self, engine: SupervisedEvaluator, batch: Any) -> dict[str, Any]:
        """Measure the loss and draw an image.

        Args:
            engine: evaluator that holds the network.
            batch: `image`, ``[B, C, rows, columns]`` of C slices, and `label`, ``[B, 1, scale * rows, scale *
                columns]``, in ``[0, 1]``.

        Returns:
            `image`, `label`, `pred` with the shape of `label`, and `loss`, a scalar tensor.
        """
        image, high = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        network: Any = engine.network
        network.eval()
        with torch.inference_mode():
            condition = network.encode(image)
            residual = network.target(high, condition) / self.flow.residual_std
            generator = torch.Generator().manual_seed(engine.state.iteration)
            losses = []
            for index in range(TIMES):
                time = torch.full((len(image),), (index + 0.5) / TIMES, device=image.device)
                noise = self.flow.noise * torch.randn(residual.shape, generator=generator).to(image.device)
                velocity = network.velocity(torch.lerp(noise, residual, time[:, None, None, None]), condition, time)
                losses.append((velocity - (residual - noise)).square().mean())
        return {
            CommonKeys.IMAGE: image,
            CommonKeys.LABEL: high,
            CommonKeys.PRED: engine.inferer(image, network),
            CommonKeys.LOSS: torch.stack(losses).mean(),
        }
