"""Measure every method of a protocol on the same images, with the same degradation and the same metric code.

This module knows no methods: `methods` opens them, `cases` loads images, `case_measurement` turns one into figures.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from monai_sr_bundle import __version__
from monai_sr_bundle.backends.backend import DeviceName
from monai_sr_bundle.benchmark.case_measurement import CaseMeasurement, CaseResult, open_metrics
from monai_sr_bundle.benchmark.cases import Item, list_items, sample_indices
from monai_sr_bundle.benchmark.comparison import Comparison, MethodResult, Sample, Strip
from monai_sr_bundle.benchmark.methods import BundleMethod, Method, NetworkMethod, open_methods, sampler_options
from monai_sr_bundle.benchmark.multiply_adds import multiply_adds
from monai_sr_bundle.benchmark.protocol import Protocol, Row, check_bundles
from monai_sr_bundle.benchmark.strips import draw_strip
from monai_sr_bundle.benchmark.training_curve import gained_until, read_training_curve, training_time
from monai_sr_bundle.benchmark.workers import Workers
from monai_sr_bundle.calibrate.calibrate import calibrate
from monai_sr_bundle.datasets.make_manifest import manifest_sha256
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.metrics.ms_ssim import SMALLEST_SIDE
from monai_sr_bundle.report.build import library_versions
from monai_sr_bundle.uncertainty.calibration import CalibrationEntry, calibrated_scale

LOCAL_IMAGES = 100
"""Number of images that a hospital can spare to calibrate error bars of its own."""
_PACKAGES = ("monai", "numpy", "onnxruntime", "scipy", "torch")
_NO_IMAGE_HAS_IT = {
    "ms_ssim": f"every image is smaller than {SMALLEST_SIDE} pixels on a side",
    "uqi": "the images are empty",
    "box_psnr": "no image has a box",
    "box_ssim": "no image has a box",
}


def measure(
    protocol: Protocol,
    data: Path,
    *,
    limit: int | None = None,
    rotation_degrees: int = 0,
    device: DeviceName = "auto",
    backbone: Path | None = None,
    samples: int = 4,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers | None = None,
    earlier: Sequence[Comparison] = (),
) -> Comparison:
    """Degrade the images of a split, enlarge them again by every method, and compare with the originals.

    Methods take turns on every image, so that their times are those of one machine in one state. Bundles must be made
    for the protocol, see `check_bundles`.

    Args:
        protocol: methods, images and degradation.
        data: folder with a manifest, or a folder of such folders.
        limit: number of images, evenly spread. Default: the protocol's.
        rotation_degrees: counter-clockwise rotation of the images, 0, 90, 180 or 270; rows of a CT may run either way.
        device: device of the bundles; interpolations run on the CPU.
        backbone: weights for the feature distance, which is left out without them.
        samples: number of images with the results of all methods, those with boxes first.
        progress: called after every image with the number of finished results and of all.
        workers: processes that share the images. Default: this process does all of them.
        earlier: comparisons with the same data, device and backbone. A method that one of them has measured on the
            same images is not measured again.

    Returns:
        One figure per method and image.

    Raises:
        InputError: see `pair_items` and `FeatureDistance`.
        BundleError: see `open_methods`.
        OutOfMemoryError: see `infer_tiled`; or a worker ended without a word.
    """
    start = time.perf_counter()
    items = list_items(protocol, data, limit)
    images = [str(item["name"]) for item in items]

    # Measure the methods that no earlier comparison has measured.
    known_results = _find_results(protocol, images, earlier)
    new_protocol = replace(protocol, rows=tuple(row for row in protocol.rows if row not in known_results))
    entries = {
        row.key: _recalibrate(row, data, device, protocol.scale)
        for row in new_protocol.rows
        if row.recalibrated_on is not None
    }
    measurement = CaseMeasurement(new_protocol, rotation_degrees, device, backbone, entries)
    comparison = Comparison(
        protocol,
        images=images,
        patients=[str(item["patient"]) for item in items],
        unavailable=dict(measurement.unavailable),
        manifest_sha256=_manifest_sha256(protocol, data),
        threads=workers.threads if workers else _count_threads(measurement.methods),
        processes=workers.count if workers else 1,
        versions={"monai_sr_bundle": __version__, **library_versions(_PACKAGES)},
    )
    results = {method.row: _describe(method) for method in measurement.methods}
    sample_numbers = sample_indices(items, samples)
    is_sample = [index in sample_numbers for index in range(len(items))]
    sizes: Counter[str] = Counter()
    for count, case in enumerate(_measure_cases(items, is_sample, measurement, workers), start=1):
        sizes[case.low_res_size] += 1
        _append_case(comparison.samples, list(results.values()), case)
        if progress is not None:
            progress(count * len(results), len(items) * len(results))

    # Complete the comparison with values that need the most frequent size or all results.
    comparison.low_res_size = sizes.most_common(1)[0][0]
    for method in measurement.methods:
        if isinstance(method, NetworkMethod):
            work = multiply_adds(method.bundle, comparison.low_res_size, method.row)
            results[method.row].multiply_adds = work
    comparison.strips = [
        _draw_strip(row, sample)
        for row in protocol.rows
        if row.key in protocol.processes
        for sample in comparison.samples[:1]
    ]
    comparison.results = [known_results[row] if row in known_results else results[row] for row in protocol.rows]
    _remove_missing_figures(comparison)
    comparison.minutes = (time.perf_counter() - start) / 60
    return comparison


def _append_case(samples: list[Sample], results: Sequence[MethodResult], case: CaseResult) -> None:
    if case.sample is not None:
        samples.append(case.sample)
    for index, result in enumerate(results):
        result.seconds.append(case.seconds[index])
        for figure, values in case.figures[index].items():
            result.figures.setdefault(figure, []).append(float(np.mean(values)))
            if len(values) > 1:
                result.by_seed.setdefault(figure, []).append(values)
        result.detections += case.detections[index : index + 1]
        result.pictures += case.pictures[index : index + 1]


def _recalibrate(row: Row, data: Path, device: DeviceName, scale: int) -> CalibrationEntry:
    """Calibrate error bars on the images that another hospital can spare."""
    assert row.recalibrated_on is not None
    if row.sampler is not None:
        raise InputError(f"{row.key}: error bars are those of a bundle's own sampler. Leave sampler out of the row.")
    calibration = calibrate(
        row.method,
        data,
        "train",
        sets=[row.recalibrated_on],
        samplers=[row.options],
        limit=LOCAL_IMAGES,
        backend=row.backend,  # type: ignore[arg-type]  # checked by read_protocol
        device=device,
    )
    bundle = row.bundle(scale)
    assert bundle is not None, "interpolations have no error bars"
    options = sampler_options(row, bundle)
    return calibration.require(bundle.family.sampling(options), calibrated_scale(bundle), options.strength)


def _draw_strip(row: Row, sample: Sample) -> Strip:
    bundle = row.bundle()
    assert bundle is not None, "open_methods has refused it"
    return draw_strip(bundle, row.label, sampler_options(row, bundle), sample.low_res, sample.high_res)


def _find_results(protocol: Protocol, images: list[str], earlier: Sequence[Comparison]) -> dict[Row, MethodResult]:
    """Return the protocol's rows that were measured on the same images, under their new labels."""
    results = {}
    for comparison in earlier:
        if comparison.images == images and _without_methods(comparison.protocol) == _without_methods(protocol):
            for earlier_row, result in zip(comparison.protocol.rows, comparison.results, strict=True):
                for row in protocol.rows:
                    if row.key == earlier_row.key:
                        results[row] = replace(result, label=row.label, figures=dict(result.figures))
    return results


