"""ONNX export of a bundle's network, with any batch, height and width, checked against PyTorch."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from monai_sr_bundle.backends.onnx_files import error_bars_onnx, onnx_file
from monai_sr_bundle.backends.torch_backend import build_error_scale, load_network, load_state
from monai_sr_bundle.backends.torch_networks import PartNetwork
from monai_sr_bundle.bundles import ERROR_BARS, Bundle
from monai_sr_bundle.families.family import ModelFamily, Part
from monai_sr_bundle.uncertainty.error_bars import sees_whole_image

logger = logging.getLogger(__name__)

OPSET = 17
"""The highest opset in every TensorRT operator table, 8.5 to 11."""
TOLERANCE = 1e-4
"""The largest accepted difference between PyTorch and ONNX Runtime, in units of the window."""


@dataclass(frozen=True)
class End:
    """An input or output of an exported network.

    Attributes:
        name: name of the tensor.
        channels: channels of ``[batch, channels, rows, columns]``; None for one number per image of the batch.
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
    """Write a network as ONNX for any batch, height and width, and compare it with PyTorch.

    Args:
        network: the network, which takes the `inputs`.
        out: ONNX file to write.
        inputs: inputs of the network, in order. Default one image of one channel.
        output: name of the output.
        multiple: number that rows and columns of the inputs must be multiples of. Default 1.

    Returns:
        The largest difference between PyTorch and ONNX Runtime, see `largest_difference`.

    Raises:
        RuntimeError: the difference is above `TOLERANCE`; the file was removed.
    """
    network = network.cpu().eval()
    axes = {output: {0: "batch", 2: f"{output}_rows", 3: f"{output}_columns"}}
    for end in inputs:
        axes[end.name] = {0: "batch"} if end.channels is None else {0: "batch", 2: "image_rows", 3: "image_columns"}
    with warnings.catch_warnings():
        # The tracing exporter is deprecated but is the one that keeps to opset 17 and needs no onnxscript.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)  # a lost optimization of opset 17
        torch.onnx.export(
            network,
            _draw_inputs(inputs, multiple, 2, 48, 40),
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
    # The exporter leaves out inputs that a network does not use.
    input_names = {node.name for node in session.get_inputs()}

    def run(*arrays: np.ndarray) -> np.ndarray:
        feeds = {end.name: array for end, array in zip(inputs, arrays, strict=True) if end.name in input_names}
        return np.asarray(session.run([output], feeds)[0])

    difference = largest_difference(network, run, inputs, multiple)
    if not difference <= TOLERANCE:  # nor one that is no number
        out.unlink()
        raise RuntimeError(
            f"{out.name}: ONNX Runtime differs from PyTorch by {difference:.2e}, more than {TOLERANCE}; not kept."
        )
    logger.info("%s: largest difference from PyTorch %.1e", out.name, difference)
    return difference


def largest_difference(
    network: torch.nn.Module, exported: Callable[..., np.ndarray], inputs: Sequence[End], multiple: int
) -> float:
    """Return the largest difference of an exported network, which takes arrays, from PyTorch, on images of other sizes.

    It is infinite where shapes differ, and no number where either network gives none.
    """
    differences = []
    for shape in ((1, 24, 33), (3, 40, 48)):
        values = _draw_inputs(inputs, multiple, *shape)
        with torch.inference_mode():
            expected = network(*values).numpy()
        actual = exported(*(value.numpy() for value in values))
        if actual.shape != expected.shape:
            return math.inf
        differences.append(np.abs(actual - expected).max())
    return float(np.max(differences))


def _draw_inputs(inputs: Sequence[End], multiple: int, batch: int, rows: int, columns: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows)
    size = [-(-side // multiple) * multiple for side in (rows, columns)]
    shapes = [(batch,) if end.channels is None else (batch, end.channels, *size) for end in inputs]
    return tuple(torch.rand(shape, generator=generator) for shape in shapes)


def inputs_of(part: Part, network: Any) -> list[End]:
    """Return the inputs of a part of a network."""
    return [End(name, channels) for name, channels in zip(part.inputs, part.channels(network), strict=True)]


def export_parts(network: Any, family: ModelFamily, folder: Path) -> dict[str, float]:
    """Write every part of a bundle's network as ONNX, each compared with PyTorch.

    Args:
        network: the network, with a method for every part.
        family: family of the bundle.
        folder: folder for one file a part, see `backends.onnx_files.onnx_file`.

    Returns:
        The largest difference from PyTorch for each file name.

    Raises:
        RuntimeError: see `export_onnx`.
    """
    differences = {}
    for part in family.parts:
        out = folder / onnx_file(family, part)
        differences[out.name] = export_onnx(
            PartNetwork(network, part), out, inputs_of(part, network), part.output, part.multiple(network)
        )
    return differences


def export_error_bars(network: Any, bundle: Bundle, folder: Path) -> dict[str, float]:
    """Write the network of a bundle's error bars at its scale as ONNX; result as `export_parts`."""
    out = folder / error_bars_onnx(bundle)
    channels = bundle.scale**2 + 1 + (network.measures if sees_whole_image(bundle) else 0)
    return {out.name: export_onnx(network, out, [End("cells", channels)], "scale")}


def export_bundle(bundle: Bundle, folder: Path) -> dict[str, float]:
    """Write the released networks of a bundle as ONNX, at every scale, those of its error bars too, each compared with
    PyTorch.

    Args:
        bundle: the bundle, whose hash-checked `model.pt` and `error_bars.pt` are read.
        folder: folder for the ONNX files.

    Returns:
        The largest difference from PyTorch for each file name.

    Raises:
        BundleError: see `load_network`.
        RuntimeError: see `export_onnx`.
    """
    differences: dict[str, float] = {}
    for scaled in map(bundle.at_scale, bundle.scales):
        differences |= export_parts(load_network(scaled)[0], scaled.family, folder)
        if scaled.has_file(ERROR_BARS):
            network = load_state(scaled, ERROR_BARS, build_error_scale(scaled))
            differences |= export_error_bars(network, scaled, folder)
    return differences
