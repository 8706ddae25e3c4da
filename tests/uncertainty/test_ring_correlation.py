import numpy as np
import pytest
from monai_sr_bundle.inferers.postprocessing import enlarge_bicubic
from monai_sr_bundle.uncertainty.ring_correlation import PATCH, STRIDE, cut_offs


def texture(side=120, seed=0):
    return (0.5 + 0.1 * np.random.default_rng(seed).standard_normal((side, side))).astype(np.float32)


def low_passed(image, highest):
    spectrum = np.fft.fft2(image)
    frequency = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.fftfreq(image.shape[1])[None, :])
    return np.fft.ifft2(np.where(frequency <= highest, spectrum, 0)).real.astype(np.float32)


def test_an_image_agrees_with_itself_up_to_the_finest_frequency():
    assert set(cut_offs(texture(), texture())) == {0.5}


@pytest.mark.parametrize("frequency", [0.125, 0.25])
def test_other_detail_beyond_a_frequency_is_told_by_this_frequency(frequency):
    truth = texture()
    result = low_passed(truth, frequency) + texture(seed=1) - low_passed(texture(seed=1), frequency)
    assert np.median(cut_offs(result, truth)) == pytest.approx(frequency, abs=1.5 / PATCH)


def test_missing_detail_disagrees_and_other_texture_agrees_nowhere():
    truth = texture()
    assert np.median(cut_offs(enlarge_bicubic(truth[::4, ::4], 4), truth)) < 0.2
    assert np.median(cut_offs(texture(seed=1), truth)) < 0.1


def test_flat_patches_hold_nothing_to_agree_on():
    half_flat = texture()
    half_flat[:, 60:] = 0.5
    per_side = (120 - PATCH) // STRIDE + 1
    assert 0 < len(cut_offs(half_flat, half_flat)) < per_side**2
    assert len(cut_offs(texture(), texture())) == per_side**2
    assert cut_offs(np.zeros((120, 120)), np.zeros((120, 120))).size == 0


def test_images_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(60, 60\) and the truth \(120, 120\)"):
        cut_offs(texture(60), texture())
