"""Detection over all images of a comparison: sensitivity to blobs, and detectability of nodules that were drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from monai_sr_bundle.uncertainty.blobs import SIGMAS, BlobCounts, mean_sensitivity
from monai_sr_bundle.uncertainty.hotelling import detectability

RESAMPLES = 1000
ORIGINAL = "the original"


class Signals(NamedTuple):
    """Outputs of the observer's channels at the nodules of one image, ``[nodules, channels]`` each.

    Attributes:
        present, absent: outputs for the result with the nodules and without.
        true_present, true_absent: outputs for the original with the nodules and without.
    """

    present: np.ndarray
    absent: np.ndarray
    true_present: np.ndarray
    true_absent: np.ndarray


class Detections(NamedTuple):
    """Counts and signals of one image, from which detection is measured.

    Attributes:
        blobs: counts by standard deviation, and whether the blobs are dark.
        signals: outputs of the observer's channels by standard deviation of the nodules.
    """

    blobs: Mapping[tuple[float, bool], BlobCounts]
    signals: Mapping[float, Signals]


class Estimate(NamedTuple):
    """A figure over all images together with its 95 % interval, by bootstrap over patients."""

    mean: float
    low: float
    high: float


class DetectionRow(NamedTuple):
    """Figures of detection of a method by name, and their differences to those of the reference."""

    figures: dict[str, Estimate]
    differences: dict[str, Estimate]


def describe_blobs(sigma: float, dark: bool) -> str:
    """Return "bright blobs, sigma 1.5 pixels"."""
    return f"{'dark' if dark else 'bright'} blobs, sigma {_format_pixels(sigma)}"


def _format_pixels(sigma: float) -> str:
    return f"{sigma:g} pixel{'s' * (sigma != 1)}"


def _name_sensitivity(sigma: float, dark: bool) -> str:
    return f"sensitivity_{'dark' if dark else 'bright'}_{sigma:g}"


def _name_detectability(sigma: float) -> str:
    return f"detectability_{sigma:g}"


BLOBS = tuple((sigma, dark) for dark in (False, True) for sigma in SIGMAS)
"""Sizes and signs of the blobs."""
DETECTION_FIGURES = {
    **{_name_sensitivity(*key): f"sensitivity to {describe_blobs(*key)}" for key in BLOBS},
    **{
        _name_detectability(sigma): f"detectability d\u2032 of a nodule, sigma {_format_pixels(sigma)}"
        for sigma in SIGMAS
    },
}
"""Figures over all images together, with their titles: sensitivity to blobs, and detectability."""


def measure_detection(
    detections: Sequence[Detections],
    patients: Sequence[str],
    reference: Sequence[Detections] | None = None,
    names: Sequence[str] = tuple(DETECTION_FIGURES),
) -> dict[str, Estimate]:
    """Return the `DETECTION_FIGURES` of a method, or their differences to those of another one.

    Args:
        detections: one for each image.
        patients: patient of each image.
        reference: detections of the other method, for the same images. Default: none.
        names: the figures. Default: all.
    """
    draws = _draw_images(patients)
    estimates = {}
    for name in names:
        measure = _figure(name)

        def compare(images: Sequence[int], measure: Callable[..., float] = measure) -> float:
            value = measure([detections[index] for index in images])
            return value if reference is None else value - measure([reference[index] for index in images])

        value, *resampled = (compare(images) for images in ([*range(len(detections))], *draws))
        if np.isfinite(value):  # there is a blob to find
            estimates[name] = Estimate(value, *(float(end) for end in np.nanpercentile(resampled, [2.5, 97.5])))
    return estimates


def compare_detection(
    detections: Mapping[str, Sequence[Detections]], patients: Sequence[str], reference: str
) -> dict[str, DetectionRow]:
    """Measure the detection of several methods on the same images.

    Args:
        detections: detections of each image, by method.
        patients: patient of each image.
        reference: method that the others are compared with.

    Returns:
        A row for each method, and one for `ORIGINAL`; none if there is no method.
    """
    rows = {}
    for method, ours in detections.items():
        theirs = detections.get(reference) if method != reference else None
        differences = measure_detection(ours, patients, theirs) if theirs else {}
        rows[method] = DetectionRow(measure_detection(ours, patients), differences)
    if detections:
        rows[ORIGINAL] = DetectionRow(_measure_original(next(iter(detections.values())), patients), {})
    return rows


def _measure_original(detections: Sequence[Detections], patients: Sequence[str]) -> dict[str, Estimate]:
    """Return the detectability in the originals, which no method can exceed but by chance."""
    of_original = [
        each._replace(
            signals={
                sigma: signals._replace(present=signals.true_present, absent=signals.true_absent)
                for sigma, signals in each.signals.items()
            }
        )
        for each in detections
    ]
    return measure_detection(of_original, patients, names=[_name_detectability(sigma) for sigma in SIGMAS])


def _figure(name: str) -> Callable[[Sequence[Detections]], float]:
    for key in BLOBS:
        if name == _name_sensitivity(*key):
            return lambda detections: mean_sensitivity([each.blobs[key] for each in detections])
    (sigma,) = (sigma for sigma in SIGMAS if name == _name_detectability(sigma))
    return lambda detections: detectability(
        np.concatenate([each.signals[sigma].present for each in detections]),
        np.concatenate([each.signals[sigma].absent for each in detections]),
    )


def _draw_images(patients: Sequence[str]) -> list[list[int]]:
    """Draw patients with replacement, each with all of their images: the images of every draw."""
    images_of: dict[str, list[int]] = {}
    for index, patient in enumerate(patients):
        images_of.setdefault(patient, []).append(index)
    groups = list(images_of.values())
    picks = np.random.default_rng(0).integers(len(groups), size=(RESAMPLES, len(groups)))
    return [[index for pick in row for index in groups[pick]] for row in picks]
