"""Run a study on a provisioned federation: short jobs, each from the global model that the one before left.

A job that has begun takes in no site that was away at its start, and NVFlare resumes no job after its server has died.
Short jobs make both cheap: a site that comes back takes part in the next one, and a study goes on from the last model.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_sr_bundle.errors import InputError, OutputError, SuperResolutionError
from monai_sr_bundle.federated.job import write_job
from monai_sr_bundle.federated.messages import GLOBAL_MODEL, ROUNDS_FILE
from monai_sr_bundle.federated.start_weights import START_FILE
from monai_sr_bundle.federated.study import Study
from monai_sr_bundle.images.staging import staged, write_file
from nvflare.apis.job_def import JobMetaKey, RunStatus
from nvflare.fuel.flare_api.api_spec import (
    AuthenticationError,
    AuthorizationError,
    InternalError,
    InvalidJobDefinition,
    MonitorReturnCode,
    NoConnection,
    NoReply,
    SessionClosed,
)
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

JOBS_FILE = "jobs.json"
"""File in the folder of a study with the end of each of its jobs."""
ABSENT = "absent"
"""Key of a round's record: the sites of the study that it did not ask, each with the reason."""
POLL_SECONDS = 2.0
"""Time between two questions to the server, each a line of its audit log."""
_ENDINGS: dict[str, str] = {
    RunStatus.FINISHED_COMPLETED: "completed",
    RunStatus.FINISHED_ABNORMAL: "a site was lost after its last answer; NVFlare does not say which",
    RunStatus.FINISHED_ABORTED: "somebody aborted it",
    RunStatus.FINISHED_EXECUTION_EXCEPTION: "an error ended it at the server, or the process of a site died",
    RunStatus.FINISHED_CANT_SCHEDULE: "too few sites were connected for too long",
    RunStatus.FAILED_TO_RUN: "a site or the server refused it",
    RunStatus.ABANDONED: "the server gave it up",
}
_LOST = (AuthenticationError, ConnectionError, InternalError, NoReply, RuntimeError, SessionClosed)
"""Exceptions of NVFlare's session when its server is gone."""


_AGAIN = "Run this again when it is up."
_SERVER_LOST = (
    "When it is up again, run this again with --continue and the folder {job}/app_server in the server's kit: it has "
    "the model of the last round."
)
_ARCHIVED = (
    " A server that still runs archives the job as soon as it has room, and removes that folder: then fetch it with "
    "`nvflare job download {job} --startup-kit KIT`, and go on with --continue and the folder app_server in it."
)
_WITHOUT_MODEL = (
    "There is no model here. If the server's kit has {job}/app_server/FL_global_model.pt, go on with --continue and "
    "that folder." + _ARCHIVED
)


class StudyEnded(SuperResolutionError):
    """A study ended before its last round; what it has is kept."""


@dataclass(frozen=True)
class JobEnd:
    """The end of a job: its status, its rounds and its model.

    Attributes:
        job: NVFlare's identifier.
        status: NVFlare's word for it.
        explanation: the same in words, with what the sites said.
        rounds: record of each round, as the controller wrote it.
        model: the global model; None if there is none.
    """

    job: str
    status: str
    explanation: str
    rounds: list[dict[str, Any]]
    model: Path | None

    @property
    def rounds_done(self) -> int:
        """Rounds whose answers are in the global model."""
        return sum("missing" in record for record in self.rounds)


