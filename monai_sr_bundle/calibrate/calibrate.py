"""Calibrate the error bars of a bundle on full-resolution images of a site."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from monai_sr_bundle.backends.backend import BackendName, DeviceName
from monai_sr_bundle.bundles import Bundle, find_bundle
from monai_sr_bundle.calibrate.calibration_cases import EnlargedCase, enlarge_cases, enlarge_degraded
from monai_sr_bundle.calibrate.training_inputs import fingerprint_image, read_training_fingerprints
from monai_sr_bundle.datasets.manifest import manifest_sha256, read_manifest
from monai_sr_bundle.engine.session import Session
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.inferers.sampler_options import AS_STATED, SamplerOptions
from monai_sr_bundle.uncertainty.calibration import (
    Calibration,
    CalibrationEntry,
    bundle_sha256,
    calibrated_operator,
    calibrated_scale,
)
from monai_sr_bundle.uncertainty.conformal import FACTORS, bound_of_loss, controlling_factor, measure_miscoverage
from monai_sr_bundle.uncertainty.error_bars import error_scale, require_error_bars, sees_whole_image

LEAST_PATIENTS = 20
LEAST_IMAGES = 50
"""Fewer leave the factor to chance: with 50 patients, the corrected loss is still 0.02 above the measured one."""
LEAST_CT_SLICES, LEAST_CT_PATIENTS = 15, 5
"""Of CT, whose patients are few: below `LEAST_PATIENTS` the factor is not corrected for their number, and the
calibration states how much less is guaranteed for another patient."""

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
    entry states the smaller share that is guaranteed for another patient.

    Args:
        name: name or folder of a bundle with error bars.
        data: folder with a manifest, or a folder of such folders.
        split: "train", "val", "test" or "all"; the bundle must not have been trained on these patients.
        sets: folders to use. Default: those of the bundle if `data` holds them, else all.
        samplers: sampler options; each gets a factor of its own. Default: the bundle's.
        alpha: share of the pixels that may be outside their error bars, default 0.1.
        limit: number of images to use, evenly spread. Default: all.
        backend, device: see `open_backend`.
        progress: called with the number of finished images and of all.

    Raises:
        InputError: fewer than 50 images or 20 patients (CT: 15 slices or 5 patients), images of another modality or of
            the training patients, alpha out of range, or errors that do not follow their scale.
        BundleError: the bundle has no error bars.
    """
    if not 0 < alpha < 1:
        raise InputError(f"--alpha {alpha:g}: expected the share of pixels that may be outside, above 0 and below 1.")
    bundle = find_bundle(name)
    bundle.require_in_plane("error bars")
    resolved = [bundle.family.resolve(options) for options in samplers]
    sees_whole = sees_whole_image(bundle)
    sessions = [
        Session(each, backend, device) for each in (map(bundle.at_scale, bundle.scales) if sees_whole else [bundle])
    ]
    require_error_bars(bundle, sessions[-1].backend)
    set_names = _sets(bundle, data, sets)
    split_or_all = None if split == "all" else split
    _require_other_patients(bundle, data, split_or_all, set_names)
    entries, runs = [], [(session, options) for session in sessions for options in resolved]
    for number, (session, options) in enumerate(runs):

        def report_progress(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, len(runs) * total)

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
        losses, mean_scale, names = _measure(cases, session)
        is_ct = bundle.modality == "CT"
        least_images = LEAST_CT_SLICES if is_ct else LEAST_IMAGES
        least_patients = LEAST_CT_PATIENTS if is_ct else LEAST_PATIENTS
        if len(names) < least_images or len(losses) < least_patients:
            raise InputError(
                f"{data}: {_describe_split(split_or_all)} has {len(names)} images of {len(losses)} "
                f"patients ({bundle.modality}), expected at least {least_images} of {least_patients} patients for "
                "error bars that hold. "
                + ("Add images" if split_or_all is None else "Take those of every split with --split all, add images")
                + ", or go without a calibration of your own."
            )
        is_corrected = len(losses) >= LEAST_PATIENTS
        try:
            factor = controlling_factor(losses, alpha, corrected=is_corrected)
        except ValueError as error:
            raise InputError(f"{data}: {error}") from error
        of_patients = losses[:, int(np.flatnonzero(factor == FACTORS)[0])]
        entries.append(
            CalibrationEntry(
                bundle.family.sampling(options),
                factor,
                coverage=float(1 - of_patients.mean()),
                half_width=factor * mean_scale,
                scale=calibrated_scale(session.bundle),
                strength=options.strength,
                guaranteed=None if is_corrected else 1 - bound_of_loss(alpha, len(losses)),
            )
        )
    return Calibration(
        bundle=bundle.name,
        version=bundle.version,
        weights_sha256=bundle_sha256(bundle),
        operator=calibrated_operator(bundle),
        alpha=alpha,
        images=len(names),
        patients=len(losses),
        data=", ".join(set_names) or data.resolve().name,
        split=split,
        manifest_sha256=manifest_sha256(data, sets=set_names or None, split=split_or_all),
        created=time.strftime("%Y-%m-%d"),
        entries=tuple(entries),
    )


def _measure(cases: Iterable[EnlargedCase], session: Session) -> tuple[np.ndarray, float, set[str]]:
    """Return the losses of each patient for every factor, the mean error scale, and the names of the images."""
    losses_of_patients: dict[str, list[np.ndarray]] = {}
    scales, names = [], set()
    for case in cases:
        scale = error_scale(case.super_res, case.low_res, session.bundle, session.backend)
        known = np.broadcast_to(np.logical_not(case.padding), scale.shape)
        loss = measure_miscoverage(np.abs(case.high_res - case.super_res)[known], scale[known])
        losses_of_patients.setdefault(case.patient, []).append(loss)
        scales.append(float(scale[known].mean()))
        names.add(case.name)
    # Images of one patient are alike: patients are exchangeable, images are not.
    losses = np.array([np.mean(image_losses, axis=0) for image_losses in losses_of_patients.values()])
    return losses, float(np.mean(scales)), names


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
