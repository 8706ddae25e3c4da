"""The cost of privacy: the PSNR of a study's global model against the epsilon of its patients, for several noises."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai_sr_bundle import __version__
from monai_sr_bundle.datasets.manifest import read_manifest
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.job import write_job
from monai_sr_bundle.federated.measurement import BICUBIC, measure_models
from monai_sr_bundle.federated.messages import EPSILON, GLOBAL_MODEL, ROUNDS_FILE
from monai_sr_bundle.federated.privacy import Privacy
from monai_sr_bundle.federated.simulated_study import read_simulated_study, with_budget, write_simulated_sites
from monai_sr_bundle.federated.simulator import require_empty, simulate_job
from monai_sr_bundle.federated.site_settings import SiteSettings
from monai_sr_bundle.federated.start_weights import start_state
from monai_sr_bundle.federated.study import Study
from monai_sr_bundle.images.staging import write_file
from monai_sr_bundle.training.weights import read_weights

START, PLAIN = "before training", "no noise"
CURVE_FILE = "privacy_curve.json"
_ANY_EPSILON = 1e12
"""Budget of the simulated sites: the curve shows what each noise costs, and refuses none."""


def draw_privacy_curve(
    name: str,
    data: Path,
    out: Path,
    noises: Sequence[float],
    *,
    sites: int | None = None,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Train a study without protection and with each noise, and measure every global model at every site.

    Args:
        name: name or file of a study with a `privacy` section, which states what is protected, clip and delta.
        data: folder with a manifest, or of such folders.
        out: new folder for models and `privacy_curve.json`.
        noises: noise multipliers.
        sites, quick: see `read_simulated_study` and `write_simulated_sites`.
        progress: called after every model with the number of finished ones and of all.

    Returns:
        The table for the terminal.

    Raises:
        InputError: a study without privacy or sites; see `read_study`.
        OutputError: `out` is not empty.
        SuperResolutionError: see `simulate_job`.
    """
    study = read_simulated_study(name, sites, quick=quick)
    if study.privacy.protect is None:
        raise InputError(f"study {study.name} has no privacy section. State there what is protected, clip and delta.")
    require_empty(out)
    study = dataclasses.replace(study, minimum_sites=len(study.sites))
    settings = write_simulated_sites(study, data, out, quick=quick)
    models = {START: start_state(study.task.require_bundle(), study.start, study.task.seed)}
    epsilons: dict[str, dict[str, float]] = {}
    protections = {PLAIN: Privacy()} | {
        f"noise {noise:g}": dataclasses.replace(study.privacy, noise_multiplier=noise, epsilon=_ANY_EPSILON)
        for noise in noises
    }
    for number, (label, privacy) in enumerate(protections.items()):
        results = _train(study, privacy, settings, out / f"model_{number}")
        models[label] = read_weights(results / GLOBAL_MODEL)
        epsilons[label] = _epsilons_of(results)
        if progress is not None:
            progress(number + 1, len(protections))
    measures = {site: measure_models(study, each, models) for site, each in settings.items()}
    rows = {
        label: {
            "psnr": {site: float(np.mean(each.psnr[label])) for site, each in measures.items()},
            "epsilon": epsilons.get(label, {}),
        }
        for label in (BICUBIC, *models)
    }
    content = {
        "study": study.name,
        "title": study.title,
        "quick": quick,
        "version": __version__,
        "task": dataclasses.asdict(study.task),
        "privacy": vars(study.privacy),
        "images": {site: len(each.patients) for site, each in measures.items()},
        "training_patients": {
            site: len({record.patient_id for record in read_manifest(each.data, split="train")})
            for site, each in settings.items()
        },
        "rows": rows,
    }
    write_file(out / CURVE_FILE, f"{json.dumps(content, indent=2)}\n".encode())
    return _describe(study, rows, quick=quick)


def _train(study: Study, privacy: Privacy, settings: dict[str, SiteSettings], folder: Path) -> Path:
    keys: dict[str, Any] = {"private_noise": None, "private_clip": None} | privacy.task_keys
    task = dataclasses.replace(study.task, **keys)
    ledgers = folder / "ledgers"
    ledgers.mkdir(parents=True)
    protected = {site: with_budget(each, privacy, ledgers / f"{site}.jsonl") for site, each in settings.items()}
    job = write_job(
        dataclasses.replace(study, task=task, privacy=privacy),
        folder / "job",
        result_filters=privacy.result_filters(task.bundle),
    )
    results = simulate_job(job, protected, folder / "simulator")
    for site in settings:
        shutil.rmtree(settings[site].work, ignore_errors=True)
    return results


def _epsilons_of(results: Path) -> dict[str, float]:
    """Return the epsilon of every site after the last round."""
    rounds = json.loads((results / ROUNDS_FILE).read_text(encoding="utf-8"))
    return {site: answer[EPSILON] for each in rounds for site, answer in each["sites"].items() if answer.get(EPSILON)}


def _describe(study: Study, rows: dict[str, dict[str, Any]], *, quick: bool) -> str:
    task, privacy = study.task, study.privacy
    what = "DP-SGD at the sites" if privacy.protect == "training" else "clip and noise on the differences"
    lines = [
        f"{study.title}",
        f"{task.bundle}: {task.rounds} rounds of {task.iterations} iterations a site; {what}, clip {privacy.clip:g}, "
        f"delta {privacy.delta:g}.",
        "PSNR (dB) on the test images of each site; epsilon is that of the site that spent most:",
        f"{'':18}{'epsilon':>10}" + "".join(f"{site:>18}" for site in rows[BICUBIC]["psnr"]) + f"{'mean':>9}",
    ]
    for label, row in rows.items():
        highest = max(row["epsilon"].values(), default=None)
        epsilon = f"{highest:.3g}" if highest is not None else "none" if label == PLAIN else ""
        values = list(row["psnr"].values())
        lines.append(
            f"{label:18}{epsilon:>10}" + "".join(f"{value:18.2f}" for value in values) + f"{np.mean(values):9.2f}"
        )
    if quick:
        lines.append("This was --quick: it shows that all parts run, and nothing follows from the figures.")
    return "\n".join(lines)
