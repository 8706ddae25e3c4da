"""The job of a study: configuration alone. No code travels in it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from monai_sr_bundle.bundles import sha256_of
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.federated.start_weights import RANDOM, SHIPPED, START_FILE
from monai_sr_bundle.federated.study import Study

EXECUTOR = "monai_sr_bundle.federated.executor.TrainExecutor"
CONTROLLER = "monai_sr_bundle.federated.controller.FederatedAveraging"
PERSISTOR = "monai_sr_bundle.federated.persistor.BundlePersistor"
SERVER_CLASSES, SITE_CLASSES = (CONTROLLER, PERSISTOR), (EXECUTOR,)
"""What `class_allow_list` of a server and of a site must hold for our jobs."""


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
    if job.exists():
        raise OutputError(f"{job} exists. Remove it, or name another folder.")
    task = study.task
    start = study.start if start is None else start
    if start not in (SHIPPED, RANDOM) and not Path(start).is_file():
        raise InputError(f"start is {start!r}, expected shipped, random or a file.")
    persistor = {"bundle": task.bundle, "start": start, "seed": task.seed}
    if start not in (SHIPPED, RANDOM):
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
    server = {
        "format_version": 2,
        "workflows": [{"id": "controller", "path": CONTROLLER, "args": controller}],
        "components": [{"id": "persistor", "path": PERSISTOR, "args": persistor}],
        "task_data_filters": [],
        "task_result_filters": [],
    }
    client = {
        "format_version": 2,
        "executors": [{"tasks": ["train", "validate"], "executor": {"path": EXECUTOR, "args": executor}}],
        "components": [],
        "task_data_filters": [],
        "task_result_filters": [{"tasks": ["train"], "filters": list(result_filters)}] if result_filters else [],
    }
    meta = {
        "name": study.name,
        "resource_spec": {},
        "min_clients": study.minimum_sites,
        "deploy_map": {"app": ["@ALL"]},
    }
    for path, content in (
        (job / "meta.json", meta),
        (job / "app" / "config" / "config_fed_server.json", server),
        (job / "app" / "config" / "config_fed_client.json", client),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{json.dumps(content, indent=2)}\n", encoding="utf-8")
    if "start_sha256" in persistor:
        shutil.copyfile(start, job / "app" / "config" / START_FILE)
    return job
