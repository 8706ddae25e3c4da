"""Measure a bundle on a split: the same pairs, operator and metric code for every method, beside bicubic."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from monai_sr_bundle.backends.backend import BackendName, DeviceName, choose_draw
from monai_sr_bundle.benchmark.measure import measure
from monai_sr_bundle.benchmark.protocol import Protocol, Row
from monai_sr_bundle.benchmark.statistics import Mean
from monai_sr_bundle.bundles import find_bundle
from monai_sr_bundle.degradation import Degradation, along_slices
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.inferers.flow import process_of

BASELINE = "bicubic"
NAMES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "uqi": "UQI", "lpips": "LPIPS (lower is better)"}


@dataclass
class Quality:
    """The figures of one bundle and of bicubic on the same images.

    Attributes:
        header: what was measured, in one line.
        images: names, in order.
        patients: how many patients the images come from.
        method, bicubic: figure name to one number per image.
        seconds: in the network, per image of `low_res_size`, with `threads` threads.
        unavailable: figure name to the reason it is missing.
    """

    header: str
    name: str
    images: list[str] = field(default_factory=list)
    patients: int = 0
    method: dict[str, list[float]] = field(default_factory=dict)
    bicubic: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    low_res_size: str = ""
    threads: int = 1
    unavailable: dict[str, str] = field(default_factory=dict)

    def gain(self, figure: str) -> Mean:
        """The paired difference, method minus bicubic, over the images that have the figure."""
        difference = np.subtract(self.method[figure], self.bicubic[figure])
        return Mean.of(difference[np.isfinite(difference)].tolist())

    def table(self) -> str:
        """The figures as text, with what they were measured on."""
        width = max(len(self.name), 16)
        lines = [self.header]
        if self.patients == 1:
            lines.append("One patient only: the intervals are over slices of the same chest, not over patients.")
        lines.append(f"{'':24}{'bicubic':>16}  {self.name:>{width}}  {'difference':>10}  95 % interval")
        for figure, values in self.method.items():
            measured = np.isfinite(values) & np.isfinite(self.bicubic[figure])
            gain = self.gain(figure)
            digits = 2 if figure == "psnr" else 4
            before, after = (float(np.mean(np.asarray(each)[measured])) for each in (self.bicubic[figure], values))
            interval = f"[{gain.low:+.{digits}f}, {gain.high:+.{digits}f}]"
            if not measured.all():
                interval += f" over {measured.sum()} of {len(values)} images"
            means = f"{before:16.{digits}f}  {after:>{width}.{digits}f}  {gain.mean:>+10.{digits}f}"
            lines.append(f"{NAMES[figure]:24}{means}  {interval}")
        lines += [f"{NAMES[figure]:24}unavailable: {reason}" for figure, reason in self.unavailable.items()]
        median = 1000 * float(np.median(self.seconds))
        cores = f"{self.threads} thread{'s' * (self.threads > 1)}"
        lines.append(f"Median time of {self.name} for {self.low_res_size}: {median:.1f} ms ({cores})")
        return "\n".join(lines)

    def write_csv(self, out: Path) -> None:
        """One row per image, both methods."""
        columns = [f"{who}_{figure}" for who in ("bicubic", "method") for figure in self.method]
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *columns, "seconds"])
            for row, image in enumerate(self.images):
                figures = [values[row] for who in (self.bicubic, self.method) for values in who.values()]
                writer.writerow([image, *(f"{value:.6f}" for value in figures), f"{self.seconds[row]:.6f}"])


def evaluate(
    name: str,
    data: Path,
    split: str = "test",
    *,
    sets: Sequence[str] | None = None,
    limit: int | None = None,
    operator: str | None = None,
    turned: int = 0,
    backend: BackendName = "auto",
    device: DeviceName = "auto",
    sampler: str | None = None,
    steps: int | None = None,
    samples: int | None = None,
    texture: float | None = None,
) -> Quality:
    """Degrade the images of a split, enlarge them again, and compare with the originals.

    Args:
        name: a bundle's name or folder.
        data: folder with a manifest, or of such folders.
        split: "train", "val" or "test"; report only "test".
        sets: folders of the data; by default those the bundle trains on.
        limit: take this many images, evenly spread.
        operator: degradation; by default the bundle's.
        turned: turn the images counter-clockwise by 0, 90, 180 or 270 degrees first; rows of a CT may run either way.
        backend, device, sampler, steps, samples: as `engine.enhance`.

    Returns:
        One figure per image for the bundle and for bicubic interpolation.

    Raises:
        InputError: a manifest that cannot be used, an unknown operator, or one of another scale.
        BundleError: as `open_backend`.
    """
    bundle = find_bundle(name)
    operator = operator or bundle.operator
    try:
        scale = Degradation.parse(operator).scale
    except ValueError as error:
        raise InputError(f"--operator: {error}") from error
    if along_slices(operator) != bundle.enlarges_slices:
        raise InputError(
            f"--operator {operator}: bundle {bundle.name} enlarges "
            f"{'along the slices' if bundle.enlarges_slices else 'in the plane'}, where that one loses nothing. "
            f"Leave the option out, for {bundle.operator}."
        )
    if scale != bundle.scale:
        raise InputError(
            f"--operator {operator} reduces by {scale}, but bundle {bundle.name} enlarges by {bundle.scale}; expected "
            "the same factor."
        )
    chosen = tuple(sets or bundle.facts.get("sets") or ())
    draw = choose_draw(bundle, 0, sampler, steps, samples, texture)
    sampling = process_of(bundle.diffusion).sampling(draw) if bundle.diffusion else None
    row = Row(name, bundle.name, "auto" if name == BASELINE else backend, sampler, steps, samples, texture)
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
    comparison = measure(protocol, data, limit=limit, turned=turned, device=device, samples=0)
    method, baseline = comparison.results[-1], comparison.results[0]
    patients = len(set(comparison.patients))
    header = (
        f"{bundle.name} {bundle.version} | {split} split of {', '.join(chosen) or data.name}: "
        f"{len(comparison.images)} images of {patients} patient{'s' * (patients != 1)} | "
        f"{operator}{f' | turned by {turned} degrees' if turned else ''} | {method.backend}"
        f"{f' | {sampling.words}' if sampling else ''}"
        f"{' | thin slices; bicubic is cubic along the slices' if protocol.along_slices else ''}"
    )
    return Quality(
        header=header,
        name=bundle.name,
        images=comparison.images,
        patients=patients,
        method={figure: values for figure, values in method.figures.items() if figure in NAMES},
        bicubic={figure: values for figure, values in baseline.figures.items() if figure in NAMES},
        seconds=method.seconds,
        low_res_size=f"{comparison.low_res_size} pixels",
        threads=comparison.threads,
        unavailable={figure: reason for figure, reason in comparison.unavailable.items() if figure in NAMES},
    )


def least_gain(name: str) -> float:
    """The gain in PSNR over bicubic below which a bundle counts as having got worse, from its metadata.

    Raises:
        BundleError: the metadata states none.
    """
    bundle = find_bundle(name)
    gain = bundle.metadata.get("eval_metrics", {}).get("least_psnr_over_bicubic_db")
    if gain is None:
        raise BundleError(
            f"bundle {bundle.name}: metadata.json states no eval_metrics.least_psnr_over_bicubic_db to compare with; "
            "give a number of dB to --at-least."
        )
    return float(gain)
