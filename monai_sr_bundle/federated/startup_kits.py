"""Startup kits: the certificates and addresses by which the participants of a federation know each other.

NVFlare's own tools make them. What they leave out is added here: a signature over every kit (NVFlare signs only those
for confidential computing and homomorphic encryption), and one certificate authority for both ways to a kit. In the
first, `provision` makes a hospital's private key and the kit is sent to it. In the second, the hospital makes the key
itself (`own_key: true` in the project file) and it never leaves the hospital:

    hospital      nvflare cert request -p hospital-3.participant.yaml --out request
    coordinator   nvflare cert approve hospital-3.request.zip -c OUT/PROJECT/ca --profile OUT/PROJECT/profile.yaml
    hospital      monai-sr federated join hospital-3.signed.zip --request request ...
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from cryptography.x509 import Certificate
from monai_sr_bundle.errors import InputError, OutputError
from nvflare.lighter.constants import CtxKey, ParticipantType, ProvFileName
from nvflare.lighter.impl.cert import CertBuilder
from nvflare.lighter.impl.static_file import StaticFileBuilder
from nvflare.lighter.impl.workspace import WorkspaceBuilder
from nvflare.lighter.provision import prepare_project
from nvflare.lighter.provisioner import Provisioner
from nvflare.lighter.spec import Builder
from nvflare.lighter.utils import load_crt, load_private_key_file, sign_folders, verify_cert, verify_folder_signature
from nvflare.tool.cert.fingerprint import cert_fingerprint_sha256, normalize_sha256_fingerprint

ROOT_VALID_DAYS = 1825
_SCHEME = "grpc"
_STARTUP = "startup"
_KIT_KEYS = {"format_version", "servers", "client", "require_signed_jobs"}
"""Keys that the settings of a kit may hold: none of these builds anything."""


@dataclass(frozen=True)
class ProvisionedKits:
    """The startup kits that `provision` has written.

    Attributes:
        folder: folder with one zip file for each participant.
        own_keys: names of the hospitals that make their private key themselves.
        fingerprint: SHA-256 of the root certificate, which the hospitals are told by another channel than the kits.
        root_expires, kits_expire: end of the root certificate, and of the first of the kits' certificates.
    """

    folder: Path
    own_keys: tuple[str, ...]
    fingerprint: str
    root_expires: datetime
    kits_expire: datetime


class _SignKits(Builder):
    """Sign the startup folder of every kit with the key of the root certificate."""

    def build(self, project: Any, ctx: Any) -> None:
        for participant in project.get_all_participants():
            sign_folders(
                ctx.get_kit_dir(participant), ctx[CtxKey.ROOT_PRI_KEY], signature_file=ProvFileName.SIGNATURE_JSON
            )


def provision(project_file: Path, out: Path) -> ProvisionedKits:
    """Make the startup kits of a federation, or of its new participants.

    A second run with the same `out` keeps the root certificate and the keys there are, and makes what is new.

    Args:
        project_file: participants, as configs/federated/policy/project.yaml.
        out: folder for the kits and the certificate authority; whoever reads it can admit participants.

    Raises:
        InputError: the project file cannot be used.
        OutputError: the kits cannot be written.
    """
    project, root_valid_days, own_keys = _read_project(project_file)
    remarks = io.StringIO()
    try:
        with contextlib.redirect_stdout(remarks), contextlib.redirect_stderr(remarks):
            prepared = prepare_project(copy.deepcopy(project))  # it empties its argument
            # It holds the private keys of the root and of all participants, from the first moment.
            (out / prepared.name).mkdir(mode=0o700, parents=True, exist_ok=True)
            ctx = Provisioner(
                str(out),
                [
                    WorkspaceBuilder(),
                    StaticFileBuilder(config_folder="config", scheme=_SCHEME),
                    CertBuilder(root_valid_days=root_valid_days),
                    _SignKits(),
                ],
            ).provision(prepared)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{project_file}: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise OutputError(f"{out}: the kits cannot be written ({error.strerror}).") from error
    if ctx.get(CtxKey.BUILD_ERROR):
        reason = next((line for line in remarks.getvalue().splitlines() if "Exception" in line), "see NVFlare's log")
        raise InputError(f"{project_file}: NVFlare made no kits ({reason.removeprefix('ERROR: ')}).")
    folder, root = Path(ctx[CtxKey.CURRENT_PROD_DIR]), ctx[CtxKey.ROOT_CERT]
    folder.parent.chmod(0o700)
    _write_authority(folder.parent, project, own_keys)
    kits = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    for kit in kits:
        shutil.make_archive(str(kit), "zip", root_dir=folder, base_dir=kit.name)
    return ProvisionedKits(
        folder,
        tuple(own_keys),
        cert_fingerprint_sha256(root),
        root.not_valid_after_utc,
        min(map(kit_expires, kits)),
    )


def _read_project(path: Path) -> tuple[dict[str, Any], int, dict[str, dict[str, Any]]]:
    """Return NVFlare's project, the days of the root certificate, and the participants with keys of their own."""
    try:
        project = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}).") from error
    participants = project.get("participants") if isinstance(project, dict) else None
    if not isinstance(participants, list) or not all(isinstance(each, dict) for each in participants):
        raise InputError(f"{path} has no list of participants. Begin with configs/federated/policy/project.yaml.")
    if not re.fullmatch(r"[\w-]+", str(project.get("name")), re.ASCII):
        raise InputError(f"{path}: name is {project.get('name')!r}, expected letters, digits, - and _ only.")
    days = project.pop("root_valid_days", ROOT_VALID_DAYS)
    own_keys = {each["name"]: each for each in participants if each.pop("own_key", False)}
    if any(each.get("type") != ParticipantType.CLIENT for each in own_keys.values()):
        raise InputError(f"{path}: own_key is for hospitals, whose type is client. Remove it from the others.")
    for each in participants:
        if not re.fullmatch(r"\w+", str(each.get("org", "")), re.ASCII):
            raise InputError(
                f"{path}: the org of {each.get('name')} is {each.get('org')!r}, expected letters, digits and _ only."
            )
        port = each.get("fed_learn_port")
        if each.get("type") == ParticipantType.SERVER and not (type(port) is int and 0 < port < 65536):
            raise InputError(
                f"{path}: the fed_learn_port of {each.get('name')} is {port!r}, expected a whole number up to 65535."
            )
    project["participants"] = [each for each in participants if each["name"] not in own_keys]
    return project, days, own_keys


