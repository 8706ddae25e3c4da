"""Measure a bundle and bicubic interpolation on a split, with the same pairs, operator and metric code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai_sr_bundle.backends.backend import BackendName, DeviceName
from monai_sr_bundle.benchmark.comparison import Comparison
from monai_sr_bundle.benchmark.measure import measure
from monai_sr_bundle.benchmark.protocol import Protocol, Row
from monai_sr_bundle.degradation import Degradation, along_slices
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.images.staging import write_file
from monai_sr_bundle.inferers.sampler_options import AS_STATED, SamplerOptions
from monai_sr_bundle.metrics.mean import Mean
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.table import format_csv

BASELINE = "bicubic"
NAMES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "uqi": "UQI", "lpips": "LPIPS (lower is better)"}


@dataclass
class Quality:
    """The figures of one bundle and of bicubic on the same images.

    Attributes:
        header: description of the measurement in one line.
        name: name of the bundle.
        comparison: results of bicubic and of the bundle.
    """

    header: str
    name: str
    comparison: Comparison

    @property
    def method(self) -> dict[str, list[float]]:
        """Return the bundle's number per image for each figure."""
        return {figure: values for figure, values in self.comparison.results[-1].figures.items() if figure in NAMES}

    @property
    def bicubic(self) -> dict[str, list[float]]:
        """Return bicubic's number per image for each figure."""
        return {figure: values for figure, values in self.comparison.results[0].figures.items() if figure in NAMES}

    def gain(self, figure: str) -> Mean:
        """Return the paired difference, method minus bicubic, over the images that have the figure.

        The interval is over their patients; if there is one alone, over images.
        """
        difference = np.subtract(self.method[figure], self.bicubic[figure]).tolist()
        return Mean.of(difference, self.comparison.patients_of(difference))

    def table(self) -> str:
        """Return the figures as text, with the images they were measured on."""
        width = max(len(self.name), 16)
        lines = [self.header]
        if len(set(self.comparison.patients)) == 1:
            lines.append("One patient only: the intervals are over slices of the same chest, not over patients.")
        lines.append(f"{'':24}{'bicubic':>16}  {self.name:>{width}}  {'difference':>10}  95 % interval")
        for figure, values in self.method.items():
            measured = np.isfinite(values) & np.isfinite(self.bicubic[figure])
            gain = self.gain(figure)
            digits = 2 if figure == "psnr" else 4
            bicubic_mean, method_mean = (
                float(np.mean(np.asarray(values_of_method)[measured]))
                for values_of_method in (self.bicubic[figure], values)
            )
            interval = f"[{gain.low:+.{digits}f}, {gain.high:+.{digits}f}]"
            if not measured.all():
                interval += f" over {measured.sum()} of {len(values)} images"
            means = f"{bicubic_mean:16.{digits}f}  {method_mean:>{width}.{digits}f}  {gain.mean:>+10.{digits}f}"
            lines.append(f"{NAMES[figure]:24}{means}  {interval}")
        for figure, reason in self.comparison.unavailable.items():
            if figure in NAMES:
                lines.append(f"{NAMES[figure]:24}unavailable: {reason}")
        median, size = 1000 * float(np.median(self.comparison.results[-1].seconds)), self.comparison.low_res_size
        cores = f"{self.comparison.threads} thread{'s' * (self.comparison.threads > 1)}"
        lines.append(f"Median time of {self.name} for {size} pixels: {median:.1f} ms ({cores})")
        return "\n".join(lines)

    def write_csv(self, out: Path) -> None:
        """Write one row per image for both methods.

        Raises:
            OutputError: the file cannot be written.
        """
        columns = {
            f"{name}_{figure}": values
            for name, figures in (("bicubic", self.bicubic), ("method", self.method))
            for figure, values in figures.items()
        } | {"seconds": self.comparison.results[-1].seconds}
        rows = [
            {"image": image, **{column: f"{values[index]:.6f}" for column, values in columns.items()}}
            for index, image in enumerate(self.comparison.images)
        ]
        write_file(out, format_csv(["image", *columns], rows))


