"""The job of a study: configuration alone. No code travels in it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_sr_bundle.bundles import sha256_of
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.federated.start_weights import RANDOM, SHIPPED, START_FILE
from monai_sr_bundle.federated.study import Study

EXECUTOR = "monai_sr_bundle.federated.executor.TrainExecutor"
CONTROLLER = "monai_sr_bundle.federated.controller.FederatedAveraging"
PERSISTOR = "monai_sr_bundle.federated.persistor.BundlePersistor"
COLLECTOR = "monai_sr_bundle.federated.calibration.CalibrationCollector"
BROADCAST = "nvflare.app_common.workflows.broadcast_and_process.BroadcastAndProcess"
CALIBRATE_EXECUTOR = "monai_sr_bundle.federated.calibration.CalibrateExecutor"
TASK_SECONDS = 0.5
"""Time after which a site asks for its next task; NVFlare's own 2 s would be most of a short round."""
SERVER_CLASSES, SITE_CLASSES = (CONTROLLER, PERSISTOR, BROADCAST, COLLECTOR), (EXECUTOR, CALIBRATE_EXECUTOR)
"""Classes that the `class_allow_list` of a server and of a site must hold for our jobs."""


def write_job(
    study: Study,
    folder: Path,
    *,
    start: str | None = None,
    start_round: int = 0,
    rounds: int | None = None,
    kept_rounds: tuple[int, ...] = (),
    result_filters: tuple[dict[str, Any], ...] = (),
) -> Path:
    """Write the job of a study.

    Args:
        study: the study.
        folder: folder for the job's own, which must not exist.
        start: file with the global model of an earlier job, which travels with this one. Default: as the study states.
        start_round: rounds that earlier jobs have done. Default 0.
        rounds: rounds of this job. Default: all that are left.
        kept_rounds: see `FederatedAveraging`.
        result_filters: filters of NVFlare that the sites' answers pass, as ``{"path": CLASS, "args": {...}}``.

    Returns:
        The job's folder, for `nvflare job submit` or the simulator.

    Raises:
        InputError: there is no such file to start from.
        OutputError: the folder exists.
    """
    job = folder / study.name
    task = study.task
    start = study.start if start is None else start
    persistor = {"bundle": task.bundle, "start": start, "seed": task.seed}
    if start not in (SHIPPED, RANDOM):
        if not Path(start).is_file():
            raise InputError(f"start is {start!r}, expected shipped, random or a file.")
        persistor |= {"start": START_FILE, "start_sha256": sha256_of(Path(start))}
    controller = {
        "num_rounds": task.rounds - start_round if rounds is None else rounds,
        "minimum_sites": study.minimum_sites,
        "round_seconds": study.round_seconds,
        "grace_seconds": study.grace_seconds,
        "start_round": start_round,
        "kept_rounds": list(kept_rounds),
    }
    executor = {key: value for key, value in dataclasses.asdict(task).items() if value is not None}
    write_configs(
        job,
        minimum_sites=study.minimum_sites,
        workflow={"path": CONTROLLER, "args": controller},
        executor={"path": EXECUTOR, "args": executor},
        tasks=("train", "validate"),
        components=[{"id": "persistor", "path": PERSISTOR, "args": persistor}],
        result_filters=result_filters,
    )
    if "start_sha256" in persistor:
        shutil.copyfile(start, job / "app" / "config" / START_FILE)
    return job


def write_configs(
    job: Path,
    *,
    minimum_sites: int,
    workflow: dict[str, Any],
    executor: dict[str, Any],
    tasks: Sequence[str],
    components: Sequence[dict[str, Any]] = (),
    result_filters: Sequence[dict[str, Any]] = (),
) -> Path:
    """Write the texts of a job: configuration alone.

    Args:
        job: new folder of the job, whose name is that of the job.
        minimum_sites: sites without which it does not start.
        workflow, executor: class and arguments of the server's and of the sites' part.
        tasks: names of the tasks that the executor answers.
        components: other parts of the server, with an id each.
        result_filters: see `write_job`.

    Raises:
        OutputError: the folder exists.
    """
    if job.exists():
        raise OutputError(f"{job} exists. Remove it, or name another folder.")
    server = {
        "format_version": 2,
        "server": {"task_request_interval": TASK_SECONDS},
        "workflows": [{"id": "controller", **workflow}],
        "components": list(components),
        "task_data_filters": [],
        "task_result_filters": [],
    }
    client = {
        "format_version": 2,
        "executors": [{"tasks": list(tasks), "executor": executor}],
        "components": [],
        "task_data_filters": [],
        "task_result_filters": [{"tasks": list(tasks), "filters": list(result_filters)}] if result_filters else [],
    }
    meta = {
        "name": job.name,
        "resource_spec": {},
        "min_clients": minimum_sites,
        "deploy_map": {"app": ["@ALL"]},
    }
    for path, content in (
        (job / "meta.json", meta),
        (job / "app" / "config" / "config_fed_server.json", server),
        (job / "app" / "config" / "config_fed_client.json", client),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{json.dumps(content, indent=2)}\n", encoding="utf-8")
    return job
