"""The contract of a study with a site: which bundle and images a site must have to take part.

The images are those of the product's manifest, as `monai-sr prepare` and the MONAI Label app write it. What a training
would stumble over is refused here, at the hospital, before anybody waits for it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from monai_sr_bundle.bundles import Bundle, sha256_of
from monai_sr_bundle.datasets.manifest import Kind, Record, read_boxes, read_manifest
from monai_sr_bundle.errors import InputError, SuperResolutionError
from monai_sr_bundle.federated.ledger import require_ledger
from monai_sr_bundle.federated.site_settings import SiteSettings
from monai_sr_bundle.federated.study import Study

CHECKED_FILES = 200
"""Files that are compared with the SHA-256 in the manifest, evenly spread over it."""
_TRIAL_IMAGES = 8


def check_contract(study: Study, settings: SiteSettings) -> str:
    """Refuse a site that cannot take part in a study.

    Returns:
        One line with the numbers of its images.

    Raises:
        InputError, BundleError: it cannot; the message says why.
    """
    bundle = study.task.require_bundle()
    if settings.operator is not None and settings.operator != bundle.operator:
        raise InputError(
            f"this site's settings state the operator {settings.operator}, but the study trains for {bundle.operator}. "
            "Results of different operators cannot be averaged; remove it from the settings."
        )
    if study.task.private_noise is not None:
        require_ledger(settings)
    numbers = _check_images(bundle, settings.data)
    _try_training(study, bundle, settings)
    return numbers


def _check_images(bundle: Bundle, data: Path) -> str:
    from monai_sr_bundle.training.image_sets import with_image_sets

    kind: Kind = "ct" if bundle.modality == "CT" else "cxr"
    sets = with_image_sets(bundle, data).facts["sets"]
    training = read_manifest(data, kind=kind, split="train", sets=sets)
    if bundle.facts.get("validation_share"):
        validation = training
    else:
        validation = read_manifest(data, kind=kind, split="val", sets=sets)
    _check_files([*training, *validation])
    boxes = read_boxes(data, sets=sets)
    patients = len({record.patient_id for record in training})
    with_boxes = sum(record.file in boxes for record in training)
    return (
        f"images: {len(training)} to train on, of {patients} patients, {with_boxes} with boxes; {len(validation)} to "
        "validate on"
    )


def _check_files(records: Sequence[Record]) -> None:
    """Refuse images that are not those of the manifest any more; of many, a sample is read."""
    checked = records[:: max(1, len(records) // CHECKED_FILES)]
    for record in checked:
        if record.sha256 and record.file.is_file() and sha256_of(record.file) != record.sha256:
            raise InputError(
                f"{record.file}: the file has another SHA-256 than in manifest.csv: it is damaged or was replaced. "
                "Restore it, or run `monai-sr prepare` again."
            )


def _try_training(study: Study, bundle: Bundle, settings: SiteSettings) -> None:
    """Train one step on a few of the images, and measure: what fails here would fail in the first round."""
    from monai_sr_bundle.federated.site_training import open_site_training

    with tempfile.TemporaryDirectory() as folder:
        try:
            training = open_site_training(
                study.task, bundle, settings, Path(folder) / "trial", seed=0, limit=_TRIAL_IMAGES
            )
            training.run(iterations=1)
            training.validate()
        except SuperResolutionError:
            raise
        except Exception as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise InputError(
                f"{settings.data}: a trial step of the training fails with these images: {cause}"
            ) from error
