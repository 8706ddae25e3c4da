"""Keep the best weights of a run, also over an interruption."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from ignite.engine import Engine
from ignite.handlers import Checkpoint
from monai.handlers.checkpoint_saver import CheckpointSaver

FILE = "model.pt"


class BestWeights(CheckpointSaver):
    """Engine handler: after every validation, save the weights if none before them were better.

    MONAI's own handler begins its search anew in a resumed run, and would replace a better `model.pt` by a worse one.

    Args:
        save_dir: for `model.pt`; `validation.csv` of `ValidationLog` beside it says what the weights there reached.
        save_dict: what to save.
        resume: the run goes on with what lies in `save_dir`.
        key_metric_negative_sign: lower is better.
    """

    def __init__(
        self, save_dir: str, save_dict: dict[str, Any], resume: bool = False, key_metric_negative_sign: bool = False
    ) -> None:
        super().__init__(
            save_dir,
            save_dict,
            save_key_metric=True,
            key_metric_filename=FILE,
            key_metric_negative_sign=key_metric_negative_sign,
        )
        self._folder, self._resumed, self._sign = Path(save_dir), resume, -1 if key_metric_negative_sign else 1

    def metrics_completed(self, engine: Engine) -> None:
        """Compare with the best so far, and save."""
        if self._resumed:
            self._resumed = False
            before = self._reached(str(engine.state.key_metric_name))  # type: ignore[attr-defined]  # MONAI's engines
            if before and (self._folder / FILE).is_file():
                assert isinstance(self._key_metric_checkpoint, Checkpoint)
                self._key_metric_checkpoint.load_state_dict({"_saved": [(max(before), FILE)]})
        super().metrics_completed(engine)

    def _reached(self, metric: str) -> list[float]:
        log = self._folder / "validation.csv"
        if not log.is_file():
            return []
        with log.open(newline="", encoding="utf-8") as file:
            return [self._sign * float(row["value"]) for row in csv.DictReader(file) if row["metric"] == metric]
