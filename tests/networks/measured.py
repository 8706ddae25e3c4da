"""Measurements for the tests of networks: reach, gradients, agreement of ONNX with PyTorch."""

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


class Double(torch.nn.Module):
    """The expected image in float64, whose convolutions spread no NaN beyond their reach."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image.double())


def velocity_of(network: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The velocity where state and condition are the same cells, as far as their channels go."""
    return lambda cells: network.velocity(cells[:, :-1], cells, torch.full((1,), 0.3).double())


@torch.inference_mode()
def reach(network: torch.nn.Module, size: int, row: int, column: int) -> int:
    """Return how many input pixels far one pixel counts: NaN there makes NaN of all that depends on it."""
    image = torch.full((1, 1, size, size), 0.5)
    image[..., row, column] = torch.nan
    depends = network.eval()(image)[0, 0].isnan()
    factors = torch.tensor(depends.shape)[:, None] // size
    rows, columns = depends.nonzero().T // factors
    assert min(rows.min(), columns.min()) > 0, "the image is too small to tell"
    assert max(rows.max(), columns.max()) < size - 1, "the image is too small to tell"
    return int(max((rows - row).abs().max(), (columns - column).abs().max()))


@torch.inference_mode()
def reach_in_cells(call: Callable[[torch.Tensor], torch.Tensor], channels: int, size: int, row: int) -> int:
    """Return the same in cells ``[1, channels, size, size]`` float64, of which a function makes one pixel or more each.

    Args:
        call: the function.
        channels: channels of its cells.
        size: rows and columns of its cells.
        row: row and column of the cell that is NaN.
    """
    cells = torch.zeros(1, channels, size, size, dtype=torch.float64)
    cells[..., row, row] = torch.nan
    depends = call(cells)[0].isnan().any(dim=0)
    indices = depends.nonzero() // (len(depends) // size)
    assert indices.min() > 0, "there are too few cells to tell"
    assert indices.max() < size - 1, "there are too few cells to tell"
    return int((indices - row).abs().max())


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
