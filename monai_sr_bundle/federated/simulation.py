"""A whole study on one machine: federated training, and the trainings to compare it with."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms.transform import Transform
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.federated.comparison import compare, describe
from monai_sr_bundle.federated.job import write_job
from monai_sr_bundle.federated.measurement import SiteMeasures, measure_models
from monai_sr_bundle.federated.messages import GLOBAL_MODEL, ROUNDS_FILE
from monai_sr_bundle.federated.simulated_site import SimulatedSite
from monai_sr_bundle.federated.simulated_study import read_simulated_study, write_simulated_sites
from monai_sr_bundle.federated.simulator import simulate_job
from monai_sr_bundle.federated.site_settings import SiteSettings
from monai_sr_bundle.federated.site_training import open_site_training, site_seed
from monai_sr_bundle.federated.start_weights import start_state
from monai_sr_bundle.federated.study import Study
from monai_sr_bundle.images.staging import staged, write_file
from monai_sr_bundle.training.weights import read_weights

GLOBAL, POOLED, LOCAL, PERSONAL = "global", "pooled", "local", "personalised"


def simulate(
    name: str,
    data: Path,
    out: Path,
    *,
    sites: int | None = None,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Train a study on one machine: federated, at each site alone, personalised, and on the pooled images.

    Every model takes the same number of iterations from the same weights. Pooled training has a batch as large as those
    of all sites together, so that it sees as many images as the federated one. A personalised model is the global one
    before its last rounds, which the site trains alone. What an earlier, killed run has finished is not done again.

    Args:
        name: name or file of a study.
        data: folder with a manifest, or of such folders.
        out: folder for models, figures and `comparison.json`.
        sites: number of sites that share the patients, for a study that names none.
        quick: two rounds of 30 iterations on few images: shows that everything runs, and no more.
        progress: called after every part with the number of finished parts and of all.

    Returns:
        The table for the terminal.

    Raises:
        InputError: a study without sites; images that do not suffice; see `read_study`.
        OutputError: `out` holds another study or another version of it.
        SuperResolutionError: see `simulate_job`.
    """
    study = read_simulated_study(name, sites, quick=quick)
    if study.task.iterations is None:
        raise InputError("a simulation compares at equal iterations. State the length of a round by iterations.")
    # A run with a wrong --data leaves no study.json, which would refuse the right one.
    begin = partial(_begin, study, data, out, quick)
    settings = write_simulated_sites(study, data, out, quick=quick, before_writing=begin)
    parts = _Parts(study, settings, out)
    total = 2 + 3 * len(settings)
    finished = 0

    def report_part() -> None:
        nonlocal finished
        finished += 1
        if progress is not None:
            progress(finished, total)

    federated = parts.train_federated()
    report_part()
    # Of the processes below, which each have one thread.
    os.environ.update({"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"})
    workers = min(2, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(parts.train_pooled)]
        futures += [pool.submit(parts.train_alone, site) for site in settings]
        futures += [pool.submit(parts.train_personalised, site) for site in settings]
        try:
            for future in futures:
                future.result()
                report_part()
            measure_futures = {site: pool.submit(parts.measure, site) for site in settings}
            measures = {}
            for site, measured in measure_futures.items():
                measures[site] = measured.result()
                report_part()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what runs is finished, and not begun again another time
            raise
    rounds = json.loads((federated / ROUNDS_FILE).read_text(encoding="utf-8"))
    comparison = compare(study, measures, rounds, quick=quick)
    write_file(out / "comparison.json", f"{json.dumps(comparison, indent=2)}\n".encode())
    return describe(comparison)


def _begin(study: Study, data: Path, out: Path, quick: bool) -> None:
    """Note what `out` is for, or refuse it where that is something else."""
    text = json.dumps(
        {"study": dataclasses.asdict(study), "data": str(data.resolve()), "quick": quick}, indent=2, sort_keys=True
    )
    note = out / "study.json"
    if note.is_file():
        if note.read_text(encoding="utf-8") != text:
            raise OutputError(f"{out} holds another study, or this one with other values. Choose another --out.")
    elif out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out} is not empty and holds no study. Choose another --out.")
    else:
        write_file(note, text.encode())


