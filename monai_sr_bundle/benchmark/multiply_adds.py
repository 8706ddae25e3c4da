"""Multiply-adds of a bundle's network, by torch's own count for convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.backends.torch_networks import TorchNetworks
from monai_sr_bundle.benchmark.methods import sampler_options
from monai_sr_bundle.benchmark.protocol import Row
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.families.family import Inference, Volume
from torch.utils.flop_counter import FlopCounterMode

GREY = 0.5
"""Value of the image that is enlarged. A black one is all frame, which gets no texture."""


def multiply_adds(bundle: Bundle, low_res_size: str, row: Row | None = None) -> float:
    """Count the multiply-adds of a bundle's network for one image.

    Args:
        bundle: bundle of the network; its weights are not needed.
        low_res_size: columns and rows of the input, e.g. "64x64".
        row: protocol row with the sampler options. Default: the bundle's.
    """
    columns, rows = map(int, low_res_size.split("x"))
    network: Any = build_network(bundle)
    row = row or Row(bundle.name, bundle.name)
    if row.ceiling:
        low_res = torch.zeros(1, 1, *(side + -side % (network.cell * network.grid) for side in (rows, columns)))
        high_res = torch.zeros(1, 1, *(bundle.scale * side for side in low_res.shape[2:]))
        return _count(lambda: network.reconstruct(high_res, network.encode(low_res)))[0]
    networks = CountedNetworks(network, bundle.family.parts, "cpu")
    image, options = np.full((1, rows, columns), GREY, dtype=np.float32), sampler_options(row, bundle)
    one_tile = 2 * max(rows, columns) + 64
    bundle.family.enlarge_array(Volume(image), Inference(networks, options, one_tile))
    return networks.count / bundle.family.scale_zyx[0]


class CountedNetworks(TorchNetworks):
    """Networks that are really evaluated only once for each part and size, and counted every time.

    Attributes:
        count: multiply-adds of all evaluations so far.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._evaluations: dict[tuple[Any, ...], tuple[float, Any]] = {}
        self.count = 0.0

    def run(self, part: str, *inputs: np.ndarray) -> np.ndarray:
        """Count an evaluation, and return the result of the first one of this size."""
        key = part, *(each.shape for each in inputs)
        if key not in self._evaluations:
            self._evaluations[key] = _count(partial(super().run, part, *inputs))
        count, result = self._evaluations[key]
        self.count += count
        return result


def _count(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the multiply-adds of a function, and its result."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        result = run()
    return float(counter.get_total_flops() / 2), result
