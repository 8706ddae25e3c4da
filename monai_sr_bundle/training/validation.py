"""Validate evenly over a budget, whether an epoch takes a second or an hour."""

from __future__ import annotations

from ignite.engine import Engine, Events
from monai.engines.evaluator import Evaluator

from monai_sr_bundle.training.budget import Budget


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
