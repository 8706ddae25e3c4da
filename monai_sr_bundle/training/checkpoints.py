"""Checkpoints of a training: the best weights, also over an interruption, and the newest state to resume from."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from ignite.engine import Engine
from ignite.handlers import Checkpoint
from monai.handlers.checkpoint_saver import CheckpointSaver

from monai_sr_bundle.errors import InputError

BEST_WEIGHTS = "model.pt"


def latest_checkpoint(output_dir: str) -> str:
    """Return the newest file with everything that a resumed training needs.

    Checkpoints are written at the end of a run, at an interruption, and every few epochs.

    Raises:
        InputError: the folder holds none.
    """
    folder = Path(output_dir)
    checkpoints = [*folder.glob("last.pt"), *folder.glob("checkpoint_*.pt")]
    if not checkpoints:
        raise InputError(
            f"{folder}: no checkpoint to resume from, expected last.pt or checkpoint_*.pt. "
            "Train without --resume first, or pass the folder of the run to go on with."
        )
    return str(max(checkpoints, key=lambda path: path.stat().st_mtime))


class BestWeights(CheckpointSaver):
    """Engine handler: after every validation, save the weights if none before them were better.

    MONAI's own handler begins its search anew in a resumed run, and would replace a better `model.pt` by a worse one.

    Args:
        save_dir: for `model.pt`; `validation.csv` of `ValidationLog` beside it says what the weights there reached.
        save_dict: objects to save, by name.
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
            key_metric_filename=BEST_WEIGHTS,
            key_metric_negative_sign=key_metric_negative_sign,
        )
        self._folder, self._is_resumed = Path(save_dir), resume
        self._sign = -1 if key_metric_negative_sign else 1

    def metrics_completed(self, engine: Engine) -> None:
        """Compare with the best so far, and save."""
        if self._is_resumed:
            self._is_resumed = False
            values = self._logged_values(str(engine.state.key_metric_name))  # type: ignore[attr-defined]  # MONAI's
            if values and (self._folder / BEST_WEIGHTS).is_file():
                assert isinstance(self._key_metric_checkpoint, Checkpoint)
                self._key_metric_checkpoint.load_state_dict({"_saved": [(max(values), BEST_WEIGHTS)]})
        super().metrics_completed(engine)

    def _logged_values(self, metric: str) -> list[float]:
        log = self._folder / "validation.csv"
        if not log.is_file():
            return []
        with log.open(newline="", encoding="utf-8") as file:
            return [self._sign * float(row["value"]) for row in csv.DictReader(file) if row["metric"] == metric]
