"""Calibrate the error bars of a bundle on full-resolution images of a site."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from monai_sr_bundle.backends.backend import BackendName, DeviceName
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.calibrate.calibration_cases import EnlargedCase, enlarge_cases, enlarge_degraded, require_in_plane
from monai_sr_bundle.calibrate.loss_curve import LossCurve, require_enough, rounded
from monai_sr_bundle.calibrate.training_inputs import fingerprint_image, read_training_fingerprints
from monai_sr_bundle.datasets.make_manifest import manifest_sha256
from monai_sr_bundle.datasets.manifest import read_manifest
from monai_sr_bundle.engine.session import Session
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.provenance import Sampling
from monai_sr_bundle.inferers.sampler_options import AS_STATED, SamplerOptions
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.uncertainty.calibration import (
    Calibration,
    bundle_sha256,
    calibrated_operator,
    calibrated_scale,
)
from monai_sr_bundle.uncertainty.conformal import measure_miscoverage
from monai_sr_bundle.uncertainty.error_bars import error_scale, require_error_bars, sees_whole_image

_SMALLER_ERRORS = "On images it has learnt from, errors look smaller than they are."


def calibrate(
    name: str,
    data: Path,
    split: str = "val",
    *,
    sets: Sequence[str] | None = None,
    samplers: Sequence[SamplerOptions] = (AS_STATED,),
    alpha: float = 0.1,
    limit: int | None = None,
    backend: BackendName = "auto",
    device: DeviceName = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Find the factors that turn a bundle's error scale into error bars, by conformal risk control.

    The full-resolution images of a hospital are reduced by the operator that the bundle undoes, so the error bars
    hold for this loss of resolution. For a bundle that was trained on images as they are, they lose their resolution in
    several ways, drawn at random as in its training, and every scale gets a factor of its own.

    Patients are the unit. With fewer than 20 of them (CT alone) the error bars hold on average over these, and the
    entry states the smaller share that is guaranteed on average over further patients.

    Args:
        name: name or folder of a bundle with error bars.
        data: folder with a manifest, or a folder of such folders.
        split: "train", "val", "test" or "all"; the bundle must not have been trained on these patients.
        sets: folders to use. Default: those of the bundle if `data` holds them, else all.
        samplers: sampler options; each gets a factor of its own. Default: the bundle's.
        alpha: share of the pixels that may be outside their error bars, default 0.1.
        limit: number of images to use, evenly spread; of each source, where a bundle has several. Default: all.
        backend, device: see `open_backend`.
        progress: called with the number of finished images and of all.

    Raises:
        InputError: fewer than 50 images or 20 patients (CT: 15 slices or 5 patients), images of another modality or of
            the training patients, alpha out of range, or errors that do not follow their scale.
        BundleError: the bundle has no error bars.
    """
    require_share(alpha)
    bundle = find_bundle(name)
    curves = measure_losses(
        bundle,
        data,
        split,
        sets=sets,
        samplers=samplers,
        limit=limit,
        backend=backend,
        device=device,
        progress=progress,
    )
    set_names, split_or_all = _sets(bundle, data, sets), None if split == "all" else split
    advice = (
        "Add images"
        if split_or_all is None
        else "Take those of every split with --split all if the bundle was trained on none, add images"
    )
    return make_calibration(
        bundle,
        curves,
        alpha,
        source=f"{data}: {_describe_split(split_or_all)}",
        advice=f"{advice}, or go without a calibration of your own.",
        data=", ".join(set_names) or data.resolve().name,
        split=split,
        manifest_sha256=manifest_sha256(data, sets=set_names or None, split=split_or_all),
    )


def make_calibration(
    bundle: Bundle,
    curves: Sequence[LossCurve],
    alpha: float,
    *,
    source: str,
    advice: str,
    data: str,
    split: str,
    manifest_sha256: str,
) -> Calibration:
    """Return the calibration of a bundle by the losses of patients.

    Args:
        bundle: the bundle.
        curves: losses with each of its `calibration_runs`.
        alpha: share of the pixels that may be outside their error bars.
        source: folder of the images, for messages.
        advice: sentence for the message about too few images.
        data, split, manifest_sha256: see `Calibration`.

    Raises:
        InputError: too few images or patients, or errors that do not follow their scale.
    """
    for curve in curves:
        require_enough(curve.images, curve.patients, bundle.modality, source, advice)
    try:
        entries = tuple(curve.entry(alpha) for curve in curves)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from error
    return Calibration(
        bundle=bundle.name,
        version=bundle.version,
        weights_sha256=bundle_sha256(bundle),
        operator=calibrated_operator(bundle),
        alpha=alpha,
        images=curves[-1].images,
        patients=curves[-1].patients,
        data=data,
        split=split,
        manifest_sha256=manifest_sha256,
        created=time.strftime("%Y-%m-%d"),
        entries=entries,
    )


def require_share(alpha: float) -> None:
    """Refuse an alpha that is no share.

    Raises:
        InputError: it is not above 0 and below 1.
    """
    if not 0 < alpha < 1:
        raise InputError(f"--alpha {alpha:g}: expected the share of pixels that may be outside, above 0 and below 1.")


