import numpy as np
import pytest
import torch
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.metrics.high_frequency_ratio import HighFrequencyRatio
from monai_sr_bundle.metrics.texture import LogSpectralDistance, ring_power


def wave(cycles, size=64, amplitude=0.25):
    """A sine down the rows, which lies in one ring; for 64 pixels and a reduction by 4 the rings are 9 to 27."""
    line = 0.5 + amplitude * torch.sin(2 * torch.pi * cycles * torch.arange(size) / size)
    return line[None, None, :, None].repeat(1, 1, 1, size)


def test_the_rings_lie_between_the_two_nyquist_frequencies():
    assert ring_power(torch.zeros(1, 1, 256, 256), 4).shape == (1, 110 - 33 + 1)
    assert ring_power(torch.zeros(1, 1, 256, 256), 2).shape == (1, 110 - 65 + 1)
    assert ring_power(torch.zeros(1, 1, 255, 255), 5).shape == (1, 109 - 26 + 1)
    assert ring_power(torch.zeros(1, 1, 4, 4), 2).shape == (1, 0)


def test_rings_are_those_of_the_formula():
    image = draw_phantom(64).astype(np.float64)
    window = np.outer(np.hanning(64), np.hanning(64))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    radius = np.rint(np.hypot(*np.meshgrid(np.fft.fftfreq(64) * 64, np.fft.fftfreq(64) * 64)))
    expected = [power[radius == ring].mean() for ring in range(9, 28)]
    power_of_rings = ring_power(torch.from_numpy(image)[None, None], 4)[0].numpy()
    np.testing.assert_allclose(power_of_rings, expected, rtol=1e-6)


def test_a_ring_is_round_in_an_image_that_is_not_square():
    # 12 cycles in 64 rows and 24 in 128 columns are the same frequency.
    along = 0.5 + 0.25 * torch.sin(2 * torch.pi * 24 * torch.arange(128) / 128)
    across, along = wave(12)[..., :1].repeat(1, 1, 1, 128), along[None, None, None].repeat(1, 1, 64, 1)
    assert ring_power(across, 4).argmax() == ring_power(along, 4).argmax() == 12 - 9


def test_half_the_amplitude_is_a_quarter_of_the_energy():
    ratio = HighFrequencyRatio(4, levels=10**6)(wave(12, amplitude=0.1), wave(12, amplitude=0.2))
    assert ratio.item() == pytest.approx(0.25, rel=1e-4)


def test_what_the_input_could_hold_does_not_count():
    detail = wave(12, amplitude=0.1)
    coarse = 0.2 * torch.sin(2 * torch.pi * 3 * torch.arange(64) / 64)[None, None, None]
    assert HighFrequencyRatio(4)(detail + coarse, detail).item() == pytest.approx(1.0, abs=0.02)


def test_half_the_amplitude_everywhere_is_six_decibels():
    noise = 0.05 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    distance = LogSpectralDistance(4, levels=10**6)(0.5 + noise / 2, 0.5 + noise)
    assert distance.item() == pytest.approx(20 * np.log10(2), rel=1e-3)


def test_the_original_itself_is_right():
    target = torch.from_numpy(draw_phantom(128))[None, None]
    assert HighFrequencyRatio(4)(target, target).item() == 1.0
    assert LogSpectralDistance(4)(target, target).item() == 0.0


def test_a_step_between_opposite_borders_does_not_count():
    ramp = torch.linspace(0.2, 0.8, 64)[None, None, :, None].repeat(1, 1, 1, 64)
    rough = ramp + 0.1 * wave(12) - 0.05
    assert HighFrequencyRatio(4)(ramp, rough).item() < 0.01


def test_without_any_detail_there_is_no_ratio_and_a_distance_of_nothing():
    flat = torch.full((1, 1, 64, 64), 0.5)
    assert torch.isnan(HighFrequencyRatio(4)(flat, flat))
    assert LogSpectralDistance(4)(flat, flat).item() == 0.0


def test_an_image_too_small_for_a_ring_has_neither_figure():
    small = torch.rand(1, 1, 4, 4)
    assert torch.isnan(HighFrequencyRatio(2)(small, small))
    assert torch.isnan(LogSpectralDistance(2)(small, small))
