"""Measure every method of a protocol on the same images, with the same degradation and the same metric code.

Nothing here knows which methods there are: an interpolation is three lines, everything else is a bundle.
"""

from __future__ import annotations

import csv
import importlib.metadata
import logging
import platform
import time
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from monai.metrics.regression import RegressionMetric
from torch.nn.functional import interpolate, pad
from torch.utils.flop_counter import FlopCounterMode

from monai_sr_bundle import __version__
from monai_sr_bundle.backends.backend import Backend, DeviceName, choose_draw, enlarge, open_backend
from monai_sr_bundle.backends.torch_backend import build_network, load_network
from monai_sr_bundle.benchmark.comparison import Comparison, MethodResult, Sample, Strip
from monai_sr_bundle.benchmark.protocol import Protocol, Row, check_bundles
from monai_sr_bundle.benchmark.strips import strip
from monai_sr_bundle.benchmark.through_plane import ThickVolumes, interpolate_slices, thin_slices, whole_groups
from monai_sr_bundle.benchmark.workers import Workers
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.datasets.manifest import manifest_sha256
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.inferers.flow import process_of
from monai_sr_bundle.inferers.process import Draw
from monai_sr_bundle.inferers.slices import middle
from monai_sr_bundle.inferers.tiled import fitting_tile
from monai_sr_bundle.metrics import lpips
from monai_sr_bundle.metrics.box_fidelity import box_mask, box_psnr, box_ssim
from monai_sr_bundle.metrics.feature_distance import FeatureDistance
from monai_sr_bundle.metrics.psnr import PSNR
from monai_sr_bundle.metrics.spectrum import HighFrequencyRatio, LogSpectralDistance
from monai_sr_bundle.metrics.ssim import MSSSIM, SMALLEST_SIDE, SSIM
from monai_sr_bundle.metrics.stored import as_stored
from monai_sr_bundle.metrics.uqi import UQI
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.transforms.artifacts import draw_artifacts
from monai_sr_bundle.transforms.boxes import BOXES, moved_boxes
from monai_sr_bundle.transforms.pairs import Degraded, LoadHighResd, MiddleSliced, pair_items
from monai_sr_bundle.trust.calibrate import Way, calibrate
from monai_sr_bundle.trust.calibration import Entry
from monai_sr_bundle.trust.error_bars import error_scale, own_promise
from monai_sr_bundle.trust.figures import Subject, trust_figures

logger = logging.getLogger(__name__)

GAINED_WITHIN_DB = 0.05
LOCAL_IMAGES = 100
"""That a hospital spends on error bars of its own."""
_PACKAGES = ("monai", "numpy", "onnxruntime", "scipy", "torch")
_NO_IMAGE_HAS_IT = {
    "ms_ssim": f"every image is smaller than {SMALLEST_SIDE} pixels on a side",
    "uqi": "the images are empty",
    "box_psnr": "no image has a box",
    "box_ssim": "no image has a box",
}

Item = Mapping[Hashable, Any]
Value = TypeVar("Value")


class _Method(ABC):
    """A row that can be run.

    Attributes:
        row: of the protocol.
        bundle, backend: None for an interpolation.
        seeds: that make a difference.
    """

    def __init__(self, row: Row, bundle: Bundle | None = None, backend: Backend | None = None) -> None:
        self.row, self.bundle, self.backend = row, bundle, backend
        self.seeds = row.seeds

    @abstractmethod
    def enlarge(self, low: np.ndarray, high: torch.Tensor, seed: int) -> np.ndarray:
        """``[slices, rows, columns]`` to ``[scale * rows, scale * columns]`` of the middle one, float32.

        Args:
            low: what a method sees; of the neighbours, as many as it takes.
            high: the original, ``[1, 1, rows, columns]``, for a ceiling alone.
            seed: of the noise.
        """

    def half_width(self, made: np.ndarray, low: np.ndarray) -> np.ndarray | None:
        """Of the error bars of a stored result, in units of the window; None without."""
        return None

    def warm_up(self, low: np.ndarray, high: torch.Tensor) -> None:
        """The first call of a network is slower than all others."""
        self.enlarge(low, high, 0)

    @abstractmethod
    def thin(self, thick: np.ndarray, scale: int) -> np.ndarray:
        """``[slices, rows, columns]`` to ``[scale * slices, rows, columns]``, float32."""


