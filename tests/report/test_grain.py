"""Grain of a result where the interpolated input is even."""

import numpy as np
import pytest
from monai_sr_bundle.report.grain import measure_grain

SCALE = (4, 4)


def noise(seed=0):
    return np.random.default_rng(seed).normal(0, 1, (480, 480))


def test_grain_is_the_standard_deviation_around_a_trend():
    y, x = np.mgrid[:480, :480] / 480
    trend = 1000 * x + 200 * y * y
    grain = measure_grain(trend + 6 * noise(1), trend + 3 * noise(), SCALE)
    assert grain.interpolation == pytest.approx(3, rel=0.05)
    assert grain.result == pytest.approx(6, rel=0.05)


def test_edges_do_not_count_as_grain():
    edges = np.kron(np.random.default_rng(0).integers(0, 2, (20, 20)) * 100.0, np.ones((24, 24)))
    edges[:, :240] = 0
    grain = measure_grain(edges + noise(), edges + noise(), SCALE)
    assert grain.result == pytest.approx(1, rel=0.1)


def test_of_a_ct_soft_tissue_alone_is_compared():
    interpolated = np.where(np.arange(480) < 240, -900.0, 40.0) + np.where(np.arange(480) < 240, 1, 5) * noise()
    assert measure_grain(interpolated, interpolated, SCALE).result == pytest.approx(1, rel=0.1)
    assert measure_grain(interpolated, interpolated, SCALE, hu=True).result == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize("image", [np.zeros((480, 480)), noise()[:96, :96], noise()[:9], noise() - 1000])
def test_without_enough_blocks_nothing_is_measured(image):
    assert measure_grain(image, image, SCALE, hu=True) is None
