"""Film flow: the expected image of a film by MDSR, and its texture by a rectified flow, at several scales.

The method is that of `networks.residual_flow` (Ohayon et al., "Posterior-Mean Rectified Flow", ICLR 2025,
https://arxiv.org/abs/2410.00418; Liu et al., "Flow Straight and Fast", ICLR 2023). The expected image is that of
`networks.mdsr`, with its weights. As in MDSR, the scales share the body of the velocity, which works on the
low-resolution grid; a first and a last convolution belong to each of them, since a cell of a state has as many channels
as the scale has pixels.
"""

import torch
from torch import nn
from torch.nn.functional import pixel_unshuffle, silu

from monai_sr_bundle.networks.mdsr import MDSR
from monai_sr_bundle.networks.noise_unet import LevelBlock, LevelEmbedding

NOISE = 0.5
"""Standard deviation that the flow usually begins with, in units of the residual's."""


class FilmVelocity(nn.Module):
    """The velocity of a state between noise and residual, given a condition and a time, at one of several scales.

    Args:
        scales: the factors, output pixels per input pixel along each axis.
        channels: features of every convolution.
        blocks: residual blocks.
    """

    def __init__(self, scales: tuple[int, ...], channels: int, blocks: int) -> None:
        super().__init__()
        self.embed = LevelEmbedding(channels)
        self.body = nn.ModuleList([LevelBlock(channels, channels, channels, 0, 0.0) for _ in range(blocks)])
        self.heads, self.tails = nn.ModuleDict(), nn.ModuleDict()
        for scale in scales:
            # The velocity, and a gain for each cell.
            tail = nn.Conv2d(channels, scale * scale + 1, 3, padding=1)
            nn.init.zeros_(tail.weight)
            nn.init.zeros_(tail.bias)  # type: ignore[arg-type]
            self.heads[f"x{scale}"] = nn.Conv2d(2 * scale * scale + 1, channels, 3, padding=1)
            self.tails[f"x{scale}"] = tail

    @torch.jit.unused  # TorchScript, which cannot look modules up by name, gives the expected image
    def forward(self, cells: torch.Tensor, time: torch.Tensor, scale: int) -> torch.Tensor:
        embedded = self.embed(time)
        features = self.heads[f"x{scale}"](cells)
        for block in self.body:
            features = block(features, embedded)
        out = self.tails[f"x{scale}"](silu(features))
        # Where residuals were Gaussian, the velocity would be a multiple of the state: it is known for residuals of the
        # usual size, and the network says how much more or less it is where they are larger or smaller.
        t = time[:, None, None, None]
        usual = (t - (1 - t) * NOISE**2) / (t**2 + (1 - t) ** 2 * NOISE**2)
        velocity: torch.Tensor = out[:, :-1] + (usual + out[:, -1:]) * cells[:, : scale * scale]
        return velocity


class FilmFlow(MDSR):
    """The expected image (`forward`, which is that of `MDSR`), and the velocity of the flow that adds texture to it.

    The flow's states are cells: one per low-resolution pixel, with the ``scale * scale`` high-resolution pixels of
    the residual (original minus expected image) as channels. How many those are says which scale is meant.

    Args:
        scales, scale, channels, dilations: see `MDSR`.
        flow_channels, flow_blocks: features and residual blocks of the velocity's network.

    Shape:
        See `MDSR`; one slice.

    A pixel of the expected image depends on low-resolution pixels within `receptive_radius` and on no others; a cell
    of the velocity on states and conditions within `velocity_radius`.

    Raises:
        ValueError: see `MDSR`; fewer than one channel or block of the velocity.
    """

    process: torch.Tensor
    grid = 1
    cell = 1
    """Number of low-resolution pixels along each side of a cell."""

    def __init__(
        self,
        scales: tuple[int, ...] = (2, 3, 4),
        scale: int = 4,
        channels: int = 48,
        dilations: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 1, 1, 2, 2),
        flow_channels: int = 48,
        flow_blocks: int = 5,
    ) -> None:
        super().__init__(scales, scale, channels, dilations)
        if min(flow_channels, flow_blocks) < 1:
            raise ValueError(
                f"flow_channels is {flow_channels} and flow_blocks {flow_blocks}, expected at least 1 of each."
            )
        self.channels, self.condition_channels = scale * scale, scale * scale + 1
        self.velocity_radius = 2 * flow_blocks + 2
        # The flow that the weights were trained for, as `RectifiedFlow.fingerprint`; zeros before its training.
        self.register_buffer("process", torch.zeros(2))
        self.flow = FilmVelocity(self.scales, flow_channels, flow_blocks)

    def encode(self, image: torch.Tensor, scale: int | None = None) -> torch.Tensor:
        """Return the condition: the cells of the expected image, and the input's pixels."""
        return torch.cat((pixel_unshuffle(self(image, scale), scale or self.scale), image), dim=1)

    def velocity(self, state: torch.Tensor, condition: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Return the expected residual minus noise at a state between the two.

        Args:
            state: ``[B, scale * scale, rows, columns]``: ``(1 - time) * noise + time * residual``, in units of the
                residual's standard deviation.
            condition: from `encode`.
            time: ``[B]``, 0 (noise) to 1 (residual).
        """
        expected, image = condition[:, :-1], condition[:, -1:]
        # Both near 1: detail, and what was taken away as noise, are a few grey levels.
        cells = torch.cat((state, 16 * (expected - image), 2 * image - 1), dim=1)
        return self.flow(cells, time, int(state.shape[1] ** 0.5))

    def target(self, high: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the residual, at which the flow ends, of the original ``[B, 1, scale * rows, scale * columns]``."""
        return pixel_unshuffle(high, high.shape[-1] // condition.shape[-1]) - condition[:, :-1]
