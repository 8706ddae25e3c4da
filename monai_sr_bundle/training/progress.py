"""What a training run shows and keeps: a bar with the time left, and a line of CSV per validation."""

from __future__ import annotations

import csv
from pathlib import Path

from ignite.engine import Engine, Events
from tqdm import tqdm

from monai_sr_bundle.training.budget import TimeBudget


class ProgressBar:
    """Engine handler: one bar over the time budget, with the loss and images per second.

    Args:
        budget: says how much of the training is over.
    """

    def __init__(self, budget: TimeBudget) -> None:
        self.budget = budget
        self._bar: tqdm | None = None
        self._images = 0

    def attach(self, engine: Engine) -> None:
        """Follow `engine`'s iterations."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._raise)

    def _open(self) -> None:
        self._bar = tqdm(
            total=round(60 * self.budget.minutes), initial=round(self.budget.spent_seconds), unit="s", desc="training",
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} of about {total} s {postfix}", mininterval=1.0,
            miniters=0,  # the bar moves by seconds, often by none between two iterations
        )  # fmt: skip
        self._start_seconds = self.budget.spent_seconds

    def _update(self, engine: Engine) -> None:
        output = engine.state.output
        if self._bar is None or not isinstance(output, dict):
            return
        self._images += len(output["image"])
        self._bar.n = min(self._bar.total, round(self.budget.spent_seconds))
        if engine.state.iteration % 10 == 0:
            spent = max(1e-6, self.budget.spent_seconds - self._start_seconds)
            rate = f"{self._images / spent:.0f}/s"
            self._bar.set_postfix(loss=f"{float(output['loss']):.4f}", images=rate, refresh=False)
        self._bar.update(0)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _raise(self, error: BaseException) -> None:
        self._close()
        raise error


class ValidationLog:
    """Engine handler: append minutes, iteration and the key metric to a CSV after every validation.

    Args:
        path: the CSV; created with its folder.
        budget: says how much of the training is over.
    """

    columns = ("minutes", "iteration", "metric", "value")

    def __init__(self, path: str, budget: TimeBudget) -> None:
        self.path, self.budget = Path(path), budget

    def attach(self, engine: Engine) -> None:
        """Follow a validation `engine`."""
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _write(self, engine: Engine) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(self.columns)
            for name, value in engine.state.metrics.items():
                minutes = f"{self.budget.spent_seconds / 60:.2f}"
                writer.writerow([minutes, self.budget.iterations, name, f"{float(value):.5f}"])
