"""The two sides of the game between generator and discriminator."""

import math

import pytest
import torch
from monai_sr_bundle.losses.perceptual import AdversarialLoss

EVEN = torch.zeros(4, 1)
HIGH, LOW = torch.full((4, 1), 3.0), torch.full((4, 1), -3.0)


@pytest.mark.parametrize("kind", ["standard", "relativistic"])
def test_who_cannot_tell_pays_the_logarithm_of_two(kind):
    loss = AdversarialLoss(kind)
    assert float(loss.generator_loss(EVEN, EVEN)) == pytest.approx(math.log(2))
    assert float(loss.discriminator_loss(EVEN, EVEN)) == pytest.approx(math.log(2))


@pytest.mark.parametrize("kind", ["standard", "relativistic"])
def test_what_one_side_gains_the_other_loses(kind):
    loss = AdversarialLoss(kind)
    assert loss.discriminator_loss(HIGH, LOW) < loss.discriminator_loss(EVEN, EVEN) < loss.discriminator_loss(LOW, HIGH)
    assert loss.generator_loss(HIGH, LOW) > loss.generator_loss(EVEN, EVEN) > loss.generator_loss(LOW, HIGH)


def test_only_the_relativistic_game_depends_on_the_difference_alone():
    # ESRGAN, equation 1: sigma(C(real) - mean C(fake)); adding a constant to all logits changes nothing.
    relativistic, standard = AdversarialLoss("relativistic"), AdversarialLoss("standard")
    torch.testing.assert_close(relativistic.generator_loss(HIGH + 5, LOW + 5), relativistic.generator_loss(HIGH, LOW))
    assert standard.generator_loss(HIGH + 5, LOW + 5) != standard.generator_loss(HIGH, LOW)


def test_the_relativistic_loss_is_that_of_the_paper():
    real, fake = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.5], [-1.0]])
    against_fake, against_real = torch.sigmoid(real - fake.mean()), torch.sigmoid(fake - real.mean())
    expected = -(torch.log(against_fake).mean() + torch.log(1 - against_real).mean()) / 2
    torch.testing.assert_close(AdversarialLoss("relativistic").discriminator_loss(real, fake), expected)


def test_another_game_is_refused():
    with pytest.raises(ValueError, match="'wasserstein', expected 'standard' or 'relativistic'"):
        AdversarialLoss("wasserstein")
