"""The square that a preview magnifies shows anatomy."""

import numpy as np
import pytest
from monai_sr_bundle.report.detail_region import find_detail_region

WINDOW = (-1000.0, 400.0)


def grain(shape, seed=0):
    """Structure of a few pixels' width, of standard deviation 1."""
    noise = np.random.default_rng(seed).normal(size=shape)
    for axis in (0, 1):
        noise = (np.roll(noise, 1, axis) + noise + np.roll(noise, -1, axis)) / 3
    return noise / noise.std()


def disc(shape, centre, radii):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1


@pytest.fixture(scope="module")
def chest():
    """A CT slice in HU: a body with two lungs and a trachea, a table of foam, padding around the field of view."""
    shape = (256, 256)
    hu = np.full(shape, -1000.0)
    hu[disc(shape, (120, 128), (90, 110))] = 40
    lungs = disc(shape, (120, 75), (55, 40)) | disc(shape, (120, 181), (55, 40))
    hu[lungs] = -850 + 60 * grain(shape)[lungs]
    hu[disc(shape, (90, 128), (8, 8))] = -1000
    hu[225:245, 30:226] = -500 + 300 * grain(shape, 1)[225:245, 30:226]
    hu[222:225, 30:226] = hu[245:248, 30:226] = 900
    hu[~disc(shape, (128, 128), (127, 127))] = -3024
    return hu, lungs


@pytest.fixture(scope="module")
def film():
    """A film of 256 x 256 grey levels: lungs, letters, a port, a collimated edge."""
    shape = (256, 256)
    grey = np.full(shape, 180.0) + 2 * grain(shape)
    lungs = disc(shape, (115, 75), (75, 38)) | disc(shape, (115, 181), (75, 38))
    grey[lungs] = 90 + 8 * grain(shape, 2)[lungs]
    grey[:12] = grey[-12:] = 0
    letters = np.kron(np.random.default_rng(3).integers(0, 2, (16, 24)), np.ones((2, 2)))
    grey[20:52, 10:58] = np.where(letters > 0, 255, grey[20:52, 10:58])
    port = disc(shape, (80, 70), (14, 14))
    grey[port] = np.where(disc(shape, (80, 70), (9, 9)), 120, 250)[port]
    return grey, lungs


def share_of(mask, square, scale):
    top, left, side = (edge // scale for edge in square)
    return mask[top : top + side, left : left + side].mean()


def test_of_a_ct_it_shows_lung(chest):
    hu, lungs = chest
    assert share_of(lungs, find_detail_region(hu, WINDOW, (4, 4), hu=True), 4) > 0.75


def test_of_a_ct_without_lung_it_shows_the_body():
    hu = np.full((256, 256), -1000.0)
    body = disc(hu.shape, (128, 128), (90, 110))
    hu[body] = 40 + 60 * grain(hu.shape)[body]
    assert share_of(body, find_detail_region(hu, WINDOW, (4, 4), hu=True), 4) > 0.95


@pytest.mark.parametrize("scale", [2, 4])
def test_of_a_film_it_shows_lung_and_neither_letters_nor_a_port(film, scale):
    grey, lungs = film
    square = find_detail_region(grey, (0.0, 255.0), (scale, scale), whole_film=True)
    assert share_of(lungs, square, scale) > 0.9
    assert share_of(disc(grey.shape, (80, 70), (14, 14)), square, scale) == 0


def test_a_region_has_no_place_where_lungs_usually_are():
    values = np.full((128, 128), 100.0)
    texture = np.zeros(values.shape, dtype=bool)
    texture[72:120, 40:88] = True
    values[texture] += 10 * grain(values.shape)[texture]
    assert share_of(texture, find_detail_region(values, (0.0, 255.0), (4, 4)), 4) == 1


@pytest.mark.parametrize(
    ("shape", "scale"),
    [((11, 22), (3, 3)), ((64, 128), (4, 4)), ((12, 16), (4, 2)), ((8, 512), (2, 2)), ((8, 8), (1, 1))],
)
@pytest.mark.parametrize("hu", [False, True])
def test_it_holds_whole_pixels_of_the_input_and_lies_inside(shape, scale, hu):
    values = 100 * np.random.default_rng(0).random(shape)
    top, left, side = find_detail_region(values, (0.0, 100.0), scale, hu=hu)
    assert top % scale[0] == left % scale[1] == side % scale[0] == side % scale[1] == 0
    assert side > 0
    assert 0 <= top <= shape[0] * scale[0] - side
    assert 0 <= left <= shape[1] * scale[1] - side


def test_a_flat_image_shows_its_middle():
    assert find_detail_region(np.zeros((64, 64)), (0.0, 0.0), (4, 4)) == (108, 108, 40)
