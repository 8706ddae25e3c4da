"""A federation for real: a server and three hospitals in processes of their own, with mTLS, on this machine."""

import dataclasses
import json
import shutil
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.calibrate.calibrate import measure_losses
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.calibration import calibrate_sites
from monai_sr_bundle.federated.image_statistics import INTENSITY, SHARPNESS
from monai_sr_bundle.federated.job import write_job
from monai_sr_bundle.federated.join import check_connection, install_kit, is_running, stop
from monai_sr_bundle.federated.leave import leave, revoke
from monai_sr_bundle.federated.messages import GLOBAL_MODEL
from monai_sr_bundle.federated.site_calibration import calibrate_federation
from monai_sr_bundle.federated.site_policy import install_policy
from monai_sr_bundle.federated.site_settings import SETTINGS_FILE, read_site_settings, write_site_settings
from monai_sr_bundle.federated.site_statistics import collect_statistics
from monai_sr_bundle.federated.startup_kits import provision
from monai_sr_bundle.federated.study import parse_study
from monai_sr_bundle.federated.submit import StudyEnded, describe_rounds, fetch_end, open_session, run_study
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.training.weights import read_weights
from monai_sr_bundle.uncertainty.calibration import read_calibration
from nvflare.lighter.utils import (
    Identity,
    generate_cert,
    generate_keys,
    load_private_key_file,
    serialize_cert,
    serialize_pri_key,
)

from tests.drawn_data import write_radiographs
from tests.with_error_bars import write_windows

pytestmark = pytest.mark.slow

STUDY = {
    "bundle": "chest_xray_srcnn_x4", "rounds": 2, "iterations": 2, "batch_size": 4, "patch_size": 8,
    "minimum_sites": 3, "round_seconds": 300, "grace_seconds": 300,
}  # fmt: skip


def study(**changes):
    return parse_study("test_study", STUDY | changes, "test")


@pytest.fixture(scope="module")
def session(federation):
    with open_session(federation.admin) as session:
        yield session


def submit(session, folder, out):
    """Submit the folder of a job and return how it ended."""
    job = session.submit_job(str(folder))
    _, meta = session.monitor_job_and_return_job_meta(job, poll_interval=0.5)
    return fetch_end(session, job, dict(meta), out)


def change_job(folder, name, change):
    path = folder / "app" / "config" / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


def weights(path):
    return {key: value.numpy() for key, value in read_weights(path).items()}


def test_the_global_model_is_the_weighted_mean_of_the_differences(federation, session, tmp_path):
    """Two short jobs. What each site sent is found again by its own training, from the same weights and seed."""
    from monai_sr_bundle.federated.site_training import SiteTraining

    lines = []
    end = run_study(session, study(), tmp_path / "out", rounds_a_job=1, report=lines.append)
    assert [record["answered"] for record in end.rounds if "missing" in record] == [3, 3]
    assert "2 of 2 rounds of the study" in lines[-1]
    assert "3/3" in describe_rounds(end.rounds)
    assert json.loads((tmp_path / "out" / "rounds.json").read_text()) == end.rounds

    (first, second) = json.loads((tmp_path / "out" / "jobs.json").read_text())
    begun = {}
    for name, job in (("start", first), ("middle", second)):
        location = Path(session.download_job_result(job["job"], str(tmp_path / name)))
        begun[name] = weights(next(location.rglob("start.pt")))
    differences, images = [], []
    for site in federation.sites:
        settings = read_site_settings(federation.site(site) / "local" / SETTINGS_FILE)
        task = study().task
        training = SiteTraining(task, task.require_bundle(), settings, site, tmp_path / "again" / site)
        training.load(begun["start"])
        result = training.run_round(0)
        differences.append({key: value.numpy().astype(np.float64) for key, value in result.difference.items()})
        images.append(result.images)
    assert images == [12, 13, 14]
    moved = 0.0
    for key, value in begun["start"].items():
        mean = sum(count * each[key] for count, each in zip(images, differences, strict=True)) / sum(images)
        np.testing.assert_allclose(begun["middle"][key], value + mean, rtol=0, atol=1e-6)
        moved = max(moved, float(np.abs(mean).max()))
    assert moved > 1e-5
    assert any(not np.array_equal(begun["middle"][key], value) for key, value in weights(end.model).items())


