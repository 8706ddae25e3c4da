"""How far one result of known truth can be trusted, in figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.uncertainty.nodules import (
    AMPLITUDE,
    SIGMAS,
    Nodule,
    exaggerated_blobs,
    false_nodules,
    in_chest,
    places,
    recovered_contrast,
    seen,
)
from monai_sr_bundle.uncertainty.ring_correlation import cut_offs


@dataclass(frozen=True)
class Subject:
    """One image and what a method made of it.

    Attributes:
        name: of the image.
        low: ``[rows, columns]``, what the method saw.
        made: ``[scale * rows, scale * columns]``, as it is stored, in units of the window.
        high: the truth.
        box_mask: of `high`, True inside boxes of findings.
        half_width: of the error bars; None without.
    """

    name: str
    low: np.ndarray
    made: np.ndarray
    high: np.ndarray
    box_mask: np.ndarray
    half_width: np.ndarray | None


def trust_figures(
    subject: Subject, enlarge: Callable[[np.ndarray], np.ndarray], degradation: Degradation, levels: int
) -> dict[str, float]:
    """Consistency, coverage, agreement by frequency, and nodules.

    Args:
        subject: the image.
        enlarge: the method, from what it sees to what it makes.
        degradation: that the method undoes.
        levels: of the storage between 0 and 1.

    Returns:
        By the names of `benchmark.comparison.FIGURES`; not a number where the image has none.
    """
    difference = levels * (degradation.reduce(subject.made) - subject.low)
    agreed = cut_offs(subject.made, subject.high)
    nyquist = 0.5 / degradation.scale
    return {
        "consistency": float(np.sqrt(np.square(difference).mean())),
        **_coverage(subject, levels),
        "cut_off": float(np.median(agreed)) if agreed.size else float("nan"),
        "disagreeing_patches": float((agreed < nyquist / 2).mean()) if agreed.size else float("nan"),
        **_recovered(subject, enlarge, degradation, levels),
        **_blobs(subject),
    }


def _blobs(subject: Subject) -> Mapping[str, float]:
    """Those of the original that are shown, and those that are shown without being there: all sizes together."""
    shown = np.concatenate([seen(subject.made, subject.high, sigma) for sigma in SIGMAS])
    exaggerated = [exaggerated_blobs(subject.made, subject.high, sigma) for sigma in SIGMAS]
    false = np.concatenate([false_nodules(subject.made, subject.high, sigma) for sigma in SIGMAS])
    return {
        "seen_blobs": float(shown.mean()) if shown.size else float("nan"),
        "exaggerated_blobs": float(sum(map(len, exaggerated))),
        "false_nodules": float(len(false)),
        "false_in_chest": float(in_chest(false, *subject.high.shape).sum()),
    }


def _coverage(subject: Subject, levels: int) -> Mapping[str, float]:
    if subject.half_width is None:
        return dict.fromkeys(("coverage", "box_coverage", "error_bar"), float("nan"))
    inside = np.abs(subject.high - subject.made) <= subject.half_width
    in_boxes = inside[subject.box_mask]
    return {
        "coverage": float(inside.mean()),
        "box_coverage": float(in_boxes.mean()) if in_boxes.size else float("nan"),
        "error_bar": levels * float(subject.half_width.mean()),
    }


def _recovered(
    subject: Subject, enlarge: Callable[[np.ndarray], np.ndarray], degradation: Degradation, levels: int
) -> Mapping[str, float]:
    rows, columns = subject.high.shape
    found = {}
    for sigma in SIGMAS:
        there = places(subject.name, (rows, columns))
        blobs = [Nodule(row, column, sigma).drawn((rows, columns)) for row, column in there]
        made = enlarge(degradation(subject.high + AMPLITUDE * np.maximum(*blobs), levels=levels))
        parts = [recovered_contrast(made, subject.made, AMPLITUDE * blob) for blob in blobs]
        found[f"nodule_{sigma:g}"] = float(np.mean(parts))
    return found