class _Interpolation(_Method):
    def __init__(self, row: Row, scale: int) -> None:
        super().__init__(row)
        self._enlarge = _interpolation(row.method, scale)

    def enlarge(self, low: np.ndarray, high: torch.Tensor, seed: int) -> np.ndarray:
        return self._enlarge(middle(low))

    def thin(self, thick: np.ndarray, scale: int) -> np.ndarray:
        return interpolate_slices(self.row.method, thick, scale)


class _Bundled(_Method):
    def __init__(self, row: Row, bundle: Bundle, backend: Backend) -> None:
        super().__init__(row, bundle, backend)
        self.tile = fitting_tile(backend.free_bytes(), bundle.memory_per_pixel, bundle.halo)
        # What 8 bits can hold; HU beyond the window are numbers like others.
        self.limits = (0.0, 1.0) if bundle.facts["levels"] == 255 else None
        self.draw = _draw(row, bundle)
        self.promised: Entry | None = None
        if not self.draws and row.seeds > 1:
            raise InputError(f"{row.key}: bundle {bundle.name} draws nothing. Leave seeds out of the protocol's row.")

    @property
    def draws(self) -> bool:
        """Whether its results depend on a seed."""
        facts = self.bundle.diffusion if self.bundle else None
        return facts is not None and process_of(facts).sampling(self.draw) is not None

    def enlarge(self, low: np.ndarray, high: torch.Tensor, seed: int) -> np.ndarray:
        return self._drawn(low, replace(self.draw, seed=seed))

    def thin(self, thick: np.ndarray, scale: int) -> np.ndarray:
        assert self.bundle is not None
        assert self.backend is not None
        return thin_slices(thick, self.bundle, self.backend, self.tile)

    def half_width(self, made: np.ndarray, low: np.ndarray) -> np.ndarray | None:
        assert self.bundle is not None
        assert self.backend is not None
        if self.promised is None:
            return None
        return self.promised.factor * error_scale(made, low, self.bundle, self.backend)

    def warm_up(self, low: np.ndarray, high: torch.Tensor) -> None:
        self._drawn(low, replace(self.draw, steps=1))

    def _drawn(self, low: np.ndarray, draw: Draw) -> np.ndarray:
        assert self.bundle is not None
        assert self.backend is not None
        return enlarge(low, self.bundle, self.backend, draw=draw, tile=self.tile, limits=self.limits)[0]


class _Ceiling(_Method):
    """What an autoencoder leaves of the original, in PyTorch on the CPU; samples seldom come closer."""

    def __init__(self, row: Row, bundle: Bundle, backend: Backend) -> None:
        super().__init__(row, bundle, backend)
        self.network: Any = load_network(bundle)[0]
        if not hasattr(self.network, "reconstruct"):
            raise InputError(f"{row.key}: bundle {bundle.name} has no autoencoder. Leave ceiling out of the row.")

    def thin(self, thick: np.ndarray, scale: int) -> np.ndarray:
        raise AssertionError("a bundle along the slices has no autoencoder")

    @torch.inference_mode()
    def enlarge(self, low: np.ndarray, high: torch.Tensor, seed: int) -> np.ndarray:
        cell, scale, (rows, columns) = self.network.cell, self.network.scale, low.shape[1:]
        after = (0, -columns % cell, 0, -rows % cell)
        image = pad(torch.from_numpy(middle(low))[None, None], after, mode="replicate")
        whole = pad(high, [scale * side for side in after], mode="replicate")
        reconstructed = self.network.reconstruct(whole, self.network.encode(image))[0][0, 0]
        return np.asarray(reconstructed[: scale * rows, : scale * columns].numpy())


