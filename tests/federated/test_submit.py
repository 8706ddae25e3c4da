"""Refusals of `monai-sr federated submit` and `leave --revoke`, and the words on jobs that have ended."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.leave import revoke
from monai_sr_bundle.federated.messages import GLOBAL_MODEL
from monai_sr_bundle.federated.start_weights import START_FILE
from monai_sr_bundle.federated.submit import StudyEnded, describe_rounds, fetch_end, run_study, run_to_result
from nvflare.fuel.flare_api.api_spec import AuthorizationError, InvalidJobDefinition, MonitorReturnCode, NoReply

from tests.federated.conftest import study

COMPLETED, ABNORMAL = {"status": "FINISHED:COMPLETED"}, {"status": "FINISHED:ABNORMAL"}


class Server:
    """A session with a server whose job has left a record, and at which sites are connected."""

    def __init__(self, folder, rounds, connected=()):
        self.folder, self.connected = folder, connected
        folder.mkdir()
        (folder / "rounds.json").write_text(json.dumps(rounds))

    def download_job_result(self, job, result):
        return str(self.folder)

    def get_system_info(self):
        clients = [SimpleNamespace(name=name) for name in self.connected]
        return SimpleNamespace(client_info=clients, server_info=SimpleNamespace(start_time=0))


def trained(number, sites, missing=()):
    count = len(sites)
    answers = {site: {"metrics": {"val_psnr": 30.0}} for site in sites}
    site_count = count + len(missing)
    return {
        "round": number,
        "asked": site_count,
        "answered": count,
        "missing": [*missing],
        "seconds": 1.0,
        "sites": answers,
    }


def measured(number, sites):
    return {"round": number, "answered": len(sites), "sites": {site: {"metrics": {}} for site in sites}}


def test_a_study_that_has_all_its_rounds_does_not_go_on(tmp_path):
    done = tmp_path / "done"
    done.mkdir()
    (done / GLOBAL_MODEL).write_bytes(b"weights")
    rounds = [{"round": number, "sites": {}, "answered": 3, "missing": []} for number in range(2)]
    (done / "rounds.json").write_text(json.dumps([*rounds, {"round": 2, "sites": {}, "answered": 3}]))
    with pytest.raises(InputError, match="has all 2 rounds of the study already; its model is .*FL_global_model.pt"):
        run_study(None, study(rounds=2), tmp_path / "out", continued=done)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "words"), [('[{"round": 0', "cannot be read "), ("[1]", "is no list of records")])
def test_a_damaged_record_is_named(tmp_path, text, words):
    (tmp_path / GLOBAL_MODEL).write_bytes(b"weights")
    (tmp_path / "rounds.json").write_text(text)
    with pytest.raises(InputError, match=rf"rounds.json {words}.* Name the folder of an earlier job"):
        run_study(None, study(rounds=2), tmp_path / "out", continued=tmp_path)


class LostServer(Server):
    """One that fails when it gets a job, or right after it has taken it."""

    def __init__(self, folder, error, job):
        super().__init__(folder, [], [f"hospital-{number}" for number in range(9)])
        self.error, self.job, self.has_job = error, job, False

    def submit_job(self, job):
        if self.job is None:
            raise self.error
        self.has_job = True
        return self.job

    def get_system_info(self):
        if self.has_job:
            raise self.error
        return super().get_system_info()


@pytest.mark.parametrize(
    ("error", "job", "kind", "message"),
    [
        (
            NoReply("no reply"),
            None,
            StudyEnded,
            r"does not answer \(NoReply: no reply\). .* go on with --continue .*out",
        ),
        (
            NoReply("no reply"),
            "job-7",
            StudyEnded,
            "lost while it ran job job-7. .* job-7/app_server in the server's kit",
        ),
        (InvalidJobDefinition("no app"), None, InputError, "the server refuses: no app"),
    ],
)
def test_a_server_that_is_lost_is_no_traceback(tmp_path, error, job, kind, message):
    continued = tmp_path / "app_server"
    continued.mkdir()
    (continued / GLOBAL_MODEL).write_bytes(b"weights")
    (continued / "rounds.json").write_text(json.dumps([trained(0, ["a"])]))
    with pytest.raises(kind, match=message):
        run_study(LostServer(tmp_path / "server", error, job), study(rounds=2), tmp_path / "out", continued=continued)


class Jobs(Server):
    """A server that runs every job at sites `a` and `b`, and keeps what each begins with."""

    def __init__(self, folder):
        super().__init__(folder, [], ["a", "b"])
        self.jobs = []

    def submit_job(self, job):
        text = next(Path(job).glob("*/config/config_fed_server.json")).read_text()
        self.jobs.append(json.loads(text)["workflows"][0]["args"])
        return f"job-{len(self.jobs)}"

    def monitor_job_and_return_job_meta(self, job, **_options):
        return MonitorReturnCode.JOB_FINISHED, COMPLETED

    def download_job_result(self, job, result):
        first, count = self.jobs[-1]["start_round"], self.jobs[-1]["num_rounds"]
        rounds = [trained(number, ["a", "b"]) for number in range(first, first + count)]
        return str(leave_job(Path(result), [*rounds, measured(first + count, ["a", "b"])], f"start of {first}"))


def leave_job(folder, rounds, start):
    """Write what a job leaves: its model, the record of its own rounds, and what it began with."""
    folder.mkdir()
    (folder / GLOBAL_MODEL).write_bytes(b"weights")
    (folder / "rounds.json").write_text(json.dumps(rounds))
    (folder / START_FILE).write_text(start)
    return folder


def test_a_study_goes_on_after_its_server_was_lost_in_a_later_job(tmp_path):
    out = tmp_path / "out"
    run_study(Jobs(tmp_path / "before"), study(rounds=3), out, rounds_a_job=3)
    lost = leave_job(tmp_path / "lost", [trained(3, ["a"], ["b"]), trained(4, ["a"])], "start of 3")
    server = Jobs(tmp_path / "server")
    end = run_study(server, study(rounds=8), out, continued=lost)
    assert [(job["start_round"], job["num_rounds"]) for job in server.jobs] == [(5, 3)]
    assert [record["round"] for record in end.rounds] == [*range(8), 8]
    assert json.loads((out / "rounds.json").read_text()) == end.rounds
    assert end.rounds[4]["absent"] == {"b": "not asked again"}
    assert [job["job"] for job in json.loads((out / "jobs.json").read_text())] == ["job-1", "job-1"]
    assert (out / START_FILE).read_text() == "start of 0"  # of the study, whatever its jobs began with


def test_a_study_does_not_go_on_without_the_record_of_its_first_rounds(tmp_path):
    lost = leave_job(tmp_path / "lost", [trained(3, ["a"])], "")
    with pytest.raises(InputError, match=r"begins with round 3, and .*other has no record of the 3 rounds before it"):
        run_study(None, study(rounds=8), tmp_path / "other", continued=lost)
    assert not (tmp_path / "other").exists()


def test_a_hospital_of_an_earlier_job_that_is_not_connected_is_named(tmp_path):
    server = Server(tmp_path / "job", [trained(3, ["a"]), measured(4, ["a"])])
    end = fetch_end(server, "job", COMPLETED, tmp_path, {"a", "b"})
    assert end.explanation == "done with losses: b did not answer in every round"
    line = describe_rounds(end.rounds).splitlines()[1]
    assert line.split() == ["3", "1/2", "1.0", "30.000", "b", "(not", "connected)"]


def test_a_hospital_that_is_not_asked_again_stays_in_the_table(tmp_path):
    rounds = [trained(0, ["a"], ["b"]), trained(1, ["a"], ["b"]), trained(2, ["a"]), measured(3, ["a"])]
    end = fetch_end(Server(tmp_path / "job", rounds), "job", COMPLETED, tmp_path)
    lines = describe_rounds(end.rounds).splitlines()
    assert lines[2].endswith(" b")
    assert "1/2" in lines[3]
    assert lines[3].endswith("b (not asked again)")


@pytest.mark.parametrize(
    ("measuring", "connected", "explanation"),
    [
        (["a"], ["a", "b"], "done with losses: b did not measure the last model"),
        (["a", "b"], ["a"], "done with losses: b was lost after the last answer"),
        (["a", "b"], ["a", "b"], "a site was lost after its last answer; NVFlare does not say which"),
    ],
)
def test_a_hospital_that_is_lost_at_the_end_of_a_job_is_named(tmp_path, measuring, connected, explanation):
    server = Server(tmp_path / "job", [trained(0, ["a", "b"]), measured(1, measuring)], connected)
    assert fetch_end(server, "job", ABNORMAL, tmp_path).explanation == explanation


def test_a_job_without_losses_is_completed(tmp_path):
    end = fetch_end(Server(tmp_path / "job", [trained(0, ["a"]), measured(1, ["a"])]), "job", COMPLETED, tmp_path)
    assert (end.explanation, "absent" in end.rounds[0]) == ("completed", False)


def test_a_server_that_is_lost_before_a_result_is_fetched_is_no_traceback(tmp_path):
    def lose(*_args):
        raise NoReply("no reply")

    server = Jobs(tmp_path / "job")
    server.submit_job, server.download_job_result = lambda folder: "17", lose
    with pytest.raises(StudyEnded, match=r"the server does not answer \(NoReply: no reply\)\. Run this again"):
        run_to_result(server, tmp_path, tmp_path / "result", print)


def test_an_interrupted_submit_says_that_its_job_goes_on(tmp_path):
    def interrupt(*_args, **_keys):
        raise KeyboardInterrupt

    server = Server(tmp_path / "job", [])
    server.submit_job, server.monitor_job_and_return_job_meta = lambda folder: "17", interrupt
    lines = []
    with pytest.raises(KeyboardInterrupt):
        run_to_result(server, tmp_path, tmp_path / "result", lines.append)
    assert "job 17 goes on at the server. `nvflare job abort 17" in lines[-1]


def test_a_hospital_that_is_revoked_by_a_name_that_nobody_has_is_remarked(tmp_path):
    server = Server(tmp_path / "job", [], ["hospital-1", "hospital-2"])
    server.disable_client = lambda site: None
    assert revoke(server, "hospital-2")[0].startswith("The server refuses hospital-2 from now on")
    remark, done, _ = revoke(server, "hospitl-1")
    assert remark.startswith("No hospital hospitl-1 was connected, but hospital-1, hospital-2. A wrong name")
    assert done.startswith("The server refuses hospitl-1 from now on")


def test_a_server_that_does_not_revoke_says_so_in_a_sentence(tmp_path):
    def refuse(site):
        raise AuthorizationError("user not authorized")

    server = Server(tmp_path / "job", [])
    server.disable_client = refuse
    with pytest.raises(InputError, match="the server refuses: user not authorized"):
        revoke(server, "hospital-1")
