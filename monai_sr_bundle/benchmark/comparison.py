"""Results of a comparison: figures per method and image, with the conditions of the measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from monai_sr_bundle.benchmark.detection import DetectionRow, Detections, compare_detection
from monai_sr_bundle.benchmark.paired import Paired
from monai_sr_bundle.benchmark.protocol import Protocol
from monai_sr_bundle.benchmark.training_curve import TrainingTime

FIGURES = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "uqi": "UQI",
    "lpips": "LPIPS",
    "feature_distance": "SqueezeNet distance (not calibrated)",
    "box_psnr": "PSNR in boxes (dB)",
    "box_ssim": "SSIM in boxes",
    "high_frequency_ratio": "high-frequency energy, 1 as in the original",
    "log_spectral_distance": "log-spectral distance (dB)",
    "artifact_energy_removed": "artifact energy removed",
    "consistency": "distance to the input when reduced again, RMS in steps of the storage",
    "coverage": "pixels within their error bars",
    "structure_coverage": "pixels within their error bars, at small structures of the result",
    "box_coverage": "pixels within their error bars, in boxes",
    "error_bar": "half-width of the error bars, in steps of the storage",
    "cut_off": "frequency up to which patches agree with the original (cycles per pixel)",
    "disagreeing_patches": "patches that disagree below half the input's Nyquist frequency",
    "nodule_1": "contrast of a drawn nodule that comes back, sigma 1 pixel",
    "nodule_1.5": "contrast of a drawn nodule that comes back, sigma 1.5 pixels",
    "nodule_2": "contrast of a drawn nodule that comes back, sigma 2 pixels",
}
"""Figures in the order of the tables, with their titles."""
TRUST_FIGURES = tuple(FIGURES)[list(FIGURES).index("consistency") :]
"""Figures that only a protocol with `trust` has."""
LOWER_IS_BETTER = {
    "lpips", "feature_distance", "log_spectral_distance", "consistency", "error_bar", "disagreeing_patches",
}  # fmt: skip


@dataclass
class MethodResult:
    """One row of a table.

    Attributes:
        method: key of the protocol's row: "bicubic", `chest_xray_srgan_x4:regression`, `chest_xray_edsr_x4@onnx`.
        label: name of the method in the tables.
        backend: name and device of the backend.
        saw_original: whether the row is a ceiling, which gets the original and takes no part in any ranking.
        parameters: number of trainable parameters.
        multiply_adds: work of the network for one image of the protocol's most frequent size.
        seconds: seconds in the network, one per image; all methods take turns on every image.
        training: time of its training, all stages together; None for interpolation.
        gained_until: minute after which its validation PSNR rose by less than 0.05 dB; None if not recorded.
        curve: minutes and validation PSNR (dB) during training.
        figures: one number per image for each figure; NaN if an image has none, as in boxes without a box.
        by_seed: one number per seed for each image and figure, if several seeds were drawn.
        detections: counts and signals of each image; empty without the protocol's `trust`.
        pictures: the result for each of the comparison's samples, ``[rows, columns]`` in ``[0, 1]``.
    """

    method: str
    label: str
    backend: str
    saw_original: bool = False
    parameters: int = 0
    multiply_adds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    training: TrainingTime | None = None
    gained_until: float | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    by_seed: dict[str, list[list[float]]] = field(default_factory=dict)
    detections: list[Detections] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)

    def has(self, figure: str) -> bool:
        """Return whether at least one image has the figure."""
        return bool(np.isfinite(self.figures.get(figure, [])).any())


@dataclass
class Sample:
    """One image of the sample sheet.

    Attributes:
        name: name of the image.
        low_res, high_res: the methods' input and the original, ``[rows, columns]`` in ``[0, 1]``.
        boxes_xyxy: findings in pixels of `high_res`, upper edge excluded.
    """

    name: str
    low_res: np.ndarray
    high_res: np.ndarray
    boxes_xyxy: np.ndarray


@dataclass
class Strip:
    """A diffusion process on one image, from the image to the noise; pictures in ``[0, 1]``, not clipped.

    Attributes:
        label: name of the method.
        levels: square roots of cumulative alpha, 1 without noise to 0 without image.
        high_res: the original.
        forward: the original with the noise of each level.
        backward: the method's x_t at each level.
        guesses: its prediction of the image without noise at each level.
        result: the final image.
    """

    label: str
    levels: list[float]
    high_res: np.ndarray
    forward: list[np.ndarray]
    backward: list[np.ndarray]
    guesses: list[np.ndarray]
    result: np.ndarray


@dataclass
class Comparison:
    """All results of one protocol.

    Attributes:
        protocol: the protocol.
        images, patients: names, one per image.
        results: the methods in the protocol's order.
        samples: images of the sample sheet.
        strips: diffusion processes, step by step, on the first of these images.
        unavailable: figure to the reason it is missing for every image.
        manifest_sha256: SHA-256 of the images' manifest.
        threads: CPU threads of the networks in each process.
        processes: number of processes that shared the images.
        low_res_size: most frequent size of the inputs, e.g. "64x64".
        versions: package versions by name.
        minutes: duration of the comparison.
    """

    protocol: Protocol
    images: list[str] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    results: list[MethodResult] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    manifest_sha256: str = ""
    threads: int = 1
    processes: int = 1
    low_res_size: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    minutes: float = 0.0

    def patients_of(self, *figures: Sequence[float]) -> list[str] | None:
        """Return the patients of the images, over whom intervals and tests are; None if one alone has the figures."""
        measured = np.isfinite(np.sum(figures, axis=0))
        return self.patients if len(set(np.asarray(self.patients)[measured])) > 1 else None

    def compare(self, result: MethodResult, figure: str) -> Paired:
        """Return the difference of a figure to the protocol's reference; both have it for some image."""
        both = result.figures[figure], self.result(self.protocol.reference).figures[figure]
        return Paired.of(*both, self.patients_of(*both), lower_is_better=figure in LOWER_IS_BETTER)

    @property
    def processors(self) -> str:
        """Describe the CPU of the measured seconds: "1 CPU thread", "2 processes of 1 CPU thread each"."""
        threads = f"{self.threads} CPU thread{'s' * (self.threads != 1)}"
        return threads if self.processes == 1 else f"{self.processes} processes of {threads} each"

    @cached_property
    def detection(self) -> dict[str, DetectionRow]:
        """Figures of detection by method, and by `ORIGINAL`; empty without the protocol's `trust`."""
        return compare_detection(
            {result.method: result.detections for result in self.results if result.detections},
            self.patients,
            self.protocol.reference,
        )

    def result(self, method: str) -> MethodResult:
        """Return the row of a method.

        Raises:
            KeyError: the comparison has no such method.
        """
        for result in self.results:
            if result.method == method:
                return result
        raise KeyError(method)
