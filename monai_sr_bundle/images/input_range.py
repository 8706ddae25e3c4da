"""How an input compares with those a model was trained on: spacing, sharpness and noise.

A network gives an answer to every image. Its figures and error bars are those of images like its training inputs; what
is far from them is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

SHARP, COARSE = (0.35, 0.5), (0.1, 0.25)
"""Bands of spatial frequency, cycles per pixel, whose energies are compared."""
LEAST_SIDE = 32
"""Smaller images are not judged."""
LARGEST_SIDE = 1024
MAY_NOT_HOLD = "its figures and error bars may not hold here"
QUANTILES = (0.5, 99.5)
"""Percent of the training inputs between which an input counts as known."""


class Name(NamedTuple):
    """A measure in words, its unit, and what an input below and above the known range is."""

    words: str
    unit: str
    below: str
    above: str


NAMES = {
    "spacing_mm": Name("pixel spacing", "mm", "finer", "coarser"),
    "slice_spacing_mm": Name("slice spacing", "mm", "finer", "coarser"),
    "sharpness_db": Name("sharpness", "dB", "less sharp", "sharper"),
    "noise_percent": Name("noise", "% of the window", "less noisy", "noisier"),
}


def measure(image: np.ndarray, spacing_mm: float | None = None) -> dict[str, float]:
    """Sharpness and noise of an input.

    Args:
        image: ``[rows, columns]`` in units of the window.
        spacing_mm: geometric mean of the row and column spacing; unknown if None.

    Returns:
        `sharpness_db`: energy of the finest frequencies to that of middle ones. `noise_percent`: standard deviation
        of what no edge explains, by Immerkaer ("Fast noise variance estimation", CVIU 64(2), 1996), in percent of the
        window. `spacing_mm` where it is known. Nothing of an image smaller than `LEAST_SIDE`.
    """
    if min(image.shape) < LEAST_SIDE:
        return {}
    part = judged(image).astype(np.float32, copy=False)
    found = dict(_sharpness_and_noise(part.tobytes(), part.shape))
    return found | ({"spacing_mm": spacing_mm} if spacing_mm else {})


def judged(image: np.ndarray) -> np.ndarray:
    """The part of an image ``[rows, columns]`` that `measure` looks at: the middle, which is enough of a large one."""
    top, left = (max(0, (side - LARGEST_SIDE) // 2) for side in image.shape)
    return image[top : top + LARGEST_SIDE, left : left + LARGEST_SIDE]


@lru_cache(maxsize=2)
def _sharpness_and_noise(content: bytes, shape: tuple[int, int]) -> dict[str, float]:
    """As `measure`, of float32 pixels; kept, because a viewer asks for many regions of the same image."""
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


def known_range(measured: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """The range of each measure over training inputs: the `QUANTILES`, for a bundle's metadata."""
    names = {name for each in measured for name in each}
    return {
        name: [float(f"{end:.4g}") for end in np.percentile([m[name] for m in measured if name in m], QUANTILES)]
        for name in sorted(names)
    }


class Compared(NamedTuple):
    """A measure of an input beside those of the training inputs.

    Attributes:
        value: None where it is unknown, or the image too small to tell.
        low, high: ends of the known range.
    """

    value: float | None
    low: float
    high: float

    @property
    def side(self) -> int:
        """-1 below the known range, 1 above it, 0 inside or unknown; by the digits that are told."""
        if self.value is None:
            return 0
        value, low, high = (float(f"{number:.3g}") for number in (self.value, self.low, self.high))
        return int(value > high) - int(value < low)


def compared(measured: Mapping[str, float], known: Mapping[str, Sequence[float]]) -> dict[str, Compared]:
    """Each measure that a model knows of its training inputs, with that of an input."""
    return {name: Compared(measured.get(name), *known[name]) for name in NAMES if name in known}


def alike(found: Mapping[str, Compared]) -> bool | None:
    """Whether an input is like those a model was trained on; None where a measure of it is unknown and none outside.

    Sharpness and noise do not tell how fine an image is: a film at full resolution may have both of a reduced one.
    """
    if any(each.side for each in found.values()):
        return False
    return None if any(each.value is None for each in found.values()) else True


def too_small(found: Mapping[str, Compared]) -> bool:
    """Whether an input has too few pixels to measure anything of it."""
    return "sharpness_db" in found and found["sharpness_db"].value is None


def unlike(found: Mapping[str, Compared]) -> list[str]:
    """One sentence for each measure of an input that lies outside what a model was trained on, or is unknown."""
    if too_small(found):
        return [
            f"The input has fewer than {LEAST_SIDE} pixels along one side, too few to be compared with those the model "
            f"was trained on: {MAY_NOT_HOLD}."
        ]
    sentences = []
    for name, each in found.items():
        words, unit, below, above = NAMES[name]
        if each.value is None:
            sentences.append(
                f"Whether the input is like those the model was trained on cannot be told: its {words} is unknown "
                f"(known {each.low:.3g} to {each.high:.3g} {unit}); {MAY_NOT_HOLD}."
            )
        elif each.side:
            sentences.append(
                f"The input is {below if each.side < 0 else above} than those the model was trained on ({words} "
                f"{each.value:.3g} {unit}, known {each.low:.3g} to {each.high:.3g}): {MAY_NOT_HOLD}."
            )
    return sentences
