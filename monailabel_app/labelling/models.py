"""The bundles of a server, and the weights of theirs that were fine-tuned and promoted here.

Promoted weights are a folder of their own, a whole bundle with the shipped one's texts. The shipped bundle is never
changed, and to roll back is to take the one before.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.shipped_bundles import configs_dir, find_bundle

from labelling.box_store import BoxStore
from labelling.errors import ConflictError, NotFoundError

_KIND = "promoted"


class Models:
    """The bundles of a server.

    Args:
        store: store in which promotions are recorded.
        folder: folder of the promoted bundles.
        names: names or folders of bundles. Default: every shipped bundle.

    Raises:
        BundleError: an unknown bundle.
    """

    def __init__(self, store: BoxStore, folder: Path, names: Sequence[str] = ()) -> None:
        self._store, self._folder = store, folder
        shipped = [str(text.parent) for text in sorted(configs_dir().glob("*/model.yaml"))]
        bundles = [find_bundle(name) for name in names or shipped]
        self._shipped = {bundle.name: bundle for bundle in bundles}

    @property
    def names(self) -> list[str]:
        """Names of the bundles."""
        return list(self._shipped)

    def find(self, name: str) -> Bundle:
        """Return a bundle with the weights that were promoted last.

        Raises:
            NotFoundError: no such bundle.
        """
        if name not in self._shipped:
            raise NotFoundError(f"there is no bundle of this name; this server has {', '.join(self._shipped)}.")
        promoted = self.promotions(name)
        return find_bundle(str(self.prepared(name, promoted[-1]["job"]))) if promoted else self._shipped[name]

    def shipped(self, name: str) -> Bundle:
        """Return a bundle of this server with its shipped weights."""
        return self._shipped[name]

    def promotions(self, name: str) -> list[dict[str, Any]]:
        """Return the promotions of a bundle that hold, the present one last, with their reports."""
        return list(self._store.record(_KIND, name) or ())

    def prepared(self, name: str, job: str) -> Path:
        """Return the folder of the weights that a training makes, whether or not it is there."""
        return self._folder / job / name

    def promote(self, name: str, job: str, report: dict[str, Any], *, actor: str) -> None:
        """Use prepared weights from now on.

        Raises:
            NotFoundError: no such weights.
        """
        if not (self.prepared(name, job) / "model.yaml").is_file():
            raise NotFoundError("this training has made no weights that could be promoted.")
        promotions = [*self.promotions(name), {"job": job, "report": report}]
        self._store.set_record(_KIND, name, promotions)
        self._store.note("promote", actor=actor, reason=f"{name} {job}", content=_sha256_of_report(report))

    def roll_back(self, name: str, *, actor: str) -> str:
        """Go back to the weights before, and return the name of the training that is in use, or "shipped".

        Raises:
            ConflictError: nothing was promoted.
        """
        promotions = self.promotions(name)
        if not promotions:
            raise ConflictError("the shipped weights of this bundle are in use; there is nothing to go back to.")
        self._store.set_record(_KIND, name, promotions[:-1])
        self._store.note("roll back", actor=actor, reason=f"{name} {promotions[-1]['job']}")
        return str(promotions[-2]["job"]) if len(promotions) > 1 else "shipped"


def prepare_bundle(bundle: Bundle, weights: Path, target: Path) -> Bundle:
    """Write a bundle of new weights, complete or not at all.

    Args:
        bundle: bundle that was trained.
        weights: `model.pt` of its training.
        target: folder to write; its name is the bundle's.
    """
    from monai_sr_bundle.packing.release import release

    partial = target.parent.with_name(f".{target.parent.name}") / target.name
    shutil.rmtree(partial.parent, ignore_errors=True)
    shutil.copytree(bundle.folder, partial, ignore=shutil.ignore_patterns("variants"))
    release(str(partial), weights)
    shutil.rmtree(target.parent, ignore_errors=True)
    partial.parent.rename(target.parent)
    return find_bundle(str(target))


def _sha256_of_report(report: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()
