"""The one executor that a job may start at a site: our trainer, with a training task whose values are within bounds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from monai_sr_bundle.federated.site_settings import SETTINGS_FILE, site_settings_file
from monai_sr_bundle.federated.training_task import TrainingTask
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor, ExecutionMode
from nvflare.client.config import ExchangeFormat, TransferType


class TrainExecutor(ClientAPIExecutor):
    """Starts the trainer of a site in a process of its own.

    The command is fixed. A job brings the values of a `TrainingTask`, which checks each of them, and nothing else: that
    is what makes it safe for a site to allow this class.

    Args:
        task: values of a `TrainingTask`.

    Raises:
        InputError: see `TrainingTask`.
    """

    def __init__(self, **task: Any) -> None:
        self.training_task = TrainingTask(**task)
        super().__init__(
            execution_mode=ExecutionMode.EXTERNAL_PROCESS,
            command=self._command_for(Path(SETTINGS_FILE)),  # of the site, once its folder is known
            params_exchange_format=ExchangeFormat.NUMPY,  # so that this process needs no PyTorch
            server_expected_format=ExchangeFormat.NUMPY,
            heartbeat_timeout=120.0,  # a busy machine is no lost trainer; the end of its process is noticed at once
            params_transfer_type=TransferType.FULL,  # our trainer sends differences itself
        )

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Find the site's settings before the run starts."""
        if event_type == EventType.START_RUN:
            self._command = self._command_for(site_settings_file(fl_ctx))
        super().handle_event(event_type, fl_ctx)

    def _command_for(self, settings: Path) -> list[str]:
        # -P: no module of a job's folder, in which the process runs, is imported in place of an installed one.
        module = "monai_sr_bundle.federated.client"
        return [
            *(sys.executable, "-P", "-u", "-m", module),
            *("--task", self.training_task.as_text(), "--site", str(settings.resolve())),
        ]
