"""The average of the last weights, which is what a training run keeps."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from torch.optim.swa_utils import AveragedModel


def averaging_weight(steps: int, momentum: float) -> float:
    """Return what the newest weights count for after `steps` steps: about the last tenth of a short run is averaged.

    A fixed momentum would keep the first, random weights in the average of a run of few hundred steps.
    """
    return max(momentum, 9 / (10 + steps))


class WeightAverage:
    """Engine handler: a running average of a network's weights; other state, as of batch normalisation, is copied.

    Weights that the network loads from elsewhere, as those of a federated round, begin a new average.

    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30(4), 1992.

    Args:
        model: the network that is trained.
        momentum: share of the newest weights in a long run; 0.002 averages about the last 500 steps.

    Attributes:
        averaged: the average and its number of steps, for checkpoints.
    """

    def __init__(self, model: torch.nn.Module, momentum: float = 0.002) -> None:
        self.model = model

        def mix(old: torch.Tensor, new: torch.Tensor, steps: torch.Tensor | int) -> torch.Tensor:
            return torch.lerp(old, new, averaging_weight(int(steps), momentum))

        self.averaged = AveragedModel(model, avg_fn=mix)
        model.register_load_state_dict_post_hook(lambda module, keys: self.reset())

    @property
    def network(self) -> torch.nn.Module:
        """The network with the averaged weights."""
        return self.averaged.module

    def reset(self) -> None:
        """Begin a new average with the weights that the trained network has now."""
        self.averaged.module.load_state_dict(self.model.state_dict())
        self.averaged.n_averaged.zero_()

    def attach(self, engine: Engine) -> None:
        """Follow the iterations of `engine`."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def _update(self) -> None:
        self.averaged.update_parameters(self.model)
