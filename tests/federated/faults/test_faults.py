"""Faults of a federation and their outcomes. Each takes minutes: `make test-federated-faults` runs them."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.federated.join import is_running, start
from monai_sr_bundle.federated.messages import GLOBAL_MODEL, ROUNDS_FILE
from monai_sr_bundle.federated.study import parse_study
from monai_sr_bundle.federated.submit import StudyEnded, describe_rounds, open_session, run_study
from monai_sr_bundle.training.weights import read_weights

from tests.federated.federation import kill, processes_of, wait_for

STUDY = {
    "bundle": "chest_xray_srcnn_x4", "rounds": 4, "iterations": 60, "batch_size": 4, "patch_size": 8,
    "minimum_sites": 2, "round_seconds": 300, "grace_seconds": 20,
}  # fmt: skip
TRAINER = "monai_sr_bundle.federated.client"


class RunningStudy(threading.Thread):
    """A study that a coordinator has submitted and waits for."""

    def __init__(self, federation, out, **changes):
        super().__init__(daemon=True)
        self.federation, self.out = federation, out
        self.options = {key: changes.pop(key) for key in ("continued", "rounds_a_job") if key in changes}
        self.study = parse_study("faults", STUDY | changes, "test")
        self.end, self.error, self.job, self.lines = None, None, None, []
        self.start()

    def run(self):
        try:
            with open_session(self.federation.admin) as session:
                self.end = run_study(session, self.study, self.out, report=self.report, **self.options)
        except StudyEnded as error:
            self.error = error

    def report(self, line):
        self.job = self.job or line.split()[1]
        self.lines.append(line)

    @property
    def folder(self):
        """The folder in which the server keeps the global model while the job runs."""
        return self.federation.server / str(self.job) / "app_server"

    def wait_for_round(self, count=1):
        def has_rounds():
            record = self.folder / ROUNDS_FILE
            return (
                self.job and record.is_file() and (self.folder / GLOBAL_MODEL).is_file() and len(read(record)) >= count
            )

        wait_for(has_rounds, 240, f"round {count}")

    def result(self):
        self.join(500)
        assert not self.is_alive(), "the study hangs"
        return self.end


def read(path):
    try:
        return json.loads(path.read_text())
    except ValueError:  # it is being written
        return []


def trainers(federation, site):
    return processes_of(federation.site(site), TRAINER)


def rounds_of(end):
    return [record for record in end.rounds if "missing" in record]


@pytest.fixture(autouse=True)
def whole(federation):
    """Every test begins with all of them running and registered."""
    if not is_running(federation.server):
        start(federation.server)
    federation.start_sites(tuple(site for site in federation.sites if not is_running(federation.site(site))))
    with open_session(federation.admin) as session:
        wait_for(lambda: len(session.get_system_info().client_info) == 3, 120, "three sites registered")


def test_a_trainer_that_is_killed_costs_its_site_the_job(federation, tmp_path):
    study = RunningStudy(federation, tmp_path / "out")
    study.wait_for_round()
    kill(trainers(federation, "hospital-3"))
    end = study.result()
    assert study.error is None
    assert end.explanation.startswith("done with losses: hospital-3")
    assert len(rounds_of(end)) == 4
    assert all(set(record["missing"]) <= {"hospital-3"} for record in rounds_of(end))
    read_weights(end.model)


def test_a_site_that_dies_costs_nothing_but_its_images_and_comes_back_for_the_next_job(federation, tmp_path):
    study = RunningStudy(federation, tmp_path / "out")
    study.wait_for_round()
    kill(processes_of(federation.site("hospital-3")))
    end = study.result()
    assert study.error is None
    assert end.explanation.startswith("done with losses: hospital-3")
    assert len(rounds_of(end)) == 4
    start(federation.site("hospital-3"))
    rerun = RunningStudy(federation, tmp_path / "again", rounds=1).result()
    assert rounds_of(rerun)[0]["answered"] == 3


def test_a_site_that_dies_in_one_job_is_named_in_the_next(federation, tmp_path):
    study = RunningStudy(federation, tmp_path / "out", rounds=3, rounds_a_job=2)
    study.wait_for_round()
    kill(processes_of(federation.site("hospital-2")))
    end = study.result()
    assert study.error is None
    ends = [line.partition(": ")[2] for line in study.lines if "rounds of the study" in line]
    assert len(ends) == 2
    assert all(line.startswith("done with losses: hospital-2") for line in ends)
    last = describe_rounds(end.rounds).splitlines()[3]
    assert "2/3" in last
    assert "hospital-2" in last


def test_a_server_that_dies_costs_one_round_at_most(federation, tmp_path):
    study = RunningStudy(federation, tmp_path / "out")
    study.wait_for_round(2)
    kill(processes_of(federation.server))
    saved_rounds = read(study.folder / ROUNDS_FILE)
    assert study.result() is None
    assert "the server was lost" in str(study.error)
    start(federation.server)
    with open_session(federation.admin) as session:
        wait_for(lambda: len(session.get_system_info().client_info) == 3, 240, "three sites registered again")
    end = RunningStudy(federation, tmp_path / "again", continued=study.folder).result()
    assert [record["round"] for record in rounds_of(end)] == [0, 1, 2, 3]
    assert len(saved_rounds) >= 2  # all rounds that had ended; what was lost is the one that ran
    assert rounds_of(end)[: len(saved_rounds)] == saved_rounds
    assert all(record["answered"] == 3 for record in rounds_of(end))


def test_a_site_past_the_deadline_is_left_out_and_asked_again(federation, tmp_path):
    study = RunningStudy(federation, tmp_path / "out", rounds=6, grace_seconds=3)
    study.wait_for_round()
    stopped = trainers(federation, "hospital-3")
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    wait_for(lambda: any(r.get("missing") for r in read(study.folder / ROUNDS_FILE)), 120, "a round without it")
    for process in stopped:
        process.send_signal(signal.SIGCONT)
    end = study.result()
    assert study.error is None
    missed = [record["round"] for record in rounds_of(end) if record["missing"]]
    assert len(rounds_of(end)) == 6
    assert missed
    assert len(missed) <= 3


def test_broken_data_costs_its_site_the_job_and_below_the_minimum_ends_it(federation, tmp_path):
    images = federation.root / "data" / "hospital-2" / "drawn" / "images"
    whole = (images / "train0.png").read_bytes()
    (images / "train0.png").write_bytes(whole[: len(whole) // 2])
    try:
        study = RunningStudy(federation, tmp_path / "three", rounds=1, minimum_sites=3)
        assert study.result() is None
        assert "ended after 0 of 1 rounds" in str(study.error)
        assert not (tmp_path / "three" / GLOBAL_MODEL).exists()
        end = RunningStudy(federation, tmp_path / "two", rounds=1).result()
        assert end.explanation.startswith("done with losses: hospital-2")
    finally:
        (images / "train0.png").write_bytes(whole)
    log = (federation.site("hospital-2") / end.job / "log.txt").read_text()
    assert "train0.png" in log  # at the hospital, which may know it
    reports = json.dumps(end.rounds) + end.explanation
    assert "train0" not in reports


def test_a_full_disk_at_the_server_ends_the_job_and_keeps_the_last_model(federation, tmp_path):
    if not federation.small_disk:
        pytest.skip("full disk: no file system can be mounted here")
    study = RunningStudy(federation, tmp_path / "out", rounds=50)
    study.wait_for_round()
    fill = federation.server / "fill"
    with contextlib.suppress(OSError), fill.open("wb", buffering=0) as file:  # until no space is left
        while True:
            file.write(bytes(4096))
    try:
        assert study.result() is None
    finally:
        fill.unlink()
    assert "of 50 rounds" in str(study.error) or "was lost" in str(study.error)
    assert f"nvflare job download {study.job}" in str(study.error)
    # The server has room again, archives the job and removes its folder: it is fetched as the message says.
    wait_for(lambda: not study.folder.is_dir(), 120, "the archived job")
    with open_session(federation.admin) as session:
        result = session.download_job_result(study.job, str(tmp_path / "fetched"))
    (model,) = Path(result).rglob(GLOBAL_MODEL)
    folder = model.parent
    rounds = len(read(folder / ROUNDS_FILE))
    assert rounds >= 1
    end = RunningStudy(federation, tmp_path / "again", rounds=rounds + 1, continued=folder).result()
    assert rounds_of(end)[-1]["answered"] == 3


def test_a_full_disk_at_a_site_costs_its_site_the_job(federation, tmp_path):
    work = federation.site("hospital-3") / "work"
    work.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=1", "tmpfs", str(work)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"full disk: no file system can be mounted here ({mounted.stderr.decode().strip()})")
    try:
        end = RunningStudy(federation, tmp_path / "out", rounds=1).result()
        assert end.explanation.startswith("done with losses: hospital-3")
    finally:
        subprocess.run(["umount", "-l", str(work)], check=False)
    assert "No space left" in (federation.site("hospital-3") / end.job / "log.txt").read_text()
    assert os.path.isdir(work)