class _Parts:
    """The parts of a simulation. Each leaves a file when it is finished, and does nothing where that is there."""

    def __init__(self, study: Study, settings: Mapping[str, SiteSettings], out: Path) -> None:
        self.study, self.settings, self.out = study, settings, out
        self.bundle = study.task.require_bundle()

    def train_federated(self) -> Path:
        """Run the job of the study in NVFlare's simulator, and return the folder with its results."""
        folder = self.out / "federated"
        if (folder / ROUNDS_FILE).is_file():
            return folder
        for name in ("job", "simulator", "work", "federated", "ledgers"):
            shutil.rmtree(self.out / name, ignore_errors=True)
        (self.out / "ledgers").mkdir()
        before_personal = self.study.task.rounds - self.study.personal_rounds
        filters = self.study.privacy.result_filters(self.study.task.bundle)
        job = write_job(self.study, self.out / "job", kept_rounds=(before_personal,), result_filters=filters)
        results = simulate_job(job, self.settings, self.out / "simulator")
        folder.mkdir()
        self._save(GLOBAL, read_weights(results / GLOBAL_MODEL))
        with np.load(results / f"global_after_{before_personal}_rounds.npz") as arrays:
            self._save(f"{GLOBAL}_before_{PERSONAL}", {key: torch.as_tensor(arrays[key]) for key in arrays.files})
        shutil.copyfile(results / ROUNDS_FILE, folder / ROUNDS_FILE)  # last: it says that the others are there
        return folder

    def train_pooled(self) -> None:
        """Train on the images of all sites together, each degraded as at its own."""
        sites = self.study.sites
        batch = len(sites) * (self.study.task.batch_size or int(self.bundle.facts["batch_size"]))
        of_site = {site.name: self._load_and_degrade(site) for site in sites}
        by_site = f"{__name__}.BySited"
        overrides: dict[str, Any] = {
            "batch_size": batch,
            "sets": [site.name for site in sites],
            "load": [{"_target_": by_site, "transforms": {name: steps[0] for name, steps in of_site.items()}}],
            "degrade": [{"_target_": by_site, "transforms": {name: steps[1] for name, steps in of_site.items()}}],
        }
        self._train(POOLED, SiteSettings(self.out / "sites", self.out / "work"), POOLED, **overrides)

    def train_alone(self, site: str) -> None:
        """Train on the images of one site."""
        self._train(f"{LOCAL}_{site}", self.settings[site], site)

    def train_personalised(self, site: str) -> None:
        """Train the last rounds of the global model at one site alone."""
        rounds = self.study.task.rounds - self.study.personal_rounds
        start = read_weights(self._model(f"{GLOBAL}_before_{PERSONAL}"))
        self._train(f"{PERSONAL}_{site}", self.settings[site], site, start=start, rounds_before=rounds)

    def measure(self, site: str) -> SiteMeasures:
        """Measure all models on the test images of one site."""
        path = self.out / "measures" / f"{site}.json"
        if not path.is_file():
            names = [GLOBAL, POOLED, *(f"{kind}_{other}" for kind in (LOCAL, PERSONAL) for other in self.settings)]
            models = {name: read_weights(self._model(name)) for name in names}
            measures = measure_models(self.study, self.settings[site], models)
            write_file(path, json.dumps(vars(measures)).encode())
        return SiteMeasures(**json.loads(path.read_text(encoding="utf-8")))

    def _train(
        self,
        name: str,
        settings: SiteSettings,
        site: str,
        *,
        start: Mapping[str, torch.Tensor] | None = None,
        rounds_before: int = 0,
        **overrides: Any,
    ) -> None:
        if self._model(name).is_file():
            return
        task = self.study.task
        assert task.iterations is not None
        work = self.out / "work" / name
        shutil.rmtree(work, ignore_errors=True)
        seed = site_seed(task.seed, site)
        training = open_site_training(task, self.bundle, settings, work, seed=seed, **overrides)
        training.load_weights(start or start_state(self.bundle, self.study.start, task.seed))
        training.budget.iterations = rounds_before * task.iterations
        if rounds_before < task.rounds:
            training.run(iterations=(task.rounds - rounds_before) * task.iterations)
        self._save(name, training.weights())
        shutil.rmtree(work, ignore_errors=True)

    def _model(self, name: str) -> Path:
        return self.out / "models" / f"{name}.pt"

    def _save(self, name: str, state: Mapping[str, torch.Tensor]) -> None:
        with staged(self._model(name), overwrite=True) as temporary:
            torch.save(dict(state), temporary)

    def _load_and_degrade(self, site: SimulatedSite) -> Sequence[dict[str, Any]]:
        pairs = "monai_sr_bundle.transforms.pairs"
        load = {
            "_target_": f"{pairs}.LoadHighResd",
            **{key: f"@{key}" for key in ("window", "levels", "slices")},
            "key": "label",
            "multiple": "@scale",
            "reduce": site.reduce or "@reduce",
        }
        degrade = {
            "_target_": f"{pairs}.Degraded",
            "high_key": "label",
            "low_key": "image",
            "operator": site.operator or "@operator",
            "levels": "@levels",
        }
        return load, degrade


class BySited(Transform):
    """Treat an image as its site does.

    Args:
        transforms: transform of each site, by the name of the site, which is that of the folder two above the image's
            file.
    """

    def __init__(self, transforms: Mapping[str, Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        return self.transforms[Path(data["path"]).parents[1].name](data)
