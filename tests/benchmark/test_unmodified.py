"""Measures of images without a truth, on drawn images whose noise, edges and overshoots are known."""

import math

import numpy as np
import pytest
from monai_sr_bundle.benchmark.unmodified import (
    REACH,
    find_blocks,
    find_edges,
    find_flat_blocks,
    measure_disagreement,
    measure_edges,
    measure_near_padding,
    measure_spread,
    spreads,
)
from monai_sr_bundle.inferers.postprocessing import enlarge_bicubic

SIDE = 96
RNG = np.random.default_rng
EVERYWHERE = np.ones((SIDE, SIDE), dtype=bool)
TEN_TO_NINETY = 2.5631
"""The 10-90 % distance of a step that is blurred by a Gaussian, in its standard deviations."""
erf = np.vectorize(math.erf)


def distance_to_line(scale, degrees=17.0):
    """Distance in input pixels of each fine pixel from a slanted line through the middle."""
    rows, columns = np.indices((scale * SIDE, scale * SIDE)) + 0.5
    rows, columns = rows / scale - SIDE / 2, columns / scale - SIDE / 2
    return rows * math.sin(math.radians(degrees)) + columns * math.cos(math.radians(degrees))


def distance_to_circle(scale, radius=30.0):
    rows, columns = np.indices((scale * SIDE, scale * SIDE)) + 0.5
    return radius - np.hypot(rows / scale - SIDE / 2, columns / scale - SIDE / 2)


def step(distance, sigma, dark=-800.0, bright=40.0):
    return dark + (bright - dark) * (1 + erf(distance / (math.sqrt(2) * sigma))) / 2


def reduced(fine, scale):
    return fine.reshape(SIDE, scale, SIDE, scale).mean(axis=(1, 3))


# Noise


def test_the_spread_is_that_of_the_noise_and_not_of_a_slope():
    rows, columns = np.indices((256, 256))
    slope = 3.0 * rows - 2.0 * columns
    np.testing.assert_allclose(spreads(slope, 8), 0, atol=1e-6)
    noisy = slope + RNG(0).normal(0, 5, slope.shape)
    assert np.sqrt((spreads(noisy, 8) ** 2).mean()) == pytest.approx(5, rel=0.02)
    assert measure_spread(noisy, 4, np.ones(64, dtype=bool)) == pytest.approx(5, rel=0.03)
    assert np.isnan(measure_spread(noisy, 4, np.zeros(64, dtype=bool)))


def test_noise_is_measured_in_flat_blocks_of_tissue():
    noise = np.full((SIDE, SIDE), 20.0)
    noise[:, :48], noise[48:] = 2.0, 1.0
    image = RNG(1).normal(0, 1, noise.shape) * noise
    image[48:] -= 900  # the flattest of all, but no tissue
    usable = EVERYWHERE.copy()
    usable[:, :8] = False
    flat = find_flat_blocks(image, usable, (-200, 200)).reshape(12, 12)
    assert flat.any()
    assert not flat[6:].any()
    assert not flat[:, 6:].any()
    assert not flat[:, 0].any()
    assert measure_spread(image, 1, flat.ravel()) == pytest.approx(2, rel=0.1)
    assert not find_flat_blocks(image, usable, (500, 900)).any()
    assert find_blocks(image, usable, (-200, 200)).sum() == 6 * 11


def test_the_choice_of_the_blocks_does_not_favour_the_noise_of_the_input():
    grain = np.fft.rfft2(RNG(7).normal(0, 1, (2, 512, 512)))
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None])
    first, second = np.fft.irfft2(grain * np.exp(-((frequency / 0.15) ** 2)))  # as coarse as that of a soft kernel
    flat = find_flat_blocks(first, np.ones(first.shape, dtype=bool), (-200, 200))
    assert measure_spread(second, 1, flat) / measure_spread(first, 1, flat) == pytest.approx(1, abs=0.1)


def test_blocks_of_one_value_are_not_flat_tissue():
    image = np.zeros((SIDE, SIDE))
    image[:, 48:] = RNG(2).normal(0, 3, (SIDE, 48))
    assert not find_flat_blocks(image, EVERYWHERE, (-200, 200)).reshape(12, 12)[:, :6].any()


# Edges


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("distance", [distance_to_line, distance_to_circle])
def test_the_width_of_an_edge_is_that_of_its_blur(distance, scale):
    image = reduced(step(distance(scale), 1.0), scale)
    edges = find_edges(image, EVERYWHERE, 200)
    assert len(edges) >= 3
    for sigma in (0.7, 1.3):
        width, overshoot = measure_edges(step(distance(scale), sigma), image, edges)
        assert width == pytest.approx(TEN_TO_NINETY * sigma, abs=0.12)
        assert overshoot == pytest.approx(0, abs=8)  # of a step of 840


