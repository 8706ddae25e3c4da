from pathlib import Path

import numpy as np
import pytest
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.geometry import Grid
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.unit import (
    STRIP,
    check_modality,
    from_stored,
    stored_limits,
    to_stored,
    value_window,
)


def image(pixels, **changes):
    pixels = np.asarray(pixels)
    facts = {"modality": "unknown", "format": "array", "path": Path("chest.png"), "bits": 8 * pixels.dtype.itemsize}
    if pixels.dtype.kind in "iu":
        facts["stored_range"] = (int(np.iinfo(pixels.dtype).min), int(np.iinfo(pixels.dtype).max))
    return Image(pixels, Grid(pixels.shape, np.eye(4)), **(facts | changes))


RAMP = np.linspace(100, 3000, 64).astype(np.uint16).reshape(1, 8, 8)


@pytest.mark.parametrize(
    ("pixels", "changes", "modality", "window"),
    [
        (np.full((1, 8, 8), 7, np.uint8), {}, "CXR", (0, 255)),  # all grey levels of 8 bits
        (RAMP, {"slope": -2.0, "intercept": 10.0}, "CXR", (-5990, -190)),  # the range of the pixels of more bits
        (np.full((1, 8, 8), 7, np.uint16), {}, "CXR", (7, 8)),  # never empty
        (RAMP.astype(np.int16), {}, "CT", (0, 255)),  # that of the bundle
    ],
)
def test_the_window_follows_the_modality_and_the_bits(pixels, changes, modality, window):
    assert value_window(image(pixels, **changes), modality, (0, 255)) == window


@pytest.mark.parametrize("black_is_high", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, -1024.0), (-3.0, 17.0)])
def test_stored_numbers_come_back_as_they_were(black_is_high, slope, intercept):
    pixels = np.arange(-3000, 3400, 100, dtype=np.int16).reshape(1, 8, 8)
    stored = image(pixels, slope=slope, intercept=intercept, black_is_high=black_is_high)
    back = to_stored(stored, from_stored(stored, stored.pixels[0], (-1000.0, 400.0)), (-1000.0, 400.0))
    assert back.dtype == np.int16
    np.testing.assert_array_equal(back, pixels[0])


def test_more_is_whiter_inside_the_model():
    pixels = np.array([[[0, 255]]], np.uint8)
    np.testing.assert_array_equal(from_stored(image(pixels), pixels[0], (0, 255)), [[0, 1]])
    np.testing.assert_array_equal(from_stored(image(pixels, black_is_high=True), pixels[0], (0, 255)), [[1, 0]])


def test_values_beyond_the_storage_are_clipped_and_floats_are_not():
    beyond = np.array([[-0.5, 1.5]], np.float32)
    np.testing.assert_array_equal(to_stored(image(np.zeros((1, 8, 8), np.uint8)), beyond, (0, 255)), [[0, 255]])
    unclipped = to_stored(image(np.zeros((1, 8, 8), np.float32)), beyond, (0, 255))
    np.testing.assert_array_equal(unclipped, [[-127.5, 382.5]])


@pytest.mark.parametrize("black_is_high", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (-3.0, 17.0)])
def test_the_limits_are_the_ends_of_the_storage_as_the_model_sees_them(black_is_high, slope, intercept):
    pixels = np.array([[[-32768, 32767]]], np.int16)
    stored = image(pixels, slope=slope, intercept=intercept, black_is_high=black_is_high)
    window = (-1000.0, 400.0)
    values = from_stored(stored, stored.pixels[0], window)
    assert stored_limits(stored, window) == pytest.approx((values.min(), values.max()))


def test_8_bits_end_at_the_windows_ends_more_bits_beyond_and_floats_nowhere():
    assert stored_limits(image(np.zeros((1, 8, 8), np.uint8)), (0, 255)) == (0.0, 1.0)
    twelve = image(np.array([[[100, 3000]]], np.uint16), stored_range=(0, 4095))
    assert stored_limits(twelve, value_window(twelve, "CXR", (0, 255))) == pytest.approx((-100 / 2900, 3995 / 2900))
    assert stored_limits(image(np.zeros((1, 8, 8), np.float32)), (0, 255)) is None


def test_the_modality_must_fit_be_unknown_or_be_forced():
    ct = image(np.zeros((2, 8, 8), np.int16), modality="CT")
    assert check_modality(ct, "CT", "b") == check_modality(ct, "any", "b") == ()
    assert "taken as CT" in check_modality(image(np.zeros((2, 8, 8), np.int16)), "CT", "b")[0]
    assert check_modality(image(np.zeros((1, 8, 8), np.uint8), format="png"), "CXR", "b") == ()  # no picture names it
    with pytest.raises(InputError, match=r"this is CT, but bundle b is made for CXR .* Take a bundle for CT, or"):
        check_modality(ct, "CXR", "b")
    assert "forced onto CT" in check_modality(ct, "CXR", "b", force=True)[0]


def test_a_film_of_many_rows_becomes_units_as_each_of_its_rows_does():
    pixels = np.random.default_rng(0).integers(0, 4096, (1, 2 * STRIP + 7, 9)).astype(np.uint16)
    film = image(pixels, slope=0.37, intercept=-5.0)
    rows = [from_stored(film, pixels[0, [row]], (3.0, 900.0)) for row in range(pixels.shape[1])]
    np.testing.assert_array_equal(from_stored(film, film.pixels[0], (3.0, 900.0)), np.concatenate(rows))
