"""The history of a training: the measurements of every step and validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ignite.engine import Engine, Events

from monai_sr_bundle.training.budget import Budget


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
