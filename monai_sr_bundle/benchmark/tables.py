"""Tables of a comparison for spreadsheets (CSV), programs (JSON) and readers (Markdown)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from monai_sr_bundle.benchmark.comparison import FIGURES, LOWER_IS_BETTER, Comparison, MethodResult
from monai_sr_bundle.benchmark.detection_tables import detection_as_json, detection_markdown
from monai_sr_bundle.benchmark.film_comparison import FilmComparison
from monai_sr_bundle.benchmark.film_tables import FILM_TABLES, film_markdown, write_film_tables
from monai_sr_bundle.benchmark.paired import Paired
from monai_sr_bundle.errors import OutputError
from monai_sr_bundle.images.staging import require_free, staged
from monai_sr_bundle.metrics.mean import Mean
from monai_sr_bundle.report.build import to_json_values

DIGITS = {
    "psnr": 2, "box_psnr": 2, "log_spectral_distance": 2, "high_frequency_ratio": 3, "artifact_energy_removed": 3,
}  # fmt: skip
"""Digits after the point; 4 for all other figures."""
TABLES = ("figures.csv", "comparison.json", "table.md")
PAGE = "index.html"

AnyComparison = Comparison | FilmComparison
Page = Callable[[Sequence[AnyComparison], str], str]


def summary(comparison: Comparison, method: str) -> dict[str, Mean]:
    """Return the mean of every figure that the method has."""
    result = comparison.result(method)
    measured = {figure: result.figures[figure] for figure in FIGURES if result.has(figure)}
    return {figure: Mean.of(values, comparison.patients_of(values)) for figure, values in measured.items()}


def paired(comparison: Comparison, method: str) -> dict[str, Paired]:
    """Return the difference of every figure to the protocol's reference; empty for the reference itself."""
    reference = comparison.protocol.reference
    if method == reference:
        return {}
    result, theirs = comparison.result(method), comparison.result(reference).figures
    return {
        figure: comparison.compare(result, figure)
        for figure in FIGURES
        if np.isfinite(np.add(result.figures.get(figure, []), theirs.get(figure, []))).any()
    }


def write_figures_csv(comparison: Comparison, path: Path) -> None:
    """Write one row per method, image and figure; an image without the figure has no row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["protocol", "method", "image", "patient", "figure", "value"])
        for result in comparison.results:
            columns = {**{figure: result.figures.get(figure, []) for figure in FIGURES}, "seconds": result.seconds}
            for figure, values in columns.items():
                for image, patient, value in zip(comparison.images, comparison.patients, values, strict=False):
                    if math.isfinite(value):
                        cells = (comparison.protocol.name, result.method, image, patient, figure, f"{value:.6f}")
                        writer.writerow(cells)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return everything but pictures and single images, which figures.csv holds; not-a-number becomes null."""
    content = {
        "protocol": asdict(comparison.protocol),
        "images": len(comparison.images),
        "patients": len(set(comparison.patients)),
        "manifest_sha256": comparison.manifest_sha256,
        "low_res_size": comparison.low_res_size,
        "threads": comparison.threads,
        "processes": comparison.processes,
        "minutes": comparison.minutes,
        "versions": comparison.versions,
        "unavailable": comparison.unavailable,
        "titles": FIGURES,
        "lower_is_better": sorted(LOWER_IS_BETTER),
        "methods": [_method_as_json(comparison, result) for result in comparison.results],
    }
    return dict(to_json_values(content))


def _method_as_json(comparison: Comparison, result: MethodResult) -> dict[str, Any]:
    return {
        "method": result.method,
        "label": result.label,
        "backend": result.backend,
        "parameters": result.parameters,
        "multiply_adds": result.multiply_adds,
        "median_seconds": float(np.median(result.seconds)),
        "training_minutes": result.training and result.training.minutes,
        "gpu_minutes": result.training and result.training.on_gpu,
        "gained_until_minutes": result.gained_until,
        "training_curve": result.curve,
        "means": {figure: asdict(mean) for figure, mean in summary(comparison, result.method).items()},
        "difference_to_reference": {
            figure: asdict(difference) for figure, difference in paired(comparison, result.method).items()
        },
        **detection_as_json(comparison, result.method),
    }


