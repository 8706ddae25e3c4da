"""Measure every method of a protocol of real conditions: each image, with each loss, by each factor."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from monai_sr_bundle import __version__
from monai_sr_bundle.backends.backend import DeviceName
from monai_sr_bundle.benchmark.film_comparison import Film, FilmComparison, MethodFacts
from monai_sr_bundle.benchmark.film_protocol import FilmProtocol, FilmSet
from monai_sr_bundle.benchmark.methods import Method, open_film_method
from monai_sr_bundle.benchmark.originals import ORIGINALS
from monai_sr_bundle.benchmark.protocol import Row
from monai_sr_bundle.benchmark.slice_pairs import keep_whole_groups
from monai_sr_bundle.benchmark.training_curve import training_time
from monai_sr_bundle.benchmark.trust_figures import measure_parts
from monai_sr_bundle.benchmark.unmodified_measurement import FIGURES, UnmodifiedMeasurement
from monai_sr_bundle.benchmark.workers import Workers
from monai_sr_bundle.calibrate.calibration_cases import round_to_storage
from monai_sr_bundle.datasets.make_manifest import manifest_sha256
from monai_sr_bundle.datasets.manifest import read_manifest
from monai_sr_bundle.degradation import SLAB
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.inferers.tiling import middle
from monai_sr_bundle.metrics.fidelity import PSNR
from monai_sr_bundle.report.build import library_versions
from monai_sr_bundle.transforms.pairs import evenly_spread, pair_items
from monai_sr_bundle.transforms.slabs import ThickVolumes

Figures = TypeVar("Figures")
_PACKAGES = ("numpy", "pillow", "torch")


class FilmFigures(NamedTuple):
    """The figures of all methods on one image.

    Attributes:
        cells: whether the input is outside the limits of the method and was interpolated, PSNR in dB, share of the
            pixels inside their error bars, and that of `trust_figures.measure_parts`, ``[15, scales, losses, rows]``;
            NaN where a method does not enlarge by the factor or has no error bars, and where it was not measured.
        unmodified: whether the image itself, as it is, would be interpolated, ``[rows]``.
    """

    cells: np.ndarray
    unmodified: np.ndarray


class FilmMeasurement:
    """A function of an image and the factor to reduce it by first, which gives the figures of all methods.

    Args:
        protocol: the protocol; its networks are loaded.
        device: device of the bundles.
        trust: whether to measure error bars in parts of the results too.
        calibration: file of the calibration of the error bars. Default: the bundles' own.

    Raises:
        InputError, BundleError: see `open_film_method`; or a bundle enlarges by none of the factors.
    """

    def __init__(
        self, protocol: FilmProtocol, device: DeviceName, trust: bool = False, calibration: Path | None = None
    ) -> None:
        self.protocol, self.original, self.trust = protocol, ORIGINALS[protocol.modality], trust
        self.methods = [
            [open_film_method(row, scale, protocol, device, calibration) for row in protocol.rows]
            for scale in protocol.scales
        ]
        for row, by_scale in zip(protocol.rows, zip(*self.methods, strict=True), strict=True):
            if not any(by_scale):
                raise BundleError(
                    f"protocol {protocol.name} reduces by {' and '.join(map(str, protocol.scales))}, but bundle "
                    f"{row.method} enlarges by none of these factors. Take the row out."
                )
        self.psnr = PSNR(self.original.levels)
        self._load_volume = [
            ThickVolumes(f"{SLAB}_x{scale}", self.original.window, self.original.levels) for scale in protocol.scales
        ]
        self._enlarged: dict[tuple[int, int], tuple[str, np.ndarray]] = {}

    def __call__(self, item: Mapping[Hashable, Any], reduce: int) -> FilmFigures:
        protocol = self.protocol
        if protocol.along_slices:
            return self._measure_thin_slice(item)
        # One crop that all factors divide, so that they are compared on the same pixels.
        original = self.original(item, reduce, math.lcm(*protocol.scales))
        high_res = torch.from_numpy(original.high_res)[None, None]
        values = np.full((15, len(protocol.scales), len(protocol.losses), len(protocol.rows)), np.nan)
        for scale_index, scale in enumerate(protocol.scales):
            for loss_index, loss in enumerate(protocol.losses):
                low_res = original.degrade(loss, scale)
                for row_index, method in enumerate(self.methods[scale_index]):
                    if method is not None:
                        interpolated = method.interpolates(middle(low_res))
                        if interpolated:
                            method = self.methods[scale_index][protocol.reference_index] or method
                        figures = self._measure(method, low_res, high_res, original.padding)
                        values[: 1 + len(figures), scale_index, loss_index, row_index] = interpolated, *figures
        by_row = zip(*self.methods, strict=True)
        unmodified = [any(method.interpolates(original.high_res) for method in row if method) for row in by_row]
        return FilmFigures(values, np.array(unmodified))

    def _measure_thin_slice(self, item: Mapping[Hashable, Any]) -> FilmFigures:
        """Measure one thin slice of a volume that every method enlarges once by every factor."""
        index, path = item["slice_index"], item["path"]
        values = np.full((15, len(self.protocol.scales), 1, len(self.protocol.rows)), np.nan)
        for scale_index, scale in enumerate(self.protocol.scales):
            thin, thick = self._load_volume[scale_index](item)
            for row_index, method in enumerate(self.methods[scale_index]):
                if method is None:
                    continue
                key = scale_index, row_index
                if self._enlarged.get(key, ("",))[0] != path:
                    self._enlarged[key] = path, method.enlarge_slices(thick, scale)
                pair = (torch.from_numpy(volume[index])[None, None] for volume in (self._enlarged[key][1], thin))
                values[:2, scale_index, 0, row_index] = False, float(self.psnr(*pair))  # type: ignore[arg-type]
        return FilmFigures(values, np.zeros(len(self.protocol.rows), dtype=bool))

    def _measure(
        self, method: Method, low_res: np.ndarray, high_res: torch.Tensor, padding: np.ndarray | bool
    ) -> list[float]:
        """Return the PSNR of a result and, if it has error bars, the shares of pixels inside them."""
        super_res = method.enlarge(low_res, high_res, seed=0)
        psnr = float(self.psnr(torch.from_numpy(super_res)[None, None], high_res))  # type: ignore[arg-type]
        stored = round_to_storage(super_res, self.original.levels)
        half_width = method.half_width(stored, middle(low_res))
        if half_width is None:
            return [psnr]
        error = np.abs(high_res[0, 0].numpy() - stored)
        valid = np.broadcast_to(np.logical_not(padding), error.shape)
        parts = measure_parts(error, stored, half_width, valid) if self.trust else []
        return [psnr, float((error <= half_width).mean(where=valid)), *parts]


SetItems = list[tuple[FilmSet, dict[Hashable, Any]]]
"""Images, each with its set."""


def list_films(protocol: FilmProtocol, data: Path, limit: int | None = None) -> SetItems:
    """List the images of a protocol without reading them, set after set.

    Raises:
        InputError: no file of a set fits its patterns, or see `pair_items`.
    """
    films = []
    for film_set in protocol.sets:
        items = pair_items(str(data), protocol.modality, protocol.split, sets=[film_set.folder])
        kind = ORIGINALS[protocol.modality].kind
        records = read_manifest(data, kind=kind, split=protocol.split, sets=[film_set.folder])
        fitting = {str(each.file) for each in records if fnmatch(each.kernel, film_set.kernels)}
        chosen = [
            item for item in items if item["path"] in fitting and fnmatch(Path(item["path"]).name, film_set.files)
        ]
        if not chosen:
            raise InputError(
                f"{data / film_set.folder}: none of the {len(items)} files of the {protocol.split} split has a name "
                f"like {film_set.files} and a kernel like {film_set.kernels}, which protocol {protocol.name} asks for. "
                "Correct `files` or `kernels` in its text."
            )
        if protocol.along_slices:
            chosen = keep_whole_groups(chosen, math.lcm(*protocol.scales))
        films += [(film_set, item) for item in evenly_spread(chosen, limit or len(chosen))]
    return films


def list_unmodified(protocol: FilmProtocol, data: Path, limit: int | None = None) -> SetItems:
    """List the images that a protocol enlarges as they are, set after set, see `list_films`."""
    sets = protocol.unmodified_sets
    return (
        list_films(replace(protocol, sets=sets), data, min(limit or protocol.unmodified, protocol.unmodified))
        if sets
        else []
    )


def require_films(
    protocol: FilmProtocol,
    data: Path,
    *,
    limit: int | None = None,
    device: DeviceName = "auto",
    trust: bool = False,
    calibration: Path | None = None,
) -> None:
    """Raise every error of bundles and data before anything is measured.

    Raises:
        BundleError: see `FilmMeasurement`.
        InputError: see `list_films` and `FilmMeasurement`.
    """
    list_films(protocol, data, limit)
    FilmMeasurement(protocol, device, trust, calibration)
    if protocol.unmodified_sets:
        UnmodifiedMeasurement(protocol, device)


def measure_films(
    protocol: FilmProtocol,
    data: Path,
    *,
    limit: int | None = None,
    device: DeviceName = "auto",
    trust: bool = False,
    calibration: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers | None = None,
) -> FilmComparison:
    """Reduce the films of every set with every loss, enlarge them again by every method, and compare.

    Args:
        protocol: methods, films, losses and factors.
        data: folder with a manifest, or a folder of such folders.
        limit: number of images of each set, evenly spread. Default: all.
        device: device of the bundles; interpolations run on the CPU.
        trust: whether to measure error bars at small structures and by their width too.
        calibration: file of the calibration of the error bars. Default: the bundles' own.
        progress: called after every film with the number of finished results and of all.
        workers: processes that share the films. Default: this process does all of them.

    Returns:
        One PSNR per method, cell and film, and the figures of unmodified images.

    Raises:
        InputError: see `list_films`.
        BundleError: see `FilmMeasurement`.
        OutOfMemoryError: see `infer_tiled`; or a worker ended without a word.
    """
    start = time.perf_counter()
    films, unmodified = list_films(protocol, data, limit), list_unmodified(protocol, data, limit)
    results = len(protocol.scales) * len(protocol.rows)
    total = results * (len(films) * len(protocol.losses) + len(unmodified))
    done = 0

    def measured(
        factory: Callable[..., Callable[..., Figures]], arguments: tuple[Any, ...], count: int, *inputs: list[Any]
    ) -> list[Figures]:
        nonlocal done
        running = workers.map(factory, arguments, *inputs) if workers else map(factory(*arguments), *inputs)
        figures = []
        for each in running:
            figures.append(each)
            done += count
            if progress is not None:
                progress(done, total)
        return figures

    items, factors = [item for _, item in films], [film_set.reduce for film_set, _ in films]
    arguments = protocol, device, trust, calibration
    figures = measured(FilmMeasurement, arguments, results * len(protocol.losses), items, factors)
    interpolated, psnr, coverage, *parts = np.stack([each.cells for each in figures], axis=1)
    as_they_are: list[np.ndarray] = []
    if unmodified:
        as_they_are = measured(UnmodifiedMeasurement, arguments[:2], results, [item for _, item in unmodified])
    return FilmComparison(
        protocol,
        films=_describe_images(films),
        psnr=psnr,
        coverage=coverage,
        error_bar_parts=np.stack(parts),
        interpolated=interpolated,
        unmodified_interpolated=np.stack([each.unmodified for each in figures]),
        methods=[_describe(row) for row in protocol.rows],
        unmodified_films=_describe_images(unmodified),
        unmodified=dict(zip(FIGURES, np.stack(as_they_are, axis=1), strict=True)) if as_they_are else {},
        manifest_sha256={
            film_set.folder: manifest_sha256(
                data, kind=ORIGINALS[protocol.modality].kind, split=protocol.split, sets=[film_set.folder]
            )
            for film_set in protocol.sets
        },
        versions={"monai_sr_bundle": __version__, **library_versions(_PACKAGES)},
        minutes=(time.perf_counter() - start) / 60,
    )


def _describe_images(images: SetItems) -> list[Film]:
    return [Film(film_set.label, str(item["name"]), str(item["patient"])) for film_set, item in images]


def _describe(row: Row) -> MethodFacts:
    bundle = row.bundle()
    if bundle is None:
        return MethodFacts()
    return MethodFacts(bundle.parameters, training_time(bundle.metadata))
