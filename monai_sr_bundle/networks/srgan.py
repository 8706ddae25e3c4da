"""The generator of SRGAN, which trained by mean square error alone is SRResNet.

Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", CVPR 2017,
https://arxiv.org/abs/1609.04802 (Figure 4, Section 2.1). The discriminator is in `discriminator.py`.
"""

import torch
from torch import nn


class ResidualBlock(nn.Module):
    """Convolution, normalisation, PReLU, convolution, normalisation, and a skip (Figure 4, k3n64s1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # In place where nothing else needs the tensor: new memory for each would cost time.
        return self.layers(features).add_(features)


class SRResNet(nn.Module):
    """Residual blocks on the low-resolution grid, enlarged by pixel shuffles of two.

    Args:
        scale: output pixels per input pixel along each axis, 2, 4 or 8.
        channels: features of the residual blocks (64 in the paper).
        blocks: residual blocks (16 in the paper).

    Shape:
        image: ``[B, 1, rows, columns]``, intensities near ``[0, 1]``.
        returns: ``[B, 1, scale * rows, scale * columns]``, not clipped.

    In evaluation mode an output pixel depends on input pixels within `receptive_radius` and on no others.

    Raises:
        ValueError: a scale that is no power of two, fewer than one block.
    """

    def __init__(self, scale: int = 4, channels: int = 64, blocks: int = 16) -> None:
        super().__init__()
        if scale not in (2, 4, 8):
            raise ValueError(f"scale is {scale}, expected 2, 4 or 8: every pixel shuffle enlarges by two.")
        if blocks < 1:
            raise ValueError(f"blocks is {blocks}, expected at least 1.")
        self.head = nn.Sequential(nn.Conv2d(1, channels, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(
            *[ResidualBlock(channels) for _ in range(blocks)],
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        enlarge: list[nn.Module] = []
        for _ in range(scale.bit_length() - 1):
            enlarge += [nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()]
        self.enlarge = nn.Sequential(*enlarge)
        self.tail = nn.Conv2d(channels, 1, 9, padding=4)
        reach = 4  # from the tail down to the grid of the input
        for _ in range(scale.bit_length() - 1):
            reach = -(-reach // 2) + 1
        self.receptive_radius = reach + 2 * blocks + 1 + 4

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        # The paper's images lie in [-1, 1]; ours in [0, 1].
        features = self.head(2 * image - 1)
        return self.tail(self.enlarge(self.body(features).add_(features))).mul_(0.5).add_(0.5)