def write_json(comparison: Comparison, path: Path) -> None:
    """Write `as_json` to a file."""
    path.write_text(json.dumps(as_json(comparison), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def markdown(comparison: AnyComparison) -> str:
    """Return the table of a protocol with its images and conditions, one row per method."""
    if isinstance(comparison, FilmComparison):
        return film_markdown(comparison)
    protocol = comparison.protocol
    available = [figure for figure in FIGURES if any(figure in result.figures for result in comparison.results)]
    reference = comparison.result(protocol.reference).label
    header = ["method"]
    for figure in available:
        header.append(_column_title(figure))
        if figure == "psnr":
            header.append(f"difference to {reference} (dB) [95 % interval], p")
    header += ["parameters", "multiply-adds", "ms per image", "minutes of training: given / gained until"]
    rows = [_row(comparison, result, available) for result in comparison.results]
    lines = [f"## {protocol.title}", "", protocol.about, "", *_facts(comparison), ""]
    lines += ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    return "\n".join([*lines, "", *_notes(comparison, available), *detection_markdown(comparison)]) + "\n"


def _column_title(figure: str) -> str:
    return FIGURES[figure] + (" (lower is better)" if figure in LOWER_IS_BETTER else "")


def _row(comparison: Comparison, result: MethodResult, available: Sequence[str]) -> list[str]:
    means, differences = summary(comparison, result.method), paired(comparison, result.method)
    cells = [result.label]
    for figure in available:
        digits = DIGITS.get(figure, 4)
        mean = means.get(figure)
        cells.append("" if mean is None else f"{mean.mean:.{digits}f} ± {mean.standard_deviation:.{digits}f}")
        if figure == "psnr":
            cells.append(format_difference(differences.get("psnr"), digits))
    cells.append(f"{result.parameters:,}" if result.parameters else "")
    cells.append(f"{result.multiply_adds / 1e9:.3g} G" if result.multiply_adds else "")
    cells.append(f"{1000 * float(np.median(result.seconds)):.1f}")
    cells.append(_training_minutes(result))
    return cells


def format_difference(difference: Paired | None, digits: int) -> str:
    """Format a difference as "+3.21 [+3.05, +3.38], p < 0.001"; empty for the reference."""
    if difference is None:
        return ""
    mean = difference.difference
    interval = f"{mean.mean:+.{digits}f} [{mean.low:+.{digits}f}, {mean.high:+.{digits}f}]"
    return f"{interval}, {format_p_value(difference.p_value)}"


def format_p_value(p_value: float) -> str:
    """Format a p-value as "p = 0.031", "p < 0.001", or "p not defined" if no test can be made."""
    if math.isnan(p_value):
        return "p not defined"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _training_minutes(result: MethodResult) -> str:
    if result.training is None:
        return ""
    gained = "not recorded" if result.gained_until is None else f"{result.gained_until:.0f}"
    return f"{result.training} / {gained}"


def _facts(comparison: Comparison) -> Iterator[str]:
    protocol, patients = comparison.protocol, len(set(comparison.patients))
    sets = ", ".join(protocol.sets) or "all sets"
    yield (
        f"{len(comparison.images)} images of {patients} patient{'s' * (patients != 1)} ({protocol.split} split of "
        f"{sets}), most of them from {comparison.low_res_size} pixels; degradation {protocol.operator}; "
        f"{comparison.processors}."
    )


def _notes(comparison: Comparison, available: Sequence[str]) -> Iterator[str]:
    yield "Means ± standard deviation over images; intervals by bootstrap and p of a paired t-test over patients."
    if len(set(comparison.patients)) == 1:
        yield "One patient only: intervals and tests are over slices of the same chest, not over patients."
    for figure in available:
        count = max(int(np.isfinite(result.figures.get(figure, [])).sum()) for result in comparison.results)
        if count < len(comparison.images):
            yield f"{FIGURES[figure]}: over the {count} of {len(comparison.images)} images that have it."
    if "artifact_energy_removed" in available:
        yield (
            "Artifact energy removed: 0 is what bicubic interpolation leaves of the marks, 1 is no trace of them, "
            "below 0 they stand out more than in the interpolated image."
        )
    seeds = sorted({len(values[0]) for result in comparison.results for values in result.by_seed.values()})
    if seeds:
        yield f"Drawn with {' or '.join(map(str, seeds))} seeds; the figures of an image are the mean over them."
        yield from seed_lines(comparison)
    if any(result.gained_until is not None for result in comparison.results):
        yield "Gained until: the minute from which the best validation PSNR so far is within 0.05 dB of the final best."
    for figure, reason in comparison.unavailable.items():
        yield f"{FIGURES[figure]} is unavailable: {reason}."
    versions = ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
    yield f"Images {comparison.manifest_sha256[:12]} (SHA-256 of the manifest's rows); {versions}."


def seed_lines(comparison: Comparison) -> Iterator[str]:
    """Write differences to the reference over the seeds of sampling; each seed's mean over the images is one number."""
    reference = comparison.result(comparison.protocol.reference)
    for result in comparison.results:
        if result is reference:
            continue
        for figure in FIGURES:
            ours, theirs = result.by_seed.get(figure), reference.by_seed.get(figure)
            if ours is None or theirs is None or len(ours[0]) != len(theirs[0]):
                continue
            both = np.array([ours, theirs])
            is_measured = np.isfinite(both).all(axis=(0, 2))
            if not is_measured.any():
                continue
            means = both[:, is_measured].mean(axis=1)
            difference = Paired.of(*(mean.tolist() for mean in means), lower_is_better=figure in LOWER_IS_BETTER)
            yield (
                f"{result.label} against {reference.label}, {FIGURES[figure]}: "
                f"{format_difference(difference, DIGITS.get(figure, 4))}; better with {difference.better} of "
                f"{difference.count} seeds."
            )


def require_results_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder for results that holds anything but an older benchmark; for a check before measuring.

    Raises:
        OutputError: `out` holds other files, or an older benchmark that may not be replaced.
    """
    if out.is_dir():
        others = sorted(str(path.relative_to(out)) for path in out.rglob("*") if not _is_benchmark_file(path, out))
        if others:
            raise OutputError(
                f"{out} holds {others[0]}{' and other files' * (len(others) > 1)}, which no benchmark wrote, and is "
                "not touched. Choose a new folder."
            )
        if not any(out.iterdir()):
            return
    require_free(out, overwrite=overwrite)


def _is_benchmark_file(path: Path, out: Path) -> bool:
    parts = path.relative_to(out).parts
    if path.is_dir():
        return len(parts) == 1 and any((path / name).is_file() for name in ("comparison.json", "conditions.json"))
    return parts == (PAGE,) or (len(parts) == 2 and parts[1] in (*TABLES, *FILM_TABLES))


def write_all(
    comparisons: Sequence[AnyComparison], out: Path, page: Page, *, command: str, overwrite: bool = False
) -> None:
    """Write a folder per protocol with `TABLES`, or `FILM_TABLES`, and one page; all or nothing.

    Args:
        comparisons: one comparison per protocol.
        out: the folder to write.
        page: `comparison_page.page`.
        command: command line that repeats the benchmark, for the page.
        overwrite: whether to replace an older benchmark.

    Raises:
        OutputError: see `require_results_folder`; or the folder cannot be written.
    """
    require_results_folder(out, overwrite=overwrite)
    with staged(out, overwrite=overwrite or out.is_dir()) as folder:
        folder.mkdir()
        for comparison in comparisons:
            protocol_folder = folder / comparison.protocol.name
            protocol_folder.mkdir()
            if isinstance(comparison, FilmComparison):
                write_film_tables(comparison, protocol_folder)
                continue
            write_figures_csv(comparison, protocol_folder / TABLES[0])
            write_json(comparison, protocol_folder / TABLES[1])
            (protocol_folder / TABLES[2]).write_text(markdown(comparison), encoding="utf-8")
        (folder / PAGE).write_bytes(page(comparisons, command).encode("utf-8"))
