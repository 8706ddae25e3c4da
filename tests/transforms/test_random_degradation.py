import numpy as np
import pytest
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.transforms.random_degradation import (
    KERNELS,
    FilmDegradation,
    RandomDegradation,
    correlated_noise,
    film_noise_textures,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def film():
    return draw_phantom(96, seed=0).astype(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_reduction_alone_is_that_of_the_named_operator(film, rng, kernel, scale):
    expected = Degradation(kernel, scale)(film)
    np.testing.assert_allclose(FilmDegradation(scale, kernel)(film, rng), expected, atol=1.01 / 255)


def test_the_result_is_stored_in_whole_grey_levels(film, rng):
    low_res = FilmDegradation(4, blur=1.2, noise=3, sharpening=0.8, jpeg_quality=70)(film, rng)
    assert low_res.dtype == np.float32
    np.testing.assert_array_equal(low_res * 255, np.rint(low_res * 255))


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
def test_noise_has_the_stated_deviation_and_spectrum(rng, correlation):
    noise = correlated_noise((256, 256), correlation, rng)
    assert noise.std() == pytest.approx(1, abs=0.02)
    neighbours = (noise[:, 1:] * noise[:, :-1]).mean()
    if correlation == 0.9:
        # The product of two Gaussians one pixel apart, divided by that of two in the same place.
        assert neighbours == pytest.approx(np.exp(-1 / (4 * 0.9**2)), abs=0.05)
    else:
        assert neighbours == pytest.approx(0, abs=0.12)


def test_noise_is_added_after_the_reduction(rng):
    flat = np.full((512, 512), 0.5)
    low_res = FilmDegradation(4, noise=4)(flat, rng)
    assert (low_res * 255).std() == pytest.approx(4, rel=0.05)


def test_growing_noise_is_stronger_where_the_film_is_brighter(rng):
    halves = np.full((512, 512), 0.2)
    halves[:, 256:] = 0.8
    low_res = 255 * FilmDegradation(4, noise=4, noise_growth=1)(halves, rng)
    dark, bright = low_res[:, 4:60].std(), low_res[:, 68:124].std()
    assert bright / dark == pytest.approx(2, rel=0.1)


def test_a_noise_texture_takes_the_place_of_gaussian_noise(rng):
    texture = np.zeros((30, 30), dtype=np.float32)
    texture[::2] = 1.0
    low_res = FilmDegradation(4, noise=10)(np.full((96, 96), 100 / 255), rng, texture)
    np.testing.assert_allclose(np.diff(low_res * 255, axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(np.abs(np.diff(low_res * 255, axis=0)), 10, atol=1e-4)


def test_sharpening_overshoots_at_an_edge_and_leaves_flat_parts(rng):
    edge = np.full((96, 96), 80 / 255)
    edge[:, 48:] = 160 / 255
    plain, sharpened = (FilmDegradation(4, "area", sharpening=weight)(edge, rng) for weight in (0.0, 0.6))
    assert sharpened.max() > plain.max() + 10 / 255
    assert sharpened.min() < plain.min() - 10 / 255
    np.testing.assert_allclose(sharpened[:, :4], plain[:, :4], atol=1e-6)


def test_a_stronger_compression_changes_more(film, rng):
    plain = FilmDegradation(2)(film, rng)
    weak, strong = (np.abs(FilmDegradation(2, jpeg_quality=q)(film, rng) - plain).mean() for q in (95, 50))
    assert 0 < weak < strong


def test_the_stated_share_of_images_is_reduced_ideally():
    draw = RandomDegradation(ideal=0.3).set_random_state(0).draw
    degradations = [draw(4) for _ in range(2000)]
    others = [each for each in degradations if each != FilmDegradation(4)]
    assert 0.6 < len(others) / 2000 < 0.71
    losses = [[each.blur, each.noise, each.sharpening, each.jpeg_quality] for each in others]
    assert {sum(map(bool, each)) for each in losses} == {0, 1, 2, 3, 4}
    assert {each.kernel for each in others} == set(KERNELS)
    assert max(each.blur for each in others) == pytest.approx(3.0, abs=0.1)
    assert all(each.jpeg_quality == 0 or 50 <= each.jpeg_quality <= 97 for each in others)
    assert any(each.noise and each.jpeg_quality and each.blur and each.sharpening for each in others)


def test_the_stated_share_of_images_is_binned_and_has_no_other_loss():
    draw = RandomDegradation(ideal=0.2, box=0.3, single=0).set_random_state(0).draw
    degradations = [draw(3) for _ in range(2000)]
    assert np.mean([each == FilmDegradation(3) for each in degradations]) == pytest.approx(
        0.2 + 0.5 / 4 * 0.09, abs=0.03
    )
    assert np.mean([each == FilmDegradation(3, "area") for each in degradations]) == pytest.approx(0.31, abs=0.03)


def test_images_of_a_single_loss_have_no_second_one():
    draw = RandomDegradation(ideal=0, single=1).set_random_state(0).draw
    degradations = [draw(4) for _ in range(500)]
    losses = np.array([[each.blur, each.noise, each.sharpening, each.jpeg_quality] for each in degradations]) > 0
    assert losses.sum(axis=1).max() == 1
    assert losses.any(axis=0).all()
    assert np.mean(losses.sum(axis=1) == 0) == pytest.approx(1 / 3, abs=0.08)


def test_the_same_seed_gives_the_same_image(film):
    images = [RandomDegradation(ideal=0).set_random_state(7)(film, 3) for _ in range(2)]
    np.testing.assert_array_equal(*images)
    assert images[0].shape == (32, 32)


def test_textures_of_a_film_are_its_noise_and_not_its_edges(rng):
    film = np.full((256, 256), 0.5)
    film[:, :100] = 0.2
    noise = correlated_noise(film.shape, 0.6, rng)
    (texture,) = film_noise_textures([film + 3 / 255 * noise])
    assert texture.shape == (96, 96)
    assert texture.mean() == pytest.approx(0, abs=1e-3)
    assert texture.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(texture).max() < 6


def test_a_film_without_noise_gives_no_texture():
    assert film_noise_textures([np.full((128, 128), 0.5), np.zeros((128, 128))]).shape == (0, 96, 96)


def test_an_image_larger_than_the_textures_gets_gaussian_noise(film):
    textures = np.full((1, 8, 8), 100.0, dtype=np.float32)
    degrade = RandomDegradation(ideal=0, single=0, noise_textures=textures).set_random_state(0)
    assert all(degrade(film, 4).std() < 0.5 for _ in range(30))
