"""The scale of errors on films and CT that lost resolution in many ways, at several scales with one set of weights.

As `networks.error_scale`, it estimates a quantile of the absolute error beside any method (Angelopoulos et al.,
"Image-to-Image Regression with Distribution-Free Uncertainty Quantification", ICML 2022,
https://arxiv.org/abs/2202.05265). How large errors are depends on what an image has lost, which a few pixels do not
show, so it also sees measures of the whole input. Each scale has a first and a last convolution of its own, as in MDSR
(Lim et al., CVPR Workshops 2017). Between input pixels it is interpolated, so that no grid lies over an image.
"""

import torch
from torch import nn

from monai_sr_bundle.networks.bicubic import Bicubic

FLOOR = 1e-4
"""Smallest scale, in units of the window: no pixel is certain."""
USUAL = 0.01
"""Scale that an untrained network begins near, in units of the window."""
LARGEST_EXPONENT = 4.0
"""Exponent of the largest and smallest multiple of the usual scale: a factor of 55 each way."""


class FilmErrorScale(nn.Module):
    """The scale of a method's errors from its results and from measures of the whole input.

    Args:
        scales: all scales of the weights.
        scale: output pixels per input pixel along each axis, one of them.
        channels: features of every convolution.
        dilations: dilations of the convolutions that all scales share.

    Shape:
        cells: ``[B, scale * scale + 5, rows, columns]``: the enlarged image, its pixels as channels; the input; and
            four measures of the whole input, each the same at every pixel: noise in percent of the window, sharpness
            in dB, blockiness, and detail in dB (`images.input_checks`).
        returns: ``[B, 1, scale * rows, scale * columns]``, above 0, in units of the window.

    A pixel of the result depends on input pixels within `receptive_radius`, on the measures and on nothing else.

    Raises:
        ValueError: a scale that is not one of the scales.
    """

    def __init__(
        self,
        scales: tuple[int, ...] = (2, 3, 4),
        scale: int = 4,
        channels: int = 32,
        dilations: tuple[int, ...] = (2, 4, 1),
    ) -> None:
        super().__init__()
        if scale not in scales:
            raise ValueError(f"scale is {scale}, expected one of {tuple(scales)}.")
        self.scale, self.receptive_radius = scale, sum(dilations) + 4
        self.heads, self.tails, self.enlargers = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for each in scales:
            self.heads[f"x{each}"] = nn.Conv2d(each * each + 5, channels, 3, padding=1)
            self.tails[f"x{each}"] = nn.Conv2d(channels, 1, 3, padding=1)
            self.enlargers[f"x{each}"] = Bicubic(each)
            nn.init.normal_(self.tails[f"x{each}"].weight, std=1e-2)  # type: ignore[arg-type]
            nn.init.zeros_(self.tails[f"x{each}"].bias)  # type: ignore[arg-type]
        self.body = nn.Sequential(nn.SiLU())
        for dilation in dilations:
            self.body.extend([nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation), nn.SiLU()])

    def forward(self, cells: torch.Tensor, scale: int | None = None) -> torch.Tensor:
        chosen = self.scale if scale is None else scale
        pixels, low_res, noise, sharpness, blockiness, detail = cells.split((chosen**2, 1, 1, 1, 1, 1), dim=1)
        # All inputs near 1: edges have a few grey levels, noise is tenths of a percent to a few.
        inputs = (
            16 * (pixels - low_res),
            2 * low_res - 1,
            torch.log(noise + 0.1),
            sharpness / 10 + 2,
            2 * blockiness,
            detail / 4 + 4,
        )
        exponent = self.tails[f"x{chosen}"](self.body(self.heads[f"x{chosen}"](torch.cat(inputs, dim=1))))
        exponent = self.enlargers[f"x{chosen}"](exponent.clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT))
        return USUAL * torch.exp(exponent) + FLOOR
