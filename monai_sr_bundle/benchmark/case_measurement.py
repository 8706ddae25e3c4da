"""Measure the methods of a protocol on one image: enlarge it by each of them and compute the figures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from monai.metrics.regression import RegressionMetric
from monai_sr_bundle.backends.backend import DeviceName
from monai_sr_bundle.benchmark.cases import Case, CaseLoader, Item, difference_energy
from monai_sr_bundle.benchmark.comparison import Sample
from monai_sr_bundle.benchmark.detection import Detections
from monai_sr_bundle.benchmark.methods import BundleMethod, Method, open_methods
from monai_sr_bundle.benchmark.protocol import Protocol
from monai_sr_bundle.benchmark.trust_figures import Subject, trust_figures
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.inferers.tiling import middle
from monai_sr_bundle.metrics import lpips
from monai_sr_bundle.metrics.box_fidelity import box_mask, box_psnr, box_ssim
from monai_sr_bundle.metrics.fidelity import PSNR, SSIM, as_stored
from monai_sr_bundle.metrics.high_frequency_ratio import HighFrequencyRatio
from monai_sr_bundle.metrics.ms_ssim import MSSSIM
from monai_sr_bundle.metrics.texture import FeatureDistance, LogSpectralDistance
from monai_sr_bundle.metrics.uqi import UQI
from monai_sr_bundle.transforms.augmentation import BOXES
from monai_sr_bundle.transforms.slabs import ThickVolumes
from monai_sr_bundle.uncertainty.calibration import CalibrationEntry
from monai_sr_bundle.uncertainty.error_bars import find_bundle_calibration


@dataclass
class CaseResult:
    """The results of all methods for one image.

    Attributes:
        low_res_size: size of the input, e.g. "64x64", columns by rows.
        seconds: seconds of each method.
        figures: for each method, one value per seed of each figure.
        detections: counts and signals of each method; empty without the protocol's `trust`.
        sample: the image for the sample sheet; None if it is not on the sheet.
        pictures: the result of each method, for images of the sample sheet.
    """

    low_res_size: str
    seconds: list[float] = field(default_factory=list)
    figures: list[dict[str, list[float]]] = field(default_factory=list)
    detections: list[Detections] = field(default_factory=list)
    sample: Sample | None = None
    pictures: list[np.ndarray] = field(default_factory=list)


class CaseMeasurement:
    """A function of an item that measures all methods on it.

    Args:
        protocol: the protocol; its networks are loaded.
        rotation_degrees: counter-clockwise rotation of the images, a multiple of 90.
        device: device of the bundles.
        backbone: weights of the feature distance; None to leave it out.
        calibration_entries: calibrations of rows by key that replace those of their bundles.
    """

    def __init__(
        self,
        protocol: Protocol,
        rotation_degrees: int,
        device: DeviceName,
        backbone: Path | None,
        calibration_entries: Mapping[str, CalibrationEntry],
    ) -> None:
        self.arguments = (protocol, rotation_degrees, device, backbone, calibration_entries)
        self.protocol = protocol
        self.metrics, self.unavailable = open_metrics(protocol, backbone)
        self.methods = open_methods(protocol, device)
        for method in self.methods:
            if protocol.trust and isinstance(method, BundleMethod):
                calibration = find_bundle_calibration(method.bundle, method.options)
                method.calibration_entry = calibration_entries.get(
                    method.row.key, calibration[1] if calibration else None
                )
        self.load_case = CaseLoader(protocol, rotation_degrees)
        self.load_volume = ThickVolumes(protocol.operator, protocol.window, protocol.levels, rotation_degrees // 90)
        self._is_warm = False
        self._volumes: dict[str, tuple[str, np.ndarray, float]] = {}

    def __call__(self, item: Item, is_sample: bool) -> CaseResult:
        if self.protocol.along_slices:
            return self._measure_thin_slice(item)
        case = self.load_case(item)
        if not self._is_warm:
            for method in self.methods:
                method.warm_up(case.low_res, case.high_res)
            self._is_warm = True
        result = CaseResult(f"{case.low_res.shape[2]}x{case.low_res.shape[1]}")
        if is_sample:
            high_res = _clip(case.high_res[0, 0].numpy())
            result.sample = Sample(case.name, _clip(middle(case.low_res)), high_res, case.boxes_xyxy)
        for method in self.methods:
            start = time.perf_counter()
            images = [method.enlarge(case.low_res, case.high_res, seed) for seed in range(method.row.seeds)]
            result.seconds.append((time.perf_counter() - start) / method.row.seeds)
            figures = [self._figures(method, case, seed, image) for seed, image in enumerate(images)]
            if self.protocol.trust:
                trust = [self._trust_figures(method, case, seed, image) for seed, image in enumerate(images)]
                figures = [of_seed | of_trust for of_seed, (of_trust, _) in zip(figures, trust, strict=True)]
                result.detections.append(trust[0][1])
            result.figures.append({name: [of_seed[name] for of_seed in figures] for name in figures[0]})
            if is_sample:
                result.pictures.append(_clip(images[0]))
        return result

    def _measure_thin_slice(self, item: Item) -> CaseResult:
        """Measure one thin slice of a volume that every method enlarges once; it takes its share of the time."""
        thin, thick = self.load_volume(item)
        index, path = item["slice_index"], item["path"]
        rows, columns = thick.shape[1:]
        result = CaseResult(f"{columns}x{rows}")
        high_res = torch.from_numpy(thin[index])[None, None]
        case = Case(high_res, thick[index // self.protocol.scale], item[BOXES], str(item["name"]))
        for method in self.methods:
            if self._volumes.get(method.row.key, ("",))[0] != path:
                start = time.perf_counter()
                volume = method.enlarge_slices(thick, self.protocol.scale)
                self._volumes[method.row.key] = (path, volume, (time.perf_counter() - start) / len(volume))
            _, volume, seconds = self._volumes[method.row.key]
            result.seconds.append(seconds)
            figures = self._image_figures(case, volume[index])
            result.figures.append({name: [value] for name, value in figures.items()})
        return result

    def _figures(self, method: Method, case: Case, seed: int, super_res: np.ndarray) -> dict[str, float]:
        figures = self._image_figures(case, super_res)
        if case.clean_low_res is not None:
            clean = method.enlarge(case.clean_low_res, case.high_res, seed)
            energy = difference_energy(super_res, clean, self.protocol.levels)
            # 1 without a trace of the artifacts, 0 with as much as bicubic interpolation leaves of them.
            figures["artifact_energy_removed"] = (
                1.0 - energy / case.artifact_energy if case.artifact_energy else float("nan")
            )
        return figures

    def _image_figures(self, case: Case, super_res: np.ndarray) -> dict[str, float]:
        image, levels = torch.from_numpy(super_res)[None, None], self.protocol.levels
        figures = {name: float(metric(image, case.high_res)) for name, metric in self.metrics.items()}  # type: ignore[arg-type]
        figures["box_psnr"] = box_psnr(image, case.high_res, case.boxes_xyxy, levels)
        figures["box_ssim"] = box_ssim(image, case.high_res, case.boxes_xyxy, levels)
        return figures

    def _trust_figures(
        self, method: Method, case: Case, seed: int, enlarged: np.ndarray
    ) -> tuple[dict[str, float], Detections]:
        levels, high_res = self.protocol.levels, case.high_res[0, 0].numpy()

        def store(image: np.ndarray) -> np.ndarray:
            return np.asarray(as_stored(torch.from_numpy(image), levels).numpy())

        super_res, low_res = store(enlarged), middle(case.low_res)
        mask = box_mask(case.boxes_xyxy, *high_res.shape).numpy()
        half_width = method.half_width(super_res, low_res)
        subject = Subject(case.name, low_res, super_res, high_res, mask, half_width)

        def enlarge(changed_low_res: np.ndarray) -> np.ndarray:
            stack = case.low_res.copy()
            stack[len(stack) // 2] = changed_low_res  # between the same neighbours
            return store(method.enlarge(stack, case.high_res, seed))

        return trust_figures(subject, enlarge, Degradation.parse(self.protocol.operator), levels)


def open_metrics(protocol: Protocol, backbone: Path | None) -> tuple[dict[str, RegressionMetric], dict[str, str]]:
    """Return the metrics of whole images by figure, and the reason for each figure that is missing."""
    levels = protocol.levels
    metrics: dict[str, RegressionMetric] = {
        "psnr": PSNR(levels), "ssim": SSIM(levels), "ms_ssim": MSSSIM(levels), "uqi": UQI(levels),
    }  # fmt: skip
    missing: dict[str, str] = {}
    if not protocol.along_slices:
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


def _clip(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0.0, 1.0).astype(np.float32)