def _write_authority(folder: Path, project: Mapping[str, Any], own_keys: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what `nvflare cert approve` needs, and for each hospital what `nvflare cert request` needs."""
    if not own_keys:
        return
    state = json.loads((folder / "state" / "cert.json").read_text(encoding="utf-8"))
    authority = folder / "ca"
    authority.mkdir(mode=0o700, exist_ok=True)
    (authority / "rootCA.pem").write_text(state["root_cert"], encoding="ascii")
    key = authority / "rootCA.key"
    key.touch(mode=0o600)
    key.write_text(state["root_pri_key"], encoding="ascii")
    certificate = load_crt(authority / "rootCA.pem")
    facts = {
        "project": project["name"],
        "created_at": certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "provision_version": "00",
        "rootca_fingerprint_sha256": cert_fingerprint_sha256(certificate),
    }
    (authority / "ca.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
    server = next(each for each in project["participants"] if each.get("type") == ParticipantType.SERVER)
    profile = {
        "name": project["name"],
        "scheme": _SCHEME,
        "connection_security": "mtls",
        "server": {"host": server.get("default_host", server["name"]), "fed_learn_port": server["fed_learn_port"]},
    }
    (folder / "profile.yaml").write_text(yaml.safe_dump(profile, sort_keys=False), encoding="utf-8")
    for name, participant in own_keys.items():
        request = {"name": project["name"], "participants": [dict(participant)]}
        (folder / f"{name}.participant.yaml").write_text(yaml.safe_dump(request, sort_keys=False), encoding="utf-8")


def _certificate(kit: Path) -> Certificate:
    """Return the certificate of a kit's participant."""
    folder = kit / _STARTUP
    return load_crt(folder / ("server.crt" if (folder / "server.crt").is_file() else "client.crt"))


def kit_name(kit: Path) -> str:
    """Return the name of a kit's participant, as its certificate states it."""
    return str(_certificate(kit).subject.rfc4514_string().split("CN=")[1].split(",")[0])


def kit_expires(kit: Path) -> datetime:
    """Return the end of a kit's certificate."""
    return _certificate(kit).not_valid_after_utc


def is_server(kit: Path) -> bool:
    """Return whether a kit is the server's."""
    return (kit / _STARTUP / "fed_server.json").is_file()


def check_kit(kit: Path, fingerprint: str, now: datetime, *, signed: bool = True) -> None:
    """Refuse a startup kit that is not the coordinator's, was changed, or does not hold now.

    Args:
        kit: unpacked kit.
        fingerprint: SHA-256 of the root certificate, as the coordinator told it by another channel.
        now: time of this machine, with its time zone.
        signed: expect the coordinator's signature over all files. A kit that was put together at the hospital from a
            signed certificate has none. Default True.

    Raises:
        InputError: the kit is refused; the message says why.
    """
    folder = kit / _STARTUP
    root_file = folder / "rootCA.pem"
    if not root_file.is_file():
        raise InputError(f"{kit} is no startup kit: it has no startup/rootCA.pem. Unpack the file that you were sent.")
    expected = normalize_sha256_fingerprint(fingerprint)
    try:
        root, certificate = load_crt(root_file), _certificate(kit)
        own_key = load_private_key_file(folder / ("server.key" if is_server(kit) else "client.key")).public_key()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{kit}: its certificates cannot be read ({error}). Ask the coordinator for it again."
        ) from error
    actual = cert_fingerprint_sha256(root)
    if not expected:
        raise InputError(f"--fingerprint {fingerprint}: expected a SHA-256, 64 hexadecimal digits.")
    if actual != expected:
        raise InputError(
            f"{kit.name}: its root certificate is {actual}, but the coordinator's is {expected}. This kit is of "
            "another federation or was made by somebody else; ask the coordinator by telephone."
        )
    if signed and not (folder / ProvFileName.SIGNATURE_JSON).is_file():
        raise InputError(
            f"{kit.name}: it has no signature of the coordinator. A hospital that made its private key itself passes "
            "the folder of its request with --request; any other asks the coordinator for the kit again."
        )
    if signed and not verify_folder_signature(
        folder, root_file, single_signer=True, signature_file=ProvFileName.SIGNATURE_JSON
    ):
        raise InputError(
            f"{kit.name}: its files are not those that the coordinator signed: one was changed, added or removed. Do "
            "not use it; ask the coordinator for the kit again."
        )
    try:
        verify_cert(certificate, root.public_key())
    except Exception as error:
        raise InputError(f"{kit.name}: its certificate was not signed by the federation's root certificate.") from error
    if certificate.public_key() != own_key:
        raise InputError(f"{kit.name}: its private key does not belong to its certificate.")
    _check_contents(folder)
    for name, each in (("root certificate", root), ("certificate", certificate)):
        if now < each.not_valid_before_utc:
            raise InputError(
                f"{kit.name}: its {name} holds from {_date(each.not_valid_before_utc)}, but the clock of this "
                f"machine says {_date(now)}. Set the clock; the server would refuse the connection."
            )
        if now > each.not_valid_after_utc:
            raise InputError(
                f"{kit.name}: its {name} expired on {_date(each.not_valid_after_utc)}; the clock of this "
                f"machine says {_date(now)}. Ask the coordinator for a new kit."
            )


