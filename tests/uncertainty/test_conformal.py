from functools import cache

import numpy as np
import pytest
from monai_sr_bundle.uncertainty import conformal
from monai_sr_bundle.uncertainty.conformal import FACTORS, bound_of_loss, measure_miscoverage


def controlling_factor(losses, alpha, **options):
    return conformal.controlling_factor(losses.sum(axis=0), len(losses), alpha, **options)


@cache
def drawn_losses(images, seed=0):
    """Losses of exchangeable images, some much harder than others, whose scale knows only a part of the errors."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.5, 2.0, (images, 200))
    severity = rng.lognormal(sigma=0.6, size=(images, 1))
    error = np.abs(rng.standard_normal(scale.shape)) * severity * np.sqrt(scale)
    return np.stack([measure_miscoverage(*each) for each in zip(error, scale, strict=True)])


def test_the_loss_is_the_share_of_the_pixels_beyond_their_error_bars():
    rng = np.random.default_rng(0)
    error, scale = np.abs(rng.standard_normal((9, 11))), rng.uniform(0.1, 1.0, (9, 11))
    expected = [(error > factor * scale).mean() for factor in FACTORS]
    np.testing.assert_allclose(measure_miscoverage(error, scale), expected, atol=1e-12)


def test_the_loss_falls_as_the_factor_grows():
    losses = drawn_losses(5)
    assert (np.diff(losses, axis=1) <= 0).all()
    assert (losses[:, 0] > 0.9).all()
    assert (losses[:, -1] == 0).all()


def test_an_error_as_large_as_its_error_bar_is_inside():
    assert measure_miscoverage(FACTORS[100:101], np.ones(1)).argmin() == 100


@pytest.mark.parametrize(("images", "alpha"), [(19, 0.1), (60, 0.1), (60, 0.3)])
def test_the_factor_is_the_smallest_that_satisfies_the_corrected_bound(images, alpha):
    losses = drawn_losses(images)
    index = int(np.flatnonzero(controlling_factor(losses, alpha) == FACTORS)[0])
    assert (losses[:, index].sum() + 1) / (images + 1) <= alpha
    assert (losses[:, index - 1].sum() + 1) / (images + 1) > alpha


@pytest.mark.parametrize(("images", "alpha"), [(20, 0.1), (50, 0.1), (50, 0.3)])
def test_the_next_image_is_covered_as_promised_and_not_wildly_more(images, alpha):
    pool, rng = drawn_losses(1000, seed=1), np.random.default_rng(2)
    total = pool.sum(axis=0)
    promised, uncorrected = [], []
    for _ in range(600):
        chosen = pool[rng.choice(len(pool), images, replace=False)]
        others = (total - chosen.sum(axis=0)) / (len(pool) - images)
        promised.append(others[controlling_factor(chosen, alpha) == FACTORS])
        uncorrected.append(others[np.argmax(chosen.mean(axis=0) <= alpha)])
    # The expected loss lies at most 2 / (images + 1) below alpha (Theorem 2 of the paper), and a step of the factors.
    assert alpha - 2 / (images + 1) - 0.005 < np.mean(promised) <= alpha
    assert np.mean(uncorrected) > np.mean(promised)


@pytest.mark.parametrize(("alpha", "least"), [(0.05, 19), (0.1, 9), (0.15, 6), (0.5, 1)])
def test_with_too_few_images_even_perfect_ones_promise_nothing(alpha, least):
    assert controlling_factor(np.zeros((least, len(FACTORS))), alpha) == FACTORS[0]
    with pytest.raises(ValueError, match=rf"within {alpha:g} on {least - 1} patients.*at least {least} patients"):
        controlling_factor(np.zeros((least - 1, len(FACTORS))), alpha)


def test_few_patients_hold_the_mean_and_bound_the_next_one_by_less():
    pool, rng = drawn_losses(1000, seed=3), np.random.default_rng(4)
    next_losses = []
    for _ in range(600):
        chosen = rng.choice(len(pool), 6, replace=False)
        losses = pool[chosen[:5]]
        index = int(np.flatnonzero(controlling_factor(losses, 0.1, corrected=False) == FACTORS)[0])
        assert losses[:, index].mean() <= 0.1 < losses[:, index - 1].mean()
        next_losses.append(pool[chosen[5], index])
    # More than 0.1, which is why the smaller share is stated.
    assert 0.1 < np.mean(next_losses) <= bound_of_loss(0.1, 5) == pytest.approx(0.25)


def test_a_scale_that_says_nothing_of_the_errors_is_refused():
    losses = np.stack([measure_miscoverage(np.full(10, 0.2), np.full(10, 1e-4)) for _ in range(100)])
    with pytest.raises(ValueError, match="no factor up to 50 keeps .* the largest one leaves 1, .* follow their scale"):
        controlling_factor(losses, 0.1)
