"""Take part in a federation: everything that a hospital's machine checks before NVFlare is started on it.

Each check refuses with one sentence. Nothing is sent to anybody before the last of them has passed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.federated.contract import check_contract
from monai_sr_bundle.federated.ledger import require_ledger
from monai_sr_bundle.federated.site_policy import adds_noise, install_policy
from monai_sr_bundle.federated.site_settings import (
    SETTINGS_FILE,
    SiteSettings,
    read_site_settings,
    write_site_settings,
)
from monai_sr_bundle.federated.startup_kits import check_kit, is_server, kit_expires, kit_name
from monai_sr_bundle.federated.study import Study
from monai_sr_bundle.images.zipped import ZIP_ERRORS
from nvflare.tool.package_checker.check_rule import CHECK_PASSED, CheckServerAvailable
from nvflare.tool.package_checker.utils import NVFlareRole, try_bind_address

REGISTERED = "Successfully registered client"
SERVER_IS_UP = "Server started"
_SIGNED = ".signed.zip"
_DAEMON = "daemon_pid.fl"
"""File of NVFlare with the process that starts it again when it dies."""


def join(
    source: Path,
    folder: Path,
    fingerprint: str,
    *,
    study: Study | None = None,
    data: Path | None = None,
    request: Path | None = None,
    policy: Path | None = None,
    budget: tuple[float, float] | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Check everything, and start NVFlare: at a hospital for a study, or at the server.

    Args:
        source, folder, fingerprint, request: see `install_kit`.
        policy: folder with a policy of the hospital's own, see `site_policy`. Default: the shipped one.
        budget: epsilon and delta that a hospital's patients may be charged with, over all studies. Default: none, so
            that nothing that needs a budget runs.
        study: study of a hospital.
        data: folder of a hospital's prepared images.
        report: called with a line for each step. Default: print.

    Returns:
        The kit.

    Raises:
        InputError, BundleError, OutputError: refused; the message says why, and NVFlare was not started. A kit that
            this call has installed is removed again, unless NVFlare was started and the server did not register it.
    """
    names_before = {path.name for path in folder.glob("*")}
    kit = install_kit(source, folder, fingerprint, request=request)
    _refuse_running(kit)  # before its policy and settings are written: a job would read them
    try:
        report(f"kit of {kit.name}: signed, and valid until {kit_expires(kit):%Y-%m-%d}")
        # Not the policy that came with the kit: whoever sends a kit would decide what this machine lets him do.
        if is_server(kit):
            install_policy(kit / "local", "server", policy)
        else:
            if study is None or data is None:
                raise InputError(f"{kit.name} is a hospital: pass its study with --study and its images with --data.")
            install_policy(kit / "local", "site", policy, bundle=study.task.bundle)
            _check_site(kit, study, data, budget, report)
        check_connection(kit)
    except BaseException:
        if kit.name not in names_before:  # no private key stays where nobody takes part
            shutil.rmtree(kit)
        raise
    start(kit)
    host, port = server_address(kit)
    report(
        f"{kit.name} {'serves' if is_server(kit) else 'is registered at'} {host}, port {port}; log: {kit / 'log.txt'}"
    )
    return kit


def _check_site(
    kit: Path, study: Study, data: Path, budget: tuple[float, float] | None, report: Callable[[str], None]
) -> None:
    """Check that a hospital can take part in a study, and write the settings of its trainer."""
    settings_file = kit / "local" / SETTINGS_FILE
    settings = SiteSettings(data.absolute(), (kit / "work").absolute())
    if settings_file.is_file():
        settings = replace(read_site_settings(settings_file), data=settings.data, work=settings.work)
    if budget is not None:  # the ledger is about the patients, and outlives a kit
        ledger = kit.with_name(f"{kit.name}_privacy_ledger.jsonl").absolute()
        settings = replace(settings, ledger=ledger, epsilon=budget[0], delta=budget[1])
        require_ledger(settings)
    _check_noise(study, settings, settings_file)
    numbers = check_contract(study, settings)
    write_site_settings(settings, settings_file)
    report(numbers)


