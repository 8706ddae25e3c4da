"""Tables of detection in a comparison: sensitivity to blobs, and detectability of drawn nodules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from monai_sr_bundle.benchmark.comparison import Comparison
from monai_sr_bundle.benchmark.detection import DETECTION_FIGURES, ORIGINAL, Estimate
from monai_sr_bundle.uncertainty.hotelling import LEAST_PLACES

DETECTION_NOTE = (
    "Sensitivity: the share of the original's blobs of 6 grey levels or more that the result shows, as the mean over "
    "the thresholds with 1/8, 1/4, 1/2, 1, 2, 4 and 8 false blobs per image; a blob is false where the original has "
    "less than 3 grey levels. Detectability: d\u2032 of a channelised Hotelling observer for drawn nodules of 12 grey "
    f"levels at known places; left out with fewer than {LEAST_PLACES} nodules, eight an image, of which the observer "
    "would learn the noise. Intervals of 95 % by bootstrap over patients."
)


def detection_cells(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Return a row per method and one for the original: its label, and the words for each of `DETECTION_FIGURES`."""
    labels = {result.method: result.label for result in comparison.results} | {ORIGINAL: "The original"}
    rows = []
    for method, row in comparison.detection.items():
        rows.append((labels[method], _format_cells(row.figures)))
    return rows


def difference_cells(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Return the same for the differences to the protocol's reference."""
    return [
        (result.label, _format_cells(row.differences, "+"))
        for result in comparison.results
        if (row := comparison.detection.get(result.method)) and row.differences
    ]


def detection_markdown(comparison: Comparison) -> Iterator[str]:
    """Write the tables of detection; nothing without the protocol's `trust`."""
    if not comparison.detection:
        return
    reference = comparison.result(comparison.protocol.reference).label
    for title, rows in (
        ("Detection", detection_cells(comparison)),
        (f"Detection: difference to {reference}", difference_cells(comparison)),
    ):
        yield from ("", f"### {title}", "")
        yield "| " + " | ".join(["method", *DETECTION_FIGURES.values()]) + " |"
        yield "| " + " | ".join(["---"] * (1 + len(DETECTION_FIGURES))) + " |"
        for label, cells in rows:
            yield "| " + " | ".join([label, *cells]) + " |"
    yield from ("", DETECTION_NOTE)


def detection_as_json(comparison: Comparison, method: str) -> dict[str, Any]:
    """Return the figures of detection of a method, and their differences to the reference."""
    row = comparison.detection.get(method)
    if row is None:
        return {}
    return {
        "detection": {name: each._asdict() for name, each in row.figures.items()},
        "detection_difference_to_reference": {name: each._asdict() for name, each in row.differences.items()},
    }


def _format_cells(figures: Mapping[str, Estimate], sign: str = "") -> list[str]:
    return [format_estimate(figures[name], sign) if name in figures else "" for name in DETECTION_FIGURES]


def format_estimate(estimate: Estimate, sign: str = "") -> str:
    """Format "0.76 [0.73, 0.79]"; with the sign "+", a difference."""
    return f"{estimate.mean:{sign}.2f} [{estimate.low:{sign}.2f}, {estimate.high:{sign}.2f}]"
