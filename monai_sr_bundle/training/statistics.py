"""The statistics of batch normalisation as whole images have them, for weights that were trained on patches."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.fl.utils.exchange_object import ExchangeObject
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchStatistics:
    """Engine handler: before a validation, measure a network's batch statistics on whole training images.

    Averaged weights never saw a batch (Izmailov et al., "Averaging weights leads to wider optima", UAI 2018, Section
    3.2), and patches have more zero padding in them than images. A network without batch normalisation is left alone.

    Args:
        network: network whose statistics are replaced; the average over batches.
        items: training images; the first time, `transform` loads them.
        transform: from an item to a mapping whose `image` is ``[1, rows, columns]``.
        batch_size: most images in a batch; only those of equal size share one.
    """

    def __init__(
        self,
        network: nn.Module,
        items: Sequence[Mapping[Hashable, Any]],
        transform: Callable[[Any], Any],
        batch_size: int = 4,
    ) -> None:
        self.network = network
        self.layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
        self.items, self.transform, self.batch_size = items, transform, batch_size
        self._batches: list[torch.Tensor] | None = None

    def attach(self, engine: Engine) -> None:
        """Come before `engine`'s run."""
        engine.add_event_handler(Events.STARTED, self.measure)

    def measure(self) -> None:
        """Replace the statistics; weights and the network's mode stay."""
        if not self.layers:
            return
        if self._batches is None:
            self._batches = self._load_batches()
        device = next(self.network.parameters()).device
        was_training, momenta = self.network.training, [layer.momentum for layer in self.layers]
        self.network.train()
        for layer in self.layers:
            layer.reset_running_stats()
            layer.momentum = None  # the average of all batches
        with torch.no_grad():
            for batch in self._batches:
                self.network(batch.to(device))
        for layer, momentum in zip(self.layers, momenta, strict=True):
            layer.momentum = momentum
        self.network.train(was_training)

    def _load_batches(self) -> list[torch.Tensor]:
        by_size: dict[torch.Size, list[torch.Tensor]] = {}
        for item in self.items:
            image = torch.as_tensor(self.transform(item)["image"])
            by_size.setdefault(image.shape, []).append(image)
        return [
            torch.stack(images[first : first + self.batch_size])
            for images in by_size.values()
            for first in range(0, len(images), self.batch_size)
        ]


class WithoutBatchStatistics:
    """Filter of MONAI's federated clients: leave out of the weights what batch normalisation has measured.

    Each site keeps its own, measured on its own images: they say more of these than weights do, and their mean over
    sites with other scanners fits none of them (Li et al., "FedBN", ICLR 2021).
    """

    measured = ("running_mean", "running_var", "num_batches_tracked")

    def __call__(self, data: ExchangeObject, extra: dict[str, Any] | None = None) -> ExchangeObject:
        """Return the weights, or their change, without the statistics."""
        weights = data.weights or {}
        data.weights = {key: value for key, value in weights.items() if key.rpartition(".")[2] not in self.measured}
        return data
