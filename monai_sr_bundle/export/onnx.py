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


def export_flow(network: Any, folder: Path) -> dict[str, float]:
    """Write the expected image and the velocity of a residual flow as ONNX, each compared with PyTorch.

    Args:
        network: of `networks.residual_flow`.
        folder: for `model.onnx` and `velocity.onnx`.

    Returns:
        File name to the largest difference.

    Raises:
        RuntimeError: as `export_onnx`.
    """
    inputs = [End("state", network.channels), End("condition", network.condition_channels), End("time", None)]
    return {
        "model.onnx": export_onnx(network, folder / "model.onnx", [End("image", network.slices)]),
        "velocity.onnx": export_onnx(_Part(network, "velocity"), folder / "velocity.onnx", inputs, "velocity"),
    }


def export_artifacts(network: Any, folder: Path) -> dict[str, float]:
    """Write the mask of what a network removes as ONNX, compared with PyTorch.

    A model of its own, so that `model.onnx` goes from image to pred as that of every other bundle.

    Args:
        network: with `artifacts`, as that of `networks.residual_flow`.
        folder: for `artifacts.onnx`.

    Returns:
        File name to the largest difference.

    Raises:
        RuntimeError: as `export_onnx`.
    """
    out = folder / "artifacts.onnx"
    return {out.name: export_onnx(_Part(network, "artifacts"), out, output="artifacts")}


def export_diffusion(network: Any, folder: Path) -> dict[str, float]:
    """Write the encoder, denoiser and decoder of a diffusion network as ONNX, each compared with PyTorch.

    Args:
        network: as `inferers.sampling.TorchDenoiser` takes.
        folder: for `encoder.onnx`, `denoiser.onnx` and `decoder.onnx`.

    Returns:
        File name to the largest difference.

    Raises:
        RuntimeError: as `export_onnx`.
    """
    noisy, condition = End("noisy", network.channels), End("condition", network.condition_channels)
    parts: dict[str, tuple[str, list[End], str]] = {
        "encoder.onnx": ("encode", [End("image", network.cell**2)], "condition"),
        "denoiser.onnx": ("forward", [noisy, condition, End("level", None)], "predicted"),
        "decoder.onnx": ("decode", [End("cells", network.channels), condition], "pred"),
    }
    return {
        name: export_onnx(_Part(network, method), folder / name, inputs, output, network.grid)
        for name, (method, inputs, output) in parts.items()
    }