@dataclass
class _Case:
    """One image: the original, what the methods see, and the clean input where artifacts were drawn.

    Inputs are ``[slices, rows, columns]``, with neighbours where a method of the protocol sees them.
    """

    high: torch.Tensor
    low: np.ndarray
    boxes_xyxy: np.ndarray
    name: str
    clean_low: np.ndarray | None = None
    mark_energy: float = 0.0


@dataclass
class _Found:
    """What every method made of one image: figures by seed; pictures only of an image that is shown."""

    low_res_size: str
    seconds: list[float] = field(default_factory=list)
    figures: list[dict[str, list[float]]] = field(default_factory=list)
    sample: Sample | None = None
    pictures: list[np.ndarray] = field(default_factory=list)


def measure(
    protocol: Protocol,
    data: Path,
    *,
    limit: int | None = None,
    split: str | None = None,
    sets: Sequence[str] | None = None,
    turned: int = 0,
    device: DeviceName = "auto",
    backbone: Path | None = None,
    samples: int = 4,
    listen: Callable[[int, int], None] | None = None,
    workers: Workers | None = None,
    earlier: Sequence[Comparison] = (),
) -> Comparison:
    """Degrade the images of a split, enlarge them again by every method, and compare with the originals.

    Methods take turns on every image, so that their times are those of one machine in one state. Whether the bundles
    were made for the protocol is what `check_bundles` tells; here they only have to fit its scale.

    Args:
        protocol: which methods, images and degradation.
        data: folder with a manifest, or of such folders.
        limit: take this many images, evenly spread.
        split, sets: other than the protocol's.
        turned: turn the images counter-clockwise by 0, 90, 180 or 270 degrees first; rows of a CT may run either way.
        device: of the bundles; interpolations run on the CPU.
        backbone: weights for the feature distance, which is left out without them.
        samples: images kept with every method's result, those with boxes first.
        listen: called after every image with the results that are done and how many there will be.
        workers: processes to share the images; this process does all of them if None.
        earlier: comparisons with the same data, device and backbone. A method that one of them has measured on the
            same images is not measured again.

    Returns:
        One figure per method and image.

    Raises:
        InputError: as `pair_items` and `FeatureDistance`.
        BundleError: as `open_backend`, or a bundle of another scale.
        OutOfMemoryError: as `infer_tiled`, or a worker ended without a word.
    """
    began = time.perf_counter()
    protocol = replace(protocol, split=split or protocol.split, sets=tuple(protocol.sets if sets is None else sets))
    items = items_of(protocol, data, limit)
    images = [str(item["name"]) for item in items]
    known = _known(protocol, images, earlier)
    new = replace(protocol, rows=tuple(row for row in protocol.rows if row not in known))
    run = _Run(new, turned, device, backbone, {row.key: _recalibrated(row, data, device) for row in _elsewhere(new)})
    found = Comparison(protocol, unavailable=dict(run.unavailable), versions=_versions())
    found.threads, found.processes = (workers.threads, workers.count) if workers else (_threads(run.methods), 1)
    found.manifest_sha256 = _fingerprint(protocol, data)
    found.images = images
    found.patients = [str(item["patient"]) for item in items]
    measured = {method.row: _described(method) for method in run.methods}
    # A sample sheet shows what was lost in the plane.
    kept = set() if protocol.along_slices else _sample_indices(items, samples)
    shown = [index in kept for index in range(len(items))]
    sizes: Counter[str] = Counter()
    for done, image in enumerate(_every(items, shown, run, workers), start=1):
        sizes[image.low_res_size] += 1
        if image.sample is not None:
            found.samples.append(image.sample)
        for index, result in enumerate(measured.values()):
            result.seconds.append(image.seconds[index])
            for figure, values in image.figures[index].items():
                result.figures.setdefault(figure, []).append(float(np.mean(values)))
                if len(values) > 1:
                    result.by_seed.setdefault(figure, []).append(values)
            result.pictures += image.pictures[index : index + 1]
        if listen is not None:
            listen(done * len(measured), len(items) * len(measured))
    found.low_res_size = sizes.most_common(1)[0][0]
    for method in run.methods:
        if method.bundle is not None:
            measured[method.row].multiply_adds = multiply_adds(method.bundle, found.low_res_size, method.row)
    found.strips = [
        _strip(row, sample) for row in protocol.rows if row.key in protocol.processes for sample in found.samples[:1]
    ]
    found.results = [known[row] if row in known else measured[row] for row in protocol.rows]
    _take_out_missing(found)
    found.minutes = (time.perf_counter() - began) / 60
    return found


