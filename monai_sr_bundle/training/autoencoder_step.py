"""Train the autoencoder of a latent diffusion model, and measure what it leaves of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines.evaluator import SupervisedEvaluator
from monai.utils.enums import CommonKeys
from torch import nn

from monai_sr_bundle.training.step import Objective


class AutoencoderObjective(Objective):
    """The error of an image after encoding and decoding; the denoiser stays as it is.

    The loss is the mean absolute error of the reconstruction, plus its mean square times ``square_weight``, plus the
    divergence of the latents from the standard normal distribution times ``divergence_weight``.

    Args:
        network: a network of `networks.latent_diffusion`.
        square_weight, divergence_weight: weights of the parts.

    Shape:
        image: ``[B, 1, rows, columns]``, in ``[0, 1]``.
        high: ``[B, 1, scale * rows, scale * columns]``.
        returns: `loss` and its parts, and `pred` with the shape of `high`, not clipped.
    """

    def __init__(self, network: nn.Module, square_weight: float = 10.0, divergence_weight: float = 1e-4) -> None:
        super().__init__(network, lambda name: name.startswith("autoencoder."))
        self.square_weight, self.divergence_weight = square_weight, divergence_weight

    def forward(self, image: torch.Tensor, high: torch.Tensor, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        network = self.network.train()
        with torch.no_grad():
            condition = network.encode(image)
        reconstructed, divergence = network.reconstruct(high, condition)
        difference = reconstructed.float() - high
        absolute, square = difference.abs().mean(), difference.square().mean()
        loss = absolute + self.square_weight * square + self.divergence_weight * divergence.float()
        return {CommonKeys.LOSS: loss, CommonKeys.PRED: reconstructed, "absolute": absolute, "divergence": divergence}


class AutoencoderValidation:
    """One validation step of an ignite evaluator, as its `iteration_update`: the reconstruction of the mean latents."""

    def __call__(self, engine: SupervisedEvaluator, batch: Any) -> dict[str, Any]:
        """Reconstruct the label.

        Args:
            engine: evaluator that holds the network.
            batch: `image`, ``[B, 1, rows, columns]``, and `label`, ``[B, 1, scale * rows, scale * columns]``, in
                ``[0, 1]``.

        Returns:
            `image`, `label`, and `pred` with the shape of `label`, not clipped.
        """
        image, high = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        network: Any = engine.network
        network.eval()
        with torch.inference_mode():
            reconstructed, _ = network.reconstruct(high, network.encode(image))
        return {CommonKeys.IMAGE: image, CommonKeys.LABEL: high, CommonKeys.PRED: reconstructed}
