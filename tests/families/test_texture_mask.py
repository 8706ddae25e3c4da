"""Pixels in which no texture is drawn."""

import numpy as np
import pytest
from monai_sr_bundle.families.flow import find_untextured


@pytest.fixture
def film():
    """Anatomy of 0.3 to 0.7 of the window with smooth edges."""
    y, x = np.mgrid[:96, :96] / 96
    return (0.5 + 0.2 * np.sin(9 * x) * np.cos(7 * y)).astype(np.float32)


def test_anatomy_keeps_its_texture(film):
    assert not find_untextured(film).any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_frame_of_a_collimated_film_gets_none(film, value):
    framed = np.full_like(film, value)
    framed[10:80, 20:90] = film[10:80, 20:90]
    expected = np.ones(film.shape, dtype=bool)
    expected[10:80, 20:90] = False
    untextured = find_untextured(framed)
    assert untextured[expected].all()
    assert not untextured[14:76, 24:86].any()


def test_letters_and_the_pixels_around_them_get_none(film):
    letters = np.zeros(film.shape, dtype=bool)
    letters[40:50, 30:34] = letters[48:50, 30:40] = True
    untextured = find_untextured(np.where(letters, np.float32(1), film))
    assert untextured[letters].all()
    assert untextured[39, 30]
    assert not untextured[:36].any()
    assert not untextured[54:].any()


def test_bone_beside_air_in_a_ct_is_no_letter(film):
    film[:, :48] = 0.05
    film[10:80, 48:80] = 1.1  # 540 HU
    film[40:44, 60:64] = 1.6  # a calcification, the brightest value
    untextured = find_untextured(film)
    assert not untextured[:36, 44:90].any()
