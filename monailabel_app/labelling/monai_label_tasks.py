"""Our bundles and strategies in the classes that MONAI Label lists in /info."""

from __future__ import annotations

from typing import Any

from monai_sr_bundle.errors import BundleError
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.strategy import Strategy

from labelling.context import Context
from labelling.errors import RefusedError
from labelling.next_image import STRATEGIES


class BundleInfer(InferTask):
    """A bundle as an infer task. Of the type "others": its result is an image, not a segmentation."""

    def __init__(self, context: Context, name: str) -> None:
        bundle = context.models.find(name)
        description = str(bundle.metadata.get("description") or bundle.metadata.get("name") or name)
        dimension = 3 if bundle.modality == "CT" else 2
        super().__init__(InferType.OTHERS, [], dimension, description, {"scale": bundle.scale})
        self._family = bundle.family

    def is_valid(self) -> bool:
        """Return whether what the bundle needs is installed; MONAI Label lists no others."""
        try:
            self._family.check_installed()
        except BundleError:
            return False
        return True

    def __call__(self, request: Any) -> tuple[str | None, dict[str, Any]]:
        raise RefusedError("results are made by POST /infer/MODEL of this server.")


class NextImage(Strategy):
    """A strategy by its name."""

    def __init__(self, context: Context, name: str) -> None:
        super().__init__(STRATEGIES[name])

    def __call__(self, request: Any, datastore: Datastore) -> dict[str, Any]:
        raise RefusedError("the next image is chosen by POST /activelearning/STRATEGY of this server.")


class SavedBoxes(InferTask):
    """The boxes that a reader has saved, as a task of the type "detection".

    MONAI Label's module for Slicer submits boxes only while a model of this type is chosen; what it then shows as the
    model's result are the reader's own boxes, to go on with.
    """

    def __init__(self) -> None:
        super().__init__(InferType.DETECTION, [], 3, "the boxes that you have saved", {})

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: Any) -> tuple[str | None, dict[str, Any]]:
        raise RefusedError("saved boxes are fetched by POST /infer/boxes of this server.")
