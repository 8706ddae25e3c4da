"""What the processes of one training run must agree on."""

from __future__ import annotations

import logging
import time

import torch
import torch.distributed as dist
from ignite.engine import Engine

from monai_sr_bundle.training.budget import TimeBudget

logger = logging.getLogger(__name__)


class SharedTimeBudget(TimeBudget):
    """A time budget by the clock of the first process, for all of them.

    By its own clock, each process would stop at another step, and wait for ever for the gradients of the others.
    Arguments as for `TimeBudget`.
    """

    def _count(self, engine: Engine) -> None:
        device = self.optimizer.param_groups[0]["params"][0].device
        spent = torch.tensor([time.monotonic() - self._since], dtype=torch.float64, device=device)
        dist.broadcast(spent, src=0)
        self.spent_seconds = float(spent)
        self.iterations += 1
        if self.progress >= 1:
            logger.info("the budget of %g minutes is spent after %d iterations", self.minutes, self.iterations)
            engine.terminate()
