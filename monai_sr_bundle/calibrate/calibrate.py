"""Calibrate the error bars of a bundle on images of a site, from those at full resolution that it has."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from monai_sr_bundle.backends.backend import BackendName, DeviceName
from monai_sr_bundle.bundles import Bundle, find_bundle
from monai_sr_bundle.calibrate.cases import seen_by
from monai_sr_bundle.calibrate.training_inputs import fingerprints, learnt_from
from monai_sr_bundle.datasets.manifest import manifest_sha256, read_manifest
from monai_sr_bundle.engine.session import Session
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.inferers.sampler_options import AS_STATED, SamplerOptions
from monai_sr_bundle.uncertainty.calibration import Calibration, Entry, bundle_sha256
from monai_sr_bundle.uncertainty.conformal import FACTORS, controlling_factor, outside
from monai_sr_bundle.uncertainty.error_bars import error_scale, require_error_bars

LEAST_PATIENTS = 20
LEAST_IMAGES = 50
"""Fewer leave the factor to chance: with 50 patients, the corrected loss is still 0.02 above the one that was found."""

_SMALLER = "On images it has learnt from, errors look smaller than they are."


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
    """Find the factors that make error bars of a bundle's scale of errors, by conformal risk control.

    The images are those of a hospital at full resolution; they are reduced as the bundle undoes it, so the promise is
    made for this loss of resolution.

    Args:
        name: of a bundle with error bars.
        data: folder with a manifest, or of such folders.
        split: of it, or "all"; the patients must be others than those the bundle was trained on.
        sets: folders to take; those of the bundle if None and `data` holds them, else all.
        samplers: sampler options, each with a factor of its own. Default: as the bundle states.
        alpha: share of the pixels that may be outside their error bars.
        limit: take so many images, evenly spread.
        backend, device: as `open_backend`.
        progress: called with images done and all.

    Raises:
        InputError: fewer than 50 images or 20 patients, images of another modality, the training patients, an alpha out
            of range, or errors that do not follow their scale.
        BundleError: a bundle without error bars.
    """
    if not 0 < alpha < 1:
        raise InputError(f"--alpha {alpha:g}: expected the share of pixels that may be outside, above 0 and below 1.")
    bundle = find_bundle(name)
    bundle.require_in_plane("error bars")
    resolved = [bundle.family.resolve(options) for options in samplers]
    session = Session(bundle, backend, device)
    require_error_bars(bundle, session.backend)
    chosen = _sets(bundle, data, sets)
    part = None if split == "all" else split
    _require_other_patients(bundle, data, part, chosen)
    entries = []
    for number, options in enumerate(resolved):

        def told(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, len(resolved) * total)

        losses: dict[str, list[np.ndarray]] = {}
        scales = []
        for seen in seen_by(
            bundle,
            session.backend,
            data,
            part,
            sets=chosen or None,
            limit=limit,
            options=samplers[number],
            progress=told,
        ):
            scale = error_scale(seen.made, seen.low, bundle, session.backend)
            losses.setdefault(seen.patient, []).append(outside(np.abs(seen.high - seen.made), scale))
            scales.append(float(scale.mean()))
        if len(scales) < LEAST_IMAGES or len(losses) < LEAST_PATIENTS:
            raise InputError(
                f"{data}: {_of(part)} has {len(scales)} images of {len(losses)} patients ({bundle.modality}), "
                f"expected at least {LEAST_IMAGES} of {LEAST_PATIENTS} patients for error bars that hold. "
                + ("Add images" if part is None else "Take those of every split with --split all, add images")
                + ", or go without a calibration of your own."
            )
        # Images of one patient are alike: what is exchangeable are patients.
        of_patients = np.stack([np.mean(found, axis=0) for found in losses.values()])
        try:
            factor = controlling_factor(of_patients, alpha)
        except ValueError as error:
            raise InputError(f"{data}: {error}") from error
        covered = 1 - of_patients[:, int(np.flatnonzero(factor == FACTORS)[0])]
        sampling = bundle.family.sampling(options)
        entries.append(Entry(sampling, factor, float(covered.mean()), factor * float(np.mean(scales))))
    return Calibration(
        bundle=bundle.name,
        version=bundle.version,
        weights_sha256=bundle_sha256(bundle),
        operator=bundle.operator,
        alpha=alpha,
        images=len(scales),
        patients=len(losses),
        data=", ".join(chosen) or data.resolve().name,
        split=split,
        manifest_sha256=manifest_sha256(data, sets=chosen or None, split=part),
        created=time.strftime("%Y-%m-%d"),
        entries=tuple(entries),
    )


def _sets(bundle: Bundle, data: Path, sets: Sequence[str] | None) -> list[str]:
    if sets is not None:
        return list(sets)
    own = list(bundle.facts.get("sets") or [])
    return own if own and all((data / each).is_dir() for each in own) else []


def _of(split: str | None) -> str:
    return f"the {split} split" if split else "the manifest"


def _require_other_patients(bundle: Bundle, data: Path, split: str | None, sets: list[str]) -> None:
    """Refuse images that the bundle has learnt from, and their patients: errors there are smaller than elsewhere."""
    records = read_manifest(data, kind="ct" if bundle.modality == "CT" else "cxr", split=split, sets=sets or None)
    known = learnt_from(bundle)
    seen = [record for record in records if known & fingerprints(record)] if known else []
    if seen:
        raise InputError(
            f"{data}: {bundle.name} was trained on {len(seen)} of the {len(records)} images of {_of(split)}, or on "
            f"others of their patients; the first is {seen[0].file.name}. {_SMALLER} Take these images out of the "
            "manifest, or name another --split."
        )
    folders = set(bundle.facts.get("sets") or [])
    trained = [record for record in records if record.split == "train"]  # no patient is in two splits
    both = sorted(folders & {folder.name for record in trained for folder in record.file.parents})
    if both:
        raise InputError(
            f"{data}: {bundle.name} was trained on the train split of {', '.join(both)}. {_SMALLER} Name another "
            "--split, or other images."
        )
