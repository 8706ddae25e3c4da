"""The policy of a hospital: the classes that a job may build on its machine, and the rights of the coordinator.

NVFlare reads the policy from the folder `local` of a kit. It comes from the package that is installed at the
hospital, or from a folder of its own, and never from the kit that was sent. Every class is listed by itself: NVFlare
takes an entry as a prefix, so that `monai_sr_bundle.` would let a job build anything with arguments of its own.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.privacy import CLIP_AND_NOISE, FILTERS
from monai_sr_bundle.images.staging import write_file
from monai_sr_bundle.shipped_bundles import configs_dir

FORBIDDEN_RIGHTS = ("byoc", "shell_commands", "server-predeployed-flwr")
"""Rights that no role may have: to bring code, read files of the site, or start other software."""
_FILES = ("resources.json", "authorization.json", "privacy.json")
_STORAGE, _BUNDLE = "{storage}", "{bundle}"


def policy_folder(role: str) -> Path:
    """Return the folder of the shipped policy of a "site" or the "server"."""
    return configs_dir() / "federated" / "policy" / role


def install_policy(local: Path, role: str, source: Path | None = None, *, bundle: str = "") -> None:
    """Write a policy into the folder `local` of a kit.

    Args:
        local: the folder; what it holds of a policy is replaced.
        role: "site" or "server".
        bundle: bundle that a site trains, whose weights alone may leave it.
        source: folder with a policy of the hospital's own. Default: the shipped one.

    Raises:
        InputError: the policy is not as strict as the shipped one, see `check_policy`.
        OutputError: the folder cannot be written.
    """
    source = source or policy_folder(role)
    check_policy(source, role)
    local.mkdir(exist_ok=True)
    storage = local.parent.resolve() / "storage"
    for name in _FILES:
        if (source / name).is_file():
            text = (source / name).read_text(encoding="utf-8").replace(_STORAGE, storage.as_posix())
            write_file(local / name, text.replace(_BUNDLE, bundle).encode())
    template = resources.files("nvflare.lighter.templates") / "master_template.yml"
    write_file(local / "log_config.json", yaml.safe_load(template.read_text(encoding="utf-8"))["log_config"].encode())


def check_policy(folder: Path, role: str) -> None:
    """Refuse a policy that lets a job do more than the shipped one.

    Raises:
        InputError: it does, or it cannot be read; the message names the file and the entry.
    """
    shipped = policy_folder(role)
    allowed = set(_read(shipped / "resources.json")["class_allow_list"])
    policy = _read(folder / "resources.json")
    if policy.get("class_list_enforcement_mode") != "enforce":
        raise InputError(f"{folder / 'resources.json'}: class_list_enforcement_mode must be enforce.")
    listed = policy.get("class_allow_list")
    if not isinstance(listed, list) or not set(map(str, listed)) <= allowed:
        extra = ", ".join(sorted(set(map(str, listed or [])) - allowed)) or "no list"
        raise InputError(
            f"{folder / 'resources.json'}: class_allow_list has {extra}, which the shipped policy does not allow. A "
            "job could run it with arguments of its own; remove it."
        )
    if role == "site" and policy.get("allow_log_streaming") is not False:
        raise InputError(
            f"{folder / 'resources.json'}: allow_log_streaming must be false. Logs can name files and patients."
        )
    shipped_permissions = _read(shipped / "authorization.json")["permissions"]
    harmless = {right for rights in shipped_permissions.values() for right in rights} - set(FORBIDDEN_RIGHTS)
    permissions = _read(folder / "authorization.json").get("permissions")
    for name, rights in permissions.items() if isinstance(permissions, dict) else ():
        named = rights if isinstance(rights, dict) else dict.fromkeys(FORBIDDEN_RIGHTS, "any")
        # NVFlare lets the right to a single command, as cat, override that to its category.
        given = [right for right, who in named.items() if right not in harmless and who != "none"]
        if given:
            raise InputError(
                f"{folder / 'authorization.json'}: role {name} has the right {given[0]}, expected none: no job may "
                "bring code, and nobody may read files of a site."
            )
    if role == "site":
        _check_privacy(folder / "privacy.json")


def _check_privacy(path: Path) -> None:
    """Refuse a privacy policy by which something may leave the site that no filter has seen."""
    policy = _read(path)
    scopes = policy.get("scopes")
    if not isinstance(scopes, list) or len(scopes) != 1 or policy.get("default_scope") != scopes[0].get("name"):
        raise InputError(f"{path} must have one scope, and that as its default_scope: of several, a job would choose.")
    filters = [each.get("path") for each in scopes[0].get("task_result_filters") or []]
    if not filters or filters[-1] not in FILTERS:
        raise InputError(f"{path}: the last of task_result_filters is {filters[-1:]}, expected {' or '.join(FILTERS)}.")


def adds_noise(local: Path) -> bool:
    """Return whether the policy of a site, in the folder `local` of its kit, adds noise to every difference."""
    filters = _read(local / "privacy.json")["scopes"][0]["task_result_filters"]
    return any(each.get("path") == CLIP_AND_NOISE for each in filters)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}). Copy it from {policy_folder('site')}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no keys, expected those of {policy_folder('site') / path.name}.")
    return content
