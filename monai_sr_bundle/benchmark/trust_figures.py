"""Figures of trust in one result of known truth: consistency, error bars, agreement by frequency, small structures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from monai_sr_bundle.benchmark.detection import BLOBS, Detections, Signals
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.uncertainty.blobs import SIGMAS, count_blobs, find_blobs, measure_contrast
from monai_sr_bundle.uncertainty.hotelling import channel_outputs
from monai_sr_bundle.uncertainty.nodules import AMPLITUDE, choose_positions, draw_nodules, recovered_contrast
from monai_sr_bundle.uncertainty.ring_correlation import cut_offs

STRUCTURE_CONTRAST = 4.0 / 255.0
"""Contrast from which a blob of the result counts as a structure that its error bars are looked at for."""


@dataclass(frozen=True)
class Subject:
    """One image and a method's result.

    Attributes:
        name: name of the image.
        low_res: ``[rows, columns]``, the method's input.
        super_res: ``[scale * rows, scale * columns]``, the result as it is stored, in units of the window.
        high_res: the truth.
        box_mask: bool mask of `high_res`, True inside boxes of findings.
        half_width: half-widths of the error bars; None without error bars.
    """

    name: str
    low_res: np.ndarray
    super_res: np.ndarray
    high_res: np.ndarray
    box_mask: np.ndarray
    half_width: np.ndarray | None


def trust_figures(
    subject: Subject, enlarge: Callable[[np.ndarray], np.ndarray], degradation: Degradation, levels: int
) -> tuple[dict[str, float], Detections]:
    """Measure consistency, coverage, agreement by frequency, and small structures.

    Args:
        subject: the image and its result.
        enlarge: the method, a function from an input to a stored result.
        degradation: degradation that the method undoes.
        levels: grey steps of the storage between 0 and 1.

    Returns:
        Values by the names of `benchmark.comparison.FIGURES`, not a number if the image has none; and what detection is
        measured by, over all images together.
    """
    difference = levels * (degradation.reduce(subject.super_res) - subject.low_res)
    frequencies = cut_offs(subject.super_res, subject.high_res)
    nyquist = 0.5 / degradation.scale
    recovered, signals = _draw_and_recover_nodules(subject, enlarge, degradation, levels)
    blobs = {(sigma, dark): count_blobs(subject.super_res, subject.high_res, sigma, dark=dark) for sigma, dark in BLOBS}
    figures = {
        "consistency": float(np.sqrt(np.square(difference).mean())),
        **_coverage(subject, levels),
        "cut_off": float(np.median(frequencies)) if frequencies.size else float("nan"),
        "disagreeing_patches": float((frequencies < nyquist / 2).mean()) if frequencies.size else float("nan"),
        **recovered,
    }
    return figures, Detections(blobs, signals)


def _coverage(subject: Subject, levels: int) -> Mapping[str, float]:
    if subject.half_width is None:
        return dict.fromkeys(("coverage", "structure_coverage", "box_coverage", "error_bar"), float("nan"))
    inside = np.abs(subject.high_res - subject.super_res) <= subject.half_width
    return {
        "coverage": float(inside.mean()),
        "structure_coverage": _mean_inside(inside[find_structures(subject.super_res)]),
        "box_coverage": _mean_inside(inside[subject.box_mask]),
        "error_bar": levels * float(subject.half_width.mean()),
    }


def find_structures(super_res: np.ndarray) -> np.ndarray:
    """Return where a result shows a bright or dark blob of at least `STRUCTURE_CONTRAST`: booleans of its shape."""
    contrasts = [(sigma, measure_contrast(super_res, sigma)) for sigma in SIGMAS]
    return np.logical_or.reduce(
        [find_blobs(sign * contrast, sigma, STRUCTURE_CONTRAST) for sigma, contrast in contrasts for sign in (1, -1)]
    )


def measure_parts(error: np.ndarray, super_res: np.ndarray, half_width: np.ndarray, valid: np.ndarray) -> list[float]:
    """Return which share of the pixels is inside the error bars, in parts of a result, and how wide these are.

    Args:
        error: absolute errors, in units of the window.
        super_res: the result, of the same shape.
        half_width: half-widths of its error bars.
        valid: booleans of the same shape, false in padding.

    Returns:
        The share at small structures, see `find_structures`; the shares in the ten tenths of the pixels with the
        narrowest error bars to the widest; and their mean half-width relative to the one half-width for all pixels
        that as many errors are within. Not a number where there is no such pixel.
    """
    inside = error <= half_width
    by_width = inside[valid][np.argsort(half_width[valid], kind="stable")]
    parts = (inside[find_structures(super_res) & valid], *np.array_split(by_width, 10))
    same_for_all = np.quantile(error[valid], inside[valid].mean()) if valid.any() else np.nan
    return [
        *map(_mean_inside, parts),
        float(half_width[valid].mean() / same_for_all) if same_for_all > 0 else float("nan"),
    ]


def _mean_inside(inside: np.ndarray) -> float:
    return float(inside.mean()) if inside.size else float("nan")


def _draw_and_recover_nodules(
    subject: Subject, enlarge: Callable[[np.ndarray], np.ndarray], degradation: Degradation, levels: int
) -> tuple[dict[str, float], dict[float, Signals]]:
    """Enlarge the image with nodules in it, of one size after the other."""
    figures, signals = {}, {}
    rows, columns = subject.high_res.shape
    positions = choose_positions(subject.name, (rows, columns))
    for sigma in SIGMAS:
        nodules = AMPLITUDE * draw_nodules(positions, sigma, (rows, columns))
        with_nodules = subject.high_res + nodules.max(axis=0)
        super_res = enlarge(degradation(with_nodules, levels=levels))
        parts = [recovered_contrast(super_res, subject.super_res, nodule) for nodule in nodules]
        figures[f"nodule_{sigma:g}"] = float(np.mean(parts))
        signals[sigma] = Signals(
            *(
                channel_outputs(image, positions, sigma)
                for image in (super_res, subject.super_res, with_nodules, subject.high_res)
            )
        )
    return figures, signals
