"""The display and the records of a training: a bar with the time left, a CSV line per validation, a history."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ignite.engine import Engine, Events
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
        is_new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(self.columns)
            for name, value in engine.state.metrics.items():
                minutes = f"{self.budget.spent_seconds / 60:.2f}"
                writer.writerow([minutes, self.budget.iterations, name, f"{float(value):.5f}"])


@dataclass(frozen=True)
class Record:
    """The measurements of one training step or one validation.

    Args:
        kind: "training" for one step, "validation" for all validation images.
        iteration: iteration of the training, counted from 1.
        minutes: minutes of training so far.
        values: the loss and its parts, or the metrics of the validation, by name.
    """

    kind: Literal["training", "validation"]
    iteration: int
    minutes: float
    values: dict[str, float]


class History:
    """Engine handler: keep a `Record` of every training step and validation.

    Args:
        budget: says how much of the training is over; it is attached to the trainer before this.
        callback: called with every record. Default None.

    Attributes:
        records: in the order in which they were measured.
    """

    def __init__(self, budget: Budget, callback: Callable[[Record], None] | None = None) -> None:
        self.budget, self.callback = budget, callback
        self.records: list[Record] = []

    def attach(self, trainer: Engine, evaluator: Engine) -> None:
        """Follow the iterations of `trainer` and the validations of `evaluator`."""
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._add_step)
        evaluator.add_event_handler(Events.COMPLETED, self._add_validation)

    def _add_step(self, engine: Engine) -> None:
        assert isinstance(engine.state.output, dict)
        self._add("training", {key: value for key, value in engine.state.output.items() if isinstance(value, float)})

    def _add_validation(self, engine: Engine) -> None:
        self._add("validation", {name: float(value) for name, value in engine.state.metrics.items()})

    def _add(self, kind: Literal["training", "validation"], values: dict[str, float]) -> None:
        self.records.append(Record(kind, self.budget.iterations, self.budget.spent_seconds / 60, values))
        if self.callback is not None:
            self.callback(self.records[-1])
