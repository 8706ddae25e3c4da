"""Comparison of an input with the training inputs of a model: by what the network sees, never by millimetres.

A network enlarges any image, but its figures and error bars hold for images like its training inputs: by sharpness,
noise and contrast. Outside the limits that a bundle states, an image is interpolated. A bundle without limits states a
range, beyond which the user is warned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

FINE_BAND, MIDDLE_BAND, COARSE_BAND = (0.35, 0.5), (0.1, 0.25), (0.02, 0.1)
"""Bands of spatial frequency, in cycles per pixel, whose energies give the sharpness and the detail."""
LEAST_SIDE = 32
"""Smallest side of an image that is measured."""
LARGEST_SIDE = 1024
BLOCK = 8
"""Side of a block of JPEG in pixels."""
MAY_NOT_HOLD = "its figures and error bars may not hold here"
MIDDLE, MIDDLE_MEAN_OF_NOISE = (0.35, 0.65), 0.6807
"""Quantiles of second differences that noise is measured between, and their mean for noise of standard deviation 1."""
QUANTILES = (0.5, 99.5)
"""Percentiles of the training inputs that end the known range."""
BEYOND = 0.1
"""How far beyond all training inputs the limits of sharpness and noise lie, in parts of their span."""


class MeasureName(NamedTuple):
    """The words for a measure, its unit, and the adjectives of an input below and above the known range."""

    words: str
    unit: str
    below: str
    above: str


NAMES = {
    "slice_spacing_mm": MeasureName("new slice spacing", "mm", "finer", "coarser"),
    "sharpness_db": MeasureName("sharpness", "dB", "less sharp", "sharper"),
    "noise_percent": MeasureName("noise", "% of the window", "less noisy", "noisier"),
    "contrast_percent": MeasureName("contrast", "% of the window", "lower in contrast", "higher in contrast"),
}


def measure_sharpness_and_noise(image: np.ndarray) -> dict[str, float]:
    """Measure the sharpness, noise and contrast of an input.

    Args:
        image: ``[rows, columns]`` in units of the window.

    Returns:
        `sharpness_db`: ratio of the energies of the finest and middle frequencies. `noise_percent`: standard deviation
        of the noise, by Immerkaer ("Fast noise variance estimation", CVIU 64(2), 1996), in percent of the
        window. `contrast_percent`: distance of the 5th and the 95th percentile of the pixels, in percent of the window.
        Empty for an image smaller than `LEAST_SIDE`.
    """
    if min(image.shape) < LEAST_SIDE:
        return {}
    part = crop_measured(image).astype(np.float32, copy=False)
    return dict(_measure_sharpness_and_noise(part.tobytes(), part.shape))


def crop_measured(image: np.ndarray) -> np.ndarray:
    """Return the middle of an image ``[rows, columns]``: the part of a large one that is measured."""
    top, left = (max(0, (side - LARGEST_SIDE) // 2) for side in image.shape)
    return image[top : top + LARGEST_SIDE, left : left + LARGEST_SIDE]


def measure_detail(image: np.ndarray) -> float:
    """Measure how much detail an image has, whatever its sharpness: how slowly its spectrum falls.

    Args:
        image: ``[rows, columns]`` in units of the window, at least `LEAST_SIDE` along each side.

    Returns:
        Ratio of the energies of the middle and coarse frequencies in dB.
    """
    middle, coarse = _band_energies(crop_measured(image).astype(np.float64), (MIDDLE_BAND, COARSE_BAND))
    return _decibel(middle, coarse)


def measure_blockiness(image: np.ndarray) -> float:
    """Measure the edges that JPEG leaves between its blocks of 8 x 8 pixels, wherever in the image they begin.

    Args:
        image: ``[rows, columns]`` in units of the window, at least `LEAST_SIDE` along each side.

    Returns:
        How much larger third differences across the blocks' edges are than all others, as the logarithm of their ratio,
        the mean of both axes: 0 to 0.2 without JPEG, 0.4 to 0.9 with a quality of 85 to 75.
    """
    part = crop_measured(image).astype(np.float64)
    ratios = []
    for lines in (part, part.T):
        third = np.abs(np.diff(lines, n=3, axis=0)).mean(axis=1)
        phases = np.arange(len(third)) % BLOCK
        # The median of the lines ignores single edges, as those of an image's frame.
        levels = np.array([np.median(third[phases == phase]) for phase in range(BLOCK)])
        edge = int(levels.argmax())
        ratios.append(np.log((levels[edge] + 1e-6) / (np.delete(levels, edge).mean() + 1e-6)))
    return float(np.mean(ratios))


@lru_cache(maxsize=2)
def _measure_sharpness_and_noise(content: bytes, shape: tuple[int, int]) -> dict[str, float]:
    """Measure float32 pixels; cached, because a viewer enlarges many regions of the same image."""
    pixels = np.frombuffer(content, np.float32).reshape(shape).astype(np.float64)
    fine, middle = _band_energies(pixels, (FINE_BAND, MIDDLE_BAND))
    second = pixels[:-2] - 2 * pixels[1:-1] + pixels[2:]
    fourth = second[:, :-2] - 2 * second[:, 1:-1] + second[:, 2:]
    return {
        "sharpness_db": _decibel(fine, middle),
        "noise_percent": float(100 * _middle_mean(np.abs(fourth)) / (6 * MIDDLE_MEAN_OF_NOISE)),
        "contrast_percent": float(100 * np.diff(np.percentile(pixels, (5, 95)))[0]),
    }


def _middle_mean(values: np.ndarray) -> float:
    """Return the mean of the values between the quantiles of `MIDDLE`.

    As a median it ignores the edges of bones and letters; but the median of whole grey levels is a whole one.
    """
    first, last = (int(quantile * (values.size - 1)) for quantile in MIDDLE)
    return float(np.partition(values, (first, last), axis=None)[first : last + 1].mean())


def _band_energies(pixels: np.ndarray, bands: Sequence[tuple[float, float]]) -> list[float]:
    """Return the mean energy of each band of spatial frequency."""
    power = np.abs(np.fft.fft2((pixels - pixels.mean()) * np.outer(*(np.hanning(side) for side in pixels.shape)))) ** 2
    rows, columns = (np.fft.fftfreq(side) for side in pixels.shape)
    frequency = np.hypot(rows[:, None], columns[None, :])
    return [float(power[(frequency >= low) & (frequency < high)].mean()) for low, high in bands]


def _decibel(energy: float, reference: float) -> float:
    return float(10 * np.log10((energy + 1e-12) / (reference + 1e-12)))


def known_range(measured: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return the `QUANTILES` of each measure over training inputs, for a bundle's metadata."""
    names = {name for measures in measured for name in measures}
    return {
        name: [float(f"{end:.4g}") for end in np.percentile([m[name] for m in measured if name in m], QUANTILES)]
        for name in sorted(names)
    }


