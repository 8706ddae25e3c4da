"""ONNX export of a bundle's network, with any batch, height and width, checked against PyTorch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from monai_sr_bundle.families.family import ModelFamily

logger = logging.getLogger(__name__)

OPSET = 17
"""The highest opset in every TensorRT operator table, 8.5 to 11."""
TOLERANCE = 1e-4


@dataclass(frozen=True)
class End:
    """An input or output of an exported network.

    Attributes:
        name: of it.
        channels: of ``[batch, channels, rows, columns]``; None for one number per image of the batch.
    """

    name: str
    channels: int | None = 1


def export_onnx(
    network: torch.nn.Module,
    out: Path,
    inputs: Sequence[End] = (End("image"),),
    output: str = "pred",
    multiple: int = 1,
) -> float:
    """Write `network` as ONNX for any batch, height and width, and compare the two.

    Args:
        network: takes ``[B, 1, rows, columns]``, or what `inputs` say, in evaluation mode.
        out: the file to write.
        inputs: of the network, in order.
        output: its name.
        multiple: rows and columns that the network takes are multiples of it.

    Returns:
        The largest difference between PyTorch and ONNX Runtime on images of another size than the exported one.

    Raises:
        RuntimeError: the difference is above `TOLERANCE`; the file is not kept.
    """
    generator = torch.Generator().manual_seed(0)
    network = network.cpu().eval()

    def drawn(batch: int, rows: int, columns: int) -> tuple[torch.Tensor, ...]:
        size = [-(-side // multiple) * multiple for side in (rows, columns)]
        shapes = [(batch,) if end.channels is None else (batch, end.channels, *size) for end in inputs]
        return tuple(torch.rand(shape, generator=generator) for shape in shapes)

    axes = {output: {0: "batch", 2: f"{output}_rows", 3: f"{output}_columns"}}
    for end in inputs:
        axes[end.name] = {0: "batch"} if end.channels is None else {0: "batch", 2: "image_rows", 3: "image_columns"}
    with warnings.catch_warnings():
        # The tracing exporter is deprecated but is the one that keeps to opset 17 and needs no onnxscript.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            network,
            drawn(2, 48, 40),
            str(out),
            dynamo=False,
            opset_version=OPSET,
            input_names=[end.name for end in inputs],
            output_names=[output],
            dynamic_axes=axes,
        )
    model = onnx.load(out)
    for node in model.graph.node:
        node.doc_string = ""  # the exporter writes paths of this machine's source files here
    onnx.checker.check_model(model)
    onnx.save(model, out)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    there = {node.name for node in session.get_inputs()}
    worst = 0.0
    for shape in ((1, 33, 71), (3, 64, 64)):
        arguments = drawn(*shape)
        with torch.inference_mode():
            expected = network(*arguments).numpy()
        feeds = {end.name: value.numpy() for end, value in zip(inputs, arguments, strict=True) if end.name in there}
        worst = max(worst, float(np.abs(session.run([output], feeds)[0] - expected).max()))
    if worst > TOLERANCE:
        out.unlink()
        raise RuntimeError(
            f"{out.name}: ONNX Runtime differs from PyTorch by {worst:.2e}, more than {TOLERANCE}; not kept."
        )
    logger.info("%s: largest difference from PyTorch %.1e", out.name, worst)
    return worst


class _Part(torch.nn.Module):
    """A method of a network as a network of its own, which an exporter can trace."""

    def __init__(self, network: Any, method: str) -> None:
        super().__init__()
        self.network, self.method = network, method

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = getattr(self.network, self.method)(*inputs)
        return result


def export_parts(network: Any, family: ModelFamily, folder: Path) -> dict[str, float]:
    """Write every part of a bundle's network as ONNX, each compared with PyTorch.

    Args:
        network: the network, with a method for every part.
        family: family of the bundle.
        folder: for one file a part, named after it.

    Returns:
        File name to the largest difference.

    Raises:
        RuntimeError: as `export_onnx`.
    """
    differences = {}
    for part in family.parts:
        inputs = [End(name, channels) for name, channels in zip(part.inputs, part.channels(network), strict=True)]
        out = folder / f"{part.name}.onnx"
        differences[out.name] = export_onnx(
            _Part(network, part.method), out, inputs, part.output, part.multiple(network)
        )
    return differences
