"""Reports of a run, its provenance and its fidelity: report.json for programs, report.html for a colleague.

Neither holds a patient's name or number from the headers, nor the folders of this computer: file names, hashes and
UIDs are enough for the hospital that owns the image to find it again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai_sr_bundle import __version__
from monai_sr_bundle.bundles import combined_sha256
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.geometry import Grid
from monai_sr_bundle.images.given_spacing import GIVEN_BY_USER
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.input_checks import InputComparison
from monai_sr_bundle.images.provenance import NOT_FOR_DIAGNOSIS, NOTHING_PREDICTED, Provenance
from monai_sr_bundle.images.staging import write_file
from monai_sr_bundle.inferers.data_consistency import ArtifactReport, ResidualStats, percent
from monai_sr_bundle.report.error_pictures import ErrorBarPictures
from monai_sr_bundle.report.grain import Grain
from monai_sr_bundle.report.html_page import page
from monai_sr_bundle.report.preview import format_number, slice_values, value_unit
from monai_sr_bundle.uncertainty.error_bars import ErrorBars

SCHEMA_VERSION = 1
"""Version of the keys of report.json: raised where a key changes its meaning or is removed, not for a new key."""

FILES_LISTED = 50
"""More input files than this, as in a thick CT series, get one combined hash instead of a list."""

MEASURED_SLICES = 32
"""Slices of a volume, at least, that the widest error bars are measured on; all of a smaller one."""

LIBRARIES = ("numpy", "pillow", "pydicom", "onnxruntime", "onnxruntime-gpu", "torch", "monai")

STATEMENT = "Research software, not a medical device. {} The original image is unchanged."


class Consistency(NamedTuple):
    """The difference between an image, reduced to the input's size, and the input.

    Attributes:
        rms: root mean square of the differences, in `unit`.
        maximum: largest absolute difference, in `unit`.
        unit: "HU" or "grey levels" (slope * stored + intercept).
    """

    rms: float
    maximum: float
    unit: str


def measure_consistency(
    source: Image, reduced: Callable[[int], np.ndarray], mask: Callable[[int], np.ndarray] | None = None
) -> Consistency:
    """Measure how far a reduced result is from the input, slice by slice: a second volume would double the memory.

    Args:
        source: the input, or the part of it that was enlarged.
        reduced: function of a slice index that returns this slice of the result at the input's size,
            ``[rows, columns]`` modality values, neither clipped nor rounded.
        mask: function of a slice index that returns which of its pixels to compare, as booleans. Default: all.

    Returns:
        RMS and maximum over these pixels; the RMS over no pixel is not a number.
    """
    residuals = ResidualStats()
    for index in range(source.pixels.shape[0]):
        residual = reduced(index) - slice_values(source, index)
        residuals.add(residual if mask is None else residual[mask(index)])
    return Consistency(residuals.rms, residuals.maximum, value_unit(source))


def build_report(
    *,
    source: Image,
    result: Image,
    provenance: Provenance,
    input_files: Sequence[Path],
    output: Path | None,
    seconds: float,
    consistency: Consistency,
    bicubic_consistency: Consistency,
    warnings: Sequence[str],
    command: Sequence[str] = (),
    forced: Sequence[str] = (),
    error_bars: Mapping[str, Any] | None = None,
    network_consistency: Consistency | None = None,
    removed: ArtifactReport | None = None,
    input_comparison: Mapping[str, InputComparison] | None = None,
    blind: bool = False,
    grain: Grain | None = None,
) -> dict[str, Any]:
    """Describe one run: the content of report.json.

    None stands for what is unknown, was not measured or does not apply.

    Args:
        source: the input, or the part of it that was enlarged.
        result: the enlarged image.
        provenance: provenance of the result.
        input_files: the files `source` was read from; they are hashed.
        output: the file or folder the result was written to (hashed; in a folder, reports and previews beside the
            images are left out), or None when nothing was written.
        seconds: duration of the run.
        consistency, bicubic_consistency: distances of the result and of bicubic interpolation.
        warnings: one sentence each, for the reader of the report.
        command: the command line as a list of words. Default: an equivalent one.
        forced: `Result.forced`, for the equivalent command.
        error_bars: `describe_error_bars()`; None for a result without error bars.
        network_consistency: distance of the network's output before data consistency; None without it.
        removed: artifacts removed from the image; None for a bundle that removes none.
        input_comparison: the input beside the model's training inputs, see `engine.Result`.
        blind: whether the model was trained on many losses of resolution. Default False.
        grain: variation of the result where the interpolated input is even; None when not measured.

    Returns:
        A dictionary of strings, finite numbers, booleans, None, lists and dictionaries.

    Raises:
        InputError: an input or output file can no longer be read.
    """
    folders = {path.parent for path in (*input_files, source.path, *([output] if output else []))}
    span = abs(source.slope) * (float(source.pixels.max()) - float(source.pixels.min()))
    # Rounding to whole stored numbers alone gives 0.29 steps; no 8-bit screen shows a five-hundredth of the range.
    step = abs(source.slope) if np.issubdtype(source.pixels.dtype, np.integer) else 0.0
    default_command = _default_command(source, provenance, output, forced)
    report = {
        "schema": "monai-sr-report",
        "schema_version": SCHEMA_VERSION,
        "made_by": {"name": "monai_sr_bundle", "version": __version__},
        "created": provenance.created.isoformat(timespec="seconds"),
        "source": {
            "name": _file_name(source.path) or "array",
            "format": source.format,
            **_hashes(input_files),
            "shape_zyx": list(source.pixels.shape),
            "dtype": str(source.pixels.dtype),
            "bits": source.bits,
            "modality": source.modality,
            "spacing_mm": _spacing(source.grid),
            "spacing_source": source.grid.spacing_source,
            "photometric": "MONOCHROME1" if source.black_is_high else "MONOCHROME2",
            "dicom": _uids(source.header) if source.format == "dicom" else None,
        },
        "output": {
            "name": _file_name(output) if output else None,
            **_hashes(_result_files(output)),
            "shape_zyx": list(result.pixels.shape),
            "spacing_mm": _spacing(result.grid),
        },
        "model": {
            "name": provenance.bundle,
            "version": provenance.version,
            "manufacturer": provenance.manufacturer,
            "weights_sha256": provenance.weights_sha256 or None,
            "scale_zyx": list(provenance.scale_zyx),
            "factor": provenance.factor,
            "operator": provenance.operator,
            "operator_words": describe_operator(provenance.operator),
            "generative": provenance.generative,
            "blind": blind,
            "instead_of": provenance.instead_of or None,
        },
        "run": {
            "backend": provenance.backend,
            "device": provenance.device,
            "seed": provenance.seed,
            "sampling": provenance.sampling.words if provenance.sampling else None,
            "strength": provenance.strength,
            "seconds": round(seconds, 3),
            "command": shlex.join(_remove_folder_of_word(word) for word in (command or default_command)),
            "libraries": library_versions(LIBRARIES),
        },
        "roi_xyxy": list(provenance.roi_xyxy) if provenance.roi_xyxy else None,
        # Distances between the input and an image that was reduced to its size by the model's operator.
        "consistency": {
            "unit": value_unit(source),
            "value_span": span,
            "good_rms": max(0.5 * step, 0.002 * span),
            "bicubic": _distance(bicubic_consistency),
            "network": _distance(network_consistency),
            "result": _distance(consistency),
            "share": removed.agreement_share if removed else 1.0,  # of the input, compared
        },
        "grain": grain._asdict() if grain else None,
        "removed": {"places": removed.count, "share": removed.share} if removed else None,
        "input_range": {name: each._asdict() for name, each in (input_comparison or {}).items()},
        "error_bars": error_bars,
        "warnings": [_remove_folders(text, folders) for text in warnings],
        "notes": [_remove_folders(text, folders) for text in source.notes],
        "statement": STATEMENT.format(NOTHING_PREDICTED if provenance.is_interpolated else NOT_FOR_DIAGNOSIS),
    }
    return dict(to_json_values(report))


def describe_findings(
    measured: Consistency,
    operator: str,
    bars: ErrorBars | None,
    *,
    shipped: bool,
    resembles_training: bool | None,
    followed_share: float = 1.0,
    before_consistency: tuple[float, float] | None = None,
) -> str:
    """Describe a result's agreement with the input and its error bars in sentences for DICOM.

    Args:
        measured: consistency of the result.
        operator: degradation that reduced it.
        bars: error bars of the result; without them the sentences are about agreement alone.
        shipped: whether the calibration came with the bundle, not from the site.
        resembles_training: whether the input is like those the model was trained on; None if unknown.
        followed_share: share of the input that was compared, above 0; less than 1 if artifacts were removed.
        before_consistency: RMS and maximum of the network's output before data consistency; None without it.
    """
    unit = measured.unit
    over = "" if followed_share == 1 else f" where nothing was removed ({percent(followed_share)} of it)"
    network = ""
    if before_consistency:
        rms, maximum = map(format_number, before_consistency)
        network = f" (before data consistency {rms} RMS, {maximum} at most)"
    sentence = (
        f"Reduced again by {operator}, it differs from the input by {format_number(measured.rms)} {unit} RMS{over}, "
        f"{format_number(measured.maximum)} at most{network}."
    )
    if bars is None:
        return sentence
    calibration = bars.calibration
    by = "the makers of the bundle" if shipped else "the site"
    warning = {
        True: "",
        False: " This image is unlike those the model was trained on: they may not hold.",
        None: " Whether this image is like those the model was trained on cannot be told: they may not hold.",
    }[resembles_training]
    mean = format_number(bars.mean)
    guaranteed = calibration.guaranteed_percent(bars.entry)
    few = "" if guaranteed is None else f" So few guarantee only {guaranteed:g} %, on average over further patients."
    return (
        f"{sentence} Error bars: half-width {mean} {unit} on average, made to hold {calibration.coverage_percent:g} % "
        f"of the pixels, on average over images like those {by} calibrated them on: {calibration.images} images of "
        f"{calibration.patients} patients ({calibration.data[:64]}, {calibration.created}).{few}{warning}"
        f"{bars.undercoverage and f' {bars.undercoverage}'}"
    )


def describe_error_bars(
    bars: ErrorBars, tolerance: float, unit: str, window: tuple[float, float], written: Sequence[Path] = ()
) -> dict[str, Any]:
    """Describe error bars for the report.

    Args:
        bars: error bars of the result.
        tolerance: half-width above which a pixel is marked, in `unit`.
        unit: "HU" or "grey levels".
        window: the values that are 0 and 1 inside the model.
        written: files beside the result that hold the error bars.
    """
    calibration = bars.calibration
    # The percentile takes a copy, which of a whole volume may not fit into memory.
    some_slices = bars.half_width[:: max(1, len(bars.half_width) // MEASURED_SLICES)]
    widths = some_slices[some_slices > 0]
    return {
        "unit": unit,
        "percent": calibration.coverage_percent,
        "undercoverage": bars.undercoverage or None,
        "mean": bars.mean,
        "largest_twentieth": float(np.percentile(widths, 95.0)) if widths.size else 0.0,
        "tolerance": tolerance,
        "window": list(window),
        "share_above_tolerance": bars.share_above(tolerance),
        "calibrated_on": {
            "data": calibration.data,
            "split": calibration.split,
            "images": calibration.images,
            "patients": calibration.patients,
            "operator": calibration.operator,
            "created": calibration.created,
            "coverage": bars.entry.coverage,
            "guaranteed_percent": calibration.guaranteed_percent(bars.entry),
            "drawn": bars.entry.sampling.words if bars.entry.sampling else None,
        },
        "files": [_file_name(path) for path in written],
    }


def write_json(report: Mapping[str, Any], out: Path) -> Path:
    """Write the report for programs; the file is complete or absent.

    Raises:
        OutputError: the file cannot be written.
    """
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    return write_file(out, f"{text}\n".encode())


def write_html(
    report: Mapping[str, Any],
    preview: Path | None,
    out: Path,
    error_pictures: ErrorBarPictures | None = None,
    removed_picture: bytes = b"",
) -> Path:
    """Write the report for people: one page that needs no network, no script and no second file.

    Args:
        report: dictionary of `build_report`.
        preview: the PNG that `draw_preview` wrote, to be put inside the page, or None for a page without a picture.
        out: the page to write; complete or absent.
        error_pictures: pictures of the error bars, if the report has them.
        removed_picture: PNG that outlines removed artifacts, or nothing.

    Raises:
        OutputError: the page cannot be written.
    """
    picture = preview.read_bytes() if preview else b""
    return write_file(out, page(report, picture, error_pictures, removed_picture).encode())


def to_json_values(value: Any) -> Any:
    """Convert to JSON's types: no numpy numbers, no infinities, no halves of characters from odd file names."""
    if isinstance(value, Mapping):
        return {to_json_values(key): to_json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_values(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _distance(measured: Consistency | None) -> dict[str, float] | None:
    return None if measured is None else {"rms": measured.rms, "maximum": measured.maximum}


def _spacing(grid: Grid) -> dict[str, float | None] | None:
    if not grid.in_millimetres:
        return None
    x, y, z = (float(f"{spacing:.9g}") for spacing in grid.spacing_xyz)
    return {"between_rows": y, "between_columns": x, "between_slices": z if grid.slice_distance_mm else None}


def _uids(headers: Sequence[Any]) -> dict[str, list[str]]:
    def distinct(keyword: str) -> list[str]:
        uids = (getattr(header, keyword, None) for header in headers)
        return list(dict.fromkeys(str(uid) for uid in uids if uid))

    return {
        "study_uids": distinct("StudyInstanceUID"),
        "series_uids": distinct("SeriesInstanceUID"),
        "sop_instance_uids": distinct("SOPInstanceUID"),
    }


def _result_files(output: Path | None) -> list[Path]:
    if output is None:
        return []
    if not output.is_dir():
        return [output]
    written = (path for path in output.iterdir() if path.is_file() and not path.name.startswith("."))
    return [path for path in written if path.suffix.lower() not in (".json", ".html", ".png")]


def _hashes(files: Sequence[Path]) -> dict[str, Any]:
    """Return name and hash of each file, sorted by name, and the hash of that list as `sha256sum` prints it."""
    entries = []
    for path in sorted(files, key=lambda path: path.name):
        try:
            with path.open("rb") as file:
                entries.append({"name": _file_name(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()})
        except OSError as error:
            raise InputError(
                f"{path.name}: cannot be read for its hash ({error.strerror or error}), although it was there before. "
                "Leave the files in place until the report is written."
            ) from error
    return {
        "files": entries if 0 < len(entries) <= FILES_LISTED else None,
        "file_count": len(entries),
        "combined_sha256": combined_sha256({file["name"]: file["sha256"] for file in entries}) if entries else None,
    }


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the version of Python and of those packages that are installed."""
    versions = {"python": platform.python_version()}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def options_chosen(provenance: Provenance) -> dict[str, str]:
    """Return the options of `monai-sr enhance` that image and machine decide where they are "auto", as chosen."""
    scale, device = str(max(provenance.scale_zyx)), provenance.device.split(":")[0]
    return {"scale": scale, "backend": provenance.backend, "device": device}


def _default_command(source: Image, provenance: Provenance, output: Path | None, forced: Sequence[str]) -> list[str]:
    command = ["monai-sr", "enhance", source.path.name or "IN", output.name if output else "OUT"]
    command += ["--bundle", provenance.instead_of or provenance.bundle, "--seed", str(provenance.seed)]
    for option, value in options_chosen(provenance).items():
        command += [f"--{option}", value]
    command += forced
    if source.grid.spacing_source == GIVEN_BY_USER:
        x, y, _ = source.grid.spacing_xyz
        command += ["--spacing-mm", f"{y:.9g}", f"{x:.9g}"]
    if provenance.sampling:
        sampler, steps, samples, texture = provenance.sampling
        command += ["--sampler", sampler] if texture is None else ["--texture", f"{texture:g}"]
        command += ["--steps", str(steps), "--samples", str(samples)]
    if provenance.strength is not None:
        command += ["--strength", f"{provenance.strength:g}"]
    if provenance.roi_xyxy:
        command += ["--roi", *map(str, provenance.roi_xyxy)]
    return command


def _file_name(path: Path) -> str:
    # A backslash is a letter of a file name here, but the end of a folder where the report may be read.
    return path.name.replace("\\", "_")


def _remove_folder_of_word(word: str) -> str:
    """Remove folders from a word of a command line, as they may name a user or a patient: `--out=a/b` to `--out=b`."""
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    last = re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return f"{option}{equals}{last}"


def _remove_folders(text: str, folders: set[Path]) -> str:
    """Replace the paths in a sentence by file names."""
    folder_names = {str(folder) for folder in folders} | {str(folder.resolve()) for folder in folders}
    longest_first = sorted(folder_names - {".", "/"}, key=len, reverse=True)
    for folder in longest_first:
        text = re.sub(rf"(?<![\w./\\-]){re.escape(folder)}[/\\]", "", text)
    for folder in filter(os.path.isabs, longest_first):
        text = re.sub(rf"(?<![\w./-]){re.escape(folder)}(?![\w-]|\.\w)", "the folder", text)
    # Other paths, as long as they hold no spaces.
    text = re.sub(r"(?<![\w/:])/(?:[^\s/]+/)+", "", text)
    return re.sub(r"\b[A-Za-z]:\\(?:[^\\\s]+\\)+", "", text)


_OPERATOR_WORDS = {
    "bicubic_antialias": "a mean of the fine pixels around it, weighted by a smooth curve (bicubic)",
    "bilinear_antialias": "a mean of the fine pixels around it, weighted by their distance (bilinear)",
    "area": "the mean of the fine pixels that it covers",
    "lanczos_antialias": "a mean of the fine pixels around it, weighted by a windowed sinc (Lanczos)",
    "nearest": "one of the fine pixels that it covers",
}


def describe_operator(name: str) -> str:
    """Return a degradation in plain words, as a clause without a full stop."""
    operator = Degradation.parse(name)
    if operator.slab:
        return f"each thick slice is the mean of {operator.scale} thin ones"
    losses = (
        (operator.blur, "blurred first"), (operator.noise, "with noise added"), (operator.jpeg, "stored as JPEG"),
    )  # fmt: skip
    further = [words for amount, words in losses if amount]
    kernel = _OPERATOR_WORDS[operator.kernel]
    return ", ".join((f"each coarse pixel, as wide and as high as {operator.scale} fine ones, is {kernel}", *further))