def known_limits(measured: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return limits for sharpness and noise that lie `BEYOND` all training inputs, for a bundle's metadata.

    Those of contrast are half the least and twice the most: a network is trained on parts of images, which have less
    contrast than the whole, and more for their size.
    """
    limits = {}
    for name in ("contrast_percent", "noise_percent", "sharpness_db"):
        values = [measures[name] for measures in measured if name in measures]
        margin = BEYOND * (max(values) - min(values))
        low, high = min(values) - margin, max(values) + margin
        if name == "contrast_percent":
            low, high = min(values) / 2, 2 * max(values)
        limits[name] = [float(f"{end:.4g}") for end in (low if name == "sharpness_db" else max(0.0, low), high)]
    return limits


def describe_outside(measured: Mapping[str, float], limits: Mapping[str, Sequence[float]]) -> str:
    """Return by which measure an input is outside the limits of a bundle, in words; empty where it is inside."""
    for name, comparison in compare_input(measured, limits).items():
        words, unit, below, above = NAMES[name]
        if comparison.side:
            return (
                f"it is far {below if comparison.side < 0 else above} than anything that the model was trained on "
                f"({words} {comparison.value:.3g} {unit}, limits {comparison.low:.3g} and {comparison.high:.3g})"
            )
    return ""


class InputComparison(NamedTuple):
    """A measure of an input and its range over the training inputs.

    Attributes:
        value: measure of the input; None if the image is too small, or the distance of its slices unknown.
        low, high: ends of the known range.
    """

    value: float | None
    low: float
    high: float

    @property
    def side(self) -> int:
        """-1 below the known range, 1 above it, 0 inside or unknown, after rounding to the printed digits."""
        if self.value is None:
            return 0
        value, low, high = (float(f"{number:.3g}") for number in (self.value, self.low, self.high))
        return int(value > high) - int(value < low)


def compare_input(measured: Mapping[str, float], ranges: Mapping[str, Sequence[float]]) -> dict[str, InputComparison]:
    """Return the measures of an input with the known ranges of a model's training inputs."""
    return {name: InputComparison(measured.get(name), *ranges[name]) for name in NAMES if name in ranges}


def resembles_training(comparison: Mapping[str, InputComparison]) -> bool | None:
    """Return whether an input is like the training inputs; None if that is unknown.

    It is unknown for a bundle that states no ranges, and where nothing could be measured.
    """
    if any(measure.side for measure in comparison.values()):
        return False
    return True if comparison and all(measure.value is not None for measure in comparison.values()) else None


def is_too_small(comparison: Mapping[str, InputComparison]) -> bool:
    """Return whether an input has too few pixels to be measured."""
    return "sharpness_db" in comparison and comparison["sharpness_db"].value is None


def describe_differences(comparison: Mapping[str, InputComparison]) -> list[str]:
    """Return a sentence for each measure of an input that is outside the range of the training inputs."""
    if is_too_small(comparison):
        return [
            f"The input has fewer than {LEAST_SIDE} pixels along one side, too few to be compared with those the model "
            f"was trained on: {MAY_NOT_HOLD}."
        ]
    sentences = []
    for name, measure in comparison.items():
        words, unit, below, above = NAMES[name]
        if measure.side:
            sentences.append(
                f"The input is {below if measure.side < 0 else above} than those the model was trained on ({words} "
                f"{measure.value:.3g} {unit}, known {measure.low:.3g} to {measure.high:.3g}): {MAY_NOT_HOLD}."
            )
    return sentences
