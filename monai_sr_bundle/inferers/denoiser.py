"""Diffusion networks in PyTorch as the sampler sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from monai_sr_bundle.inferers.device import predict_array
from monai_sr_bundle.inferers.flow import RectifiedFlow
from monai_sr_bundle.inferers.process import Process
from monai_sr_bundle.inferers.sampling import Denoiser, ResidualCells


def torch_denoiser(network: Any, process: Process | RectifiedFlow, device: torch.device | str) -> Denoiser:
    """A network as what its process needs of it.

    Args:
        network: of `networks.residual_flow` for a flow, else as `TorchDenoiser`.
        process: it was trained for.
        device: where it is.

    Raises:
        BundleError: its weights were trained for another process.
    """
    process.check_belongs(network.process.cpu().numpy())
    if isinstance(process, Process):
        return TorchDenoiser(network, device)

    def expect(pixels: np.ndarray) -> np.ndarray:
        return predict_array(network, pixels, device)

    def velocity(state: np.ndarray, condition: np.ndarray, time: float) -> np.ndarray:
        times = torch.full((len(state),), time, device=device)
        beside = torch.from_numpy(condition).to(device).expand(len(state), -1, -1, -1)
        return predict_array(lambda cells: network.velocity(cells, beside, times), state, device)

    return ResidualCells(expect, velocity, network.scale, process.residual_std, network.slices)


class TorchDenoiser:
    """A network of `networks.sr3` or `networks.latent_diffusion` as a `Denoiser`.

    Args:
        network: with `encode`, `decode`, and forward from noisy cells, condition and level.
        device: where it is.
    """

    def __init__(self, network: Any, device: torch.device | str) -> None:
        self.network, self.device = network, device
        self.cell, self.channels, self.condition_channels = network.cell, network.channels, network.condition_channels
        # A CPU gains nothing from more than one.
        self.batch = 1 if torch.device(device).type == "cpu" else 8

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return predict_array(self.network.encode, pixels, self.device)

    def denoise(self, noisy: np.ndarray, condition: np.ndarray, level: float) -> np.ndarray:
        levels = torch.full((len(noisy),), level, device=self.device)
        beside = torch.from_numpy(condition).to(self.device).expand(len(noisy), -1, -1, -1)
        return predict_array(lambda cells: self.network(cells, beside, levels), noisy, self.device)

    def decode(self, cells: np.ndarray, condition: np.ndarray) -> np.ndarray:
        beside = torch.from_numpy(condition).to(self.device)
        return predict_array(lambda state: self.network.decode(state, beside), cells, self.device)