def _check_noise(study: Study, settings: SiteSettings, settings_file: Path) -> None:
    """Refuse a study whose differences would leave without the noise that the study or the hospital asks for."""
    if adds_noise(settings_file.parent):
        require_ledger(settings)
    elif study.privacy.protect == "difference":
        raise InputError(
            f"the study {study.name} asks for noise on the differences, which a hospital's own policy adds, and this "
            "policy does not. Pass --policy with ClipAndNoise in privacy.json, and --budget EPSILON DELTA."
        )
    elif settings.ledger is not None and study.task.private_noise is None:
        raise InputError(
            f"this hospital has a privacy budget, and the study {study.name} trains without noise, so no answer would "
            "leave. Pass --policy with ClipAndNoise in privacy.json; or, to take part without differential privacy, "
            f"leave --budget out and remove ledger, epsilon and delta from {settings_file}."
        )


def install_kit(source: Path, folder: Path, fingerprint: str, *, request: Path | None = None) -> Path:
    """Check a startup kit and put it into a folder, without the policy that came with it.

    Args:
        source: zip file or folder of a kit; or the signed certificate (`NAME.signed.zip`) of a hospital that made its
            private key itself.
        folder: folder for the kits of this machine; the kit gets a folder of its participant's name in it.
        fingerprint: SHA-256 of the root certificate, as the coordinator told it by another channel.
        request: folder with the private key, for a signed certificate.

    Returns:
        The kit. One that is there already is kept, with its logs, if it is the same.

    Raises:
        InputError: the kit is refused.
        OutputError: another kit is there, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        unpacked = _unpack(source, Path(temporary), fingerprint, request)
        if request is not None and not _has_key(unpacked, request):
            raise InputError(
                f"{source.name}: its private key is not that in {request}. A kit that you were sent with its key is "
                "joined without --request."
            )
        check_kit(unpacked, fingerprint, datetime.now(UTC), signed=request is None)
        kit = folder / kit_name(unpacked)
        if not kit.exists():
            kit.mkdir(mode=0o700)  # logs may name files, and others may use this machine
            (kit / "transfer").mkdir()
            shutil.copytree(unpacked / "startup", kit / "startup")
        elif not _same_files(unpacked / "startup", kit / "startup"):
            raise OutputError(
                f"{kit} holds another kit. End that study with `monai-sr federated leave {kit}`, or pass --folder."
            )
    return kit


def _unpack(source: Path, temporary: Path, fingerprint: str, request: Path | None) -> Path:
    """Return the folder of a kit, unpacked or put together in a temporary folder."""
    if source.name.endswith(_SIGNED):
        if request is None:
            raise InputError(f"{source.name} has no private key: pass the folder of your request with --request.")
        command = ["package", source, "--request-dir", request, "-w", temporary, "--fingerprint", fingerprint]
        return Path(str(run_nvflare(*map(str, command))["output_dir"]))
    if source.is_dir():
        return source
    try:
        with zipfile.ZipFile(source) as file:
            # zipfile keeps every file in the folder, whatever its name says, and drops the permissions.
            unpacked = [(Path(file.extract(member, temporary)), member) for member in file.infolist()]
        for path, member in unpacked:
            if permissions := member.external_attr >> 16 & 0o777:
                path.chmod(permissions)
    except ZIP_ERRORS as error:
        raise InputError(f"{source} cannot be unpacked ({error}). Ask the coordinator for the kit again.") from error
    kits = [path.parent for path in temporary.glob("*/startup")]
    if len(kits) != 1:
        raise InputError(f"{source} holds {len(kits)} kits, expected one. Pass the zip file that you were sent.")
    return kits[0]


def _has_key(kit: Path, request: Path) -> bool:
    key = kit / "startup" / "client.key"
    return key.is_file() and any(file.read_bytes() == key.read_bytes() for file in request.rglob("*.key"))


def _same_files(one: Path, other: Path) -> bool:
    names = {path.name for folder in (one, other) for path in folder.iterdir()}
    return all((folder / name).is_file() for folder in (one, other) for name in names) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )


def run_nvflare(*arguments: str) -> dict[str, object]:
    """Run a command of NVFlare and return its output.

    Raises:
        InputError: it fails; the message is NVFlare's.
    """
    command = [sys.executable, "-m", "nvflare.cli", "--format", "json", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    answers = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    if result.returncode != 0 or not answers:
        answer = answers[-1] if answers else {}
        reason = " ".join(filter(None, (answer.get("message"), answer.get("detail"), answer.get("hint"))))
        raise InputError(f"nvflare {arguments[0]}: {reason or (result.stderr.splitlines() or ['no reason given'])[-1]}")
    return dict(answers[-1]["data"])


def server_address(kit: Path) -> tuple[str, int]:
    """Return host and port of the server that a kit is for."""
    name = "fed_server.json" if is_server(kit) else "fed_client.json"
    settings = json.loads((kit / "startup" / name).read_text(encoding="utf-8"))
    host, _, port = settings["servers"][0]["service"]["target"].partition(":")
    return host, int(port)


def check_connection(kit: Path) -> None:
    """Refuse to start where the server cannot be reached, or does not accept this kit's certificate.

    Raises:
        InputError: no connection; at the server, the port is taken.
    """
    host, port = server_address(kit)
    if is_server(kit):
        error = try_bind_address("localhost", port)
        if error:
            raise InputError(f"port {port} of this machine is taken ({error}). Is the server running already?")
    elif CheckServerAvailable("server", NVFlareRole.CLIENT)(str(kit), None).problem != CHECK_PASSED:
        raise InputError(
            f"the server {host}, port {port}, does not answer, or does not accept this kit's certificate. Let the "
            "firewall pass connections to it, and ask the coordinator whether the server runs."
        )


def is_running(kit: Path) -> bool:
    """Return whether NVFlare runs in a kit, or the script that starts it again."""
    try:
        process = psutil.Process(int((kit / _DAEMON).read_text()))
        return process.status() != psutil.STATUS_ZOMBIE and str(kit.resolve()) in " ".join(process.cmdline())
    except (OSError, ValueError, psutil.Error):
        return False


def _refuse_running(kit: Path) -> None:
    if is_running(kit):
        raise InputError(f"{kit} runs already. To stop it: `monai-sr federated stop {kit}`.")


def start(kit: Path, *, seconds: float = 90.0) -> None:
    """Start NVFlare in a kit, and wait until a hospital is registered at the server, or the server is up.

    Raises:
        InputError: it runs already, or it is not up in time; the message has the first error of NVFlare's log.
    """
    _refuse_running(kit)
    for name in (_DAEMON, "pid.fl", "shutdown.fl"):  # of a machine that went down; the numbers may be others' by now
        (kit / name).unlink(missing_ok=True)
    log = kit / "log.txt"
    old_bytes = log.stat().st_size if log.is_file() else 0
    # NVFlare's scripts call python3, whichever is the first.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    with (kit / "start.txt").open("ab") as output:
        subprocess.run(
            ["bash", str(kit.resolve() / "startup" / "start.sh")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            check=True,
        )
    expected = SERVER_IS_UP if is_server(kit) else REGISTERED
    end = time.monotonic() + seconds
    text = ""
    while time.monotonic() < end:
        text = log.read_bytes()[old_bytes:].decode(errors="replace") if log.is_file() else ""
        if expected in text:
            return
        time.sleep(0.2)
    stop(kit)
    errors = [line for line in text.splitlines() if " - ERROR - " in line]
    raise InputError(
        f"{kit.name} was not {'up' if is_server(kit) else 'registered at the server'} within {seconds:.0f} s and was "
        f"stopped; {log} says: {errors[0] if errors else 'no error'}. The kit stays, with its private key: "
        f"`monai-sr federated leave {kit}` removes it."
    )


def stop(kit: Path, *, seconds: float = 60.0) -> None:
    """Stop NVFlare in a kit, with the jobs that it runs.

    Raises:
        OutputError: it still runs after the time.
    """
    if not is_running(kit):
        return
    (kit / "shutdown.fl").touch()
    end = time.monotonic() + seconds
    while is_running(kit):
        if time.monotonic() > end:
            raise OutputError(f"{kit} still runs after {seconds:.0f} s. End its processes and try again.")
        time.sleep(0.2)
