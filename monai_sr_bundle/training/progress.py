"""The progress of a training: validations, evenly over its budget, its best weights, a bar and a CSV line."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers.checkpoint import DiskSaver
from monai.engines.evaluator import Evaluator
from monai.handlers.checkpoint_saver import CheckpointSaver
from monai_sr_bundle.errors import require_bool
from monai_sr_bundle.images.staging import staged
from monai_sr_bundle.training.budget import Budget
from monai_sr_bundle.training.weights import BEST_WEIGHTS, NUMBERED
from tqdm import tqdm


class ProgressBar:
    """Engine handler: one bar over the run, with the loss and images per second.

    Args:
        budget: says how much of the run is over. The bar counts seconds of a run of minutes, else iterations.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._bar: tqdm | None = None
        self._images = 0

    def attach(self, engine: Engine) -> None:
        """Follow the iterations of `engine`."""
        # At the first iteration of a run and not at its start: the budget says only then what the run is.
        engine.add_event_handler(Events.ITERATION_STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._raise)

    def _open(self, engine: Engine) -> None:
        if self._bar is not None:
            return
        minutes = self.budget.run_length.minutes
        total, unit = (100, "%") if minutes is None else (round(60 * minutes), "s")
        iterations = self.budget.run_length.iterations
        if iterations is not None:
            total, unit = iterations, "iterations"
        self._bar = tqdm(
            total=total, initial=round(total * self.budget.run_progress), unit=unit, desc="training",
            bar_format=f"{{desc}} {{percentage:3.0f}}%|{{bar}}| {{n_fmt}} of {{total_fmt}} {unit} {{postfix}}",
            mininterval=1.0, miniters=0,  # the bar moves by seconds, often by none between two iterations
        )  # fmt: skip
        self._images, self._start_seconds = 0, self.budget.spent_seconds

    def _update(self, engine: Engine) -> None:
        output = engine.state.output
        if self._bar is None or not isinstance(output, dict):
            return
        self._images += len(output["image"])
        self._bar.n = min(self._bar.total, round(self._bar.total * self.budget.run_progress))
        if engine.state.iteration % 10 == 0:
            seconds = max(1e-6, self.budget.spent_seconds - self._start_seconds)
            rate = f"{self._images / seconds:.0f}/s"
            self._bar.set_postfix(loss=f"{float(output['loss']):.4f}", images=rate, refresh=False)
        self._bar.update(0)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.n = min(self._bar.total, round(self._bar.total * self.budget.run_progress))
            self._bar.close()
            self._bar = None

    def _raise(self, error: BaseException) -> None:
        self._close()
        raise error


class ValidationLog:
    """Engine handler: append minutes, iteration and every metric to a CSV after every validation.

    Args:
        path: the CSV; created with its folder.
        budget: says how much of the training is over.
    """

    columns = ("minutes", "iteration", "metric", "value")

    def __init__(self, path: str, budget: Budget) -> None:
        self.path, self.budget = Path(path), budget

    def attach(self, engine: Engine) -> None:
        """Follow a validation `engine`."""
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _write(self, engine: Engine) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if file.tell() == 0:  # a file that a killed run has opened has no header yet
                writer.writerow(self.columns)
            for name, value in engine.state.metrics.items():
                minutes = f"{self.budget.spent_seconds / 60:.2f}"
                writer.writerow([minutes, self.budget.iterations, name, f"{float(value):.5f}"])


class EvenValidation:
    """Engine handler: run a validation after every equal part of the budget but the last, which the workflow ends with.

    Args:
        validator: the evaluator to run.
        budget: says how much of the training is over.
        count: validations in the whole budget, the one at the end included.

    Raises:
        ValueError: a count below 1.
    """

    def __init__(self, validator: Evaluator, budget: Budget, count: int) -> None:
        if count < 1:
            raise ValueError(f"validations is {count}, expected at least 1.")
        self.validator, self.budget, self.count = validator, budget, count
        self._last_part: int | None = None

    def attach(self, engine: Engine) -> None:
        """Follow the iterations of `engine`."""
        engine.add_event_handler(Events.STARTED, self._forget)
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._validate)

    def _forget(self) -> None:
        self._last_part = None

    def _begin(self) -> None:
        # Not at the start of the run: the budget may begin anew there. A resumed run does not catch up on earlier ones.
        if self._last_part is None:
            self._last_part = int(self.budget.progress * self.count)

    def _validate(self, engine: Engine) -> None:
        part = int(self.budget.progress * self.count)
        assert self._last_part is not None
        if self._last_part < part < self.count:
            self._last_part = part
            with self.budget.paused():
                self.validator.run(engine.state.epoch)


