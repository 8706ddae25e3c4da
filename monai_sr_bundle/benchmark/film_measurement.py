"""Measure every method of a protocol of real conditions: each image, with each loss, by each factor."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_sr_bundle import __version__
from monai_sr_bundle.backends.backend import DeviceName
from monai_sr_bundle.benchmark.film_comparison import Film, FilmComparison, MethodFacts
from monai_sr_bundle.benchmark.film_protocol import FilmProtocol, FilmSet
from monai_sr_bundle.benchmark.methods import Method, open_film_method
from monai_sr_bundle.benchmark.originals import ORIGINALS
from monai_sr_bundle.benchmark.protocol import Row
from monai_sr_bundle.benchmark.workers import Workers
from monai_sr_bundle.calibrate.calibration_cases import round_to_storage
from monai_sr_bundle.datasets.manifest import manifest_sha256, read_manifest
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.inferers.neighbours import middle
from monai_sr_bundle.metrics.psnr import PSNR
from monai_sr_bundle.report.build import library_versions
from monai_sr_bundle.transforms.pairs import evenly_spread, pair_items

_PACKAGES = ("numpy", "pillow", "torch")


class FilmMeasurement:
    """A function of an image and the factor to reduce it by first, which gives the figures of all methods.

    Args:
        protocol: the protocol; its networks are loaded.
        device: device of the bundles.

    Returns:
        PSNR in dB and the share of pixels inside their error bars, ``[2, scales, losses, rows]``; NaN where a method
        does not enlarge by the factor or has no error bars.

    Raises:
        BundleError: see `open_film_method`; or a bundle enlarges by none of the factors.
    """

    def __init__(self, protocol: FilmProtocol, device: DeviceName) -> None:
        self.protocol, self.original = protocol, ORIGINALS[protocol.modality]
        self.methods = [
            [open_film_method(row, scale, device, self.original) for row in protocol.rows] for scale in protocol.scales
        ]
        for row, by_scale in zip(protocol.rows, zip(*self.methods, strict=True), strict=True):
            if not any(by_scale):
                raise BundleError(
                    f"protocol {protocol.name} reduces by {' and '.join(map(str, protocol.scales))}, but bundle "
                    f"{row.method} enlarges by none of these factors. Take the row out."
                )
        self.psnr = PSNR(self.original.levels)

    def __call__(self, item: Mapping[Hashable, Any], reduce: int) -> np.ndarray:
        protocol = self.protocol
        # One crop that all factors divide, so that they are compared on the same pixels.
        original = self.original(item, reduce, math.lcm(*protocol.scales))
        high_res = torch.from_numpy(original.high_res)[None, None]
        values = np.full((2, len(protocol.scales), len(protocol.losses), len(protocol.rows)), np.nan)
        for scale_index, scale in enumerate(protocol.scales):
            for loss_index, loss in enumerate(protocol.losses):
                low_res = original.degrade(loss, scale)
                for row_index, method in enumerate(self.methods[scale_index]):
                    if method is not None:
                        values[:, scale_index, loss_index, row_index] = self._measure(
                            method, low_res, high_res, original.padding
                        )
        return values

    def _measure(
        self, method: Method, low_res: np.ndarray, high_res: torch.Tensor, padding: np.ndarray | bool
    ) -> tuple[float, float]:
        """Return the PSNR of a result and the share of its pixels inside their error bars, NaN without these."""
        super_res = method.enlarge(low_res, high_res, seed=0)
        psnr = self.psnr(torch.from_numpy(super_res)[None, None], high_res)
        assert isinstance(psnr, torch.Tensor)
        half_width = method.half_width(round_to_storage(super_res, self.original.levels), middle(low_res))
        if half_width is None:
            return float(psnr), math.nan
        error = np.abs(high_res[0, 0].numpy() - round_to_storage(super_res, self.original.levels))
        return float(psnr), float((error <= half_width).mean(where=np.logical_not(padding)))


def list_films(
    protocol: FilmProtocol, data: Path, limit: int | None = None
) -> list[tuple[FilmSet, dict[Hashable, Any]]]:
    """List the images of a protocol without reading them, set after set.

    Raises:
        InputError: the limit is below 1, no file of a set fits its patterns, or see `pair_items`.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit is {limit}, expected at least 1 image.")
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
        films += [(film_set, item) for item in evenly_spread(chosen, limit or len(chosen))]
    return films


def require_films(protocol: FilmProtocol, data: Path, *, limit: int | None = None, device: DeviceName = "auto") -> None:
    """Raise every error of bundles and data before anything is measured.

    Raises:
        BundleError: see `FilmMeasurement`.
        InputError: see `list_films`.
    """
    list_films(protocol, data, limit)
    FilmMeasurement(protocol, device)


def measure_films(
    protocol: FilmProtocol,
    data: Path,
    *,
    limit: int | None = None,
    device: DeviceName = "auto",
    progress: Callable[[int, int], None] | None = None,
    workers: Workers | None = None,
) -> FilmComparison:
    """Reduce the films of every set with every loss, enlarge them again by every method, and compare.

    Args:
        protocol: methods, films, losses and factors.
        data: folder with a manifest, or a folder of such folders.
        limit: number of images of each set, evenly spread. Default: all.
        device: device of the bundles; interpolations run on the CPU.
        progress: called after every film with the number of finished results and of all.
        workers: processes that share the films. Default: this process does all of them.

    Returns:
        One PSNR per method, cell and film.

    Raises:
        InputError: see `list_films`.
        BundleError: see `FilmMeasurement`.
        OutOfMemoryError: see `infer_tiled`; or a worker ended without a word.
    """
    start = time.perf_counter()
    films = list_films(protocol, data, limit)
    items, factors = [item for _, item in films], [film_set.reduce for film_set, _ in films]
    results: Iterable[np.ndarray]
    if workers is None:
        results = map(FilmMeasurement(protocol, device), items, factors)
    else:
        results = workers.map(FilmMeasurement, (protocol, device), items, factors)
    figures: list[np.ndarray] = []
    for result in results:
        figures.append(result)
        if progress is not None:
            progress(len(figures) * result[0].size, len(films) * result[0].size)
    psnr, coverage = np.stack(figures, axis=1)
    return FilmComparison(
        protocol,
        films=[Film(film_set.label, str(item["name"]), str(item["patient"])) for film_set, item in films],
        psnr=psnr,
        coverage=coverage,
        methods=[_describe(row) for row in protocol.rows],
        manifest_sha256={
            film_set.folder: manifest_sha256(
                data, kind=ORIGINALS[protocol.modality].kind, split=protocol.split, sets=[film_set.folder]
            )
            for film_set in protocol.sets
        },
        versions={"monai_sr_bundle": __version__, **library_versions(_PACKAGES)},
        minutes=(time.perf_counter() - start) / 60,
    )


def _describe(row: Row) -> MethodFacts:
    bundle = row.bundle()
    if bundle is None:
        return MethodFacts()
    minutes = bundle.metadata.get("training", {}).get("minutes")
    return MethodFacts(bundle.parameters, None if minutes is None else float(minutes))
