"""The scale of errors on films and CT that lost resolution in many ways, at several scales with one set of weights.

As `networks.error_scale`, it estimates a quantile of the absolute error beside any method (Angelopoulos et al.,
"Image-to-Image Regression with Distribution-Free Uncertainty Quantification", ICML 2022,
https://arxiv.org/abs/2202.05265). How large errors are depends on what an image has lost, which a few pixels do not
show, so it also sees measures of the whole input. Each scale has a first and a last convolution of its own, as in MDSR
(Lim et al., CVPR Workshops 2017). Between input pixels it is interpolated, so that no grid lies over an image.
"""

import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from torch import nn

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
        bands: bands of spatial frequency in which the energy of the whole input is seen; 0 for four other measures.

    Shape:
        cells: ``[B, scale * scale + 1 + measures, rows, columns]``: the enlarged image, its pixels as channels; the
            input; and measures of the whole input, each the same at every pixel
            (`uncertainty.error_bars.measure_whole_image`): `bands` energies and its blockiness; without bands its noise
            in percent of the window, sharpness in dB, blockiness, and detail in dB.
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
        bands: int = 0,
    ) -> None:
        super().__init__()
        if scale not in scales:
            raise ValueError(f"scale is {scale}, expected one of {tuple(scales)}.")
        self.scale, self.bands, self.receptive_radius = scale, bands, sum(dilations) + 4
        self.measures = bands + 1 if bands else 4
        self.heads, self.whole, self.tails, self.enlargers = (nn.ModuleDict() for _ in range(4))
        for each in scales:
            self.heads[f"x{each}"] = nn.Conv2d(each * each + (1 if bands else 5), channels, 3, padding=1)
            if bands:
                hidden = 2 * channels
                layers = [nn.Conv2d(bands + 1, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, hidden, 1), nn.SiLU()]
                self.whole[f"x{each}"] = nn.Sequential(*layers, nn.Conv2d(hidden, channels + 1, 1))
            self.tails[f"x{each}"] = nn.Conv2d(channels, 1, 3, padding=1)
            self.enlargers[f"x{each}"] = Bicubic(each)
            nn.init.normal_(self.tails[f"x{each}"].weight, std=1e-2)  # type: ignore[arg-type]
            nn.init.zeros_(self.tails[f"x{each}"].bias)  # type: ignore[arg-type]
        self.body = nn.Sequential(nn.SiLU())
        for dilation in dilations:
            self.body.extend([nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation), nn.SiLU()])

    def forward(self, cells: torch.Tensor, scale: int | None = None) -> torch.Tensor:
        chosen = self.scale if scale is None else scale
        name = f"x{chosen}"
        pixels, low_res, measures = cells.split((chosen**2, 1, self.measures), dim=1)
        # All inputs near 1: edges have a few grey levels, noise is tenths of a percent to a few, and energies lie
        # between a millionth and a hundredth.
        inputs, shift = [16 * (pixels - low_res), 2 * low_res - 1], cells.new_zeros(1, 2, 1, 1)
        if self.bands:
            shift = self.whole[name](torch.cat((measures[:, :-1] / 3 + 3, 2 * measures[:, -1:]), 1)[..., :1, :1])
        else:
            noise, sharpness, blockiness, detail = measures.split(1, dim=1)
            inputs += [torch.log(noise + 0.1), sharpness / 10 + 2, 2 * blockiness, detail / 4 + 4]
        features = self.heads[name](torch.cat(inputs, dim=1)) + shift[:, :-1]
        exponent = self.tails[name](self.body(features)) + shift[:, -1:]
        exponent = self.enlargers[name](exponent.clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT))
        return USUAL * torch.exp(exponent) + FLOOR
