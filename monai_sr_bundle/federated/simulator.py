"""NVFlare's simulator: a server and all sites of a job on this machine, each with processes of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from monai_sr_bundle.errors import OutputError, SuperResolutionError
from monai_sr_bundle.federated.job import SERVER_CLASSES, SITE_CLASSES
from monai_sr_bundle.federated.messages import GLOBAL_MODEL, ROUNDS_FILE, TRAINER_ENDED
from monai_sr_bundle.federated.privacy import FILTERS
from monai_sr_bundle.federated.site_settings import SIMULATED_SETTINGS, SiteSettings, write_site_settings
from monai_sr_bundle.images.staging import require_free
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST


def require_empty(out: Path) -> None:
    """Raise OutputError if a folder for results holds something, or has a file where it needs a folder."""
    require_free(out / "results", overwrite=True)
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out} is not empty. Choose another --out.")


def simulate_job(
    job: Path,
    sites: Mapping[str, SiteSettings],
    workspace: Path,
    results: tuple[str, ...] = (GLOBAL_MODEL, ROUNDS_FILE),
) -> Path:
    """Run a job to its end.

    Args:
        job: folder of the job.
        sites: settings of each site, by name.
        workspace: folder for everything that server and sites write; an older one is removed.
        results: files that the job makes. Default: `FL_global_model.pt` and `rounds.json`.

    Returns:
        Folder with the results.

    Raises:
        SuperResolutionError: the job has failed; the message names its logs.
    """
    shutil.rmtree(workspace, ignore_errors=True)
    local = workspace / "local"
    for name, settings in sites.items():
        write_site_settings(settings, local / SIMULATED_SETTINGS / f"{name}.yaml")
    # At a real site, the filters are its own, and no job builds them.
    allowed = [*DEFAULT_CLASS_ALLOW_LIST, *SERVER_CLASSES, *SITE_CLASSES, *FILTERS]
    resources = {"format_version": 2, "class_allow_list": allowed}
    (local / "resources.json").write_text(json.dumps(resources), encoding="utf-8")
    # Numbers of threads: all sites share this machine's processors.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [
        *(sys.executable, "-m", "monai_sr_bundle.federated.simulator_process", str(job), "-w", str(workspace)),
        *("-c", ",".join(sites), "-t", str(len(sites))),
    ]
    log = workspace.with_name(f"{workspace.name}.log")  # the simulator empties its workspace
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            code = process.wait()
        except BaseException:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
    folder = workspace / "server" / "simulate_job" / "app_server"
    missing = [name for name in results if not (folder / name).is_file()]
    if code or missing:
        raise SuperResolutionError(
            f"the federated job has ended without {' and '.join(missing)} (code {code}). "
            f"{_trainer_error(workspace, sites) or _first_error(log)}Read {log}."
        )
    return folder


def _trainer_error(workspace: Path, sites: Iterable[str]) -> str:
    """Return why the trainer of the first site that says so has ended; NVFlare's log of the site has what it says."""
    for site in sites:
        log = workspace / site / "log.txt"
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        reasons = [line.partition(TRAINER_ENDED)[2] for line in text.splitlines() if TRAINER_ENDED in line]
        if reasons:
            return f"The trainer of {site} says: {reasons[-1].strip()[:500]} "
    return ""


def _first_error(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if "ERROR" in line or "Error" in line]
    return f"The first error: {errors[0].strip()[:300]} " if errors else ""
