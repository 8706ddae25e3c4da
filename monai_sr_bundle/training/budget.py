"""Train for a stated time: the learning rate and the loss follow the fraction of the budget that is spent.

Methods are compared at equal training time, so time, not epochs, is what a training run is given.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from monai_sr_bundle.losses.fidelity import FidelityLoss

logger = logging.getLogger(__name__)


def learning_rate_factor(progress: float, warm_up: float = 0.03, final: float = 0.02) -> float:
    """Linear warm-up, then half a cosine down to `final` (Loshchilov and Hutter, SGDR, ICLR 2017).

    Args:
        progress: fraction of the training that is over, 0 to 1.
    """
    if progress < warm_up:
        return progress / warm_up
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up))))
    return final + (1 - final) * cosine


class TimeBudget:
    """Engine handler: schedules the learning rate by the time spent and ends the run when the budget is over.

    Time spent in loading data counts; time inside `paused`, as for validation, does not. A resumed run goes on with
    the time already spent.

    Args:
        minutes: of training, above 0.
        optimizer: its learning rates at construction are the highest ones.
        loss: whose attribute `progress` is set before every iteration, if it follows the training.
        followers: other optimizers with the same schedule, as of a discriminator.

    Raises:
        ValueError: a budget that is not above 0.
    """

    def __init__(
        self,
        minutes: float,
        optimizer: Optimizer,
        loss: FidelityLoss | None = None,
        followers: Sequence[Optimizer] = (),
    ) -> None:
        if not minutes > 0:
            raise ValueError(f"minutes is {minutes}, expected a number above 0.")
        self.minutes = minutes
        self.optimizer = optimizer
        self.loss = loss
        self._scheduled = (optimizer, *followers)
        self._rates = [[group["lr"] for group in each.param_groups] for each in self._scheduled]
        self.spent_seconds = 0.0
        self.iterations = 0
        self._since = 0.0

    @property
    def progress(self) -> float:
        """Fraction of the budget that is spent."""
        return self.spent_seconds / (60.0 * self.minutes)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do something that is not training."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._since += time.monotonic() - began

    def attach(self, engine: Engine) -> None:
        """Follow `engine`'s iterations."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._schedule)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)

    def _start(self) -> None:
        self._since = time.monotonic() - self.spent_seconds

    def _schedule(self) -> None:
        factor = learning_rate_factor(self.progress)
        for optimizer, rates in zip(self._scheduled, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        if self.loss is not None:
            self.loss.progress = self.progress

    def _count(self, engine: Engine) -> None:
        self.spent_seconds = time.monotonic() - self._since
        self.iterations += 1
        if self.progress >= 1:
            logger.info("the budget of %g minutes is spent after %d iterations", self.minutes, self.iterations)
            engine.terminate()

    def state_dict(self) -> dict[str, Any]:
        """Seconds and iterations spent so far."""
        return {"spent_seconds": self.spent_seconds, "iterations": self.iterations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a run was stopped."""
        self.spent_seconds = float(state["spent_seconds"])
        self.iterations = int(state["iterations"])
