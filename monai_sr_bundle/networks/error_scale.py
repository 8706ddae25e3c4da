"""The scale of errors: the likely distance of an enlarged image from the truth, pixel by pixel.

Angelopoulos et al., "Image-to-Image Regression with Distribution-Free Uncertainty Quantification", ICML 2022,
https://arxiv.org/abs/2202.05265, estimate a quantile together with the image; here a separate small network does, from
the input and the output of any method. Calibration turns the scale into an error bar.
"""

import torch
from torch import nn
from torch.nn.functional import pixel_shuffle, softplus

FLOOR = 1e-4
"""Smallest scale, in units of the window: no pixel is certain."""


class ErrorScale(nn.Module):
    """The scale of a method's errors from its results.

    Args:
        scale: output pixels per input pixel along each axis.
        channels: features of every convolution.

    Shape:
        cells: ``[B, scale * scale + 1, rows, columns]``: the enlarged image, its pixels as channels, and the input.
        returns: ``[B, 1, scale * rows, scale * columns]``, above 0, in units of the window.

    A pixel of the result depends on input pixels within `receptive_radius` and on no others.
    """

    receptive_radius = 4

    def __init__(self, scale: int = 4, channels: int = 32) -> None:
        super().__init__()
        self.scale = scale
        self.layers = nn.Sequential(
            nn.Conv2d(scale * scale + 1, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, scale * scale, 3, padding=1),
        )

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        # Shifted and scaled so that an untrained network begins near the usual error, a hundredth of the window.
        return 0.1 * softplus(pixel_shuffle(self.layers(cells - 0.5), self.scale) - 3) + FLOOR
