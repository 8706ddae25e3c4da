"""The app that MONAI Label loads: every bundle is an infer task, and the strategies choose the next image.

MONAI Label's own server is unsafe with it, as it changes labels and weights without asking who one is. So it runs in
`server.py` alone: `monai-sr label`, or `python -m monailabel.main start_server --app monailabel_app --studies STUDIES
--uvicorn_app monailabel_app.server:app --host 127.0.0.1`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from labelling import compatibility  # noqa: F401  # first of all
from labelling.context import Context
from labelling.datastore import BoxDatastore
from labelling.errors import ForbiddenError
from labelling.guard import protected_apps
from labelling.monai_label_tasks import BundleInfer, NextImage, SavedBoxes
from labelling.next_image import STRATEGIES
from labelling.rest_images import SAVED_BOXES
from monai_sr_bundle import __version__
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask


class SuperResolutionApp(MONAILabelApp):
    """Super-resolution of chest radiographs and CT, with the boxes of several readers."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        if not protected_apps:
            raise ForbiddenError(
                "this app does not run in MONAI Label's own server, which is unsafe with it. Start it with "
                "`monai-sr label`, or with `--uvicorn_app monailabel_app.server:app`."
            )
        self.context: Context = protected_apps[-1].state.context
        super().__init__(
            app_dir,
            studies,
            conf,
            name="Super-resolution with boxes of several readers",
            description="Research only, not a medical device.",
            version=__version__,
            labels=[],
        )

    def init_datastore(self) -> Datastore:
        return BoxDatastore(self.context.catalogue, self.context.store)

    def init_infers(self) -> dict[str, InferTask]:
        bundles = {name: BundleInfer(self.context, name) for name in self.context.models.names}
        return {SAVED_BOXES: SavedBoxes(), **bundles}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {}

    def init_strategies(self) -> dict[str, Strategy]:
        return {name: NextImage(self.context, name) for name in STRATEGIES}

    def init_batch_infer(self) -> Any:
        return None
