"""Multiply-adds of a bundle's network, by torch's own count for convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.benchmark.methods import sampler_options
from monai_sr_bundle.benchmark.protocol import Row
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.families.family import Evaluation


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
    evaluations = bundle.family.evaluations(network, rows, columns, sampler_options(row, bundle))
    if row.ceiling:
        encoding, (_, (_, condition_shape), _) = evaluations[0], evaluations[2]
        sides = (bundle.scale * network.cell * side for side in encoding.shapes[0][2:])
        high_res, condition = torch.zeros(1, 1, *sides), torch.zeros(condition_shape)
        return _count_evaluation(network, encoding) + _count(lambda: network.reconstruct(high_res, condition))
    return sum(_count_evaluation(network, evaluation) for evaluation in evaluations)


def _count_evaluation(network: Any, evaluation: Evaluation) -> float:
    function = network if evaluation.method == "forward" else getattr(network, evaluation.method)
    inputs = [torch.zeros(shape) for shape in evaluation.shapes]
    return evaluation.times * _count(lambda: function(*inputs))


def _count(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        run()
    return float(counter.get_total_flops() / 2)