def _elsewhere(protocol: Protocol) -> list[Row]:
    return [row for row in protocol.rows if row.recalibrated_on is not None]


def _recalibrated(row: Row, data: Path, device: DeviceName) -> Entry:
    """The factor of error bars for images of another hospital, from those it can spare."""
    assert row.recalibrated_on is not None
    way = Way(row.texture, row.steps, row.samples)
    if row.sampler is not None:
        raise InputError(f"{row.key}: error bars are those of a bundle's own sampler. Leave sampler out of the row.")
    calibration = calibrate(
        row.method,
        data,
        "train",
        sets=[row.recalibrated_on],
        ways=[way],
        limit=LOCAL_IMAGES,
        backend=row.backend,  # type: ignore[arg-type]  # checked by read_protocol
        device=device,
    )
    return calibration.entries[0]


def _strip(row: Row, sample: Sample) -> Strip:
    bundle = row.bundle()
    assert bundle is not None, "open_methods has refused it"
    return strip(bundle, row.label, _draw(row, bundle), sample.low, sample.high)


def _draw(row: Row, bundle: Bundle) -> Draw:
    return choose_draw(bundle, 0, row.sampler, row.steps, row.samples, row.texture)


def _known(protocol: Protocol, images: list[str], earlier: Sequence[Comparison]) -> dict[Row, MethodResult]:
    """The protocol's rows that were measured on the same images, under their new labels."""
    found = {}
    for comparison in earlier:
        if comparison.images == images and _images_of(comparison.protocol) == _images_of(protocol):
            for before, result in zip(comparison.protocol.rows, comparison.results, strict=True):
                for row in protocol.rows:
                    if row.key == before.key:
                        found[row] = replace(result, label=row.label, figures=dict(result.figures))
    return found


def _images_of(protocol: Protocol) -> Protocol:
    """All that decides which images a protocol shows to its methods."""
    return replace(protocol, name="", title="", about="", rows=(), reference="", processes=())


def _every(items: Sequence[Item], shown: Sequence[bool], run: _Run, workers: Workers | None) -> Iterator[_Found]:
    if workers is None:
        return map(run, items, shown)
    return workers.map(_Run, run.arguments, items, shown)


