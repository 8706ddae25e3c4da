"""A job is configuration alone, and starts one command at a site."""

import json
import sys

import numpy as np
import pytest
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.federated.controller import weighted_mean
from monai_sr_bundle.federated.executor import TrainExecutor
from monai_sr_bundle.federated.job import EXECUTOR, SERVER_CLASSES, SITE_CLASSES, write_job

from tests.federated.conftest import TASK, study


def classes(content):
    """All class paths in a configuration."""
    if isinstance(content, dict):
        return (
            {content["path"]} if isinstance(content.get("path"), str) else set().union(*map(classes, content.values()))
        )
    return set().union(*map(classes, content)) if isinstance(content, list) else set()


def test_a_job_holds_no_code(tmp_path):
    job = write_job(study(), tmp_path)
    files = sorted(path.relative_to(job).as_posix() for path in job.rglob("*") if path.is_file())
    assert files == ["app/config/config_fed_client.json", "app/config/config_fed_server.json", "meta.json"]
    for name, allowed in (("client", SITE_CLASSES), ("server", SERVER_CLASSES)):
        content = json.loads((job / "app" / "config" / f"config_fed_{name}.json").read_text())
        assert classes(content) <= set(allowed)


def test_a_job_is_not_written_over_another(tmp_path):
    write_job(study(), tmp_path)
    with pytest.raises(OutputError, match="exists"):
        write_job(study(), tmp_path)


def test_the_executor_takes_what_the_job_states(tmp_path):
    task = study(learning_rate=0.001, box_weight=1.0).task
    job = write_job(study(learning_rate=0.001, box_weight=1.0), tmp_path)
    client = json.loads((job / "app" / "config" / "config_fed_client.json").read_text())
    executor = client["executors"][0]["executor"]
    assert executor["path"] == EXECUTOR
    assert TrainExecutor(**executor["args"]).training_task == task


def test_the_executor_starts_our_trainer_and_nothing_else():
    executor = TrainExecutor(**TASK, bundle_sha256="0" * 64)
    assert executor._command[:5] == [sys.executable, "-P", "-u", "-m", "monai_sr_bundle.federated.client"]
    with pytest.raises(TypeError, match="command"):
        TrainExecutor(**TASK, bundle_sha256="0" * 64, command=["id"])
    with pytest.raises(InputError, match="rounds is 1000"):
        TrainExecutor(**{**TASK, "rounds": 1000}, bundle_sha256="0" * 64)


def test_the_mean_weighs_and_keeps_the_precision():
    first, second = {"a": np.float32([1, 2]), "b": np.float32([5])}, {"a": np.float32([4, 8])}
    mean = weighted_mean([first, second], [1, 2])
    np.testing.assert_allclose(mean["a"], [3, 6])
    np.testing.assert_allclose(mean["b"], [5])
    assert mean["a"].dtype == np.float32
