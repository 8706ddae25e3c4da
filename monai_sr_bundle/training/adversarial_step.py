"""One step of a generator against a discriminator."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines.trainer import SupervisedTrainer
from monai.utils.enums import CommonKeys
from torch import nn

from monai_sr_bundle.losses.adversarial import AdversarialLoss


class AdversarialStep:
    """The `iteration_update` of a `SupervisedTrainer` whose network plays against a discriminator.

    MONAI's own AdversarialTrainer shows the generator's loss only the fakes, which rules out a relativistic loss.

    Args:
        discriminator: takes patches, returns logits; changed by training.
        optimizer: optimizer of the discriminator.
        adversarial: both sides' loss.
        features: distance in features, which keeps structure; None for none.
        pixel_weight: weight of the mean absolute difference, which keeps grey levels.
        feature_weight, adversarial_weight: weights of the other two parts.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        optimizer: torch.optim.Optimizer,
        adversarial: AdversarialLoss,
        features: nn.Module,
        pixel_weight: float,
        feature_weight: float,
        adversarial_weight: float,
    ) -> None:
        self.discriminator, self.optimizer = discriminator, optimizer
        self.adversarial, self.features = adversarial, features
        self.pixel_weight, self.feature_weight = pixel_weight, feature_weight
        self.adversarial_weight = adversarial_weight

    def __call__(self, engine: SupervisedTrainer, batch: Any) -> dict[str, Any]:
        """Take one step of the generator, then one of the discriminator.

        Args:
            engine: trainer that holds the network.
            batch: `image`, ``[B, C, rows, columns]`` of C slices, and `label`, ``[B, 1, scale * rows, scale *
                columns]``, in ``[0, 1]``.

        Returns:
            `image`, `label`, `pred` with the shape of `label`, not clipped; `loss` and its parts, numbers.
        """
        image, target = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        engine.network.train()
        self.discriminator.train()
        with torch.autocast(image.device.type, enabled=engine.amp, **engine.amp_kwargs):
            # First the generator, against a discriminator that holds still.
            self.discriminator.requires_grad_(False)
            pred = engine.inferer(image, engine.network)
            fake = self.discriminator(pred)
            with torch.no_grad():
                real = self.discriminator(target)
            pixel = (pred - target).abs().mean()
            feature = self.features(pred, target)
            generator_loss = self.adversarial.generator_loss(real, fake)
            loss = self.pixel_weight * pixel + self.feature_weight * feature + self.adversarial_weight * generator_loss
        _step(engine.optimizer, loss)
        with torch.autocast(image.device.type, enabled=engine.amp, **engine.amp_kwargs):
            self.discriminator.requires_grad_(True)
            discriminator_loss = self.adversarial.discriminator_loss(
                self.discriminator(target), self.discriminator(pred.detach())
            )
        _step(self.optimizer, discriminator_loss)
        return {
            CommonKeys.IMAGE: image,
            CommonKeys.LABEL: target,
            CommonKeys.PRED: pred.detach(),
            CommonKeys.LOSS: loss.item(),
            "pixel": pixel.item(),
            "feature": feature.item(),
            "generator": generator_loss.item(),
            "discriminator": discriminator_loss.item(),
        }


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    # bfloat16 has float32's range: nothing underflows, so no loss scaling is needed.
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
