import numpy as np
import pytest
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.transforms.random_degradation import KERNELS, RandomScanDegradation, ScanDegradation, kernel_noise


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def scan():
    return np.stack([1400 * draw_phantom(96, seed=seed) - 1000 for seed in range(3)]).astype(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_reduction_alone_is_that_of_the_named_operator(scan, rng, kernel, scale):
    expected = np.rint(Degradation(kernel, scale).reduce(scan))
    low_res = ScanDegradation(scale, kernel)(scan, rng)
    assert low_res.dtype == np.float32
    assert np.mean(low_res != expected) < 0.01  # float32 may round half a HU the other way
    np.testing.assert_allclose(low_res, expected, atol=1)


def test_values_beyond_the_window_are_kept(rng):
    low_res = ScanDegradation(4)(np.full((1, 16, 16), 3000.0), rng)
    np.testing.assert_array_equal(low_res, 3000)


def test_noise_has_the_stated_deviation_and_differs_from_slice_to_slice(rng):
    flat = np.zeros((3, 512, 512))
    low_res = ScanDegradation(4, noise=30, noise_growth=0.5, noise_cutoff=0.4)(flat, rng)
    assert low_res.std(axis=(1, 2)) == pytest.approx(30, rel=0.05)
    between = np.corrcoef(low_res.reshape(3, -1))[np.triu_indices(3, 1)]
    assert np.abs(between).max() < 0.05


@pytest.mark.parametrize(("growth", "cutoff"), [(0, 0.2), (0.5, 0.45), (1, 0.7)])
def test_noise_has_the_stated_spectrum(rng, growth, cutoff):
    noise = kernel_noise((64, 128, 128), growth, cutoff, rng)
    amplitude = np.sqrt((np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0))
    along, other = amplitude[0, 16], amplitude[32, 32]  # at 1/8 and at the square root of 1/8 cycles a pixel
    frequencies = np.array([1 / 8, np.sqrt(1 / 8)])
    expected = frequencies**growth * np.exp(-((frequencies / cutoff) ** 2))
    assert along / other == pytest.approx(expected[0] / expected[1], rel=0.4)


def test_stretched_noise_is_longer_along_rows(rng):
    noise = kernel_noise((64, 128, 128), 0, 0.3, rng, stretch=2)
    amplitude = np.sqrt((np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0))
    assert amplitude[0, 16] / amplitude[32, 0] == pytest.approx(1, rel=0.4)  # 1/8 along rows as 1/4 along columns
    assert noise.std() == pytest.approx(1, rel=0.05)


def test_sharpening_overshoots_at_an_edge(rng):
    edge = np.full((1, 96, 96), -800.0)
    edge[..., 48:] = 40.0
    plain, sharpened = (ScanDegradation(4, "area", sharpening=weight)(edge, rng) for weight in (0.0, 0.4))
    assert sharpened.max() > plain.max() + 50
    assert sharpened.min() < plain.min() - 50
    np.testing.assert_array_equal(sharpened[..., :4], plain[..., :4])


def test_padding_is_air_without_noise_and_a_pixel_partly_of_it_is_measured(rng):
    padding = np.zeros((1, 64, 64), dtype=bool)
    padding[..., :18] = True
    low_res = ScanDegradation(4, noise=50)(np.full((1, 64, 64), -1000.0), rng, padding)
    np.testing.assert_array_equal(low_res[..., :4], -1000)
    assert low_res[..., 4].std() > 20


def test_the_stated_shares_are_drawn():
    draw = RandomScanDegradation().set_random_state(0).draw
    draws = [draw(4) for _ in range(4000)]
    kernels = [each.kernel for each in draws]
    assert set(kernels) == set(KERNELS)
    assert kernels.count("area") / 4000 == pytest.approx(0.5 * 2 / 5, abs=0.02)
    assert np.mean([each.noise > 0 for each in draws]) == pytest.approx(0.7, abs=0.02)
    assert np.mean([each.sharpening > 0 for each in draws]) == pytest.approx(0.15, abs=0.02)
    noisy = [each for each in draws if each.noise]
    assert np.mean([each.noise for each in noisy]) == pytest.approx(38.2, abs=1.5)
    assert max(each.noise for each in noisy) < 100
    assert max(each.noise - 200 * each.noise_cutoff for each in noisy) < 0  # what a soft kernel lets through
    assert np.mean([each.noise_cutoff < 0.49 for each in noisy]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([each.noise_stretch == 1 for each in noisy]) == pytest.approx(0.5, abs=0.03)
    assert 2.4 < max(each.noise_stretch for each in noisy) < 2.5


def test_the_same_seed_gives_the_same_slices(scan):
    first, second = (RandomScanDegradation().set_random_state(7)(scan, 3) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (3, 32, 32)