def _check_contents(folder: Path) -> None:
    """Refuse a kit whose scripts are not those of the installed NVFlare, or whose settings name classes to build."""
    text = (resources.files("nvflare.lighter.templates") / "master_template.yml").read_text(encoding="utf-8")
    templates = yaml.safe_load(text)
    role = "svr" if is_server(folder.parent) else "cln"
    names = {"start.sh": f"start_{role}_sh", "sub_start.sh": "sub_start_sh", "stop_fl.sh": "stop_fl_sh"}
    for script in sorted(folder.glob("*.sh")):
        template = templates.get(names.get(script.name, ""), "")
        pattern = re.sub(r"\\\{\\?~\\?~\w+\\?~\\?~\\\}", r"[\\w.@=-]*", re.escape(template.strip()))
        if not re.fullmatch(pattern, script.read_text(encoding="utf-8").strip()):
            raise InputError(
                f"{script} is not the script of NVFlare {version('nvflare')}, which is installed here. A kit brings no "
                "program of its own; ask the coordinator which version of NVFlare made it."
            )
    for file in folder.glob("fed_*.json"):
        keys = set(json.loads(file.read_text(encoding="utf-8")))
        if not keys <= _KIT_KEYS:
            raise InputError(
                f"{file} has {', '.join(sorted(keys - _KIT_KEYS))}, expected the addresses of a server only."
            )


def _date(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")
