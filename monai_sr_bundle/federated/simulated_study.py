"""A study whose sites are all on this machine: what every simulation begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.privacy import Privacy
from monai_sr_bundle.federated.site_data import usual_sites, write_site_data
from monai_sr_bundle.federated.site_settings import SiteSettings
from monai_sr_bundle.federated.study import Study, read_study

_QUICK = {"rounds": 2, "iterations": 30, "epochs": None, "personal_rounds": 1}
_QUICK_IMAGES = 12


def read_simulated_study(name: str, sites: int | None, *, quick: bool) -> Study:
    """Read a study, and choose its sites where it names none.

    Args:
        name: name or file of a study.
        sites: number of sites that share the patients, for a study that names none. Default 3.
        quick: two rounds of 30 iterations.

    Raises:
        InputError: both the study and `sites` say which sites; see `read_study` and `usual_sites`.
    """
    study = read_study(name, **(_QUICK if quick else {}))
    if study.sites and sites is not None:
        raise InputError(f"--sites {sites}: the study {study.name} names its sites. Leave the option out.")
    chosen = study.sites or usual_sites(study.task.require_bundle(), 3 if sites is None else sites)
    return dataclasses.replace(study, sites=chosen, minimum_sites=min(study.minimum_sites, len(chosen)))


def write_simulated_sites(
    study: Study, data: Path, out: Path, *, quick: bool, before_writing: Callable[[], None] = lambda: None
) -> dict[str, SiteSettings]:
    """Divide a data set among the sites of a study, and return the settings of each site by its name.

    Args:
        study: from `read_simulated_study`.
        data: folder with a manifest, or of such folders.
        out: see `write_site_data`; ledgers will be in its `ledgers`.
        quick: few images of each site.
        before_writing: see `write_site_data`.

    Raises:
        InputError, OutputError: see `write_site_data`.
    """
    settings = write_site_data(
        study.sites,
        study.task.require_bundle(),
        data,
        out,
        limit=_QUICK_IMAGES if quick else None,
        before_writing=before_writing,
    )
    return {
        name: with_budget(each, study.privacy, out / "ledgers" / f"{name}.jsonl") for name, each in settings.items()
    }


def with_budget(settings: SiteSettings, privacy: Privacy, ledger: Path) -> SiteSettings:
    """Return the settings of a simulated site with the budget that a study states; without protection, with none."""
    if privacy.protect is None:
        return dataclasses.replace(settings, ledger=None, epsilon=None, delta=None)
    return dataclasses.replace(settings, ledger=ledger, epsilon=privacy.epsilon, delta=privacy.delta)
