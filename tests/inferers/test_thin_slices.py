"""Thin slices whose means are the thick ones."""

import numpy as np
import pytest
from monai_sr_bundle.inferers.postprocessing import consistent_slices, residual_of_means


def noise(*shape):
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_the_means_of_consistent_slices_are_the_thick_ones_and_the_change_is_the_least(scale):
    thick, guess = noise(6, 7, 8), noise(6 * scale, 7, 8)
    thin = consistent_slices(guess.copy(), thick)
    np.testing.assert_allclose(thin.reshape(6, scale, 7, 8).mean(axis=1), thick, rtol=0, atol=1e-6)
    # The least change: the same for all slices of a group, so that nothing of it lies in the null space.
    change = (thin - guess).reshape(6, scale, 7, 8)
    np.testing.assert_allclose(change, np.broadcast_to(change[:, :1], change.shape), rtol=0, atol=1e-6)


def test_consistent_slices_keep_to_the_limits_of_the_storage():
    thick = np.full((1, 1, 1), 0.9, dtype=np.float32)
    guess = np.array([0.2, 0.6, 0.9, 1.0], dtype=np.float32).reshape(4, 1, 1)
    thin = consistent_slices(guess, thick, (0.0, 1.0))
    assert thin.max() <= 1.0
    # What is clipped goes to the others: one projection alone would leave 0.86 here.
    np.testing.assert_allclose(thin.mean(), 0.9, atol=1e-6)
    np.testing.assert_allclose(thin.ravel(), [0.6, 1.0, 1.0, 1.0], atol=1e-6)


def test_the_residual_is_what_the_means_lack():
    thin = np.array([1.0, 3.0, 10.0, 20.0], dtype=np.float32).reshape(4, 1, 1)
    thick = np.array([5.0, 15.0], dtype=np.float32).reshape(2, 1, 1)
    assert residual_of_means(thin, thick).ravel().tolist() == [3.0, 0.0]
