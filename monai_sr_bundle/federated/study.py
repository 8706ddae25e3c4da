"""A federated study, read from a YAML text: its training, its rounds, its privacy and its sites."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.check_bundle import bundle_sha256
from monai_sr_bundle.federated.privacy import Privacy, parse_privacy
from monai_sr_bundle.federated.simulated_site import SimulatedSite, parse_sites
from monai_sr_bundle.federated.training_task import TrainingTask
from monai_sr_bundle.shipped_bundles import configs_dir, find_bundle

_TASK = tuple(field.name for field in fields(TrainingTask))
_OWN = ("title", "minimum_sites", "start", "round_seconds", "grace_seconds", "privacy", "personal_rounds", "sites")


@dataclass(frozen=True)
class Study:
    """A federated study.

    Attributes:
        name: name of its text, which is the name of its job.
        title: one line that says what is studied.
        task: training of every site.
        start: "shipped" for the bundle's weights, "random", or a file on the server. Default "shipped".
        minimum_sites: sites that have to answer in a round; below that the study ends with an error. Default 2.
        round_seconds: longest round. Default 3600.
        grace_seconds: how long the other sites are waited for once `minimum_sites` have answered. Default 600.
        personal_rounds: last rounds that a personalised model trains at its own site instead. Default 1.
        privacy: protection of the differences that leave a site.
        sites: sites of a simulation; a real study has none here.
    """

    name: str
    title: str
    task: TrainingTask
    start: str
    minimum_sites: int
    round_seconds: int
    grace_seconds: int
    personal_rounds: int
    privacy: Privacy
    sites: tuple[SimulatedSite, ...]


def studies_dir() -> Path:
    """Return the folder of the shipped studies."""
    return configs_dir() / "federated"


def read_study(name_or_path: str | Path, **changes: Any) -> Study:
    """Read a shipped study by name, or any by the path of its YAML text.

    Args:
        name_or_path: name of a text in `configs/federated`, or a file.
        changes: keys of the text with other values.

    Raises:
        InputError: no such text; a key is missing, unknown, of another type or out of bounds.
        BundleError: see `find_bundle`.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = studies_dir() / f"{name_or_path}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(text.stem for text in studies_dir().glob("*.yaml")))
        raise InputError(f"study {name_or_path}: no such file or name. Shipped are {names}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is no YAML ({' '.join(str(error).split())}). Correct the text.") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds no keys, expected those of a study, as bundle and rounds.")
    return parse_study(path.stem, {**content, **changes}, str(path))


def parse_study(name: str, content: Mapping[str, Any], source: str) -> Study:
    """Return the study of a mapping of keys.

    Args:
        name: name of the study.
        content: the keys; `bundle_sha256` may be left out, for that of the bundle installed here.
        source: origin of the keys, for messages.

    Raises:
        InputError, BundleError: see `read_study`.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]{1,60}", name):
        raise InputError(f"{source}: the study's name is {name!r}, expected up to 60 letters, digits and underscores.")
    unknown = set(content) - {*_TASK, *_OWN}
    if unknown:
        allowed = ", ".join((*_TASK, *_OWN))
        raise InputError(f"{source}: has the unknown {', '.join(sorted(map(str, unknown)))}; a study states {allowed}.")
    missing = {"bundle", "rounds"} - set(content)
    if missing:
        raise InputError(f"{source}: lacks {', '.join(sorted(missing))}. Add it to the text.")
    keys = {key: value for key, value in content.items() if key in _TASK}
    try:
        if keys.get("bundle_sha256") is None:
            keys["bundle_sha256"] = bundle_sha256(find_bundle(str(keys["bundle"])), keys.get("stage"))
        privacy = parse_privacy(content.get("privacy"))
        task = TrainingTask(**{**keys, **privacy.task_keys})
        study = Study(
            name=name,
            title=str(content.get("title", name)),
            task=task,
            start=str(content.get("start", "shipped")),
            minimum_sites=_whole(content, "minimum_sites", 2, 1, 1000),
            round_seconds=_whole(content, "round_seconds", 3600, 10, 7 * 24 * 3600),
            grace_seconds=_whole(content, "grace_seconds", 600, 0, 7 * 24 * 3600),
            personal_rounds=_whole(content, "personal_rounds", min(1, task.rounds - 1), 0, task.rounds - 1),
            privacy=privacy,
            sites=parse_sites(content.get("sites") or []),
        )
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return study


def _whole(content: Mapping[str, Any], key: str, default: int, least: int, greatest: int) -> int:
    value = content.get(key, default)
    if type(value) is not int or not least <= value <= greatest:
        raise InputError(f"{key} is {value!r}, expected a whole number from {least} to {greatest}.")
    return value
