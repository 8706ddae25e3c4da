from dataclasses import replace

import nibabel
import numpy as np
import pytest
from monai_sr_bundle import enhance
from monai_sr_bundle.calibrate.training_inputs import known_limits, known_range
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.engine.result import resembles_training
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.input_checks import (
    compare_input,
    crop_measured,
    describe_differences,
    describe_outside,
    measure_sharpness_and_noise,
)
from monai_sr_bundle.images.one_image import read_one
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.transforms.random_degradation import FilmDegradation
from monai_sr_bundle.uncertainty.error_bars import LEAST_ENERGY, measure_blockiness, measure_spectrum

from tests.changed_bundles import copied, with_metadata


def low(operator="bicubic_antialias_x4", seed=0):
    high = draw_phantom(256)
    return Degradation.parse(operator)(high, rng=np.random.default_rng(seed))


def test_blur_lowers_sharpness_and_noise_is_found_in_its_size():
    plain = measure_sharpness_and_noise(low())
    assert measure_sharpness_and_noise(low("bicubic_antialias_x4+blur3"))["sharpness_db"] < plain["sharpness_db"] - 2
    flat = np.random.default_rng(0).normal(0.5, 0.02, (200, 150)).astype(np.float32)
    assert measure_sharpness_and_noise(flat)["noise_percent"] == pytest.approx(2.0, rel=0.03)
    ramp = np.linspace(0, 1, 150, dtype=np.float32) + flat  # a slope is no noise
    assert measure_sharpness_and_noise(ramp)["noise_percent"] == pytest.approx(2.0, rel=0.03)


def test_noise_of_whole_grey_levels_is_measured_between_them():
    noise = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    for grey_levels in (0.5, 0.55, 0.6, 0.8):
        stored = np.rint(128 + grey_levels * noise) / 255
        expected = 100 / 255 * np.sqrt(grey_levels**2 + 1 / 12)  # rounding adds noise of its own
        assert measure_sharpness_and_noise(stored)["noise_percent"] == pytest.approx(expected, rel=0.06)


def test_blocks_of_jpeg_are_found_wherever_they_begin_and_noise_has_none():
    film = draw_phantom(256)
    noisy = film + np.random.default_rng(0).normal(0, 0.01, film.shape)
    stored = FilmDegradation(2, noise=2, jpeg_quality=75)(film, np.random.default_rng(0))
    assert measure_blockiness(noisy) < 0.2
    assert measure_blockiness(FilmDegradation(2, noise=2)(film, np.random.default_rng(0))) < 0.2
    assert measure_blockiness(stored) > 0.4
    assert measure_blockiness(stored[3:, 5:]) > 0.4


def test_the_spectrum_holds_noise_and_what_blur_has_taken_whatever_the_size():
    rng = np.random.default_rng(0)
    for shape in ((200, 150), (1200, 64)):
        noise = measure_spectrum(rng.normal(0.5, 0.02, shape))
        # The Hann window leaves 3/8 of the energy along each axis.
        np.testing.assert_allclose(noise, np.log((0.02 * 3 / 8) ** 2), atol=0.35)
    film = draw_phantom(256)
    plain = measure_spectrum(film)
    blurred = measure_spectrum(FilmDegradation(1, blur=1)(film, rng))
    lost = plain - blurred
    assert lost[0] < 0.2
    assert (np.diff(lost[:6]) > 0).all()  # a Gaussian takes more of the finer frequencies
    np.testing.assert_allclose(measure_spectrum(np.full((64, 64), 0.5)), np.log(LEAST_ENERGY))


def test_tiny_images_are_not_judged_and_millimetres_never_count():
    assert measure_sharpness_and_noise(low()[:31]) == {}
    film = np.rint(255 * low()).astype(np.uint8)
    for spacing in (None, (0.14, 0.14), (6.0, 6.0)):
        result = enhance(
            image_from_array(film, "CXR"), "chest_xray_edsr_x4", spacing_mm=spacing
        )  # trained at 5 to 7 mm a pixel
        assert set(result.input_comparison) == {"noise_percent", "sharpness_db"}
        assert not any("spacing" in warning for warning in result.warnings)