def test_statistics_of_all_hospitals(session, tmp_path):
    statistics = collect_statistics(
        session, "chest_xray_srcnn_x4", tmp_path / "statistics.json", report=lambda line: None
    )
    counts = {site: value["train"] for site, value in statistics[SHARPNESS]["count"].items()}
    assert counts == {"hospital-1": 12, "hospital-2": 13, "hospital-3": 14, "Global": 39}
    # Of all images together it is no smaller than that of the most uniform hospital, but for the divisor.
    deviations = {site: value["train"] for site, value in statistics[SHARPNESS]["stddev"].items()}
    assert deviations.pop("Global") > 0.9 * min(deviations.values()) > 0
    histogram = statistics[INTENSITY]["histogram"]["Global"]["train"]
    assert len(histogram) == 20
    assert sum(count for _, _, count in histogram) == statistics[INTENSITY]["count"]["Global"]["train"]
    assert json.loads((tmp_path / "statistics.json").read_text()) == statistics


@contextmanager
def other_images(federation, folders):
    """Let hospitals have other images for a while."""
    files = {site: federation.site(site) / "local" / SETTINGS_FILE for site in folders}
    usual = {site: read_site_settings(file) for site, file in files.items()}
    try:
        for site, file in files.items():
            write_site_settings(dataclasses.replace(usual[site], data=folders[site]), file)
        yield
    finally:
        for site, file in files.items():
            write_site_settings(usual[site], file)


def test_a_hospital_of_few_images_sends_no_statistics_and_the_others_do(federation, session, tmp_path):
    few = write_radiographs(tmp_path / "few", size=96, counts=(("train", 9), ("val", 2)))
    lines = []
    with other_images(federation, {"hospital-1": few}):
        statistics = collect_statistics(session, STUDY["bundle"], tmp_path / "statistics.json", report=lines.append)
    assert lines[-1] == "hospital-1 has fewer than 10 training images or 5 patients, and sent no statistics"
    counts = {site: value["train"] for site, value in statistics[SHARPNESS]["count"].items()}
    assert counts == {"hospital-2": 13, "hospital-3": 14, "Global": 27}


def test_error_bars_are_calibrated_for_the_patients_of_all_hospitals(federation, session, tmp_path):
    folders = {
        site: write_windows(tmp_path / site, "own", {"val": 17 + number}, seed=number)
        for number, site in enumerate(federation.sites)
    }
    with other_images(federation, folders):
        table = calibrate_federation(
            session, STUDY["bundle"], tmp_path / "out",
            sites=3, split="val", alpha=0.1, limit=None, report=lambda line: None,
        )  # fmt: skip
    bundle = find_bundle(STUDY["bundle"])
    curves = {site: measure_losses(bundle, folder) for site, folder in folders.items()}
    in_one_place = calibrate_sites(bundle, curves, 0.1)
    assert read_calibration(tmp_path / "out" / "calibration.json", bundle).entries == in_one_place.entries
    assert "54 images of 54 patients at 3 sites" in table
    for site in federation.sites:
        assert site in table


def test_a_job_with_code_is_refused(session, tmp_path):
    folder = write_job(study(), tmp_path)
    witness = tmp_path / "witness"
    (folder / "app" / "custom").mkdir()
    (folder / "app" / "custom" / "evil.py").write_text(f"open({str(witness)!r}, 'w')")
    end = submit(session, folder, tmp_path / "result")
    assert end.status == "FINISHED:FAILED_TO_RUN"
    assert "BYOC not permitted" in end.explanation
    assert not witness.exists()


