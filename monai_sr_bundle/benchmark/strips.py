"""A diffusion process, step by step: what noise makes of an image, and what the method makes of the noise."""

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
"""Pictures of each direction, from the image to the noise; fewer where there are fewer steps."""


def strip(bundle: Bundle, label: str, options: SamplerOptions, low: np.ndarray, high: np.ndarray) -> Strip:
    """Draw the process of one method on one image.

    Args:
        bundle: a diffusion model.
        label: what the tables call it.
        options: sampler, steps and seed; the first sample is shown.
        low: ``[rows, columns]`` in units of the window; what goes beyond a multiple of the network's grid is cut off.
        high: the original.
    """
    family = bundle.family
    assert isinstance(family, Diffusion)
    options = replace(options, samples=1)
    network: Any = load_network(bundle)[0]
    multiple = network.cell * network.grid
    rows, columns = (side - side % multiple for side in low.shape)  # the part that needs no padding
    low, high = low[:rows, :columns], high[: bundle.scale * rows, : bundle.scale * columns]
    denoiser, process = family.denoiser(TorchNetworks(network, family.parts, "cpu")), family.process
    levels = process.solver(options).levels
    # Noise is added evenly over the training steps, so even steps show it best.
    places = np.unique(np.linspace(0, len(levels) - 1, STAGES).round().astype(int))[::-1]
    states: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def watch(index: int, state: np.ndarray, clean: np.ndarray) -> None:
        if index in places:
            states[index] = torch.from_numpy(state), torch.from_numpy(clean)

    size: dict[str, Any] = {"scale": bundle.scale, "halo": family.halo, "grid": family.grid, "tile": max(low.shape)}
    result, _ = sample(low, denoiser, process, options, **size, watch=watch)
    with torch.inference_mode():
        condition = network.encode(torch.from_numpy(low)[None, None])
        clean = network.target(torch.from_numpy(high)[None, None], condition)
        drawn = options.generator(0).standard_normal(clean.shape[1:], dtype=np.float32)
        noise = torch.from_numpy(drawn)[None]

        def picture(cells: torch.Tensor) -> np.ndarray:
            return np.asarray(network.decode(cells[:1], condition)[0, 0].numpy())

        forward = [picture(levels[place] * clean + (1 - levels[place] ** 2) ** 0.5 * noise) for place in places]
        backward = [picture(states[place][0]) for place in places]
        guesses = [picture(states[place][1]) for place in places]
    return Strip(label, [levels[place] for place in places], high, forward, backward, guesses, result)
