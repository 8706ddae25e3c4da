import numpy as np
import pytest
from monai_sr_bundle.degradation import Degradation, reduction_matrix
from monai_sr_bundle.report.build import describe_operator
from PIL import Image as Picture

PILLOW = {
    "bicubic_antialias": Picture.Resampling.BICUBIC,
    "bilinear_antialias": Picture.Resampling.BILINEAR,
    "area": Picture.Resampling.BOX,
}


@pytest.fixture
def image():
    return np.random.default_rng(0).random((48, 64), dtype=np.float32)


@pytest.mark.parametrize("kernel", PILLOW)
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_matrices_are_those_of_pillow(image, kernel, scale):
    size = (image.shape[1] // scale, image.shape[0] // scale)
    expected = np.asarray(Picture.fromarray(image).resize(size, PILLOW[kernel]))
    np.testing.assert_allclose(Degradation(kernel, scale).reduce(image), expected, atol=3e-7)


def test_a_slab_averages_rows_and_leaves_the_columns(image):
    slab = Degradation.parse("slab_area_x4")
    assert slab.name == "slab_area_x4"
    expected = image.reshape(12, 4, 64).mean(axis=1)
    np.testing.assert_allclose(slab.reduce(image), expected, atol=1e-6)
    np.testing.assert_allclose(slab(image), np.rint(expected * 255) / 255, atol=1e-6)


def test_nearest_takes_a_pixel_as_it_is(image):
    np.testing.assert_array_equal(Degradation("nearest", 2).reduce(image), image[1::2, 1::2])


@pytest.mark.parametrize("kernel", ["bicubic_antialias", "bilinear_antialias", "area", "nearest"])
def test_a_constant_image_stays_constant(kernel):
    np.testing.assert_allclose(reduction_matrix(kernel, 4, 64).sum(axis=1), 1.0)


@pytest.mark.parametrize("name", ["bicubic_antialias_x4", "area_x2", "nearest_x8", "area_x4+blur0.8+noise2+jpeg70"])
def test_a_name_parses_to_the_operator_with_that_name(name):
    assert Degradation.parse(name).name == name


@pytest.mark.parametrize("name", ["bicubic", "lanczos_x4", "area_x0", "area_x2+jpeg", "area_x2+noise1+blur1"])
def test_an_unknown_name_says_what_is_known(name):
    with pytest.raises(ValueError, match="expected KERNEL_xSCALE.*bicubic_antialias, bilinear_antialias, area"):
        Degradation.parse(name)


def test_the_result_is_rounded_to_the_storage(image):
    low = Degradation("area", 4)(image)
    np.testing.assert_allclose(low * 255, np.rint(low * 255), atol=1e-4)


def test_hounsfield_values_above_the_window_are_kept():
    assert Degradation("area", 4)(np.full((8, 8), 2.5), levels=1400).max() == pytest.approx(2.5)


def test_noise_follows_the_generator(image):
    noisy = Degradation.parse("area_x4+noise8")
    first, second = (noisy(image, rng=np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    residual = (noisy(image, rng=np.random.default_rng(2)) - Degradation("area", 4)(image)) * 255
    assert 6 < residual.std() < 10


def test_blur_lowers_the_variance_and_keeps_the_mean(image):
    sharp, blurred = Degradation("area", 4).reduce(image), Degradation("area", 4, blur=3.0).reduce(image)
    assert blurred.std() < 0.5 * sharp.std()
    assert blurred.mean() == pytest.approx(sharp.mean(), abs=0.01)


def test_jpeg_changes_a_noisy_image_a_little(image):
    difference = Degradation.parse("area_x4+jpeg60")(image) - Degradation("area", 4)(image)
    assert 0 < np.abs(difference).mean() < 0.1


def test_noise_without_a_generator_is_refused(image):
    with pytest.raises(ValueError, match="adds noise: pass a seeded random generator"):
        Degradation.parse("area_x4+noise8")(image)


def test_a_jpeg_of_hounsfield_values_is_refused(image):
    with pytest.raises(ValueError, match="a JPEG, which has 255 steps, not 1400"):
        Degradation.parse("area_x4+jpeg60")(image, levels=1400)


def test_a_jpeg_quality_beyond_95_is_refused():
    with pytest.raises(ValueError, match="JPEG quality is 99, expected 1 to 95"):
        Degradation.parse("area_x4+jpeg99")


def test_a_length_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="50 samples cannot be reduced by 4 exactly"):
        reduction_matrix("area", 4, 50)


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel is 'lanczos'"):
        reduction_matrix("lanczos", 4, 64)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "bicubic_antialias_x4",
            "each coarse pixel, as wide and as high as 4 fine ones, is a mean of the fine pixels around it, weighted "
            "by a smooth curve (bicubic)",
        ),
        (
            "nearest_x2",
            "each coarse pixel, as wide and as high as 2 fine ones, is one of the fine pixels that it covers",
        ),
        (
            "area_x2+blur1+noise2+jpeg70",
            "the mean of the fine pixels that it covers, blurred first, with noise added, sto",
        ),
        ("slab_area_x5", "each thick slice is the mean of 5 thin ones"),
    ],
)
def test_an_operator_is_told_in_words(name, words):
    assert words in describe_operator(name)
