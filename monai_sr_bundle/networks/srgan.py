"""SRGAN: its generator, which trained by mean square error alone is SRResNet, and its discriminator.

Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", CVPR 2017,
https://arxiv.org/abs/1609.04802 (Figure 4, Section 2.1). The discriminator distinguishes patches of real images from
those of a generator. Its last sigmoid is left to the loss, so that the relativistic average of ESRGAN
(https://arxiv.org/abs/1809.00219, Section 3.2) can use the same network.
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
        ValueError: a scale that is no power of two.
    """

    def __init__(self, scale: int = 4, channels: int = 64, blocks: int = 16) -> None:
        super().__init__()
        if scale not in (2, 4, 8):
            raise ValueError(f"scale is {scale}, expected 2, 4 or 8: every pixel shuffle enlarges by two.")
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


class Discriminator(nn.Module):
    """Eight convolutions, every second halves the grid, then two fully connected layers.

    Args:
        size: side of the patches, a multiple of 16. The first fully connected layer grows with its square:
            139 million weights for 256 pixels, 24 million for 96 (with 64 channels).
        channels: features of the first convolution (64 in the paper), eight times as many at the end.
        hidden: features between the two fully connected layers (1024 in the paper).

    Shape:
        image: ``[B, 1, size, size]``, intensities near ``[0, 1]``.
        returns: ``[B, 1]`` logits, high for real images.

    Raises:
        ValueError: a size that four halvings do not divide.
    """

    def __init__(self, size: int = 96, channels: int = 64, hidden: int = 1024) -> None:
        super().__init__()
        if size % 16 or size < 16:
            raise ValueError(f"size is {size}, expected a multiple of 16: four convolutions halve the patch.")
        self.size = size
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1), nn.LeakyReLU(0.2)]
        width = channels
        for factor, stride in ((1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2)):
            layers += [
                nn.Conv2d(width, factor * channels, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(factor * channels),
                nn.LeakyReLU(0.2),
            ]
            width = factor * channels
        self.features = nn.Sequential(*layers)
        self.judge = nn.Sequential(
            nn.Flatten(), nn.Linear(width * (size // 16) ** 2, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.judge(self.features(2 * image - 1))
