"""What a comparison found: figures per method and image, and what they were measured with."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from monai_sr_bundle.benchmark.protocol import Protocol

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
    "box_coverage": "pixels within their error bars, in boxes",
    "error_bar": "half-width of the error bars, in steps of the storage",
    "cut_off": "frequency up to which patches agree with the original (cycles per pixel)",
    "disagreeing_patches": "patches that disagree below half the input's Nyquist frequency",
    "nodule_1.5": "contrast of a drawn nodule that comes back, sigma 1.5 pixels",
    "nodule_2.5": "contrast of a drawn nodule that comes back, sigma 2.5 pixels",
    "nodule_4": "contrast of a drawn nodule that comes back, sigma 4 pixels",
    "seen_blobs": "blobs of the original that the result shows",
    "exaggerated_blobs": "blobs shown with more than twice their contrast in the original, per image",
    "false_nodules": "nodules that the original does not have, per image",
    "false_in_chest": "nodules that the original does not have, in the chest, per image",
}
"""Figures in the order of the tables, with their titles."""
OF_TRUST = tuple(FIGURES)[list(FIGURES).index("consistency") :]
"""Those that only a protocol with `trust` has."""
LOWER_IS_BETTER = {
    "lpips", "feature_distance", "log_spectral_distance", "consistency", "error_bar", "disagreeing_patches",
    "exaggerated_blobs", "false_nodules", "false_in_chest",
}  # fmt: skip


@dataclass
class MethodResult:
    """One row of a table.

    Attributes:
        method: key of the protocol's row: "bicubic", `chest_xray_srgan_x4:regression`, `chest_xray_edsr_x4@onnx`.
        label: what the tables call it.
        backend: what ran it, and where.
        saw_original: the row is a ceiling: it was given the original and takes no part in any ranking.
        parameters: trainable numbers.
        multiply_adds: of the network for one image of the protocol's most frequent size.
        seconds: in the network, one per image; all methods take turns on every image.
        minutes: of training it was given, all stages together; None for interpolation.
        gained_until: minute after which its validation PSNR rose by less than 0.05 dB; None where not recorded.
        curve: minutes and validation PSNR (dB) while it trained.
        figures: one number per image for each figure; NaN where an image has none, as in boxes without a box.
        by_seed: the same where several seeds were drawn: for each image one number per seed.
        pictures: the result for each of the comparison's samples, ``[rows, columns]`` in ``[0, 1]``.
    """

    method: str
    label: str
    backend: str
    saw_original: bool = False
    parameters: int = 0
    multiply_adds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    minutes: float | None = None
    gained_until: float | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    by_seed: dict[str, list[list[float]]] = field(default_factory=dict)
    pictures: list[np.ndarray] = field(default_factory=list)


@dataclass
class Sample:
    """One image of the sample sheet.

    Attributes:
        name: of the image.
        low, high: the input the methods saw and the original, ``[rows, columns]`` in ``[0, 1]``.
        boxes_xyxy: findings in pixels of `high`, upper edge excluded.
    """

    name: str
    low: np.ndarray
    high: np.ndarray
    boxes_xyxy: np.ndarray


@dataclass
class Strip:
    """A diffusion process on one image, from the image to the noise; pictures in ``[0, 1]``, not clipped.

    Attributes:
        label: of the method.
        levels: square roots of cumulative alpha, 1 without noise to 0 without image.
        high: the original.
        forward: the original with the noise of each level.
        backward: what the method had at each level.
        guesses: what it then took for the image without noise.
        result: what it ended at.
    """

    label: str
    levels: list[float]
    high: np.ndarray
    forward: list[np.ndarray]
    backward: list[np.ndarray]
    guesses: list[np.ndarray]
    result: np.ndarray


@dataclass
class Comparison:
    """All that one protocol found.

    Attributes:
        protocol: what was asked.
        images, patients: names, one per image.
        results: the methods in the protocol's order.
        samples: images of the sample sheet.
        strips: diffusion processes, step by step, on the first of these images.
        unavailable: figure to the reason it is missing for every image.
        manifest_sha256: of the images compared.
        threads: CPU threads of the networks in each process.
        processes: that shared the images.
        low_res_size: of most images, as "64x64".
        versions: packages by name.
        minutes: how long the comparison took.
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

    @property
    def processors(self) -> str:
        """What the seconds are those of, in words: "1 CPU thread", "2 processes of 1 CPU thread each"."""
        threads = f"{self.threads} CPU thread{'s' * (self.threads != 1)}"
        return threads if self.processes == 1 else f"{self.processes} processes of {threads} each"

    def result(self, method: str) -> MethodResult:
        """The row of a method.

        Raises:
            KeyError: the comparison has no such method.
        """
        for result in self.results:
            if result.method == method:
                return result
        raise KeyError(method)
