"""The two sides of the game between generator and discriminator."""

import math

import pytest
import torch

from monai_sr_bundle.losses.adversarial import AdversarialLoss

EVEN = torch.zeros(4, 1)
HIGH, LOW = torch.full((4, 1), 3.0), torch.full((4, 1), -3.0)


@pytest.mark.parametrize("kind", ["standard", "relativistic"])
def test_who_cannot_tell_pays_the_logarithm_of_two(kind):
    loss = AdversarialLoss(kind)
    assert float(loss.of_generator(EVEN, EVEN)) == pytest.approx(math.log(2))
    assert float(loss.of_discriminator(EVEN, EVEN)) == pytest.approx(math.log(2))


@pytest.mark.parametrize("kind", ["standard", "relativistic"])
def test_what_one_side_gains_the_other_loses(kind):
    loss = AdversarialLoss(kind)
    assert loss.of_discriminator(HIGH, LOW) < loss.of_discriminator(EVEN, EVEN) < loss.of_discriminator(LOW, HIGH)
    assert loss.of_generator(HIGH, LOW) > loss.of_generator(EVEN, EVEN) > loss.of_generator(LOW, HIGH)


def test_only_the_relativistic_game_depends_on_the_difference_alone():
    # ESRGAN, equation 1: sigma(C(real) - mean C(fake)); adding a constant to all logits changes nothing.
    relativistic, standard = AdversarialLoss("relativistic"), AdversarialLoss("standard")
    torch.testing.assert_close(relativistic.of_generator(HIGH + 5, LOW + 5), relativistic.of_generator(HIGH, LOW))
    assert standard.of_generator(HIGH + 5, LOW + 5) != standard.of_generator(HIGH, LOW)


def test_the_relativistic_loss_is_that_of_the_paper():
    real, fake = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.5], [-1.0]])
    against_fake, against_real = torch.sigmoid(real - fake.mean()), torch.sigmoid(fake - real.mean())
    expected = -(torch.log(against_fake).mean() + torch.log(1 - against_real).mean()) / 2
    torch.testing.assert_close(AdversarialLoss("relativistic").of_discriminator(real, fake), expected)


def test_another_game_is_refused():
    with pytest.raises(ValueError, match="'wasserstein', expected 'standard' or 'relativistic'"):
        AdversarialLoss("wasserstein")
