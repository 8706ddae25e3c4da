"""Residual flow: the expected image by a regression network, and its texture by a rectified flow of few steps.

The method follows Ohayon et al., "Posterior-Mean Rectified Flow", ICLR 2025, https://arxiv.org/abs/2410.00418: first
the image of least mean square error, then a flow (Liu et al., "Flow Straight and Fast", ICLR 2023) from there to real
images. Different here: both work on the low-resolution grid; the flow transports only the residual, from weak noise, in
lossless cells of pixels; and without normalisation or attention the networks depend on a fixed neighbourhood. The
regression network is `networks.edsr` with more blocks after its long skip, so that it can start from EDSR's weights.
"""

import torch
from torch import nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.noise_unet import LevelBlock, LevelEmbedding


class _Block(nn.Module):
    """Two convolutions with a skip, as in EDSR."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        # A block that starts near identity changes little of what the weights before it have learnt.
        nn.init.normal_(self.second.weight, std=0.01)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu_(self.first(features))).add_(features)


class Velocity(nn.Module):
    """The velocity of a state between noise and residual, given a condition and a time.

    Args:
        inputs: channels of state and condition together.
        outputs: channels of the state.
        channels: features of every convolution.
        blocks: residual blocks.
    """

    def __init__(self, inputs: int, outputs: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.embed = LevelEmbedding(channels)
        self.head = nn.Conv2d(inputs, channels, 3, padding=1)
        self.body = nn.ModuleList([LevelBlock(channels, channels, channels, 0, 0.0) for _ in range(blocks)])
        self.tail = nn.Conv2d(channels, outputs, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, cells: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        embedded = self.embed(time)
        features = self.head(cells)
        for block in self.body:
            features = block(features, embedded)
        return self.tail(silu(features))


class ResidualFlow(nn.Module):
    """The expected image (`forward`), and the velocity of the flow that adds texture to it (`velocity`).

    The flow's states are cells: one per low-resolution pixel, with the ``scale * scale`` high-resolution pixels of
    the residual (original minus expected image) as channels.

    Args:
        scale: output pixels per input pixel along each axis.
        channels, blocks: features and residual blocks of the regression network, as in `networks.edsr.EDSR`.
        refinement: its residual blocks after the long skip.
        flow_channels, flow_blocks: features and residual blocks of the velocity's network.
        mirror: outside training, average the results of the image and of its mirror image (left and right;
            self-ensemble of Timofte, Rothe and Van Gool, CVPR 2016). It takes twice the time, lowers the error, and the
            result of a mirrored image is mirrored. Default False.
        slices: number of neighbouring slices in the input, odd; the middle one is enlarged. Default 1.
        mask: also predict the low-resolution pixels with artifacts, such as letters, that the expected image leaves
            out (`artifacts`), by one convolution. Default False.

    Shape:
        image: ``[B, slices, rows, columns]``, intensities near ``[0, 1]``.
        returns: ``[B, 1, scale * rows, scale * columns]``, not clipped.

    A pixel of the expected image depends on low-resolution pixels within `receptive_radius` and on no others; a cell
    of the velocity on states and conditions within `velocity_radius`.

    Raises:
        ValueError: fewer than one channel or block, less than no refinement, or an even number of slices.
    """

    process: torch.Tensor
    grid = 1
    cell = 1
    """Number of low-resolution pixels along each side of a cell."""

    def __init__(
        self,
        scale: int = 4,
        channels: int = 48,
        blocks: int = 8,
        refinement: int = 2,
        flow_channels: int = 48,
        flow_blocks: int = 5,
        mirror: bool = False,
        slices: int = 1,
        mask: bool = False,
    ) -> None:
        super().__init__()
        if min(channels, blocks, flow_channels, flow_blocks) < 1 or refinement < 0:
            raise ValueError(
                f"channels is {channels}, blocks {blocks}, refinement {refinement}, flow_channels {flow_channels} and "
                f"flow_blocks {flow_blocks}, expected at least 1 of each, and no refinement below 0."
            )
        if slices < 1 or slices % 2 == 0:
            raise ValueError(f"slices is {slices}, expected an odd number above 0: one slice and its neighbours.")
        self.scale, self.mirror, self.slices = scale, mirror, slices
        self.channels, self.condition_channels = scale * scale, scale * scale + slices
        self.velocity_radius = 2 * flow_blocks + 2
        self.receptive_radius = max(2 * (blocks + refinement) + 3, self.velocity_radius)
        self.enlarge = Bicubic(scale)
        # Named as in EDSR, whose weights they begin with.
        self.head = nn.Conv2d(slices, channels, 3, padding=1)
        self.body = nn.Sequential(
            *[_Block(channels) for _ in range(blocks)], nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.refine = nn.Sequential(*[_Block(channels) for _ in range(refinement)])
        self.tail = nn.Conv2d(channels, scale * scale, 3, padding=1)
        nn.init.normal_(self.tail.weight, std=1e-3)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]
        # The flow that the weights were trained for, as `RectifiedFlow.fingerprint`; zeros before its training.
        self.register_buffer("process", torch.zeros(2))
        self.flow = Velocity(self.channels + self.condition_channels, self.channels, flow_channels, flow_blocks)
        self.mask = nn.Conv2d(channels, 1, 3, padding=1) if mask else None

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.mirror and not self.training:
            mirrored = image.flip(-1)
            both = self._expected(image, self._features(image))
            return both.add_(self._expected(mirrored, self._features(mirrored)).flip(-1)).mul_(0.5)
        return self._expected(image, self._features(image))

    def _features(self, image: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.head(image - 0.5)
        refined: torch.Tensor = self.refine(self.body(features).add_(features))
        return refined

    def _expected(self, image: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        # A single slice is used directly, so that its export has no more nodes.
        middle = image if self.slices == 1 else image[:, self.slices // 2].unsqueeze(1)
        return self.enlarge(middle).add_(pixel_shuffle(self.tail(features), self.scale))

    def with_mask(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the expected image, and the logits of the artifact mask ``[B, 1, rows, columns]``; needs `mask`."""
        assert self.mask is not None
        features = self._features(image)
        return self._expected(image, features), self.mask(features)

    def artifacts(self, image: torch.Tensor) -> torch.Tensor:
        """Return the probability ``[B, 1, rows, columns]`` of an artifact in each input pixel; needs `mask`."""
        assert self.mask is not None
        return torch.sigmoid(self.mask(self._features(image)))

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Return the condition: the cells of the expected image, and the pixels of all slices."""
        return torch.cat((pixel_unshuffle(self(image), self.scale), image), dim=1)

    def velocity(self, state: torch.Tensor, condition: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Return the expected residual minus noise at a state between the two.

        Args:
            state: ``[B, scale * scale, rows, columns]``: ``(1 - time) * noise + time * residual``, in units of the
                residual's standard deviation.
            condition: from `encode`.
            time: ``[B]``, 0 (noise) to 1 (residual).
        """
        return self.flow(torch.cat((state, 4 * condition - 2), dim=1), time)

    def target(self, high: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the residual, at which the flow ends, of the original ``[B, 1, scale * rows, scale * columns]``."""
        return pixel_unshuffle(high, self.scale) - condition[:, : self.channels]
