"""Figures of trust in one result of known truth: consistency, error bars, agreement by frequency, and nodules."""

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
    find_visible_blobs,
    in_chest,
    nodule_positions,
    recovered_contrast,
)
from monai_sr_bundle.uncertainty.ring_correlation import cut_offs


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
) -> dict[str, float]:
    """Measure consistency, coverage, agreement by frequency, and nodules.

    Args:
        subject: the image and its result.
        enlarge: the method, a function from an input to a stored result.
        degradation: degradation that the method undoes.
        levels: grey steps of the storage between 0 and 1.

    Returns:
        Values by the names of `benchmark.comparison.FIGURES`; not a number if the image has none.
    """
    difference = levels * (degradation.reduce(subject.super_res) - subject.low_res)
    frequencies = cut_offs(subject.super_res, subject.high_res)
    nyquist = 0.5 / degradation.scale
    return {
        "consistency": float(np.sqrt(np.square(difference).mean())),
        **_coverage(subject, levels),
        "cut_off": float(np.median(frequencies)) if frequencies.size else float("nan"),
        "disagreeing_patches": float((frequencies < nyquist / 2).mean()) if frequencies.size else float("nan"),
        **_recovered_contrast(subject, enlarge, degradation, levels),
        **_blobs(subject),
    }


def _blobs(subject: Subject) -> Mapping[str, float]:
    """Measure the visible blobs of the original and the false ones, all sizes together."""
    visible = np.concatenate([find_visible_blobs(subject.super_res, subject.high_res, sigma) for sigma in SIGMAS])
    exaggerated = [exaggerated_blobs(subject.super_res, subject.high_res, sigma) for sigma in SIGMAS]
    false = np.concatenate([false_nodules(subject.super_res, subject.high_res, sigma) for sigma in SIGMAS])
    return {
        "seen_blobs": float(visible.mean()) if visible.size else float("nan"),
        "exaggerated_blobs": float(sum(map(len, exaggerated))),
        "false_nodules": float(len(false)),
        "false_in_chest": float(in_chest(false, *subject.high_res.shape).sum()),
    }


def _coverage(subject: Subject, levels: int) -> Mapping[str, float]:
    if subject.half_width is None:
        return dict.fromkeys(("coverage", "box_coverage", "error_bar"), float("nan"))
    inside = np.abs(subject.high_res - subject.super_res) <= subject.half_width
    in_boxes = inside[subject.box_mask]
    return {
        "coverage": float(inside.mean()),
        "box_coverage": float(in_boxes.mean()) if in_boxes.size else float("nan"),
        "error_bar": levels * float(subject.half_width.mean()),
    }


def _recovered_contrast(
    subject: Subject, enlarge: Callable[[np.ndarray], np.ndarray], degradation: Degradation, levels: int
) -> Mapping[str, float]:
    rows, columns = subject.high_res.shape
    figures = {}
    for sigma in SIGMAS:
        positions = nodule_positions(subject.name, (rows, columns))
        blobs = [Nodule(row, column, sigma).draw((rows, columns)) for row, column in positions]
        super_res = enlarge(degradation(subject.high_res + AMPLITUDE * np.maximum(*blobs), levels=levels))
        parts = [recovered_contrast(super_res, subject.super_res, AMPLITUDE * blob) for blob in blobs]
        figures[f"nodule_{sigma:g}"] = float(np.mean(parts))
    return figures
