"""Thin slices from thick ones: a residual network that enlarges one axis of a plane of slices and columns.

Zhao et al., "SMORE: A Self-Supervised Anti-Aliasing and Super-Resolution Algorithm for MRI Using Deep Learning", IEEE
TMI 40(3), 2021, https://doi.org/10.1109/TMI.2020.3037187: learn the detail that is missing along the slices from an
axis of high resolution. The network is that of EDSR (Lim et al., CVPR Workshops 2017, https://arxiv.org/abs/1707.02921,
Figure 2c) with another end: the thin slices of each thick one are its output channels, so that every convolution stays
on the thick slices, and they are added to a cubic interpolation along the slices alone.
"""

import torch
from torch import nn
from torch.nn.functional import conv2d, pad

from monai_sr_bundle.networks.bicubic import cubic_phases, full_precision


class ResidualBlock(nn.Module):
    """Two convolutions with a skip and no normalisation, as in `networks.edsr`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.second.weight, std=0.01)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu_(self.first(features))).add_(features)


def interleave(slices: torch.Tensor) -> torch.Tensor:
    """Return ``[B, 1, scale * rows, columns]`` of ``[B, scale, rows, columns]``: channel k of a row is its k-th row."""
    batch, scale, rows, columns = slices.shape
    return slices.transpose(1, 2).reshape(batch, 1, scale * rows, columns)


class CubicRows(nn.Module):
    """Enlarge the rows axis by cubic interpolation (Keys 1981, a = -0.75); has no weights to train.

    Args:
        scale: output rows per input row, 2 or more.

    Shape:
        image: ``[B, 1, rows, columns]``.
        returns: ``[B, 1, scale * rows, columns]``.
    """

    kernels: torch.Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        kernels = cubic_phases(scale).reshape(scale, 1, 5, 1)
        self.register_buffer("kernels", kernels.float(), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self._enlarged(image)
        return full_precision(self._enlarged, image)

    def _enlarged(self, image: torch.Tensor) -> torch.Tensor:
        return interleave(conv2d(pad(image, (0, 0, 2, 2), mode="replicate"), self.kernels))


class ThroughPlane(nn.Module):
    """Cubic interpolation along the rows axis plus the detail a residual network predicts from the thick slices.

    Args:
        scale: thin slices per thick slice, 2 to 5.
        channels: features of every convolution.
        blocks: residual blocks.

    Shape:
        image: ``[B, 1, slices, columns]``, intensities near ``[0, 1]``; the second plane axis is columns or rows of a
            volume alike.
        returns: ``[B, 1, scale * slices, columns]``, not clipped.

    The output pixel at ``(scale * z, x)`` depends on input pixels within `receptive_radius` of ``(z, x)`` along both
    axes and on no others.

    Raises:
        ValueError: a scale below 2 or above 5; fewer than one block or channel.
    """

    def __init__(self, scale: int = 4, channels: int = 32, blocks: int = 6) -> None:
        super().__init__()
        if not 2 <= scale <= 5:
            raise ValueError(f"scale is {scale}, expected a whole number from 2 to 5.")
        if blocks < 1 or channels < 1:
            raise ValueError(f"blocks is {blocks} and channels {channels}, expected at least 1 of each.")
        self.scale = scale
        self.receptive_radius = 2 * blocks + 3
        self.enlarge = CubicRows(scale)
        self.head = nn.Conv2d(1, channels, 3, padding=1)
        self.body = nn.Sequential(
            *[ResidualBlock(channels) for _ in range(blocks)], nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.tail = nn.Conv2d(channels, scale, 3, padding=1)
        nn.init.normal_(self.tail.weight, std=1e-3)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.head(image - 0.5)
        detail = self.tail(self.body(features).add_(features))
        return self.enlarge(image).add_(interleave(detail))