class _Run:
    """The methods and metrics of a protocol, opened: from an image to what they make of it."""

    def __init__(
        self,
        protocol: Protocol,
        turned: int,
        device: DeviceName,
        backbone: Path | None,
        recalibrated: Mapping[str, Entry],
    ) -> None:
        self.arguments = (protocol, turned, device, backbone, recalibrated)
        self.protocol = protocol
        self.metrics, self.unavailable = _metrics(protocol, backbone)
        self.methods = open_methods(protocol, device)
        for method in self.methods:
            if protocol.trust and isinstance(method, _Bundled) and method.bundle is not None:
                own = own_promise(method.bundle, method.draw)
                method.promised = recalibrated.get(method.row.key, own[1] if own else None)
        self.pairs = _Pairs(protocol, turned)
        self.begun = False
        self.volumes = ThickVolumes(protocol.operator, protocol.window, protocol.levels, turned // 90)
        self.made: dict[str, tuple[str, np.ndarray, float]] = {}

    def __call__(self, item: Item, shown: bool) -> _Found:
        if self.protocol.along_slices:
            return self._of_volume(item)
        case = self.pairs(item)
        if not self.begun:
            for method in self.methods:
                method.warm_up(case.low, case.high)
            self.begun = True
        found = _Found(f"{case.low.shape[2]}x{case.low.shape[1]}")
        if shown:
            high = _shown(case.high[0, 0].numpy())
            found.sample = Sample(str(item["name"]), _shown(middle(case.low)), high, case.boxes_xyxy)
        for method in self.methods:
            started = time.perf_counter()
            drawn = [method.enlarge(case.low, case.high, seed) for seed in range(method.seeds)]
            found.seconds.append((time.perf_counter() - started) / method.seeds)
            figures = [self._figures(method, case, seed, enlarged) for seed, enlarged in enumerate(drawn)]
            found.figures.append({name: [of_seed[name] for of_seed in figures] for name in figures[0]})
            if shown:
                found.pictures.append(_shown(drawn[0]))
        return found

    def _of_volume(self, item: Item) -> _Found:
        """One thin slice of a volume that every method makes once; it takes its share of the time."""
        thin, thick = self.volumes(item)
        index, path = item["slice_index"], item["path"]
        rows, columns = thick.shape[1:]
        found = _Found(f"{columns}x{rows}")
        high = torch.from_numpy(thin[index])[None, None]
        case = _Case(high, thick[index // self.protocol.scale], item[BOXES], str(item["name"]))
        for method in self.methods:
            if self.made.get(method.row.key, ("",))[0] != path:
                started = time.perf_counter()
                made = method.thin(thick, self.protocol.scale)
                self.made[method.row.key] = (path, made, (time.perf_counter() - started) / len(made))
            _, made, seconds = self.made[method.row.key]
            found.seconds.append(seconds)
            enlarged = torch.from_numpy(made[index])[None, None]
            figures = _figures(self.metrics, enlarged, case, self.protocol.levels)
            found.figures.append({name: [value] for name, value in figures.items()})
        return found

    def _figures(self, method: _Method, case: _Case, seed: int, enlarged: np.ndarray) -> dict[str, float]:
        levels = self.protocol.levels
        figures = _figures(self.metrics, torch.from_numpy(enlarged)[None, None], case, levels)
        if case.clean_low is not None:
            clean = method.enlarge(case.clean_low, case.high, seed)
            figures["artifact_energy_removed"] = _removed(enlarged, clean, case, self.protocol)
        if self.protocol.trust:
            figures |= self._trust(method, case, seed, enlarged)
        return figures

    def _trust(self, method: _Method, case: _Case, seed: int, enlarged: np.ndarray) -> dict[str, float]:
        levels, high = self.protocol.levels, case.high[0, 0].numpy()

        def stored(image: np.ndarray) -> np.ndarray:
            return np.asarray(as_stored(torch.from_numpy(image), levels).numpy())

        made = stored(enlarged)
        mask = box_mask(case.boxes_xyxy, *high.shape).numpy().reshape(high.shape) > 0
        low = middle(case.low)
        subject = Subject(case.name, low, made, high, mask, method.half_width(made, low))

        def made_of(changed: np.ndarray) -> np.ndarray:
            stack = case.low.copy()
            stack[len(stack) // 2] = changed  # between the same neighbours
            return stored(method.enlarge(stack, case.high, seed))

        return trust_figures(subject, made_of, Degradation.parse(self.protocol.operator), levels)


def require_measurable(
    protocol: Protocol,
    data: Path,
    *,
    limit: int | None = None,
    device: DeviceName = "auto",
    backbone: Path | None = None,
) -> None:
    """Meet every error of bundles, data and weights before hours of measuring.

    Raises:
        BundleError: as `check_bundles` and `open_methods`.
        InputError: as `items_of` and `FeatureDistance`.
    """
    check_bundles(protocol)
    items_of(protocol, data, limit)
    open_methods(protocol, device)
    _metrics(protocol, backbone)


def items_of(protocol: Protocol, data: Path, limit: int | None = None) -> list[dict[Hashable, Any]]:
    """The images of a protocol; none of them is read yet.

    Raises:
        InputError: a limit below 1, or as `pair_items`.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit is {limit}, expected at least 1 image.")
    items = pair_items(
        str(data),
        protocol.modality,
        protocol.split,
        sets=protocol.sets or None,
        validation_share=protocol.validation_share,
    )
    if protocol.along_slices:
        items = whole_groups(items, protocol.scale)
    if protocol.only_boxes:
        items = [item for item in items if len(item[BOXES])]
        if not items:
            raise InputError(
                f"{data}: no image of the {protocol.split} split has a box, which protocol {protocol.name} asks for. "
                "Add boxes.csv to a folder of the data, or choose another protocol with --protocol."
            )
    least = min(limit or len(items), protocol.limit or len(items))
    return _spread(items, least)


def open_methods(protocol: Protocol, device: DeviceName = "auto") -> list[_Method]:
    """Load every row's network.

    Raises:
        BundleError: as `open_backend`, or a bundle of another scale than the protocol's.
        InputError: options that a row's method does not have.
    """
    methods = [_opened(row, protocol, device) for row in protocol.rows]
    for method in methods:
        draws = method.bundle is not None and method.bundle.diffusion is not None and not method.bundle.is_flow
        if method.row.key in protocol.processes and not draws:
            raise InputError(
                f"protocol {protocol.name}: {method.row.key} is no diffusion model. Take it out of `processes`."
            )
    return methods


def _opened(row: Row, protocol: Protocol, device: DeviceName) -> _Method:
    scale = protocol.scale
    bundle = row.bundle()
    if bundle is None:
        return _Interpolation(row, scale)
    if bundle.scale != scale:
        raise BundleError(
            f"protocol {protocol.name} reduces by {scale}, but bundle {row.method} enlarges by {bundle.scale}; "
            "expected the same factor."
        )
    if bundle.enlarges_slices != protocol.along_slices:
        ways = ["along the slices" if along else "in the plane" for along in (True, False)]
        first, second = ways if protocol.along_slices else ways[::-1]
        raise BundleError(
            f"protocol {protocol.name} reduces {first}, but bundle {row.method} enlarges {second}; expected the same."
        )
    backend = open_backend(bundle, row.backend, device)  # type: ignore[arg-type]  # checked by read_protocol
    return (_Ceiling if row.ceiling else _Bundled)(row, bundle, backend)


def _interpolation(name: str, scale: int) -> Callable[[np.ndarray], np.ndarray]:
    bicubic = Bicubic(scale)

    @torch.inference_mode()
    def enlarge(low: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(low)[None, None]
        if name == "bicubic":
            enlarged = bicubic(image)
        elif name == "bilinear":
            enlarged = interpolate(image, scale_factor=float(scale), mode="bilinear", align_corners=False)
        else:
            enlarged = interpolate(image, scale_factor=float(scale), mode="nearest")
        return np.asarray(enlarged[0, 0].numpy())

    return enlarge


class _Pairs:
    """From an item to its case, as the workflows build their pairs."""

    def __init__(self, protocol: Protocol, turned: int) -> None:
        self.protocol, self.turns = protocol, turned // 90
        self.load = LoadHighResd(
            "label",
            window=protocol.window,
            reduce=protocol.reduce,
            multiple=protocol.scale,
            levels=protocol.levels,
            slices=max((bundle.slices for row in protocol.rows if (bundle := row.bundle())), default=1),
        )
        self.degraded = Degraded("label", "image", operator=protocol.operator, levels=protocol.levels)
        self.middle = MiddleSliced("label")

    def __call__(self, item: Item) -> _Case:
        pair = _turned(self.load(item), self.turns)
        high, boxes = self.middle(pair)["label"][None], pair[BOXES]
        low = self.degraded(pair)["image"].numpy()
        if not self.protocol.artifacts:
            return _Case(high, low, boxes, str(item["name"]))
        rng = np.random.default_rng([0, zlib.crc32(str(item["name"]).encode())])
        dirty, _ = draw_artifacts(high[0, 0].numpy(), rng)
        marked = pair["label"].clone()
        marked[len(marked) // 2] = torch.from_numpy(dirty)
        dirty_low = self.degraded({**pair, "label": marked})["image"].numpy()
        return _Case(high, dirty_low, boxes, str(item["name"]), low, self._mark_energy(dirty_low, low))

    def _mark_energy(self, dirty: np.ndarray, clean: np.ndarray) -> float:
        bicubic = _interpolation("bicubic", self.protocol.scale)
        return _difference_energy(bicubic(middle(dirty)), bicubic(middle(clean)), self.protocol.levels)


def _turned(pair: Item, turns: int) -> dict[Hashable, Any]:
    """The target and its boxes after as many right-angle turns counter-clockwise."""
    found = dict(pair)
    for _ in range(turns):
        rows, columns = found["label"].shape[1:]
        found["label"] = torch.rot90(found["label"], 1, (1, 2)).contiguous()
        found |= moved_boxes(found, np.array([[0, 1, 0], [-1, 0, columns], [0, 0, 1]]), columns, rows)
    return found


def _metrics(protocol: Protocol, backbone: Path | None) -> tuple[dict[str, RegressionMetric], dict[str, str]]:
    """The metrics of whole images, and why others are missing."""
    levels = protocol.levels
    metrics: dict[str, RegressionMetric] = {
        "psnr": PSNR(levels), "ssim": SSIM(levels), "ms_ssim": MSSSIM(levels), "uqi": UQI(levels),
    }  # fmt: skip
    missing: dict[str, str] = {}
    if protocol.along_slices:
        missing |= dict.fromkeys(("high_frequency_ratio", "log_spectral_distance"), "no detail of the plane was lost")
    else:
        metrics["high_frequency_ratio"] = HighFrequencyRatio(protocol.scale, levels)
        metrics["log_spectral_distance"] = LogSpectralDistance(protocol.scale, levels)
    reason = lpips.why_unavailable()
    if reason is None:
        metrics["lpips"] = lpips.LPIPS(levels)
    else:
        missing["lpips"] = reason
    if backbone is not None:
        metrics["feature_distance"] = FeatureDistance(backbone, levels)
    else:
        missing["feature_distance"] = "no weights were given with --backbone"
    return metrics, missing


def _figures(
    metrics: Mapping[str, RegressionMetric], enlarged: torch.Tensor, case: _Case, levels: int
) -> dict[str, float]:
    figures = {}
    for figure, metric in metrics.items():
        value = metric(enlarged, case.high)
        assert isinstance(value, torch.Tensor)
        figures[figure] = float(value)
    figures["box_psnr"] = box_psnr(enlarged, case.high, case.boxes_xyxy, levels)
    figures["box_ssim"] = box_ssim(enlarged, case.high, case.boxes_xyxy, levels)
    return figures


def _difference_energy(one: np.ndarray, other: np.ndarray, levels: int) -> float:
    stored = [as_stored(torch.from_numpy(image), levels).double() for image in (one, other)]
    return float((stored[0] - stored[1]).square().sum())


def _removed(dirty: np.ndarray, clean: np.ndarray, case: _Case, protocol: Protocol) -> float:
    """How much of the marks is gone: 1 minus their energy in the result, in units of what bicubic leaves of them."""
    left = _difference_energy(dirty, clean, protocol.levels)
    return 1.0 - left / case.mark_energy if case.mark_energy else float("nan")


def _shown(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0.0, 1.0).astype(np.float32)


def _sample_indices(items: Sequence[Item], count: int) -> set[int]:
    """Images for the sample sheet: evenly spread over those with boxes, then over the others."""
    with_boxes = [index for index, item in enumerate(items) if len(item[BOXES])]
    others = [index for index in range(len(items)) if index not in set(with_boxes)]
    chosen = _spread(with_boxes, count)
    return set(chosen + _spread(others, count - len(chosen)))


def _spread(values: Sequence[Value], count: int) -> list[Value]:
    count = min(count, len(values))
    return [values[round(k * (len(values) - 1) / max(1, count - 1))] for k in range(count)]


def _described(method: _Method) -> MethodResult:
    row, bundle, backend = method.row, method.bundle, method.backend
    if bundle is None or backend is None:
        return MethodResult(row.key, row.label, "torch on cpu")
    curve = _curve(bundle)
    minutes = bundle.metadata.get("training", {}).get("minutes")
    return MethodResult(
        row.key,
        row.label,
        "torch on cpu" if row.ceiling else f"{backend.name} on {backend.device}",
        saw_original=row.ceiling,
        parameters=bundle.parameters,
        minutes=None if minutes is None else float(minutes),
        gained_until=gained_until(curve),
        curve=curve,
    )


def _curve(bundle: Bundle) -> list[tuple[float, float]]:
    """Minutes and validation PSNR of a bundle's training; empty where it was not recorded."""
    path = bundle.folder / "training_curve.csv"
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["metric"] == "psnr"]
        return [(float(row["minutes"]), float(row["value"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"bundle {bundle.name}: {path.name} cannot be read ({error!r}), expected the columns minutes, iteration, "
            "metric, value. Take the validation.csv of its training."
        ) from error


def gained_until(curve: Sequence[tuple[float, float]]) -> float | None:
    """The first minute in which the best validation PSNR so far is within 0.05 dB of the best of all.

    Args:
        curve: minutes and dB.

    Returns:
        None for an empty curve.
    """
    best = max((value for _, value in curve), default=0.0)
    return min((minutes for minutes, value in curve if value >= best - GAINED_WITHIN_DB), default=None)


def multiply_adds(bundle: Bundle, low_res_size: str, row: Row | None = None) -> float:
    """Multiply-adds of a bundle's network, by torch's own count of what convolutions and matrices do.

    Args:
        low_res_size: of the input, as "64x64", columns by rows.
        row: how a diffusion model draws, and with which steps; by its bundle if None.
    """
    columns, rows = map(int, low_res_size.split("x"))
    network: Any = build_network(bundle)
    once = torch.zeros(1, bundle.slices, rows, columns)
    if bundle.diffusion is None:
        # Of one thin slice: each of the two directions sees every pixel of a thick one, which makes `scale` of them.
        share = 2 / bundle.scale if bundle.enlarges_slices else 1.0
        return share * _counted(lambda: network(once))
    row = row or Row(bundle.name, bundle.name)
    draw = _draw(row, bundle)
    process = process_of(bundle.diffusion)
    sampling = process.sampling(draw)
    if bundle.is_flow:
        seen = network.encode(once)
        moved = _counted(lambda: network.velocity(seen[:, : network.channels], seen, torch.zeros(1)))
        asked = sampling.samples * len(process.solver(draw).levels) if sampling else 0
        return _counted(lambda: network(once)) + asked * moved
    assert sampling is not None, "only a flow may draw nothing"
    multiple = network.cell * network.grid
    rows, columns = (-(-side // multiple) * multiple for side in (rows, columns))
    image, high = torch.zeros(1, 1, rows, columns), torch.zeros(1, 1, bundle.scale * rows, bundle.scale * columns)
    condition = network.encode(image)
    ends = _counted(lambda: network.encode(image))
    if row.ceiling:
        return ends + _counted(lambda: network.reconstruct(high, condition))
    cells = torch.zeros(1, network.channels, *condition.shape[2:])
    step = _counted(lambda: network(cells, condition, torch.ones(1)))
    return ends + draw.samples * (sampling.steps * step + _counted(lambda: network.decode(cells, condition)))


def _counted(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        run()
    return float(counter.get_total_flops() / 2)


def _threads(methods: Sequence[_Method]) -> int:
    return max((method.backend.threads for method in methods if method.backend), default=torch.get_num_threads())


def _versions() -> dict[str, str]:
    found = {"monai_sr_bundle": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            logger.debug("%s is not installed, its version is left out", package)
    return found


def _fingerprint(protocol: Protocol, data: Path) -> str:
    split = "train" if protocol.validation_share and protocol.split == "val" else protocol.split
    return manifest_sha256(
        data, kind="ct" if protocol.modality == "CT" else "cxr", split=split, sets=protocol.sets or None
    )


def _take_out_missing(found: Comparison) -> None:
    """Figures that no image has from any method become a line that says why."""
    for figure in dict.fromkeys(figure for result in found.results for figure in result.figures):
        if not any(np.isfinite(result.figures.get(figure, [])).any() for result in found.results):
            found.unavailable[figure] = _NO_IMAGE_HAS_IT.get(figure, "no image has it")
            for result in found.results:
                result.figures.pop(figure, None)
