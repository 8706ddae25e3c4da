"""EDSR: residual blocks without normalisation on the low-resolution grid, enlarged by one pixel shuffle at the end.

Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPR Workshops 2017,
https://arxiv.org/abs/1707.02921 (Figure 2c and 3). Different from the paper: the network adds its detail to a
bicubic enlargement, as VDSR does (Kim et al., CVPR 2016), so that an untrained network is already bicubic; the
pixel shuffle enlarges by the whole factor at once, which keeps every convolution on the small grid; and the default
size is that of a network for a CPU.
"""

import torch
from torch import nn
from torch.nn.functional import pixel_shuffle

from monai_sr_bundle.networks.bicubic import Bicubic


class ResidualBlock(nn.Module):
    """Two convolutions with a skip, without batch normalisation, which costs range and memory (EDSR, Section 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        # A block that starts near identity keeps a deep stack trainable at a high learning rate.
        nn.init.normal_(self.second.weight, std=0.01)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # In place where nothing else needs the tensor: new memory for each would cost a tenth of the time.
        return self.second(torch.relu_(self.first(features))).add_(features)


class EDSR(nn.Module):
    """Bicubic enlargement plus the detail a residual network predicts from the low-resolution pixels.

    Args:
        scale: output pixels per input pixel along each axis.
        channels: features of every convolution.
        blocks: residual blocks.

    Shape:
        image: ``[B, 1, rows, columns]``, intensities near ``[0, 1]``.
        returns: ``[B, 1, scale * rows, scale * columns]``, not clipped.

    The output pixel at ``scale * p`` depends on input pixels within `receptive_radius` of ``p`` and on no others.

    Raises:
        ValueError: fewer than one block or channel.
    """

    def __init__(self, scale: int = 4, channels: int = 48, blocks: int = 8) -> None:
        super().__init__()
        if blocks < 1 or channels < 1:
            raise ValueError(f"blocks is {blocks} and channels {channels}, expected at least 1 of each.")
        self.scale = scale
        self.receptive_radius = 2 * blocks + 3
        self.enlarge = Bicubic(scale)
        self.head = nn.Conv2d(1, channels, 3, padding=1)
        self.body = nn.Sequential(
            *[ResidualBlock(channels) for _ in range(blocks)], nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.tail = nn.Conv2d(channels, scale * scale, 3, padding=1)
        nn.init.normal_(self.tail.weight, std=1e-3)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.head(image - 0.5)
        detail = self.tail(self.body(features).add_(features))
        return self.enlarge(image).add_(pixel_shuffle(detail, self.scale))
