"""Tables of a protocol of real conditions for spreadsheets (CSV), programs (JSON) and readers (Markdown)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from monai_sr_bundle.benchmark.film_comparison import WORSE, Cell, FilmComparison, PairGain, UnmodifiedCell
from monai_sr_bundle.images.unit import NEAR_PADDING
from monai_sr_bundle.report.build import to_json_values
from monai_sr_bundle.table import format_csv

FILM_TABLES = ("figures.csv", "conditions.json", "table.md")
UNITS = {"CXR": "grey levels", "CT": "HU"}
_DIGITS = {"edge_width": 2, "edge_width_mm": 2}
_COLUMNS = (
    "protocol", "method", "scale", "set", "loss", "image", "patient", "psnr", "gain", "coverage", "interpolated"
)  # fmt: skip


def write_film_tables(comparison: FilmComparison, folder: Path) -> None:
    """Write the tables of a comparison into a folder."""
    contents = (figures_csv(comparison), as_json(comparison).encode(), film_markdown(comparison).encode())
    for name, content in zip(FILM_TABLES, contents, strict=True):
        (folder / name).write_bytes(content)


def figures_csv(comparison: FilmComparison) -> bytes:
    """Return a CSV with one line for each method, cell and image.

    PSNR, its gain over bicubic in dB, coverage, and whether the input was interpolated as outside the method's limits.
    """
    protocol, gains = comparison.protocol, comparison.gains()
    rows = [
        (
            protocol.name,
            row.key,
            str(scale),
            film.set,
            loss.label,
            film.name,
            film.patient,
            f"{psnr:.6f}",
            f"{gain:.6f}",
            f"{coverage:.6f}" if math.isfinite(coverage) else "",
            "yes" if interpolated else "no",
        )
        for row_index, row in enumerate(protocol.rows)
        for scale_index, scale in enumerate(protocol.scales)
        for loss_index, loss in enumerate(protocol.losses)
        for film, psnr, gain, coverage, interpolated in zip(
            comparison.films,
            comparison.psnr[:, scale_index, loss_index, row_index],
            gains[:, scale_index, loss_index, row_index],
            comparison.coverage[:, scale_index, loss_index, row_index],
            comparison.interpolated[:, scale_index, loss_index, row_index],
            strict=True,
        )
        if math.isfinite(psnr)
    ]
    return format_csv(_COLUMNS, (dict(zip(_COLUMNS, row, strict=True)) for row in rows))


def as_json(comparison: FilmComparison) -> str:
    """Return everything but the figures of single images, which the CSV holds."""
    protocol = comparison.protocol
    methods = []
    for index, (row, facts) in enumerate(zip(protocol.rows, comparison.methods, strict=True)):
        scales = [scale for scale in protocol.scales if comparison.enlarges_by(index, scale)]
        results_by_scale = [
            {
                "scale": scale,
                "summary": asdict(comparison.summary(index, scale)),
                "cells": [asdict(cell) for cell in comparison.cells(index, scale)],
                "unmodified": [asdict(cell) for cell in comparison.unmodified_cells(index, scale)],
            }
            for scale in scales
        ]
        methods.append(
            {
                "method": row.key,
                "label": row.label,
                "parameters": facts.parameters,
                "training_minutes": facts.training and facts.training.minutes,
                "gpu_minutes": facts.training and facts.training.on_gpu,
                "scales": results_by_scale,
            }
        )
    content = {
        "protocol": asdict(protocol),
        "sets": [
            {"set": label, "images": images, "patients": patients} for label, images, patients in sizes(comparison)
        ],
        "worse_db": WORSE,
        "manifest_sha256": comparison.manifest_sha256,
        "versions": comparison.versions,
        "minutes": comparison.minutes,
        "methods": methods,
    }
    return json.dumps(to_json_values(content), indent=2, allow_nan=False) + "\n"


def film_markdown(comparison: FilmComparison) -> str:
    """Return the tables of a comparison: for each factor, one line per method and one per cell."""
    protocol = comparison.protocol
    lines = [f"## {protocol.title}", "", protocol.about, "", describe_films(comparison), ""]
    for scale in protocol.scales:
        lines += [f"### Enlarged by {scale}", "", *_scale_lines(comparison, scale)]
        parts = list(_coverage_rows(comparison, scale))
        if parts:
            header = ["set", "loss", "method", "all pixels", "at small structures", "tenths by width", "width"]
            lines += [f"### Pixels inside their error bars, enlarged by {scale}", "", *_table(header, parts), ""]
        if comparison.unmodified:
            lines += [
                f"### Unmodified images, enlarged by {scale}",
                "",
                *_table(*unmodified_table(comparison, scale)),
                "",
            ]
    if comparison.unmodified:
        lines.append(explain_unmodified(comparison))
    return "\n".join([*lines, *explain_figures(comparison), describe_versions(comparison)]) + "\n"


def explain_figures(comparison: FilmComparison) -> tuple[str, str]:
    """Explain the figures in two sentences."""
    stored, units = {
        "CXR": ("stored 8 bits", "Blur is in pixels of the original, noise in grey levels"),
        "CT": ("whole HU of -1000 to 400", "Noise is in HU"),
    }[comparison.protocol.modality]
    return (
        f"Gain: PSNR over bicubic interpolation in dB, on {stored}. Mean over images [95 % interval by bootstrap over "
        "patients, where there are several]; share of the images that are more than "
        f"{WORSE} dB worse than bicubic; the image with the least gain; of a method with error bars, the share of the "
        "pixels inside them, which are made to hold 90 %. Interpolated: shares of the pairs of image and loss, and "
        "of the images as they are, that are outside the limits of the method; the engine interpolates them, and so "
        "does this comparison.",
        "Thick slices are means of thin ones, in whole HU, and the figures are those of the thin slices."
        if comparison.protocol.along_slices
        else f"{units}; the same image and loss always get the same noise.",
    )


def explain_unmodified(comparison: FilmComparison) -> str:
    """Explain the figures of unmodified images."""
    unit = UNITS[comparison.protocol.modality]
    return (
        f"Unmodified images, in {unit} and pixels of the input; in brackets relative to bicubic. Noise: spread in "
        "flat blocks of 8 x 8 pixels, median. Edge: 10-90 % distance of strong straight edges, median. Overshoot: "
        "how far a result passes beyond the two sides of an edge, beyond what the input does, mean. Near padding: by "
        f"how much the brightest pixel within {NEAR_PADDING} pixels of padding is above the source around it, of the "
        "worst image. Distance to the input: RMS, after antialiased bicubic reduction. Flicker: spread of the change "
        "to the next slice in blocks of the body, median. Interpolated: share outside the bundle's limits. Warned: "
        "share enlarged by the bundle, with a warning."
    )


def unmodified_table(comparison: FilmComparison, scale: int) -> tuple[list[str], list[list[str]]]:
    """Return the titles and the lines of the table of unmodified images: a line for each set and method."""
    unit = UNITS[comparison.protocol.modality]
    titles = {
        "noise": f"noise ({unit})",
        "edge_width": "edge (pixels)",
        "edge_width_mm": "edge (mm)",
        "overshoot": f"overshoot ({unit})",
        "near_padding": f"near padding ({unit})",
        "disagreement": f"distance to the input ({unit})",
        "flicker": f"flicker ({unit})",
        "interpolated": "interpolated",
        "warned": "warned",
    }
    cells = [
        (cell, row.label)
        for film_set in comparison.protocol.unmodified_sets
        for index, row in enumerate(comparison.protocol.rows)
        for cell in comparison.unmodified_cells(index, scale)
        if cell.set == film_set.label
    ]
    measured = [name for name in titles if any(cell.figures[name] is not None for cell, _ in cells)]
    return ["set", "images", "method", *(titles[name] for name in measured)], [
        [cell.set, str(cell.images), label, *(_format_figure(cell, name) for name in measured)] for cell, label in cells
    ]


def _format_figure(cell: UnmodifiedCell, name: str) -> str:
    figure, ratio = cell.figures[name], cell.ratios.get(name)
    if figure is None:
        return ""
    if name in ("interpolated", "warned"):
        return format_share(figure)
    return f"{figure:.{_DIGITS.get(name, 1)}f}" + (f" ({ratio:.2f})" if ratio is not None else "")


def _scale_lines(comparison: FilmComparison, scale: int) -> Iterator[str]:
    protocol = comparison.protocol
    rows = measured_rows(comparison, scale)
    if rows:
        header = ["method", "mean over cells", "least cell", f"worse by more than {WORSE} dB", "worst image"]
        header.append("interpolated: pairs, images as they are")
        yield from _table([*header, "parameters", "minutes of training"], _summary_rows(comparison, rows, scale))
    else:
        yield f"No method but bicubic enlarges by {scale}."
    yield ""
    cells = [list(comparison.cells(row, scale)) for row in (protocol.reference_index, *rows)]
    header = ["set", "images", "loss", "bicubic (dB)", *(f"{protocol.rows[row].label}: gain (dB)" for row in rows)]
    yield from _table(
        header,
        (
            [reference.set, str(reference.psnr.count), reference.loss, f"{reference.psnr.mean:.2f}"]
            + [_format_cell(cell) for cell in others]
            for reference, *others in zip(*cells, strict=True)
        ),
    )
    yield ""


def _summary_rows(comparison: FilmComparison, rows: list[int], scale: int) -> Iterator[list[str]]:
    for row in rows:
        summary, facts = comparison.summary(row, scale), comparison.methods[row]
        yield [
            comparison.protocol.rows[row].label,
            f"{summary.mean:+.2f}",
            f"{summary.least.gain.mean:+.2f} ({summary.least.set}; {summary.least.loss})",
            f"{format_share(summary.worse)} of {summary.pairs:,}",
            _format_pair(summary.lowest),
            f"{format_share(summary.interpolated)}, {format_share(summary.unmodified_interpolated)}",
            f"{facts.parameters:,}" if facts.parameters else "",
            str(facts.training or ""),
        ]


def _coverage_rows(comparison: FilmComparison, scale: int) -> Iterator[list[str]]:
    for row in measured_rows(comparison, scale):
        for cell in comparison.cells(row, scale):
            if cell.coverage and cell.structure_coverage:
                tenths = " ".join(f"{100 * share:.0f}" for share in cell.tenths_coverage)
                shares = [f"{100 * mean.mean:.1f} %" for mean in (cell.coverage, cell.structure_coverage)]
                label = comparison.protocol.rows[row].label
                yield [cell.set, cell.loss, label, *shares, f"{tenths} %", f"{cell.relative_width:.2f}"]


def _format_cell(cell: Cell) -> str:
    coverage = f"; {100 * cell.coverage.mean:.0f} % inside" if cell.coverage else ""
    gain = cell.gain
    interval = f" [{gain.low:+.2f}, {gain.high:+.2f}]" if gain.low < gain.high else ""
    return f"{gain.mean:+.2f}{interval}; {format_share(cell.worse)}; {cell.lowest.gain:+.2f}{coverage}"


def _format_pair(lowest: PairGain) -> str:
    return f"{lowest.gain:+.2f} ({lowest.set}; {lowest.loss}; {lowest.image})"


def _table(header: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    for cells in (header, ["---"] * len(header), *rows):
        yield "| " + " | ".join(cells) + " |"


def format_share(share: float) -> str:
    """Format a share as "12 %", and a small one that is not nothing as "0.4 %" or "0.03 %"."""
    return f"{100 * share:.{0 if share == 0 or share >= 0.1 else 1 if share >= 0.001 else 2}f} %"


def measured_rows(comparison: FilmComparison, scale: int) -> list[int]:
    """Return the rows that enlarge by a factor, without bicubic interpolation."""
    rows = range(len(comparison.protocol.rows))
    reference = comparison.protocol.reference_index
    return [row for row in rows if row != reference and comparison.enlarges_by(row, scale)]


def sizes(comparison: FilmComparison) -> Iterator[tuple[str, int, int]]:
    """Yield the label of each set and its numbers of images and patients."""
    for film_set in comparison.protocol.sets:
        patients = [comparison.films[index].patient for index in comparison.films_of(film_set)]
        yield film_set.label, len(patients), len(set(patients))


def describe_films(comparison: FilmComparison) -> str:
    """Return a sentence on the images of each set."""
    sets = "; ".join(
        f"{label}: {images} image{'s' * (images != 1)} of {patients} patient{'s' * (patients != 1)}"
        for label, images, patients in sizes(comparison)
    )
    return f"Images of the {comparison.protocol.split} split. {sets}."


def describe_versions(comparison: FilmComparison) -> str:
    """Return the fingerprints of the images, the versions and the duration in one line."""
    manifests = ", ".join(f"{folder} {sha256[:12]}" for folder, sha256 in comparison.manifest_sha256.items())
    versions = ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
    return f"Images {manifests} (SHA-256 of the manifests' rows); {versions}; took {comparison.minutes:.1f} minutes."
