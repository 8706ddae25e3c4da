"""ONNX export of a bundle's network, with any batch, height and width, checked against PyTorch."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

logger = logging.getLogger(__name__)

OPSET = 17
"""The highest opset in every TensorRT operator table, 8.5 to 11."""
TOLERANCE = 1e-4


def export_onnx(network: torch.nn.Module, out: Path) -> float:
    """Write `network` as ONNX with inputs `image` and outputs `pred`, and compare the two.

    Args:
        network: takes ``[B, 1, rows, columns]``, in evaluation mode.
        out: the file to write.

    Returns:
        The largest difference between PyTorch and ONNX Runtime on images of another size than the exported one.

    Raises:
        RuntimeError: the difference is above `TOLERANCE`; the file is not kept.
    """
    generator = torch.Generator().manual_seed(0)
    network = network.cpu().eval()
    with warnings.catch_warnings():
        # The tracing exporter is deprecated but is the one that keeps to opset 17 and needs no onnxscript.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            network,
            (torch.rand(2, 1, 48, 40, generator=generator),),
            str(out),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["pred"],
            dynamic_axes={name: {0: "batch", 2: f"{name}_rows", 3: f"{name}_columns"} for name in ("image", "pred")},
        )
    model = onnx.load(out)
    for node in model.graph.node:
        node.doc_string = ""  # the exporter writes paths of this machine's source files here
    onnx.checker.check_model(model)
    onnx.save(model, out)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    worst = 0.0
    for shape in ((1, 1, 33, 71), (3, 1, 64, 64)):
        image = torch.rand(shape, generator=generator)
        with torch.inference_mode():
            expected = network(image).numpy()
        worst = max(worst, float(np.abs(session.run(["pred"], {"image": image.numpy()})[0] - expected).max()))
    if worst > TOLERANCE:
        out.unlink()
        raise RuntimeError(
            f"{out.name}: ONNX Runtime differs from PyTorch by {worst:.2e}, more than {TOLERANCE}; not kept."
        )
    logger.info("%s: largest difference from PyTorch %.1e", out.name, worst)
    return worst
