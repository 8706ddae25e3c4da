"""A generator's step against a discriminator."""

import torch
from monai_sr_bundle.losses.perceptual import AdversarialLoss
from monai_sr_bundle.networks.edsr import EDSR
from monai_sr_bundle.networks.srgan import Discriminator
from monai_sr_bundle.training.step import AdversarialStep, DiscriminatorObjective, GeneratorObjective

from tests.training.steps import run_training_steps


class NoFeatures(torch.nn.Module):
    def forward(self, pred, target):
        return (pred - target).square().mean()


def trained(*, steps, pixel=1.0, adversarial=0.1):
    torch.manual_seed(0)
    generator, discriminator = EDSR(channels=8, blocks=1), Discriminator(size=16, channels=4, hidden=8)
    before = [[value.clone() for value in network.parameters()] for network in (generator, discriminator)]
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
    against = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
    game = AdversarialLoss()
    step = AdversarialStep(
        GeneratorObjective(generator, game, NoFeatures(), pixel, 0.1, adversarial),
        DiscriminatorObjective(discriminator, game),
        against,
    )
    batch = {"image": torch.rand(4, 1, 4, 4), "label": torch.rand(4, 1, 16, 16)}
    outputs = run_training_steps(generator, [batch] * steps, step, optimizer, torch.nn.L1Loss())
    return generator, discriminator, before, outputs


def test_both_networks_learn():
    generator, discriminator, before, outputs = trained(steps=20)
    for network, first in zip((generator, discriminator), before, strict=True):
        assert any(not torch.equal(now, then) for now, then in zip(network.parameters(), first, strict=True))
    assert outputs[-1]["discriminator"] < outputs[0]["discriminator"]


def test_the_generators_step_leaves_the_discriminator_trainable_and_without_its_gradients():
    _, discriminator, _, outputs = trained(steps=1)
    assert all(value.requires_grad for value in discriminator.parameters())
    assert not outputs[0]["pred"].requires_grad


def test_the_loss_is_the_weighted_sum_of_its_parts():
    _, _, _, outputs = trained(steps=1, pixel=2.0, adversarial=0.3)
    parts = outputs[0]
    expected = 2.0 * parts["pixel"] + 0.1 * parts["feature"] + 0.3 * parts["generator"]
    assert abs(parts["loss"] - expected) < 1e-6