RANGE = {"sharpness_db": [-18.0, -11.0], "noise_percent": [0.2, 1.2]}


def test_the_known_range_holds_all_but_the_outermost_inputs():
    inputs = [{"noise_percent": float(value)} for value in range(1001)] + [{"spacing_mm": 1.0}]
    assert known_range(inputs) == {"noise_percent": [5.0, 995.0], "spacing_mm": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ({"sharpness_db": -30.0}, "The input is less sharp than those"),
        ({"sharpness_db": -1.0}, "sharper"),
        ({"noise_percent": 7.0}, "noisier than those the model was trained on (noise 7 % of the window, known 0.2 to"),
        ({"noise_percent": 0.0}, "less noisy"),
    ],
)
def test_a_warning_says_on_which_side_of_the_range_an_input_lies(measured, words):
    inside = {"sharpness_db": -14.0, "noise_percent": 0.5}
    assert describe_differences(compare_input(inside, RANGE)) == []
    (sentence,) = describe_differences(compare_input(inside | measured, RANGE))
    assert words in sentence
    assert sentence.endswith("its figures and error bars may not hold here.")


def test_a_spacing_is_compared_to_the_digits_that_are_shown():
    spans = {"slice_spacing_mm": [3.367, 3.367]}  # of one patient
    sides = [compare_input({"slice_spacing_mm": value}, spans)["slice_spacing_mm"].side for value in (3.3, 3.3672, 3.4)]
    assert sides == [-1, 0, 1]


def test_what_was_not_measured_is_neither_inside_nor_outside_and_no_reason_to_warn():
    input_range = {"slice_spacing_mm": [3.0, 5.0], "noise_percent": [0.2, 1.2]}
    comparisons = compare_input({"noise_percent": 0.5}, input_range)
    assert (comparisons["slice_spacing_mm"].value, comparisons["slice_spacing_mm"].side) == (None, 0)
    assert describe_differences(comparisons) == []
    assert resembles_training(comparisons) is None
    assert resembles_training(compare_input({"noise_percent": 7.0}, input_range)) is False
    assert resembles_training(compare_input({"noise_percent": 0.5, "slice_spacing_mm": 4.0}, input_range))
    assert resembles_training({}) is None  # a bundle that states no ranges


def test_an_image_too_small_to_be_judged_gives_one_warning():
    (sentence,) = describe_differences(compare_input(measure_sharpness_and_noise(np.zeros((31, 64))), RANGE))
    assert sentence.startswith("The input has fewer than 32 pixels along one side, too few to be compared with those")
    film = np.random.default_rng(0).integers(0, 255, (20, 40)).astype(np.uint8)
    assert sentence in enhance(film, "chest_xray_residual_flow_x4").warnings


@pytest.mark.parametrize(("between", "words"), [(1.0, "finer"), (4.0, None), (12.0, "coarser"), (None, None)])
def test_another_distance_of_slices_than_a_through_plane_model_knows_gives_a_warning(tmp_path, between, words):
    volume = np.random.default_rng(0).normal(-500, 20, (40, 40, 6)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.8, 0.8, between or 1.0, 1])), tmp_path / "a.nii")
    image = read_one(tmp_path / "a.nii")
    if between is None:
        image = replace(image, grid=image_from_array(volume[..., 0], "CT").grid)
    bundle = find_bundle("chest_ct_throughplane")
    measured = bundle.family.measure_input(image, bundle.window)
    warnings = describe_differences(compare_input(measured, bundle.metadata["input_range"]))
    assert len(warnings) == (words is not None)
    assert all("new slice spacing" in warning and words in warning for warning in warnings)


def test_the_known_distance_of_new_slices_is_the_same_at_every_factor():
    at_two, at_four = (find_bundle("chest_ct_throughplane").at_scale(scale).metadata for scale in (2, 4))
    assert at_two["input_range"] == at_four["input_range"]


