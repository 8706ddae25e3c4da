"""End a study at a hospital, or end a hospital's part in it at the server."""

from __future__ import annotations

import shutil
from pathlib import Path

from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.federated.join import stop
from monai_sr_bundle.federated.startup_kits import kit_expires, kit_name
from monai_sr_bundle.federated.submit import connected_sites, explain_loss
from nvflare.fuel.flare_api.flare_api import Session

AUDIT = "audit.log"


def leave(kit: Path) -> list[str]:
    """Stop NVFlare in a kit and remove the kit: private key, policy, logs, jobs and checkpoints.

    The audit log stays, beside the kit's folder: a hospital has to be able to say later what was done.

    Args:
        kit: kit of this machine, as `install_kit` returned it.

    Returns:
        What remains, in sentences.

    Raises:
        InputError: no kit there.
        OutputError: it cannot be stopped or removed.
    """
    if not (kit / "startup" / "rootCA.pem").is_file():
        raise InputError(f"{kit} is no kit: it has no startup/rootCA.pem. Name the folder that `join` printed.")
    name, expires = kit_name(kit), kit_expires(kit)
    stop(kit)
    remains = []
    if (kit / AUDIT).is_file():
        audit_copy = kit.with_name(f"{name}_{AUDIT}")
        with audit_copy.open("ab") as file:
            file.write((kit / AUDIT).read_bytes())
        remains.append(f"The audit log is {audit_copy}; keep it as long as your rules say.")
    try:
        shutil.rmtree(kit)
    except OSError as error:
        raise OutputError(f"{kit} cannot be removed ({error.strerror}: {error.filename}).") from error
    return [
        *remains,
        "Your images and their manifest were not touched.",
        f"Until the coordinator has run `monai-sr federated leave --revoke {name}`, a copy of the certificate of this "
        f"kit, if there is one, is accepted until {expires:%Y-%m-%d}.",
        "The global models that this hospital helped to train stay with the coordinator and the other hospitals; what "
        "it contributed cannot be taken out of them.",
        "The server keeps its record of the jobs: counts, figures and times of this hospital, and no images.",
    ]


def revoke(session: Session, site: str) -> list[str]:
    """Let the server refuse a hospital from now on, also after a restart.

    Returns:
        What remains, in sentences.

    Raises:
        InputError: the server refuses.
        StudyEnded: the server is gone.
    """
    with explain_loss():
        connected = connected_sites(session)
        session.disable_client(site)
    remarks = []
    if site not in connected:  # NVFlare takes any name
        names = ", ".join(sorted(connected)) or "none"
        remarks.append(f"No hospital {site} was connected, but {names}. A wrong name refuses nobody: check it.")
    return [
        *remarks,
        f"The server refuses {site} from now on; `nvflare system enable-client {site} --startup-kit KIT` undoes it.",
        "NVFlare has no list of revoked certificates: a new server for the same root certificate has to be told again.",
    ]