class AtomicCheckpointSaver(CheckpointSaver):
    """Engine handler: MONAI's CheckpointSaver for processes that may be killed. The arguments are the same.

    Its files are complete at every moment: MONAI's removes the older file first, and writes the newer one under its
    final name. With `save_final`, it is written at the start too, so that there is always a checkpoint to resume from.
    A training from its beginning then drops the log of an earlier one, whose best weights are not its own.
    """

    def __init__(self, save_dir: str, save_dict: dict[str, Any], **options: Any) -> None:
        super().__init__(save_dir, save_dict, **options)
        self._log, self._budget = Path(save_dir) / "validation.csv", save_dict.get("budget")
        for checkpoint, filename in (
            (self._final_checkpoint, options.get("final_filename")),
            (self._key_metric_checkpoint, options.get("key_metric_filename")),
            (self._interval_checkpoint, None),
        ):
            if checkpoint is not None:
                only_one = checkpoint is self._interval_checkpoint and checkpoint.n_saved == 1
                checkpoint.save_handler = _AtomicDiskSaver(save_dir, filename, only_one=only_one)

    def attach(self, engine: Engine) -> None:
        """Follow the run of an engine."""
        super().attach(engine)
        if self._final_checkpoint is not None:
            engine.add_event_handler(Events.STARTED, self._save_first)

    def _save_first(self, engine: Engine) -> None:
        if self._final_checkpoint.last_checkpoint is None:  # type: ignore[union-attr]  # followed where there is one
            self._final_checkpoint(engine)  # type: ignore[misc]  # a file that lies there may be another run's
            if self._budget is not None and self._budget.iterations == 0:
                self._log.unlink(missing_ok=True)


class _AtomicDiskSaver(DiskSaver):
    """Write each file completely or not at all; the older one goes when the newer one is there.

    Args:
        folder: folder of the files.
        filename: name of the file; None for the engine's numbers.
        only_one: a numbered file of an earlier run goes too.
    """

    def __init__(self, folder: str, filename: str | None, *, only_one: bool) -> None:
        super().__init__(folder, atomic=False, require_empty=False)
        self._filename = filename
        self._outdated = [*self.dirname.glob(NUMBERED)] if filename is None and only_one else []

    def __call__(self, checkpoint: Mapping[str, Any], filename: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Save a checkpoint."""
        path = self.dirname / (self._filename or filename)
        with staged(path, overwrite=True) as temporary:
            torch.save(checkpoint, temporary)
        for outdated in self._outdated:
            if outdated != path:
                outdated.unlink(missing_ok=True)
        self._outdated.clear()

    def remove(self, filename: str) -> None:
        """Remove a checkpoint as soon as the next one is complete."""
        self._outdated.append(self.dirname / (self._filename or filename))


class BestWeights(AtomicCheckpointSaver):
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
        self._folder, self._is_resumed = Path(save_dir), require_bool("resume", resume)
        self._sign = -1 if key_metric_negative_sign else 1

    def metrics_completed(self, engine: Engine) -> None:
        """Compare with the best so far, and save."""
        if self._is_resumed:
            self._is_resumed = False
            values = self._logged_values(str(engine.state.key_metric_name))  # type: ignore[attr-defined]  # MONAI's
            if values and (self._folder / BEST_WEIGHTS).is_file():
                state = {"_saved": [(max(values), BEST_WEIGHTS)]}
                self._key_metric_checkpoint.load_state_dict(state)  # type: ignore[union-attr]  # it saves the best
        name, metrics = str(engine.state.key_metric_name), engine.state.metrics  # type: ignore[attr-defined]
        value = metrics[name]
        if math.isnan(value):
            metrics[name] = -self._sign * math.inf  # any number is better
        super().metrics_completed(engine)
        metrics[name] = value

    def _logged_values(self, metric: str) -> list[float]:
        if not self._log.is_file():
            return []
        with self._log.open(newline="", encoding="utf-8") as file:
            values = [self._sign * float(row["value"]) for row in csv.DictReader(file) if row["metric"] == metric]
            return [value for value in values if not math.isnan(value)]
