"""A diffusion process, step by step: noise is added to an image, and the method removes it again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai_sr_bundle.backends.torch_backend import load_network
from monai_sr_bundle.backends.torch_networks import TorchNetworks
from monai_sr_bundle.benchmark.comparison import Strip
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.families.diffusion import Diffusion
from monai_sr_bundle.inferers.sampler import sample
from monai_sr_bundle.inferers.sampler_options import SamplerOptions

STAGES = 6
"""Number of pictures of each direction, from the image to the noise; fewer for fewer steps."""


def draw_strip(bundle: Bundle, label: str, options: SamplerOptions, low_res: np.ndarray, high_res: np.ndarray) -> Strip:
    """Draw the process of one method on one image.

    Args:
        bundle: a diffusion model.
        label: name of the method in the tables.
        options: sampler, steps and seed; the first sample is shown.
        low_res: ``[rows, columns]`` in units of the window, cropped to a multiple of the network's grid.
        high_res: the original.
    """
    family = bundle.family
    assert isinstance(family, Diffusion)
    options = replace(options, samples=1)
    network: Any = load_network(bundle)[0]
    multiple = network.cell * network.grid
    rows, columns = (side - side % multiple for side in low_res.shape)  # the part that needs no padding
    low_res, high_res = low_res[:rows, :columns], high_res[: bundle.scale * rows, : bundle.scale * columns]
    denoiser, process = family.denoiser(TorchNetworks(network, family.parts, "cpu")), family.process
    levels = process.solver(options).levels
    # Noise is added evenly over the training steps, so even steps show it best.
    indices = np.unique(np.linspace(0, len(levels) - 1, STAGES).round().astype(int))[::-1]
    states: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def record(index: int, state: np.ndarray, clean: np.ndarray) -> None:
        if index in indices:
            states[index] = torch.from_numpy(state), torch.from_numpy(clean)

    size: dict[str, Any] = {"scale": bundle.scale, "halo": family.halo, "grid": family.grid, "tile": max(low_res.shape)}
    result, _ = sample(low_res, denoiser, process, options, **size, on_step=record)
    with torch.inference_mode():
        condition = network.encode(torch.from_numpy(low_res)[None, None])
        clean = network.target(torch.from_numpy(high_res)[None, None], condition)
        gaussian = options.generator(0).standard_normal(clean.shape[1:], dtype=np.float32)
        noise = torch.from_numpy(gaussian)[None]

        def picture(cells: torch.Tensor) -> np.ndarray:
            return np.asarray(network.decode(cells[:1], condition)[0, 0].numpy())

        forward = [picture(levels[index] * clean + (1 - levels[index] ** 2) ** 0.5 * noise) for index in indices]
        backward = [picture(states[index][0]) for index in indices]
        guesses = [picture(states[index][1]) for index in indices]
    return Strip(label, [levels[index] for index in indices], high_res, forward, backward, guesses, result)
