"""VDSR: a deep residual network that predicts only the detail that interpolation loses.

Kim et al., "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", CVPR 2016,
https://arxiv.org/abs/1511.04587 (Figure 2, Section 3).
"""

import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from torch import nn


class VDSR(nn.Module):
    """Enlarge by bicubic interpolation and add a residual of many small convolutions.

    Args:
        scale: output pixels per input pixel along each axis.
        channels: features of every inner convolution (64 in the paper).
        depth: number of convolutions, first and last included (20 in the paper).

    Shape:
        image: ``[B, 1, rows, columns]``, intensities near ``[0, 1]``.
        returns: ``[B, 1, scale * rows, scale * columns]``, not clipped.

    An output pixel depends on input pixels within `receptive_radius` and on no others.

    Raises:
        ValueError: `depth` below 2, which leaves no room for an output layer.
    """

    def __init__(self, scale: int = 4, channels: int = 64, depth: int = 20) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError(f"depth is {depth}, expected at least 2: a first and a last convolution.")
        self.receptive_radius = -(-depth // scale) + 2  # the interpolation has a radius of two input pixels
        self.enlarge = Bicubic(scale)
        layers: list[nn.Module] = []
        for inputs in [1] + [channels] * (depth - 2):
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
        layers.append(nn.Conv2d(channels, 1, 3, padding=1))
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        # An untrained network is then nearly bicubic; noise of twenty layers would take long to unlearn.
        nn.init.normal_(layers[-1].weight, std=1e-3)  # type: ignore[arg-type]
        self.residual = nn.Sequential(*layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        interpolated = self.enlarge(image)
        # In place where nothing else needs the tensor, as in the other networks: new memory costs time.
        return self.residual(interpolated).add_(interpolated)
