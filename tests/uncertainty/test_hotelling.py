import numpy as np
import pytest
from monai_sr_bundle.uncertainty.blobs import SIGMAS
from monai_sr_bundle.uncertainty.hotelling import CHANNELS, channel_outputs, detectability, laguerre_gauss_channels
from monai_sr_bundle.uncertainty.nodules import choose_positions, draw_nodules
from scipy import ndimage

SHAPE = 256, 256


def answers(sigma, amplitude, make_noise, images=60):
    """Outputs of the channels with and without nodules in noise."""
    present, absent = [], []
    for seed in range(images):
        noise = make_noise(np.random.default_rng(seed))
        positions = choose_positions(str(seed), SHAPE)
        nodules = amplitude * draw_nodules(positions, sigma, SHAPE).max(axis=0)
        present.append(channel_outputs(noise + nodules, positions, sigma))
        absent.append(channel_outputs(noise, positions, sigma))
    return np.concatenate(present), np.concatenate(absent)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_channels_are_orthogonal_and_begin_with_the_signal(sigma):
    channels = laguerre_gauss_channels(sigma).reshape(CHANNELS, -1)
    np.testing.assert_allclose(channels[:3] @ channels[:3].T, np.eye(3), atol=0.06)  # too coarse a grid for more
    signal = draw_nodules([(40, 50)], sigma, (80, 100))[0]
    (outputs,) = channel_outputs(signal, [(40, 50)], sigma)
    assert outputs[0] == pytest.approx(np.sqrt(np.square(signal).sum()), rel=1e-4)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_in_white_noise_it_is_the_ideal_observer(sigma):
    present, absent = answers(sigma, 1.0, lambda rng: rng.standard_normal(SHAPE))
    energy = np.square(draw_nodules([(40, 50)], sigma, (80, 100))).sum()
    assert detectability(present, absent) == pytest.approx(np.sqrt(energy), rel=0.08)


def test_a_change_that_can_be_undone_does_not_make_the_signal_detectable():
    def make_noise(rng):
        return ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.0)

    present, absent = answers(1.5, 0.2, make_noise)
    d_prime = detectability(present, absent)
    mixing = np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS))
    assert detectability(present @ mixing + 3, absent @ mixing + 3) == pytest.approx(d_prime)
    assert detectability(2 * present, 2 * absent) == pytest.approx(d_prime)
    assert detectability(absent, absent) == 0


def test_images_that_are_so_few_that_the_observer_learns_their_noise_have_no_detectability():
    present, absent = answers(1.5, 1.0, lambda rng: rng.standard_normal(SHAPE), images=20)
    assert np.isfinite(detectability(present, absent))
    assert np.isnan(detectability(present[:-1], absent[:-1]))
