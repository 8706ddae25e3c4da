"""The discriminator of SRGAN, which distinguishes patches of real images from those of a generator.

Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", CVPR 2017,
https://arxiv.org/abs/1609.04802 (Figure 4). The last sigmoid is left to the loss, so that the relativistic average of
ESRGAN (https://arxiv.org/abs/1809.00219, Section 3.2) can use the same network.
"""

import torch
from torch import nn


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
            nn.Flatten(),
            nn.Linear(width * (size // 16) ** 2, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.judge(self.features(2 * image - 1))