@pytest.mark.parametrize("degrees", [0.0, 45.0, 90.0, 200.0])
def test_the_width_of_an_edge_does_not_depend_on_its_direction(degrees):
    fine = step(distance_to_line(4, degrees), 1.0)
    image = reduced(fine, 4)
    width, _ = measure_edges(fine, image, find_edges(image, EVERYWHERE, 200))
    assert width == pytest.approx(TEN_TO_NINETY, abs=0.12)


def test_noise_hardly_changes_the_width_of_an_edge():
    fine = step(distance_to_line(4), 1.0)
    image = reduced(fine, 4) + RNG(3).normal(0, 10, (SIDE, SIDE))
    edges = find_edges(image, EVERYWHERE, 200)
    width, _ = measure_edges(fine + RNG(4).normal(0, 30, fine.shape), image, edges)
    assert width == pytest.approx(TEN_TO_NINETY, abs=0.3)


def test_an_overshoot_is_measured_beyond_that_of_the_input():
    distance = distance_to_line(4)
    plain = step(distance, 1.0)
    image = reduced(plain, 4)
    edges = find_edges(image, EVERYWHERE, 200)
    for side in (-1, 1):
        halo = plain + side * 90 * np.exp(-((distance - side * 2) ** 2))
        beyond = halo.max() - 40 if side == 1 else -800 - halo.min()
        assert beyond > 70
        assert measure_edges(halo, image, edges)[1] == pytest.approx(beyond, abs=5)
        assert measure_edges(halo, reduced(halo, 4), edges)[1] == pytest.approx(0, abs=20)  # its pixels are coarse


def test_an_edge_that_is_lost_is_as_wide_as_edges_are_seen():
    fine = step(distance_to_line(4), 1.0)
    image = reduced(fine, 4)
    edges = find_edges(image, EVERYWHERE, 200)
    assert measure_edges(np.full_like(fine, -380), image, edges)[0] == 2 * REACH


def test_only_strong_straight_edges_between_flat_sides_are_found():
    fine = step(distance_to_line(4), 1.0)
    assert find_edges(reduced(fine, 4), EVERYWHERE, 900) == []
    assert find_edges(reduced(fine, 4), np.abs(distance_to_line(1)) > 6, 200) == []
    assert find_edges(RNG(5).normal(0, 300, (SIDE, SIDE)), EVERYWHERE, 200) == []
    corner = step(np.minimum(distance_to_line(4, 0.0), distance_to_line(4, 90.0)), 1.0)
    for edge in find_edges(reduced(corner, 4), EVERYWHERE, 200):
        assert max(np.abs(np.subtract(edge.centre, SIDE / 2))) > 3
    stripes = step(np.sin(distance_to_line(4)) * 3, 1.0)  # a vessel every 6 pixels is no edge
    assert find_edges(reduced(stripes, 4), EVERYWHERE, 200) == []
    assert find_edges(np.zeros((16, 16)), np.ones((16, 16), dtype=bool), 200) == []


def test_without_edges_there_is_no_width():
    image = RNG(6).normal(0, 10, (SIDE, SIDE))
    assert np.isnan(measure_edges(enlarge_bicubic(image, 2), image, find_edges(image, EVERYWHERE, 200))).all()


# Padding, and agreement with the input


def test_a_ring_near_padding_is_measured_above_the_source_around_it():
    image = np.full((32, 32), -1000.0)
    image[16:] = 50.0
    padding = np.zeros(image.shape, dtype=bool)
    padding[:, :6] = True
    image[padding] = -2000
    enlarged = image.repeat(2, axis=0).repeat(2, axis=1)
    assert measure_near_padding(enlarged, image, padding) == 0
    enlarged[:8, 12] += 300  # beside the padding, far from tissue
    enlarged[:8, 22] += 900  # five pixels away
    assert measure_near_padding(enlarged, image, padding) == 300
    enlarged[40:48, 12] += 70  # above the tissue there
    enlarged[:8, 12] -= 300
    assert measure_near_padding(enlarged, image, padding) == 70
    enlarged[padding.repeat(2, axis=0).repeat(2, axis=1)] = 3000  # padding itself does not count
    assert measure_near_padding(enlarged, image, padding) == 70
    assert np.isnan(measure_near_padding(enlarged, image, np.zeros_like(padding)))


def test_the_distance_to_the_input_is_that_of_the_reduced_result():
    image = np.full((SIDE, SIDE), 10.0)
    enlarged = np.full((2 * SIDE, 2 * SIDE), 13.0)
    assert measure_disagreement(enlarged, image, EVERYWHERE) == pytest.approx(3)
    rows = np.indices(image.shape)[0] < 48
    enlarged[48 * 2 + 20 :] = 500
    assert measure_disagreement(enlarged, image, rows) == pytest.approx(3)
    assert np.isnan(measure_disagreement(enlarged, image, ~EVERYWHERE))