def measure_losses(
    bundle: Bundle,
    data: Path,
    split: str = "val",
    *,
    sets: Sequence[str] | None = None,
    samplers: Sequence[SamplerOptions] = (AS_STATED,),
    limit: int | None = None,
    backend: BackendName = "auto",
    device: DeviceName = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> list[LossCurve]:
    """Measure the share of the pixels outside their error bars for every factor: all that a calibration needs.

    Args:
        bundle: a bundle with error bars.
        data, split, sets, samplers, limit, backend, device, progress: see `calibrate`.

    Returns:
        A curve for each scale that has error bars of its own, and for each set of sampler options.

    Raises:
        InputError: images of another modality or of the training patients.
        BundleError: the bundle has no error bars.
    """
    require_in_plane(bundle, "error bars")
    sees_whole, planned = sees_whole_image(bundle), calibration_runs(bundle, samplers)
    sessions = {
        scale: Session(bundle.at_scale(scale), backend, device) for scale in {run.bundle.scale for run in planned}
    }
    require_error_bars(bundle, sessions[planned[-1].bundle.scale].backend)
    set_names = _sets(bundle, data, sets)
    split_or_all = None if split == "all" else split
    _require_other_patients(bundle, data, split_or_all, set_names)
    curves = []
    for number, run in enumerate(planned):
        session, options = sessions[run.bundle.scale], run.options

        def report_progress(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, len(planned) * total)

        cases: Iterable[EnlargedCase]
        if sees_whole:
            sources = _own_sources(bundle, set_names) if sets is None else [(folder, 1) for folder in sets]
            cases = enlarge_degraded(
                session.bundle,
                session.backend,
                data,
                split_or_all,
                sources=sources,
                limit=limit,
                options=options,
                progress=report_progress,
            )
        else:
            cases = enlarge_cases(
                bundle,
                session.backend,
                data,
                split_or_all,
                sets=set_names or None,
                limit=limit,
                options=options,
                progress=report_progress,
            )
        curves.append(_measure(cases, session, run))
    return curves


class CalibrationRun(NamedTuple):
    """A bundle at one of its scales and resolved sampler options, which have a factor of their own."""

    bundle: Bundle
    options: SamplerOptions

    @property
    def stratum(self) -> tuple[Sampling | None, int | None, float | None]:
        """Return sampling, scale and strength of its `CalibrationEntry`."""
        return self.bundle.family.sampling(self.options), calibrated_scale(self.bundle), self.options.strength


def calibration_runs(bundle: Bundle, samplers: Sequence[SamplerOptions] = (AS_STATED,)) -> list[CalibrationRun]:
    """Return the scales and sampler options of a bundle that have a factor each, in the order of `measure_losses`."""
    bundles = [bundle.at_scale(scale) for scale in bundle.scales] if sees_whole_image(bundle) else [bundle]
    return [CalibrationRun(each, each.family.resolve(options)) for each in bundles for options in samplers]


def _measure(cases: Iterable[EnlargedCase], session: Session, run: CalibrationRun) -> LossCurve:
    losses_of_patients: dict[str, list[np.ndarray]] = {}
    scales, names = [], set()
    for case in cases:
        scale = error_scale(case.super_res, case.low_res, session.bundle, session.backend)
        valid = np.broadcast_to(np.logical_not(case.padding), scale.shape)
        loss = measure_miscoverage(np.abs(case.high_res - case.super_res)[valid], scale[valid])
        losses_of_patients.setdefault(case.patient, []).append(loss)
        scales.append(float(scale[valid].mean()))
        names.add((case.patient, case.name))  # several folders may have a name
    # Images of one patient are alike: patients are exchangeable, images are not.
    losses = np.array([np.mean(image_losses, axis=0) for image_losses in losses_of_patients.values()])
    return LossCurve(
        *run.stratum,
        images=len(names),
        patients=len(losses),
        cases=len(scales),
        loss_sum=rounded(losses).sum(axis=0),
        scale_sum=float(rounded(np.array(scales)).sum()),
    )


def _own_sources(bundle: Bundle, set_names: list[str]) -> list[tuple[str | None, int]]:
    """Return the folders of images, and the factors they are reduced by: those of the bundle where the data are its."""
    if not set_names:
        return [(None, 1)]
    key = "validation_scans" if bundle.modality == "CT" else "validation_films"
    return [(folder, int(reduce)) for folder, reduce in bundle.facts[key]]


def _sets(bundle: Bundle, data: Path, sets: Sequence[str] | None) -> list[str]:
    if sets is not None:
        return list(sets)
    bundle_sets = list(bundle.facts.get("sets") or [])
    return bundle_sets if all((data / name).is_dir() for name in bundle_sets) else []


def _describe_split(split: str | None) -> str:
    return f"the {split} split" if split else "the manifest"


def _require_other_patients(bundle: Bundle, data: Path, split: str | None, sets: list[str]) -> None:
    """Refuse images that the bundle has learnt from, and images of their patients: their errors are smaller."""
    records = read_manifest(data, kind="ct" if bundle.modality == "CT" else "cxr", split=split, sets=sets or None)
    trained_on = read_training_fingerprints(bundle)
    reused = [record for record in records if trained_on & fingerprint_image(record)] if trained_on else []
    if reused:
        raise InputError(
            f"{data}: {bundle.name} was trained on {len(reused)} of the {len(records)} images of "
            f"{_describe_split(split)}, or on others of their patients; the first is {reused[0].file.name}. "
            f"{_SMALLER_ERRORS} Take these images out of the manifest, or name another --split."
        )
    bundle_sets = set(bundle.facts.get("sets") or [])
    training_records = [record for record in records if record.split == "train"]  # no patient is in two splits
    reused_sets = sorted(bundle_sets & {folder.name for record in training_records for folder in record.file.parents})
    if reused_sets:
        raise InputError(
            f"{data}: {bundle.name} was trained on the train split of {', '.join(reused_sets)}. {_SMALLER_ERRORS} "
            "Name another --split, or other images."
        )
