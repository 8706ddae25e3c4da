import io

import numpy as np
import pytest
from monai_sr_bundle.report.error_pictures import DARK, LIGHT, MARK, OPACITY, draw_error_bars, draw_slice
from PIL import Image


def draw(values, half_width, tolerance=1.0, *, spacing=(1.0, 1.0), window=(0.0, 255.0), black_is_high=False):
    """Return both pictures as ``[rows, columns, 3]`` int, and the limit."""
    pictures = draw_error_bars(draw_slice(values, spacing, window, black_is_high), half_width, tolerance)
    mask, widths = (np.asarray(Image.open(io.BytesIO(png)), dtype=int) for png in pictures[:2])
    return mask, widths, pictures.limit


@pytest.fixture
def film():
    """Values and half-widths of 300 x 400 pixels, which the pictures neither enlarge nor reduce."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (300, 400)).astype(np.float32), rng.uniform(0, 2, (300, 400)).astype(np.float32)


def test_exactly_the_pixels_above_the_tolerance_are_marked(film):
    values, half_width = film
    half_width[0, 0], half_width[0, 1] = 1.0, np.nextafter(np.float32(1), np.float32(2))
    mask, _, _ = draw(values, half_width)
    np.testing.assert_array_equal(np.ptp(mask, axis=2) > 0, half_width > 1)
    assert np.ptp(mask[0, 0]) == 0 < np.ptp(mask[0, 1])


def test_an_unmarked_pixel_has_its_grey_and_a_marked_one_lets_it_through(film):
    values, half_width = film
    mask, _, _ = draw(values, half_width)
    plain = half_width <= 1
    np.testing.assert_array_equal(mask[plain][:, 0], values[plain])
    expected = values[~plain][:, None] * (1 - OPACITY) + OPACITY * np.array(MARK)
    np.testing.assert_allclose(mask[~plain], expected, atol=0.51)


def test_monochrome1_is_shown_inverted(film):
    values, half_width = film
    upright, inverted = (draw(values, half_width, tolerance=9.0, black_is_high=high)[0] for high in (False, True))
    np.testing.assert_array_equal(inverted, 255 - upright)


def test_values_beyond_the_window_are_black_and_white():
    values = np.linspace(-2000, 1000, 400 * 300, dtype=np.float32).reshape(300, 400)
    mask, _, _ = draw(values, np.zeros_like(values), window=(-1000.0, 400.0))
    assert (mask[values <= -1000] == 0).all()
    assert (mask[values >= 400] == 255).all()
    assert mask[values > -1000][0].max() < 128


def test_a_large_image_shows_as_much_colour_as_it_has_marked_pixels():
    # One pixel in four, all shown together as one.
    half_width = np.tile(np.array([[2.0, 0.0], [0.0, 0.0]], np.float32), (512, 512))
    mask, _, _ = draw(np.zeros((1024, 1024), np.float32), half_width)
    assert mask.shape == (512, 512, 3)
    np.testing.assert_allclose(mask, np.broadcast_to(0.25 * OPACITY * np.array(MARK), mask.shape), atol=0.51)


def test_pixels_that_are_not_square_are_shown_in_their_proportions():
    mask, widths, _ = draw(np.zeros((64, 64), np.float32), np.ones((64, 64), np.float32), spacing=(1.0, 0.5))
    assert mask.shape == widths.shape == (512, 256, 3)


def test_the_widths_go_from_dark_to_light_up_to_a_round_limit():
    half_width = np.linspace(0, 4.4, 300 * 400, dtype=np.float32).reshape(300, 400)
    _, widths, limit = draw(np.zeros_like(half_width), half_width, tolerance=4.0)
    assert limit == 5
    np.testing.assert_array_equal(widths[0, 0], DARK)
    share = half_width[..., None] / 5
    np.testing.assert_allclose(widths, np.array(DARK) + share * (np.array(LIGHT) - np.array(DARK)), atol=0.51)
    half_width[-1, -1] = 100.0  # one wide error bar does not darken all others
    _, widths, limit = draw(np.zeros_like(half_width), half_width, tolerance=4.0)
    assert limit == 5
    np.testing.assert_array_equal(widths[-1, -1], LIGHT)
    half_width[-20:] = 100.0  # nor do many, beyond twice the tolerance
    assert draw(np.zeros_like(half_width), half_width, tolerance=4.0)[2] == 10


def test_error_bars_of_no_width_are_dark():
    _, widths, limit = draw(np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32))
    assert limit == 1
    assert (widths == DARK).all()
