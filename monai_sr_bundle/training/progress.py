"""The progress of a training: validations, evenly over its budget, a bar with the time left and a CSV line."""

from __future__ import annotations

import csv
from pathlib import Path

from ignite.engine import Engine, Events
from monai.engines.evaluator import Evaluator
from tqdm import tqdm

from monai_sr_bundle.training.budget import Budget


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
