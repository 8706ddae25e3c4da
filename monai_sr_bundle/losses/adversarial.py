"""Adversarial losses of a generator and a discriminator."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

Kind = Literal["standard", "relativistic"]


class AdversarialLoss(nn.Module):
    """The losses of generator and discriminator, from the discriminator's logits.

    "standard": is the image real? Ledig et al., SRGAN, equation 6, in the form that does not saturate.
    "relativistic": is it more real than the average opposite? Wang et al., ESRGAN, equations 1 and 2.

    Args:
        kind: "standard" or "relativistic".

    Shape:
        real, fake: ``[B, 1]`` logits; the methods return scalars.

    Raises:
        ValueError: another kind.
    """

    def __init__(self, kind: Kind = "standard") -> None:
        super().__init__()
        if kind not in ("standard", "relativistic"):
            raise ValueError(f"adversarial loss is {kind!r}, expected 'standard' or 'relativistic'.")
        self.kind = kind

    def generator_loss(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """Return the generator's loss, which is low if the discriminator takes fakes for real."""
        if self.kind == "standard":
            return cross_entropy(fake, torch.ones_like(fake))
        return 0.5 * (
            cross_entropy(real - fake.mean(), torch.zeros_like(real))
            + cross_entropy(fake - real.mean(), torch.ones_like(fake))
        )

    def discriminator_loss(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """Return the discriminator's loss, which is low if it distinguishes real from fake."""
        against_real, against_fake = (fake.mean(), real.mean()) if self.kind == "relativistic" else (0.0, 0.0)
        return 0.5 * (
            cross_entropy(real - against_real, torch.ones_like(real))
            + cross_entropy(fake - against_fake, torch.zeros_like(fake))
        )
