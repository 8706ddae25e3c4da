"""The catalogue and the store of boxes as MONAI Label's clients see them: images, and labels that are boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from labelling.box_store import CONSENSUS, BoxStore
from labelling.catalogue import Catalogue
from labelling.errors import RefusedError

SUBMITTED = "submitted"
"""Tag of an image that at least one reader has submitted, beside MONAI Label's own for the consensus."""


class BoxDatastore(Datastore):
    """A datastore that MONAI Label reads. What changes anything goes through the server's own endpoints."""

    def __init__(self, catalogue: Catalogue, store: BoxStore) -> None:
        self._catalogue, self._store = catalogue, store

    def name(self) -> str:
        return "images"

    def set_name(self, name: str) -> None:
        self._refuse()

    def description(self) -> str:
        return "images for super-resolution, with boxes of several readers"

    def set_description(self, description: str) -> None:
        self._refuse()

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        return [{"image": name, "label": name} for name in self.get_labeled_images()]

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        readers = self._store.images().get(image_id, {})
        tags = {DefaultLabelTag.FINAL.value: image_id} if CONSENSUS in readers else {}
        return tags | ({SUBMITTED: image_id} if readers else {})

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        return self.get_labels_by_image_id(image_id).get(tag, "")

    def get_image(self, image_id: str, params: Any = None) -> Any:
        raise RefusedError("fetch the image's file.")

    def get_image_uri(self, image_id: str) -> str:
        source = self._catalogue.source(image_id)
        return str(source.files[0] if len(source.files) == 1 else source.files[0].parent)

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> Any:
        raise RefusedError("fetch the boxes.")

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        raise RefusedError("boxes are in a database, not in a file. Fetch them.")

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        identity = self._catalogue.identity(image_id)
        return {name: value for name, value in vars(identity).items() if value}

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        return {"readers": sorted(self._store.images().get(label_id, {}))}

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        return sorted(self._store.images().keys() & set(self._catalogue.names()))

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        return sorted(set(self._catalogue.names()) - self._store.images().keys())

    def list_images(self) -> list[str]:
        return self._catalogue.names()

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        raise RefusedError("images are not sent as an archive. Fetch them one by one.")

    def refresh(self) -> None:
        self._catalogue.names()

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        return self._refuse()

    def remove_image(self, image_id: str) -> None:
        self._refuse()

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        return self._refuse()

    def remove_label(self, label_id: str, label_tag: str) -> None:
        self._refuse()

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        self._refuse()

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        self._refuse()

    def status(self) -> dict[str, Any]:
        images, read = self._catalogue.names(), self._store.images()
        return {
            "total": len(images),
            "completed": len([name for name in images if CONSENSUS in read.get(name, {})]),
            "label_tags": {SUBMITTED: len(read.keys() & set(images))},
            "train": [],
        }

    def json(self) -> dict[str, Any]:
        read = self._store.images()
        tag: Callable[[str], dict[str, Any]] = lambda name: {  # noqa: E731
            label: {"ext": ".mrk.json", "info": {}} for label in self.get_labels_by_image_id(name)
        }
        return {
            "name": self.name(),
            "description": self.description(),
            "objects": {
                name: {"image": {"ext": "", "info": {}}, "labels": tag(name) if name in read else {}}
                for name in self._catalogue.names()
            },
        }

    @staticmethod
    def _refuse() -> str:
        raise RefusedError("this server changes boxes through /boxes alone, and never changes images.")
