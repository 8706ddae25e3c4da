"""The global model on the server: its first weights, and the file in which it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai_sr_bundle.bundles import sha256_of
from monai_sr_bundle.errors import BundleError, SuperResolutionError
from monai_sr_bundle.federated.start_weights import START_FILE, start_state
from monai_sr_bundle.shipped_bundles import find_bundle
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_opt.pt.file_model_persistor import PTFileModelPersistor


class BundlePersistor(PTFileModelPersistor):
    """Keeps the global model of a bundle in `FL_global_model.pt`.

    Args:
        bundle: name of an installed bundle.
        start: "shipped", "random" or a file on the server; see `start_state`.
        start_sha256: SHA-256 that a file must have. Default: any.
        seed: seed of random weights. Default 0.
    """

    def __init__(self, bundle: str, start: str = "shipped", start_sha256: str = "", seed: int = 0) -> None:
        super().__init__(load_device="cpu")
        self.bundle, self.start, self.start_sha256, self.seed = bundle, start, start_sha256, seed

    def load_model(self, fl_ctx: FLContext) -> Any:
        """Return the weights that the study begins with."""
        path = Path(self.log_dir) / START_FILE
        try:
            start = self.start
            if self.start_sha256:
                workspace = fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
                start = str(Path(workspace.get_app_config_dir(fl_ctx.get_job_id())) / START_FILE)
                if sha256_of(Path(start)) != self.start_sha256:
                    raise BundleError(f"{START_FILE} has another SHA-256 than the job states. Submit the job again.")
            torch.save(start_state(find_bundle(self.bundle), start, self.seed), path)
        except (OSError, SuperResolutionError) as error:
            self.system_panic(reason=str(error), fl_ctx=fl_ctx)
            return None
        self.source_ckpt_file_full_name = str(path.resolve())
        return super().load_model(fl_ctx)
