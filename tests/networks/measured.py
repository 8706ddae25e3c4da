"""What the tests of every network measure: how far it looks, its gradients, its ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from monai_sr_bundle.packing.onnx_export import export_onnx


def trained_like(network: torch.nn.Module) -> torch.nn.Module:
    """The network in evaluation mode, with weights away from their special starting values: a comparison can fail."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, std=0.1, generator=generator)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
            torch.nn.init.normal_(module.bias, std=0.1, generator=generator)
            module.running_mean.normal_(std=0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


@torch.inference_mode()
def reach(network: torch.nn.Module, size: int, row: int, column: int) -> int:
    """Input pixels that one pixel is seen far: what is not a number there makes no number of all that depends on it."""
    image = torch.full((1, 1, size, size), 0.5)
    image[..., row, column] = torch.nan
    seen = network.eval()(image)[0, 0].isnan()
    rows, columns = seen.nonzero().T // (len(seen) // size)
    assert min(rows.min(), columns.min()) > 0, "the image is too small to tell"
    assert max(rows.max(), columns.max()) < size - 1, "the image is too small to tell"
    return int(max((rows - row).abs().max(), (columns - column).abs().max()))


@torch.inference_mode()
def reach_in_cells(call: Callable[[torch.Tensor], torch.Tensor], channels: int, size: int, row: int) -> int:
    """As `reach`, in cells ``[1, channels, size, size]`` float64, of which a function makes one pixel each or more.

    Args:
        call: the function.
        channels, size: of its cells.
        row: of the cell on the diagonal that is not a number.
    """
    cells = torch.zeros(1, channels, size, size, dtype=torch.float64)
    cells[..., row, row] = torch.nan
    seen = call(cells)[0].isnan().any(dim=0)
    places = seen.nonzero() // (len(seen) // size)
    assert places.min() > 0, "there are too few cells to tell"
    assert places.max() < size - 1, "there are too few cells to tell"
    return int((places - row).abs().max())


def without_gradient(network: torch.nn.Module, image: torch.Tensor) -> list[str]:
    """Names of the parameters that a loss of the network's training output does not move."""
    network.train()(image).square().mean().backward()
    return [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]


def assert_onnx_agrees(network: torch.nn.Module, path: Path) -> None:
    """Export with free sizes, and compare with PyTorch on sizes that were not exported."""
    network = trained_like(network)
    export_onnx(network, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in ((1, 1, 8, 8), (2, 1, 17, 45)):
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = network(image).numpy()
        assert expected.std() > 0.01
        np.testing.assert_allclose(session.run(["pred"], {"image": image.numpy()})[0], expected, atol=1e-4)
