"""The parts of a running server, opened once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labelling.box_store import BoxStore
from labelling.catalogue import Catalogue, FolderCatalogue, WebCatalogue
from labelling.enhancing import Enhancer
from labelling.errors import NotFoundError
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
    """

    folder: Path
    store: BoxStore
    catalogue: Catalogue
    models: Models
    enhancer: Enhancer
    jobs: TrainingJobs

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


def open_context(studies: str, conf: Mapping[str, str]) -> Context:
    """Open the parts of a server.

    Args:
        studies: folder of images, or the address of DICOMweb.
        conf: `store`, the folder of the store (default: `DEFAULT_STORE` in the working folder), and `bundles`, a
            comma-separated list of names or folders (default: every shipped bundle).

    Raises:
        NotFoundError: no such folder.
        BundleError: an unknown bundle.
        StorageError, ServerError: see `BoxStore`.
    """
    folder = Path(conf.get("store") or DEFAULT_STORE).absolute()
    if studies.startswith(("http://", "https://")):
        catalogue: Catalogue = WebCatalogue(studies, folder / "retrieved")
    elif Path(studies).is_dir():
        catalogue = FolderCatalogue(Path(studies))
    else:
        raise NotFoundError(f"--studies {studies}: is neither a folder nor the address of DICOMweb.")
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o700)
    shutil.rmtree(folder / RESULTS, ignore_errors=True)  # of a server that was killed
    store = BoxStore(folder / STORE_FILE)
    models = Models(store, folder / "models", [name for name in (conf.get("bundles") or "").split(",") if name])
    return Context(
        folder, store, catalogue, models, Enhancer(), TrainingJobs(store, catalogue, models, folder / "jobs")
    )
