"""Residual and film flow: the expected image by a regression network, its texture by a rectified flow of few steps.

The method follows Ohayon et al., "Posterior-Mean Rectified Flow", ICLR 2025, https://arxiv.org/abs/2410.00418: first
the image of least mean square error, then a flow (Liu et al., "Flow Straight and Fast", ICLR 2023) from there to real
images. Different here: both work on the low-resolution grid; the flow transports only the residual, from weak noise, in
lossless cells of pixels; and without normalisation or attention the networks depend on a fixed neighbourhood. The
regression network is `networks.edsr` with more blocks after its long skip, so that it can start from EDSR's weights.

The film flow has several scales. Its expected image is MDSR's, with its weights. As in MDSR, the scales share the body
of the velocity; a first and a last convolution belong to each of them, since a cell of a state has as many channels as
the scale has pixels.
"""

import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.edsr import MDSR, ResidualBlock
from monai_sr_bundle.networks.noise_unet import LevelBlock, LevelEmbedding
from torch import nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu


class _Block(ResidualBlock):
    """A block of EDSR whose second convolution begins without bias."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        # A block that starts near identity changes little of what the weights before it have learnt.
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]


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
        ValueError: an even number of slices.
    """

    process: torch.Tensor

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
    """

    process: torch.Tensor

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
