"""Copies of shipped bundles with something changed in them, for the tests of what must be refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from monai_sr_bundle.bundles import sha256_of
from monai_sr_bundle.shipped_bundles import configs_dir


def copied(parent: Path, name: str = "chest_xray_edsr_x4") -> Path:
    """Copy a shipped bundle into `parent`, where a test may change it."""
    folder = parent / name
    shutil.copytree(configs_dir() / name, folder)
    return folder


def with_facts(folder: Path, **changes: Any) -> Path:
    """Replace keys of `model.yaml`, or remove those that are None."""
    return _changed(folder / "model.yaml", yaml.safe_load, yaml.safe_dump, changes)


def with_metadata(folder: Path, **changes: Any) -> Path:
    """Replace keys of `metadata.json`, or remove those that are None."""
    return _changed(folder / "metadata.json", json.loads, json.dumps, changes)


def signed(folder: Path) -> Path:
    """State the hashes of the weights that are there, as whoever replaced them on purpose would."""
    hashes = {path.name: sha256_of(path) for path in folder.glob("model.*") if path.suffix != ".yaml"}
    return with_metadata(folder, weights_sha256=hashes)


def damaged(folder: Path, name: str) -> Path:
    """Flip one bit in the middle of a weights file."""
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return folder


def _changed(path: Path, parse: Any, form: Any, changes: Mapping[str, Any]) -> Path:
    content = {**parse(path.read_text(encoding="utf-8")), **changes}
    changed = {key: value for key, value in content.items() if value is not None or key not in changes}
    path.write_text(form(changed), encoding="utf-8")
    return path.parent
