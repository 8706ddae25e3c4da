"""One step of a generator against a discriminator."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines.trainer import SupervisedTrainer
from monai.utils.enums import CommonKeys
from torch import nn

from monai_sr_bundle.losses.adversarial import AdversarialLoss
from monai_sr_bundle.training.step import Objective, as_numbers, minimise, share_gradients


class GeneratorObjective(Objective):
    """What a generator minimises: the distance from the original, and how well the discriminator tells it from one.

    Args:
        network: the generator.
        adversarial: both sides' loss.
        features: distance in features, which keeps structure.
        pixel_weight: weight of the mean absolute difference, which keeps grey levels.
        feature_weight, adversarial_weight: weights of the other two parts.

    Shape:
        image: ``[B, C, rows, columns]`` of C slices, in ``[0, 1]``.
        high: ``[B, 1, scale * rows, scale * columns]``.
        returns: `loss` and its parts, and `pred` with the shape of `high`, not clipped.
    """

    def __init__(
        self,
        network: nn.Module,
        adversarial: AdversarialLoss,
        features: nn.Module,
        pixel_weight: float,
        feature_weight: float,
        adversarial_weight: float,
    ) -> None:
        super().__init__(network)
        self.adversarial, self.features = adversarial, features
        self.pixel_weight, self.feature_weight = pixel_weight, feature_weight
        self.adversarial_weight = adversarial_weight

    def forward(self, image: torch.Tensor, high: torch.Tensor, discriminator: nn.Module) -> dict[str, torch.Tensor]:
        pred = self.network.train()(image)
        fake = discriminator(pred)
        with torch.no_grad():
            real = discriminator(high)
        pixel = (pred - high).abs().mean()
        feature = self.features(pred, high)
        generator = self.adversarial.generator_loss(real, fake)
        loss = self.pixel_weight * pixel + self.feature_weight * feature + self.adversarial_weight * generator
        parts = {"pixel": pixel, "feature": feature, "generator": generator}
        return {CommonKeys.LOSS: loss, CommonKeys.PRED: pred, **parts}


class DiscriminatorObjective(Objective):
    """What a discriminator minimises: its loss on originals and on images of the generator, ``[B, 1, rows, columns]``.

    Args:
        network: the discriminator; takes patches, returns logits.
        adversarial: both sides' loss.
    """

    def __init__(self, network: nn.Module, adversarial: AdversarialLoss) -> None:
        super().__init__(network)
        self.adversarial = adversarial

    def forward(self, high: torch.Tensor, pred: torch.Tensor) -> torch.Tensor:
        discriminator = self.network.train()
        return self.adversarial.discriminator_loss(discriminator(high), discriminator(pred))


class AdversarialStep:
    """The `iteration_update` of a `SupervisedTrainer` whose network plays against a discriminator.

    MONAI's own AdversarialTrainer shows the generator's loss only the fakes, which rules out a relativistic loss.

    Args:
        generator, discriminator: the two sides; in several processes they share the gradients of both.
        optimizer: optimizer of the discriminator.
    """

    def __init__(
        self,
        generator: GeneratorObjective,
        discriminator: DiscriminatorObjective,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.generator, self.discriminator, self.optimizer = generator, discriminator, optimizer
        self._shared: list[nn.Module] = []

    def __call__(self, engine: SupervisedTrainer, batch: Any) -> dict[str, Any]:
        """Take one step of the generator, then one of the discriminator.

        Args:
            engine: trainer that holds the generator.
            batch: `image` and `label`.

        Returns:
            `image`, `label`, `pred` with the shape of `label`, not clipped; `loss` and its parts, numbers.
        """
        image, high = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        if not self._shared:
            self._shared = [share_gradients(side) for side in (self.generator, self.discriminator)]
        generator, discriminator = self._shared
        network = self.discriminator.network.train()
        with torch.autocast(image.device.type, enabled=engine.amp, **engine.amp_kwargs):
            # First the generator, against a discriminator that holds still.
            network.requires_grad_(False)
            parts = generator(image, high, network)
        minimise(engine.optimizer, parts[CommonKeys.LOSS])
        with torch.autocast(image.device.type, enabled=engine.amp, **engine.amp_kwargs):
            network.requires_grad_(True)
            loss = discriminator(high, parts[CommonKeys.PRED].detach())
        minimise(self.optimizer, loss)
        return {
            CommonKeys.IMAGE: image,
            CommonKeys.LABEL: high,
            **as_numbers({**parts, "discriminator": loss}),
        }