def evaluate(
    name: str,
    data: Path,
    split: str = "test",
    *,
    sets: Sequence[str] | None = None,
    limit: int | None = None,
    scale: int | None = None,
    operator: str | None = None,
    rotation_degrees: int = 0,
    backend: BackendName = "auto",
    device: DeviceName = "auto",
    options: SamplerOptions = AS_STATED,
) -> Quality:
    """Degrade the images of a split, enlarge them again, and compare with the originals.

    Args:
        name: a bundle's name or folder.
        data: folder with a manifest, or a folder of such folders.
        split: "train", "val" or "test"; report only "test".
        sets: folders of the data. Default: those the bundle trains on.
        limit: number of images, evenly spread. Default: all.
        scale: scale to enlarge by, one of the bundle's. Default: that of the operator, or the bundle's own.
        operator: name of the degradation. Default: the bundle's.
        rotation_degrees: counter-clockwise rotation of the images, 0, 90, 180 or 270; rows of a CT may run either way.
        backend, device: see `engine.enhance`.
        options: sampler options. Default: as the bundle states.

    Returns:
        One figure per image for the bundle and for bicubic interpolation.

    Raises:
        InputError: the manifest cannot be used, the operator is unknown or of another scale, or the bundle does not
            have the scale.
        BundleError: see `open_backend`.
    """
    bundle = find_bundle(name).at_scale(scale)
    operator = operator or bundle.operator
    try:
        reduction = Degradation.parse(operator).scale
    except ValueError as error:
        raise InputError(f"--operator: {error}") from error
    if along_slices(operator) != bundle.degradation.slab:
        raise InputError(
            f"--operator {operator}: bundle {bundle.name} enlarges "
            f"{'along the slices' if bundle.degradation.slab else 'in the plane'}, where that one loses nothing. "
            f"Leave the option out, for {bundle.operator}."
        )
    if scale is None and reduction in bundle.scales:
        bundle = bundle.at_scale(reduction)
    if reduction != bundle.scale:
        raise InputError(
            f"--operator {operator} reduces by {reduction}, but bundle {bundle.name} enlarges by {bundle.scale}; "
            "expected the same factor."
        )
    chosen = tuple(sets or bundle.facts.get("sets") or ())
    sampling = bundle.family.sampling(bundle.family.resolve(options))
    drawn_by = (options.sampler, options.steps, options.samples, options.texture, options.strength)
    row = Row(name, bundle.name, "auto" if name == BASELINE else backend, *drawn_by)
    protocol = Protocol(
        name=bundle.name,
        title=bundle.name,
        about="",
        modality="CXR" if bundle.modality == "any" else bundle.modality,
        sets=chosen,
        operator=operator,
        window=bundle.window,
        levels=int(bundle.facts["levels"]),
        rows=tuple(dict.fromkeys((Row(BASELINE, BASELINE), row))),
        split=split,
        reduce=int(bundle.facts.get("reduce", 1)),
        validation_share=float(bundle.facts.get("validation_share", 0.0)),
    )
    comparison = measure(protocol, data, limit=limit, rotation_degrees=rotation_degrees, device=device, samples=0)
    patients = len(set(comparison.patients))
    header = (
        f"{bundle.name} {bundle.version} | {split} split of {', '.join(chosen) or data.name}: "
        f"{len(comparison.images)} images of {patients} patient{'s' * (patients != 1)} | "
        f"{operator}{f' | turned by {rotation_degrees} degrees' if rotation_degrees else ''} | "
        f"{comparison.results[-1].backend}"
        f"{f' | {sampling.words}' if sampling else ''}"
        f"{' | thin slices; bicubic is cubic along the slices' if protocol.along_slices else ''}"
    )
    return Quality(header, bundle.name, comparison)


def least_gain(name: str, scale: int | None = None) -> float:
    """Return the gain in PSNR over bicubic, from its metadata, below which a bundle counts as having got worse.

    Args:
        name: a bundle's name or folder.
        scale: one of its scales. Default: the bundle's own.

    Raises:
        BundleError: the metadata states none.
    """
    bundle = find_bundle(name).at_scale(scale)
    gain = bundle.metadata.get("eval_metrics", {}).get("least_psnr_over_bicubic_db")
    if gain is None:
        raise BundleError(
            f"bundle {bundle.name}: metadata.json states no eval_metrics.least_psnr_over_bicubic_db to compare with; "
            "give a number of dB to --at-least."
        )
    return float(gain)
