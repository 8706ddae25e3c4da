"""SRCNN: three convolutions that sharpen an interpolated image.

Dong et al., "Image Super-Resolution Using Deep Convolutional Networks", IEEE TPAMI 38(2), 2016,
https://arxiv.org/abs/1501.00092 (Section 3, the 9-5-5 network of Section 4.3). Different from the paper: the borders
are padded, so that the result is as large as the interpolated image.
"""

import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from torch import nn


class SRCNN(nn.Module):
    """Enlarge by bicubic interpolation, then map patches to patches: extract, map, reconstruct.

    Args:
        scale: output pixels per input pixel along each axis.
        channels: features of the first and second convolution (64 and 32 in the paper).
        kernels: sides of the three convolutions, odd.

    Shape:
        image: ``[B, 1, rows, columns]``, intensities near ``[0, 1]``.
        returns: ``[B, 1, scale * rows, scale * columns]``, not clipped.

    An output pixel depends on input pixels within `receptive_radius` and on no others.

    Raises:
        ValueError: an even kernel, which would move the image by half a pixel.
    """

    def __init__(
        self, scale: int = 4, channels: tuple[int, int] = (64, 32), kernels: tuple[int, int, int] = (9, 5, 5)
    ) -> None:
        super().__init__()
        if any(side % 2 == 0 for side in kernels):
            raise ValueError(f"kernels are {tuple(kernels)}, expected odd sides.")
        first, second, third = kernels
        # The interpolation has a radius of two input pixels.
        self.receptive_radius = -(-sum(side // 2 for side in kernels) // scale) + 2
        self.enlarge = Bicubic(scale)
        self.extract = nn.Conv2d(1, channels[0], first, padding=first // 2)
        self.map = nn.Conv2d(channels[0], channels[1], second, padding=second // 2)
        self.reconstruct = nn.Conv2d(channels[1], 1, third, padding=third // 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu_(self.extract(self.enlarge(image)))
        return self.reconstruct(torch.relu_(self.map(features)))
