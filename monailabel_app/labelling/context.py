"""The parts of a running server, opened once."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labelling.box_store import BoxStore, make_folder
from labelling.catalogue import Catalogue, FolderCatalogue, WebCatalogue
from labelling.enhancing import Enhancer
from labelling.errors import ConflictError, NotFoundError
from labelling.models import Models
from labelling.training_jobs import TrainingJobs

STORE_FILE = "boxes.sqlite"
RESULTS = "results"
DEFAULT_STORE = "monai_sr_labels"


@dataclass(frozen=True)
class Context:
    """The parts of a running server.

    Attributes:
        folder: folder of the store: database, promoted weights, training jobs, and files retrieved from a PACS.
        store: readings and records.
        catalogue: images.
        models: bundles, with the weights that were promoted.
        enhancer: process that enlarges.
        jobs: trainings.
        lock: see `lock_store`.
    """

    folder: Path
    store: BoxStore
    catalogue: Catalogue
    models: Models
    enhancer: Enhancer
    jobs: TrainingJobs
    lock: sqlite3.Connection

    def require_image(self, name: str) -> None:
        """Refuse an image that the catalogue does not have.

        Raises:
            NotFoundError: no such image.
        """
        self.catalogue.source(name)

    def require_pacs(self) -> WebCatalogue:
        """Return the PACS.

        Raises:
            NotFoundError: the images of this server are files.
        """
        if not isinstance(self.catalogue, WebCatalogue):
            raise NotFoundError("this server has no PACS: its images are files.")
        return self.catalogue

    def close(self) -> None:
        """End the processes and close the database."""
        self.jobs.close()
        self.enhancer.close()
        self.store.close()
        self.lock.close()


def open_context(studies: str, conf: Mapping[str, str]) -> Context:
    """Open the parts of a server.

    Args:
        studies: folder of images, or the address of DICOMweb.
        conf: `store`, the folder of the store (default: `DEFAULT_STORE` in the working folder), and `bundles`, a
            comma-separated list of names or folders (default: every shipped bundle).

    Raises:
        NotFoundError: no such folder.
        BundleError: an unknown bundle.
        ConflictError: another server has the store open.
        StorageError, ServerError: see `BoxStore`.
    """
    folder = Path(conf.get("store") or DEFAULT_STORE).absolute()
    if studies.startswith(("http://", "https://")):
        catalogue: Catalogue = WebCatalogue(studies, folder / "retrieved")
    elif Path(studies).is_dir():
        catalogue = FolderCatalogue(Path(studies))
    else:
        raise NotFoundError(f"--studies {studies}: is neither a folder nor the address of DICOMweb.")
    make_folder(folder)
    os.chmod(folder, 0o700)
    store = BoxStore(folder / STORE_FILE)
    lock = lock_store(folder)
    shutil.rmtree(folder / RESULTS, ignore_errors=True)  # of a server that was killed
    models = Models(store, folder / "models", [name for name in (conf.get("bundles") or "").split(",") if name])
    return Context(
        folder, store, catalogue, models, Enhancer(), TrainingJobs(store, catalogue, models, folder / "jobs"), lock
    )


def lock_store(folder: Path) -> sqlite3.Connection:
    """Return what keeps other servers from a store until it is closed or the process ends: a lock of SQLite's.

    Raises:
        ConflictError: another server has it.
    """
    lock = sqlite3.connect(folder / "server.lock", timeout=0, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        raise ConflictError(
            f"a server has the store {folder.name} open. Stop it, or name another folder with --store."
        ) from error
    return lock
