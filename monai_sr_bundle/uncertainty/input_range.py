"""Comparison of an input with a model's training inputs: spacing, sharpness and noise.

A network gives an answer to every image. Its figures and error bars hold for images like its training inputs; an input
that is far from them gets a warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

SHARP, COARSE = (0.35, 0.5), (0.1, 0.25)
"""Bands of spatial frequency, cycles per pixel, whose energies are compared."""
LEAST_SIDE = 32
"""Shortest side, in pixels, of an image that is measured."""
LARGEST_SIDE = 1024
MAY_NOT_HOLD = "its figures and error bars may not hold here"
QUANTILES = (0.5, 99.5)
"""Percentiles of the training inputs that bound the known range."""


class MeasureName(NamedTuple):
    """The name of a measure in words, its unit, and the adjectives for an input below and above the known range."""

    words: str
    unit: str
    below: str
    above: str


NAMES = {
    "spacing_mm": MeasureName("pixel spacing", "mm", "finer", "coarser"),
    "slice_spacing_mm": MeasureName("slice spacing", "mm", "finer", "coarser"),
    "sharpness_db": MeasureName("sharpness", "dB", "less sharp", "sharper"),
    "noise_percent": MeasureName("noise", "% of the window", "less noisy", "noisier"),
}


def measure_sharpness_and_noise(image: np.ndarray, spacing_mm: float | None = None) -> dict[str, float]:
    """Measure the sharpness and noise of an input.

    Args:
        image: ``[rows, columns]`` in units of the window.
        spacing_mm: geometric mean of the row and column spacing; None if unknown.

    Returns:
        `sharpness_db`: energy of the finest frequencies to that of middle ones. `noise_percent`: standard deviation
        of the grain that no edge explains, by Immerkaer ("Fast noise variance estimation", CVIU 64(2), 1996), in
        percent of the window. `spacing_mm` if known. Nothing for an image smaller than `LEAST_SIDE`.
    """
    if min(image.shape) < LEAST_SIDE:
        return {}
    pixels = crop_measured(image).astype(np.float32, copy=False)
    measures = dict(_measure_pixels(pixels.tobytes(), pixels.shape))
    return measures | ({"spacing_mm": spacing_mm} if spacing_mm else {})


def crop_measured(image: np.ndarray) -> np.ndarray:
    """Return the middle of an image ``[rows, columns]``: as much as is measured of a large one."""
    top, left = (max(0, (side - LARGEST_SIDE) // 2) for side in image.shape)
    return image[top : top + LARGEST_SIDE, left : left + LARGEST_SIDE]


@lru_cache(maxsize=2)
def _measure_pixels(content: bytes, shape: tuple[int, int]) -> dict[str, float]:
    """Measure float32 pixels; results are cached, because a viewer asks for many regions of the same image."""
    pixels = np.frombuffer(content, np.float32).reshape(shape).astype(np.float64)
    power = np.abs(np.fft.fft2((pixels - pixels.mean()) * np.outer(*(np.hanning(side) for side in pixels.shape)))) ** 2
    rows, columns = (np.fft.fftfreq(side) for side in pixels.shape)
    frequency = np.hypot(rows[:, None], columns[None, :])
    fine, middle = (power[(frequency >= low) & (frequency < high)].mean() for low, high in (SHARP, COARSE))
    second = pixels[:-2] - 2 * pixels[1:-1] + pixels[2:]
    fourth = second[:, :-2] - 2 * second[:, 1:-1] + second[:, 2:]
    return {
        "sharpness_db": float(10 * np.log10((fine + 1e-12) / (middle + 1e-12))),
        # A median in place of the mean: bones and letters are no noise.
        "noise_percent": float(100 * np.median(np.abs(fourth)) / (6 * 0.6745)),
    }


def known_range(inputs: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return the range of each measure over training inputs, the `QUANTILES`, for a bundle's metadata."""
    names = {name for measures in inputs for name in measures}
    return {
        name: [float(f"{end:.4g}") for end in np.percentile([m[name] for m in inputs if name in m], QUANTILES)]
        for name in sorted(names)
    }


class InputComparison(NamedTuple):
    """A measure of an input and its range over the training inputs.

    Attributes:
        value: the input's value; None if it is unknown or the image is too small to be measured.
        low, high: ends of the known range.
    """

    value: float | None
    low: float
    high: float

    @property
    def side(self) -> int:
        """Return -1 below the known range, 1 above it, 0 inside or unknown; compared by the digits that are shown."""
        if self.value is None:
            return 0
        value, low, high = (float(f"{number:.3g}") for number in (self.value, self.low, self.high))
        return int(value > high) - int(value < low)


def compare_input(measures: Mapping[str, float], ranges: Mapping[str, Sequence[float]]) -> dict[str, InputComparison]:
    """Compare an input's measures with their ranges over a model's training inputs."""
    return {name: InputComparison(measures.get(name), *ranges[name]) for name in NAMES if name in ranges}


def resembles_training(comparisons: Mapping[str, InputComparison]) -> bool | None:
    """Return whether an input is like the training inputs; None if a measure is unknown and none lies outside.

    Sharpness and noise do not tell how fine an image is: a film at full resolution may have both of a reduced one.
    """
    if any(comparison.side for comparison in comparisons.values()):
        return False
    return None if any(comparison.value is None for comparison in comparisons.values()) else True


def is_too_small(comparisons: Mapping[str, InputComparison]) -> bool:
    """Return whether an input has too few pixels to be measured."""
    return "sharpness_db" in comparisons and comparisons["sharpness_db"].value is None


def describe_differences(comparisons: Mapping[str, InputComparison]) -> list[str]:
    """Write one sentence for each measure of an input that is unknown or outside the range of the training inputs."""
    if is_too_small(comparisons):
        return [
            f"The input has fewer than {LEAST_SIDE} pixels along one side, too few to be compared with those the model "
            f"was trained on: {MAY_NOT_HOLD}."
        ]
    sentences = []
    for name, (value, low, high) in comparisons.items():
        words, unit, below, above = NAMES[name]
        side = comparisons[name].side
        if value is None:
            sentences.append(
                f"Whether the input is like those the model was trained on cannot be told: its {words} is unknown "
                f"(known {low:.3g} to {high:.3g} {unit}); {MAY_NOT_HOLD}."
            )
        elif side:
            sentences.append(
                f"The input is {below if side < 0 else above} than those the model was trained on ({words} "
                f"{value:.3g} {unit}, known {low:.3g} to {high:.3g}): {MAY_NOT_HOLD}."
            )
    return sentences