def _without_methods(protocol: Protocol) -> Protocol:
    """Return the part of a protocol that decides which images its methods get."""
    return replace(protocol, name="", title="", about="", rows=(), reference="", processes=())


def _measure_cases(
    items: Sequence[Item], is_sample: Sequence[bool], measurement: CaseMeasurement, workers: Workers | None
) -> Iterator[CaseResult]:
    if workers is None:
        return map(measurement, items, is_sample)
    return workers.map(CaseMeasurement, measurement.arguments, items, is_sample)


def require_measurable(
    protocol: Protocol,
    data: Path,
    *,
    limit: int | None = None,
    device: DeviceName = "auto",
    backbone: Path | None = None,
) -> None:
    """Raise every error of bundles, data and weights before hours of measuring.

    Raises:
        BundleError: see `check_bundles` and `open_methods`.
        InputError: see `list_items` and `FeatureDistance`.
    """
    check_bundles(protocol)
    list_items(protocol, data, limit)
    open_methods(protocol, device)
    open_metrics(protocol, backbone)


def _describe(method: Method) -> MethodResult:
    row = method.row
    if not isinstance(method, NetworkMethod):
        return MethodResult(row.key, row.label, "torch on cpu")
    bundle, backend = method.bundle, method.backend
    curve = read_training_curve(bundle)
    return MethodResult(
        row.key,
        row.label,
        f"{backend.name} on {backend.device}" if isinstance(method, BundleMethod) else "torch on cpu",
        saw_original=row.ceiling,
        parameters=bundle.parameters,
        training=training_time(bundle.metadata),
        gained_until=gained_until(curve),
        curve=curve,
    )


def _count_threads(methods: Sequence[Method]) -> int:
    threads = (method.backend.threads for method in methods if isinstance(method, NetworkMethod))
    return max(threads, default=torch.get_num_threads())


def _manifest_sha256(protocol: Protocol, data: Path) -> str:
    split = "train" if protocol.validation_share and protocol.split == "val" else protocol.split
    return manifest_sha256(
        data, kind="ct" if protocol.modality == "CT" else "cxr", split=split, sets=protocol.sets or None
    )


def _remove_missing_figures(comparison: Comparison) -> None:
    """Replace figures that no image has from any method by the reason."""
    results = comparison.results
    for figure in dict.fromkeys(figure for result in results for figure in result.figures):
        if not any(result.has(figure) for result in results):
            comparison.unavailable[figure] = _NO_IMAGE_HAS_IT.get(figure, "no image has it")
            for result in results:
                result.figures.pop(figure, None)