@contextmanager
def open_session(admin_kit: Path) -> Iterator[Session]:
    """Log in at the server with a coordinator's kit.

    Raises:
        InputError: no such kit, or no connection.
    """
    settings = admin_kit / "startup" / "fed_admin.json"
    try:
        user = json.loads(settings.read_text(encoding="utf-8"))["admin"]["username"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{admin_kit} is no coordinator's kit: {settings.name} cannot be read ({error}).") from error
    try:
        session = new_secure_session(user, str(admin_kit), timeout=15)
    except (NoConnection, AuthenticationError, AuthorizationError) as error:
        raise InputError(
            f"the server does not answer, or does not accept {user}. Is it running, and is the kit still valid?"
        ) from error
    try:
        yield session
    finally:
        session.close()


@contextmanager
def explain_loss(advice: str = _AGAIN) -> Iterator[None]:
    """Say what to do where NVFlare's session fails in the `with` block.

    Raises:
        StudyEnded: the server is gone.
        InputError: it refuses what it was asked for.
    """
    try:
        yield
    except _LOST as error:
        raise StudyEnded(f"the server does not answer ({type(error).__name__}: {error}). {advice}") from error
    except (AuthorizationError, InvalidJobDefinition) as error:
        raise InputError(f"the server refuses: {error}") from error


def run_study(
    session: Session,
    study: Study,
    out: Path,
    *,
    rounds_a_job: int = 10,
    continued: Path | None = None,
    report: Callable[[str], None] = print,
) -> JobEnd:
    """Submit a study job after job, and keep the global model and the record of all rounds.

    Args:
        session: from `open_session`.
        study: the study.
        out: folder for `FL_global_model.pt`, `rounds.json` and `jobs.json`, written anew after every job, and for
            `start.pt`, the weights that the study began with.
        rounds_a_job: rounds of one job. Default 10.
        continued: folder with the model and record to go on from: `out` of an earlier call, or the folder `app_server`
            of a job that the server was running when it died; the record of the jobs before that one is in `out`.
            Default: begin.
        report: called with a line for the person who waits. Default: print.

    Returns:
        The end of the last job, with the rounds of all.

    Raises:
        StudyEnded: too few hospitals are connected; a job ended without its last round. What was reached is in `out`.
        InputError: nothing to go on from, rounds without a record, no round left, or the server refuses the job.
        OutputError: `out` holds another study.
    """
    if continued is None and (out / GLOBAL_MODEL).exists():
        raise OutputError(f"{out} holds a study. Name another folder with --out, or go on with --continue {out}.")
    model, rounds, jobs = _read_state(continued, out) if continued else (None, [], [])
    done = sum("missing" in record for record in rounds)
    if done >= study.task.rounds:
        raise InputError(f"{continued} has all {study.task.rounds} rounds of the study already; its model is {model}.")
    out.mkdir(parents=True, exist_ok=True)
    if model is not None:
        _keep(out, model, rounds, jobs)
    while done < study.task.rounds:
        go_on = f"When it is up again, go on with --continue {out}." if done else _AGAIN
        with explain_loss(go_on):
            _require_sites(session, study, out if done else None)
        with tempfile.TemporaryDirectory() as temporary:
            length = min(rounds_a_job, study.task.rounds - done)
            start = None if model is None else str(model)
            folder = write_job(study, Path(temporary), start=start, start_round=done, rounds=length)
            advice = _SERVER_LOST + (f" If it has none, go on with --continue {out}." if rounds else "") + _ARCHIVED
            with explain_loss(go_on):
                job, meta = _wait_for_job(session, folder, report, advice)
                end = fetch_end(session, job, meta, Path(temporary) / "result", sites_of(rounds))
            # What earlier jobs measured of the model that this one began with is measured again by its first round.
            rounds = [record for record in rounds if "missing" in record] + end.rounds
            jobs.append({"job": end.job, "status": end.status, "explanation": end.explanation})
            if end.model is not None and end.rounds_done:
                model = out / GLOBAL_MODEL
                _keep(out, end.model, rounds, jobs)
        done += end.rounds_done
        if end.rounds_done < length:
            raise StudyEnded(
                f"job {end.job} ended after {end.rounds_done} of {length} rounds: {end.explanation}. "
                + (f"Go on with --continue {out}." if done else _WITHOUT_MODEL.format(job=end.job))
            )
        report(f"job {end.job}: {end.explanation}; {done} of {study.task.rounds} rounds of the study")
    return JobEnd(end.job, end.status, end.explanation, rounds, out / GLOBAL_MODEL)


def _require_sites(session: Session, study: Study, out: Path | None) -> None:
    """Refuse to submit a job that NVFlare would not begin."""
    sites = connected_sites(session)
    if len(sites) < study.minimum_sites:
        raise StudyEnded(
            f"{len(sites)} hospitals are connected ({', '.join(sorted(sites)) or 'none'}), but the study needs "
            f"{study.minimum_sites}. Ask the others to run `monai-sr federated join`"
            + (f", then go on with --continue {out}." if out else ".")
        )


def connected_sites(session: Session) -> set[str]:
    """Return the names of the hospitals that are connected to the server."""
    return {client.name for client in session.get_system_info().client_info}


def _read_state(folder: Path, out: Path) -> tuple[Path, list[dict[str, Any]], list[dict[str, str]]]:
    """Return the model to go on from, the record of all rounds that are in it, and that of the jobs that have ended."""
    model, record = folder / GLOBAL_MODEL, folder / ROUNDS_FILE
    if not model.is_file() or not record.is_file():
        raise InputError(
            f"{folder} has no {GLOBAL_MODEL} and {ROUNDS_FILE} to go on from. Name the folder of an earlier job, or "
            "--out of an earlier call."
        )
    rounds = _read_records(record)
    first = next((int(each["round"]) for each in rounds if "missing" in each), 0)
    if first:  # the server knows the rounds of its job alone
        before = _read_records(out / ROUNDS_FILE) if (out / ROUNDS_FILE).is_file() else []
        before = [each for each in before if "missing" in each and each["round"] < first]
        if len(before) < first:
            raise InputError(
                f"{record} begins with round {first}, and {out} has no record of the {first} rounds before it. Pass "
                "the --out of the call that was interrupted."
            )
        note_absent(rounds, sites_of(before))
        rounds = before + rounds
    jobs = next((file for file in (folder / JOBS_FILE, out / JOBS_FILE) if file.is_file()), None)
    return model, rounds, _read_records(jobs) if jobs else []


def _read_records(path: Path) -> list[dict[str, Any]]:
    """Return the rounds or jobs of a record."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({error}). Name the folder of an earlier job.") from error
    if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
        raise InputError(f"{path} is no list of records. Name the folder of an earlier job.")
    return records


def _keep(out: Path, model: Path, rounds: list[dict[str, Any]], jobs: list[dict[str, str]]) -> None:
    with staged(out / GLOBAL_MODEL, overwrite=True) as temporary:
        shutil.copyfile(model, temporary)
    start = model.with_name(START_FILE)
    # A later job begins with the model of the one before it, and not with what the study began with.
    is_first = _read_records(model.with_name(ROUNDS_FILE))[0]["round"] == 0
    if is_first and start.is_file() and not (out / START_FILE).exists():
        shutil.copyfile(start, out / START_FILE)
    write_file(out / ROUNDS_FILE, f"{json.dumps(rounds, indent=2)}\n".encode())
    write_file(out / JOBS_FILE, f"{json.dumps(jobs, indent=2)}\n".encode())


def run_to_result(session: Session, folder: Path, result: Path, report: Callable[[str], None]) -> Path:
    """Submit a job that is no training, wait for its end and fetch its result.

    Args:
        session: from `open_session`.
        folder: the job.
        result: new folder for what it has made.
        report: called with a line for the person who waits.

    Returns:
        Folder somewhere below which the job's files are.

    Raises:
        InputError: the job ended otherwise than completed.
        StudyEnded: the server was lost.
    """
    with explain_loss():
        job, meta = _wait_for_job(session, folder, report, _AGAIN)
    status = str(meta.get(JobMetaKey.STATUS.value))
    if status != RunStatus.FINISHED_COMPLETED:
        raise InputError(
            f"job {job}: {_ENDINGS.get(status, status)}. Why is in error_log.txt: of the server in what `nvflare "
            f"job download {job} --startup-kit KIT` fetches, of each hospital in the folder {job} of its kit."
        )
    with explain_loss():
        return Path(session.download_job_result(job, str(result)))


def _wait_for_job(
    session: Session, folder: Path, report: Callable[[str], None], advice: str
) -> tuple[str, dict[str, Any]]:
    """Submit a job and wait for its end; `advice` says what to do if the server is lost meanwhile, at ``{job}``."""
    job = session.submit_job(str(folder))
    report(f"job {job} submitted")
    server_lost = StudyEnded(f"the server was lost while it ran job {job}. {advice.replace('{job}', job)}")

    def is_same_server(session: Session, job: str, meta: dict[str, Any]) -> bool:
        # A server that was restarted calls the job RUNNING for ever.
        return bool(session.get_system_info().server_info.start_time == server_start)

    try:
        server_start = session.get_system_info().server_info.start_time
        code, meta = session.monitor_job_and_return_job_meta(job, poll_interval=POLL_SECONDS, cb=is_same_server)
    except _LOST as error:
        raise server_lost from error
    except KeyboardInterrupt:  # SIGTERM as well
        report(
            f"job {job} goes on at the server. `nvflare job abort {job} --startup-kit KIT` ends it; after its end, "
            f"`nvflare job download {job} --startup-kit KIT` fetches its result"
        )
        raise
    if code != MonitorReturnCode.JOB_FINISHED:
        raise server_lost
    return job, dict(meta or {})


def fetch_end(
    session: Session, job: str, meta: dict[str, Any], result: Path, earlier_sites: Set[str] = frozenset()
) -> JobEnd:
    """Return the end of a job, with its result unpacked in a folder.

    Args:
        session: from `open_session`.
        job: NVFlare's identifier.
        meta: NVFlare's description of the job that has ended.
        result: new folder for what it has made.
        earlier_sites: sites of earlier jobs of the study; its rounds say which of them were absent. Default: none.
    """
    status = str(meta.get(JobMetaKey.STATUS.value))
    explanation = _ENDINGS.get(status, f"NVFlare says {status}")
    if status == RunStatus.FAILED_TO_RUN:
        details = [str(line) for line in meta.get(JobMetaKey.JOB_DEPLOY_DETAIL.value) or [] if "OK" not in str(line)]
        explanation += f" ({'; '.join(details)})" if details else ""
        return JobEnd(job, status, explanation, [], None)
    try:
        location = Path(session.download_job_result(job, str(result)))
    except (*_LOST, OSError) as error:  # as where the server's disk is full
        return JobEnd(job, status, f"{explanation}; its result cannot be fetched ({error})", [], None)
    folder = next((path.parent for path in sorted(location.rglob(ROUNDS_FILE))), None)
    rounds = json.loads((folder / ROUNDS_FILE).read_text(encoding="utf-8")) if folder else []
    note_absent(rounds, earlier_sites)
    if status in (RunStatus.FINISHED_COMPLETED, RunStatus.FINISHED_ABNORMAL):
        gone: set[str] = set()
        if status == RunStatus.FINISHED_ABNORMAL:
            with suppress(*_LOST):
                gone = sites_of(rounds) - connected_sites(session)
        explanation = _describe_losses(rounds, gone) or explanation
    model = folder / GLOBAL_MODEL if folder and (folder / GLOBAL_MODEL).is_file() else None
    return JobEnd(job, status, explanation, rounds, model)


def sites_of(rounds: list[dict[str, Any]]) -> set[str]:
    """Return the sites that took part in rounds, or were absent from them."""
    trained = [record for record in rounds if "missing" in record]
    return {site for record in trained for site in (*_sites_in(record), *record.get(ABSENT, ()))}


def note_absent(rounds: list[dict[str, Any]], earlier_sites: Set[str]) -> None:
    """Note in every round of a job which sites of the study were not asked, and why: the controller knows its own only.

    Args:
        rounds: record of each round, which gets the key `absent` where a site was.
        earlier_sites: sites of the earlier jobs of the study.
    """
    sites_of_job: set[str] = set()
    for record in rounds:
        if "missing" in record:
            sites_of_job |= _sites_in(record)
            absent = dict.fromkeys(sites_of_job - _sites_in(record), "not asked again")
            absent |= dict.fromkeys(earlier_sites - sites_of_job, "not connected")
            if absent:
                record[ABSENT] = dict(sorted(absent.items()))


def _sites_in(record: Mapping[str, Any]) -> set[str]:
    """Return the sites that were asked in a round."""
    return {*record["sites"], *record["missing"]}


def _describe_losses(rounds: list[dict[str, Any]], gone: Set[str]) -> str:
    """Return which sites a job went on without; empty if none."""
    trained = [record for record in rounds if "missing" in record]
    silent = {site for record in trained for site in (*record["missing"], *record.get(ABSENT, ()))}
    # The record of the last measurement has the sites that answered, and no others.
    asked_last = _sites_in(trained[-1]) - silent if trained and rounds[-1] is not trained[-1] else set()
    unmeasured = asked_last - set(rounds[-1]["sites"]) if asked_last else set()
    losses = (
        (silent, "did not answer in every round"),
        (unmeasured, "did not measure the last model"),
        (gone - silent - unmeasured, "was lost after the last answer"),
    )
    parts = [f"{', '.join(sorted(sites))} {what}" for sites, what in losses if sites]
    return f"done with losses: {'; '.join(parts)}" if parts else ""


def describe_rounds(rounds: list[dict[str, Any]]) -> str:
    """Return a table of the rounds: who answered, how long it took, and the model's figure on validation images."""
    lines = ["round  answered  seconds  PSNR (dB)  no answer from"]
    for record in rounds:
        values = [site["metrics"].get("val_psnr") for site in record["sites"].values() if site.get("metrics")]
        measured = [value for value in values if value is not None]
        figure = f"{sum(measured) / len(measured):9.3f}" if measured else "        -"
        absent = record.get(ABSENT, {})
        of_all = f"/{record['asked'] + len(absent)}" if "asked" in record else ""
        sites = f"{record['answered']}{of_all}"
        seconds = f"{record['seconds']:7.1f}" if "seconds" in record else "      -"
        silent = [*record.get("missing", []), *(f"{site} ({reason})" for site, reason in absent.items())]
        lines.append(f"{record['round']:5}  {sites:>8}  {seconds}  {figure}  {', '.join(silent)}")
    return "\n".join(line.rstrip() for line in lines)
