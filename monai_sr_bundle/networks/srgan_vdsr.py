"""A hybrid of SRGAN's residual blocks and VDSR's plain depth, with a fixed sharpening layer.

The generator of a published chest X-ray method that starts from a bicubic enlargement by two. The paper leaves details
open. It has a sharpening layer of three 3x3 filters that are not trained, but states neither
their kernel nor their use of 64 features: here each filter takes the mean of a third of the features and the usual
kernel with a centre of 5 and four neighbours of -1. It names no initialisation either: with PyTorch's default, twenty
plain layers shrink a signal to a hundred-thousandth, so they use He's.
SRGAN: https://arxiv.org/abs/1609.04802. VDSR: https://arxiv.org/abs/1511.04587.
"""

import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.srgan import ResidualBlock
from torch import nn

SHARPEN = ((0.0, -1.0, 0.0), (-1.0, 5.0, -1.0), (0.0, -1.0, 0.0))


class SRGANVDSR(nn.Module):
    """Bicubic by two, residual blocks, plain convolutions, fixed sharpening, and a pixel shuffle by two.

    Args:
        channels: features (64 in the paper).
        blocks: residual blocks (8 in the paper).
        depth: plain convolutions after them (20 in the paper).

    Shape:
        image: ``[B, 1, rows, columns]``, intensities near ``[0, 1]``.
        returns: ``[B, 1, 4 * rows, 4 * columns]`` in ``(0, 1)``: the last layer is a tanh.

    In evaluation mode an output pixel depends on input pixels within `receptive_radius` and on no others.

    Raises:
        ValueError: channels that do not make three parts.
    """

    sharpening: torch.Tensor

    def __init__(self, channels: int = 64, blocks: int = 8, depth: int = 20) -> None:
        super().__init__()
        thirds = torch.arange(channels).chunk(3)
        if len(thirds) < 3:
            raise ValueError(f"channels is {channels}, expected a number that makes three parts, such as 64.")
        self.interpolate = Bicubic(2)
        self.head = nn.Sequential(nn.Conv2d(1, channels, 9, padding=4), nn.PReLU())
        plain: list[nn.Module] = []
        for _ in range(depth):
            plain += [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU()]
            nn.init.kaiming_normal_(plain[-2].weight, a=0.25)  # type: ignore[arg-type]
        self.body = nn.Sequential(*[ResidualBlock(channels) for _ in range(blocks)], *plain, nn.BatchNorm2d(channels))
        kernel = torch.zeros(3, channels, 3, 3)
        for index, third in enumerate(thirds):
            kernel[index, third] = torch.tensor(SHARPEN) / len(third)
        self.register_buffer("sharpening", kernel, persistent=False)
        self.enlarge = nn.Sequential(nn.Conv2d(3, 4 * channels, 3, padding=1), nn.PixelShuffle(2), nn.PReLU())
        self.tail = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1), nn.PReLU(), nn.Conv2d(16, 1, 5, padding=2))
        on_the_doubled_grid = 2 + 1 + 1 + depth + 2 * blocks + 4  # tail, enlarge, sharpening, body, head
        self.receptive_radius = -(-on_the_doubled_grid // 2) + 2

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.head(2 * self.interpolate(image) - 1)
        features = self.body(features).add_(features)
        sharpened = torch.tanh_(torch.nn.functional.conv2d(features, self.sharpening, padding=1))
        # A tanh needs its own output for its gradient.
        return 0.5 * torch.tanh_(self.tail(self.enlarge(sharpened))) + 0.5