def test_the_engine_warns_of_an_input_unlike_those_of_the_training(tmp_path):
    folder = with_metadata(copied(tmp_path, "bicubic"), input_range={"noise_percent": [0.0, 1.2]})
    film = np.rint(255 * low()).astype(np.uint8)
    noisy = np.clip(film + np.random.default_rng(0).normal(0, 12, film.shape), 0, 255).astype(np.uint8)
    assert not any("noisier" in warning for warning in enhance(film, str(folder)).warnings)
    assert any("The input is noisier than those" in warning for warning in enhance(noisy, str(folder)).warnings)
    assert not any("noisier" in warning for warning in enhance(noisy, "bicubic").warnings)
    assert enhance(noisy, str(folder)).input_comparison["noise_percent"].side == 1
    assert enhance(noisy, "bicubic").input_comparison == {}


@pytest.mark.parametrize(("modality", "difference"), [("CXR", "noisier"), ("CT", "sharper")])
def test_noise_is_unlike_what_every_default_bundle_has_learnt_from(modality, difference):
    static = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    warnings = enhance(image_from_array(static, modality), spacing_mm=(5.5, 5.5)).warnings
    sentence = f"far {difference} than anything that the model was trained on"
    assert any(sentence in warning for warning in warnings)


def test_an_image_that_was_changed_in_place_is_measured_again():
    image = low().copy()
    first = measure_sharpness_and_noise(image)
    measure_sharpness_and_noise(image).clear()  # the copy of the caller
    assert measure_sharpness_and_noise(image) == first
    image += np.random.default_rng(1).normal(0, 0.1, image.shape).astype(np.float32)
    assert measure_sharpness_and_noise(image)["noise_percent"] > 2 * first["noise_percent"]


def test_of_a_large_image_the_middle_is_judged():
    image = np.arange(1100 * 40, dtype=np.float32).reshape(1100, 40)
    np.testing.assert_array_equal(crop_measured(image), image[38:1062])
    assert measure_sharpness_and_noise(image) == measure_sharpness_and_noise(crop_measured(image))


def test_the_limits_lie_beyond_all_training_inputs():
    measured = [
        {"noise_percent": noise, "sharpness_db": -20.0 + noise, "contrast_percent": 40.0 + noise, "spacing_mm": 1.0}
        for noise in (0.1, 1.1, 2.1)
    ]
    limits = known_limits(measured)
    assert limits == {
        "noise_percent": [0.0, 2.3], "sharpness_db": [-20.1, -17.7], "contrast_percent": [20.05, 84.2]
    }  # fmt: skip
    assert describe_outside({"noise_percent": 2.25}, limits) == ""
    assert describe_outside({}, limits) == ""  # too small to be measured
    assert describe_outside({"noise_percent": 9.0, "sharpness_db": -18.0}, limits) == (
        "it is far noisier than anything that the model was trained on (noise 9 % of the window, limits 0 and 2.3)"
    )
    assert "far lower in contrast" in describe_outside({"contrast_percent": 3.0}, limits)


@pytest.mark.parametrize("name", ["chest_xray_blind", "chest_ct_blind"])
def test_a_blind_bundle_knows_its_range_at_every_scale_and_never_in_millimetres(name):
    for scale in (2, 3, 4):
        metadata = find_bundle(name).at_scale(scale).metadata
        assert set(metadata["input_limits"]) == {"noise_percent", "sharpness_db", "contrast_percent"}
        assert "input_range" not in metadata


def test_a_bundle_with_limits_compares_with_them_and_a_forced_image_outside_them_is_warned_of(tmp_path):
    limits = {"sharpness_db": [-60.0, 0.0], "noise_percent": [0.0, 3.0], "contrast_percent": [0.0, 200.0]}
    folder = with_metadata(copied(tmp_path, "chest_xray_edsr_x4"), input_limits=limits)  # and its range of thumbnails
    film = np.rint(255 * low()).astype(np.uint8)
    inside = enhance(film, str(folder))
    assert (inside.input_comparison["noise_percent"].low, inside.input_comparison["noise_percent"].high) == (0.0, 3.0)
    assert resembles_training(inside.input_comparison)
    noisy = np.clip(film + np.random.default_rng(0).normal(0, 30, film.shape), 0, 255).astype(np.uint8)
    warnings = enhance(noisy, str(folder), force_model=True).warnings
    assert any("The input is noisier than those the model was trained on" in warning for warning in warnings)
