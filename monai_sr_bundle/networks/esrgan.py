"""The generator of ESRGAN: residual-in-residual dense blocks without normalisation.

Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCV Workshops 2018,
https://arxiv.org/abs/1809.00219 (Figures 3 and 4, Section 3.1). The discriminator is in `srgan.py`, the
relativistic loss in `losses/perceptual.py`.
"""

import torch
from torch import nn
from torch.nn.functional import interpolate, leaky_relu_

RESIDUAL_SCALE = 0.2
"""Beta of the paper: the scale of a block's residual, without which a deep stack does not train (Section 3.1)."""


class DenseBlock(nn.Module):
    """Five convolutions, each with all earlier features as input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.residual_scale = RESIDUAL_SCALE  # TorchScript sees no global
        self.layers = nn.ModuleList()
        for index in range(5):
            layer = nn.Conv2d(channels + index * growth, growth if index < 4 else channels, 3, padding=1)
            # A tenth of He's initialisation, as in the paper's Section 3.4.
            nn.init.kaiming_normal_(layer.weight, a=0.2)
            layer.weight.data *= 0.1
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            self.layers.append(layer)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        inputs, outputs = features, features
        for index, layer in enumerate(self.layers):  # TorchScript takes no slice of the list
            outputs = layer(inputs)
            if index < 4:
                # In place where nothing else needs the tensor: new memory for each would cost time.
                inputs = torch.cat((inputs, leaky_relu_(outputs, 0.2)), dim=1)
        return outputs.mul_(self.residual_scale).add_(features)


class ResidualDenseBlock(nn.Module):
    """Three dense blocks and a scaled skip around them (RRDB, Figure 4)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.residual_scale = RESIDUAL_SCALE
        self.blocks = nn.Sequential(*[DenseBlock(channels, growth) for _ in range(3)])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.blocks(features).mul_(self.residual_scale).add_(features)


class RRDBNet(nn.Module):
    """Dense blocks on the low-resolution grid, enlarged by nearest neighbours and convolutions.

    Args:
        scale: output pixels per input pixel along each axis, 2, 4 or 8.
        channels: features of the blocks (64 in the paper).
        growth: features each dense convolution adds (32 in the paper).
        blocks: residual-in-residual dense blocks (23 in the paper: 16.7 million weights).

    Shape:
        image: ``[B, 1, rows, columns]``, intensities near ``[0, 1]``.
        returns: ``[B, 1, scale * rows, scale * columns]``, not clipped.

    An output pixel depends on input pixels within `receptive_radius` and on no others.

    Raises:
        ValueError: a scale that is no power of two.
    """

    def __init__(self, scale: int = 4, channels: int = 64, growth: int = 32, blocks: int = 23) -> None:
        super().__init__()
        if scale not in (2, 4, 8):
            raise ValueError(f"scale is {scale}, expected 2, 4 or 8: every step enlarges by two.")
        self.head = nn.Conv2d(1, channels, 3, padding=1)
        self.body = nn.Sequential(
            *[ResidualDenseBlock(channels, growth) for _ in range(blocks)], nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.enlarge = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(scale.bit_length() - 1))
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        self.tail = nn.Conv2d(channels, 1, 3, padding=1)
        reach = 2  # from the tail down to the grid of the input
        for _ in self.enlarge:
            reach = (reach + 2) // 2
        self.receptive_radius = reach + 1 + 15 * blocks + 1

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.head(image)
        features = self.body(features).add_(features)
        for layer in self.enlarge:
            features = leaky_relu_(layer(interpolate(features, scale_factor=2.0, mode="nearest")), 0.2)
        return self.tail(leaky_relu_(self.last(features), 0.2))
