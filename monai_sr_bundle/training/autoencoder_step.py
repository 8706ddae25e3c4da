"""Train the autoencoder of a latent diffusion model, and measure what it leaves of an image."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines.evaluator import SupervisedEvaluator
from monai.engines.trainer import SupervisedTrainer
from monai.utils.enums import CommonKeys


class AutoencoderStep:
    """One training step of an ignite trainer, as its `iteration_update`.

    The loss is the mean absolute error of the reconstruction, plus its mean square times ``square_weight``, plus the
    divergence of the latents from the standard normal distribution times ``divergence_weight``.

    Args:
        square_weight, divergence_weight: weights of the parts.
    """

    def __init__(self, square_weight: float = 10.0, divergence_weight: float = 1e-4) -> None:
        self.square_weight, self.divergence_weight = square_weight, divergence_weight

    def __call__(self, engine: SupervisedTrainer, batch: Any) -> dict[str, Any]:
        """Take one step of the optimizer.

        Args:
            engine: trainer that holds the network.
            batch: `image`, ``[B, 1, rows, columns]``, and `label`, ``[B, 1, scale * rows, scale * columns]``, in
                ``[0, 1]``.

        Returns:
            `image`, `label`, `pred` with the shape of `label`, not clipped; `loss` and its parts, numbers.
        """
        image, high = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        network: Any = engine.network
        network.train()
        with torch.autocast(image.device.type, enabled=engine.amp, **engine.amp_kwargs):
            with torch.no_grad():
                condition = network.encode(image)
            reconstructed, divergence = network.reconstruct(high, condition)
            difference = reconstructed.float() - high
            absolute, square = difference.abs().mean(), difference.square().mean()
            loss = absolute + self.square_weight * square + self.divergence_weight * divergence.float()
        engine.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        engine.optimizer.step()
        return {
            CommonKeys.IMAGE: image,
            CommonKeys.LABEL: high,
            CommonKeys.PRED: reconstructed.detach(),
            CommonKeys.LOSS: loss.item(),
            "absolute": absolute.item(),
            "divergence": divergence.item(),
        }


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