def test_a_job_with_a_command_is_refused(session, tmp_path):
    witness = tmp_path / "witness"

    def run_a_command(content):
        content["executors"][0]["executor"] = {
            "path": "nvflare.app_common.executors.client_api_executor.ClientAPIExecutor",
            "args": {"execution_mode": "external_process", "command": ["/bin/sh", "-c", f"id > {witness}"]},
        }

    folder = change_job(write_job(study(), tmp_path), "config_fed_client.json", run_a_command)
    end = submit(session, folder, tmp_path / "result")
    assert end.status != "FINISHED:COMPLETED"
    assert end.rounds_done == 0
    assert not witness.exists()


def test_a_bundle_with_another_hash_is_not_trained(federation, session, tmp_path):
    folder = change_job(
        write_job(study(), tmp_path),
        "config_fed_client.json",
        lambda content: content["executors"][0]["executor"]["args"].update(bundle_sha256="0" * 64),
    )
    end = submit(session, folder, tmp_path / "result")
    assert end.rounds_done == 0
    log = (federation.site("hospital-1") / end.job / "log.txt").read_text()
    assert "Install the version of monai-sr-bundle that the coordinator has" in log


def test_the_coordinator_cannot_read_files_of_a_site(session):
    for command in ("cat hospital-1 local/resources.json", "ls hospital-1", "cat server local/resources.json"):
        answer = str(session.do_command(command))
        assert "class_allow_list" not in answer
        assert "resources.json" not in answer.replace(command, "")


@pytest.mark.parametrize("kind", ["foreign", "expired"])
def test_the_server_refuses_a_certificate_that_join_would_refuse(federation, tmp_path, kind):
    """`join` is passed by: the kit is signed again and its connection tried, as an attacker would."""
    kit = tmp_path / "hospital-1"
    if kind == "foreign":
        other = provision(federation.root / "project.yaml", tmp_path / "other")
        shutil.copytree(other.folder / "hospital-1", kit)
        shutil.copy(federation.site("hospital-1") / "startup" / "rootCA.pem", kit / "startup" / "rootCA.pem")
    else:
        shutil.copytree(federation.site("hospital-1") / "startup", kit / "startup")
        state = json.loads((federation.kits.folder.parent / "state" / "cert.json").read_text())
        (tmp_path / "root.key").write_text(state["root_pri_key"])
        key, public = generate_keys()
        ended = datetime.now(UTC) - timedelta(minutes=5)
        certificate = generate_cert(
            *(Identity("hospital-1", "hospital_1"), Identity("test_federation")),
            *(load_private_key_file(tmp_path / "root.key"), public),
            not_valid_before=ended - timedelta(days=1),
            not_valid_after=ended,
        )
        (kit / "startup" / "client.crt").write_bytes(serialize_cert(certificate))
        (kit / "startup" / "client.key").write_bytes(serialize_pri_key(key))
    with pytest.raises(InputError, match="does not accept this kit's certificate"):
        check_connection(kit)


def test_a_hospital_leaves(federation, session, tmp_path):
    """Last of all: the federation has two hospitals afterwards."""
    kit = federation.site("hospital-3")
    remains = revoke(session, "hospital-3")
    assert "refuses hospital-3 from now on" in remains[0]
    new_kit = install_kit(federation.kits.folder / "hospital-3.zip", tmp_path, federation.kits.fingerprint)
    install_policy(new_kit / "local", "site", bundle=STUDY["bundle"])
    notes = leave(kit)
    assert not kit.exists()
    assert (kit.parent / "hospital-3_audit.log").read_text()
    assert "cannot be taken out" in " ".join(notes)
    assert (federation.root / "data" / "hospital-3" / "drawn" / "manifest.csv").is_file()
    from monai_sr_bundle.federated.join import start

    with pytest.raises(InputError, match="was not registered at the server"):
        start(new_kit, seconds=20)
    assert not is_running(new_kit)
    stop(new_kit)
    with pytest.raises(
        StudyEnded, match=r"2 hospitals are connected \(hospital-1, hospital-2\), but the study needs 3"
    ):
        run_study(session, study(), tmp_path / "out", report=lambda line: None)
    assert not (tmp_path / "out" / GLOBAL_MODEL).exists()
