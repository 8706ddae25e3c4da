"""The length of a training: iterations, epochs or minutes, which the learning rate and the loss follow."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.losses.fidelity import FidelityLoss
from torch.optim import Optimizer

logger = logging.getLogger(__name__)

WARM_UP, FINAL = 0.03, 0.02
"""Share of the schedule in which the learning rate rises to its full value, and its factor at both ends.

Zero would waste a step.
"""


def learning_rate_factor(progress: float) -> float:
    """Return the linear warm-up, then half a cosine down to `FINAL` (Loshchilov and Hutter, SGDR, ICLR 2017).

    Args:
        progress: share of the schedule that is over; from 1 on the factor stays at `FINAL`.
    """
    if progress < WARM_UP:
        return FINAL + (1 - FINAL) * progress / WARM_UP
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))
    return FINAL + (1 - FINAL) * cosine


@dataclass(frozen=True)
class Duration:
    """A length of training. Exactly one of the three is given.

    Args:
        iterations: steps of the optimizer, a whole number.
        epochs: passes over the training images.
        minutes: time; validation does not count.

    Raises:
        InputError: none or several of them are given, or one that is not above 0.
    """

    iterations: int | None = None
    epochs: float | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        given = {unit: value for unit, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise InputError(
                f"the length of a training is {', '.join(given) or 'not given'}, expected exactly one of iterations, "
                "epochs and minutes."
            )
        ((unit, value),) = given.items()
        if not value > 0:
            raise InputError(f"--{unit} {value:g}: expected a number above 0.")

    def share(self, iterations: int, seconds: float, epoch_length: int | None) -> float:
        """Return the share that so many iterations and seconds are of this duration.

        Args:
            iterations: iterations done so far.
            seconds: seconds passed so far.
            epoch_length: iterations in an epoch; None if it is not known yet, which counts as no progress.
        """
        if self.minutes is not None:
            return seconds / (60.0 * self.minutes)
        if self.iterations is not None:
            return iterations / self.iterations
        assert self.epochs is not None
        return iterations / max(1, math.ceil(self.epochs * epoch_length)) if epoch_length else 0.0

    def __str__(self) -> str:
        ((unit, value),) = ((unit, value) for unit, value in vars(self).items() if value is not None)
        return f"{value:g} {unit if value != 1 else unit[:-1]}"


class Budget:
    """Engine handler: sets the learning rate and the loss by how much of the training is over, and ends the run.

    Methods are compared at equal training time, so a budget of minutes is the usual one. Time spent in loading data
    counts; time inside `paused`, as for validation, does not. Several processes follow the clock of the first: by its
    own clock each would stop at another iteration and wait for ever for the gradients of the others. A resumed run
    goes on with what is spent already. A further run after the whole budget is spent begins another budget of the same
    length, unless `limit_next_run` says how long it is.

    Args:
        optimizer: its learning rates at construction are the highest ones.
        iterations, epochs, minutes: length of the schedule, as for `Duration`.
        loss: loss whose attribute `progress` is set before every iteration, if it follows the training. Default None.
        followers: other optimizers with the same schedule, as of a discriminator. Default none.

    Attributes:
        schedule: the duration over which the learning rate rises and falls.
        iterations: done since the training began.
        spent_seconds: seconds of training since it began.

    Raises:
        InputError: see `Duration`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        iterations: int | None = None,
        epochs: float | None = None,
        minutes: float | None = None,
        loss: FidelityLoss | None = None,
        followers: Sequence[Optimizer] = (),
    ) -> None:
        self.schedule = Duration(iterations, epochs, minutes)
        self.optimizer, self.loss = optimizer, loss
        self._optimizers = (optimizer, *followers)
        self._highest_rates = [[group["lr"] for group in each.param_groups] for each in self._optimizers]
        self.iterations, self.spent_seconds = 0, 0.0
        self.epoch_length: int | None = None
        self._schedule_start = self._run_start = (0, 0.0)
        self._run_limit: Duration | None = None
        self._clock_start = 0.0

    @property
    def progress(self) -> float:
        """Share of the schedule that is over; above 1 if the training went on after its end."""
        return self._share_since(self._schedule_start, self.schedule)

    @property
    def run_length(self) -> Duration:
        """The length of the present run: that of `limit_next_run`, else that of the schedule."""
        return self._run_limit or self.schedule

    @property
    def run_progress(self) -> float:
        """Share of the present run that is over; of a resumed training, what was done before counts."""
        return self._share_since(self._run_start, self._run_limit) if self._run_limit else self.progress

    def limit_next_run(self, duration: Duration | None) -> None:
        """Set the length of the next run; None: to the end of the schedule."""
        self._run_limit = duration

    def restart_schedule(self, duration: Duration | None = None) -> None:
        """Begin the learning rate's schedule again.

        Args:
            duration: duration of the new schedule; as long as the old one if None.
        """
        self.schedule = duration or self.schedule
        self._schedule_start = (self.iterations, self.spent_seconds)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock for something that is not training."""
        pause_start = time.monotonic()
        yield
        self._clock_start += time.monotonic() - pause_start

    def attach(self, engine: Engine) -> None:
        """Follow the iterations of `engine`."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._set_rates)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        engine.add_event_handler(Events.COMPLETED, lambda: self.limit_next_run(None))

    def _start(self, engine: Engine) -> None:
        self.epoch_length = engine.state.epoch_length
        if self._run_limit is None and self.progress >= 1:
            logger.warning("this training of %s is over; its schedule begins again", self.schedule)
            self.restart_schedule()
        self._run_start = (self.iterations, self.spent_seconds)
        self._clock_start = time.monotonic() - self.spent_seconds

    def _set_rates(self) -> None:
        factor = learning_rate_factor(self.progress)
        for optimizer, rates in zip(self._optimizers, self._highest_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        if self.loss is not None:
            self.loss.progress = min(1.0, self.progress)

    def _count(self, engine: Engine) -> None:
        self.spent_seconds = self._read_clock()
        self.iterations += 1
        if self.run_progress >= 1:
            logger.info("the run of %s is over after %d iterations", self.run_length, self.iterations)
            engine.terminate()

    def _read_clock(self) -> float:
        seconds = time.monotonic() - self._clock_start
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            device = self.optimizer.param_groups[0]["params"][0].device
            first_seconds = torch.tensor([seconds], dtype=torch.float64, device=device)
            dist.broadcast(first_seconds, src=0)
            seconds = float(first_seconds)
        return seconds

    def _share_since(self, start: tuple[int, float], duration: Duration) -> float:
        iterations, seconds = start
        return duration.share(self.iterations - iterations, self.spent_seconds - seconds, self.epoch_length)

    def state_dict(self) -> dict[str, Any]:
        """Return the iterations and seconds so far, and where the present schedule began."""
        iterations, seconds = self._schedule_start
        return {
            "iterations": self.iterations,
            "spent_seconds": self.spent_seconds,
            "schedule_start_iterations": iterations,
            "schedule_start_seconds": seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a training was stopped."""
        self.iterations, self.spent_seconds = int(state["iterations"]), float(state["spent_seconds"])
        # Checkpoints of version 0.1.0 know one schedule alone.
        self._schedule_start = (
            int(state.get("schedule_start_iterations", 0)),
            float(state.get("schedule_start_seconds", 0.0)),
        )
