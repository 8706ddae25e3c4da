"""Thin slices from thick ones: a residual network in the axial plane that sees a thick slice with its neighbours.

The network is that of EDSR (Lim et al., CVPR Workshops 2017, https://arxiv.org/abs/1707.02921, Figure 2c) with
neighbouring thick slices as input channels and the thin slices of the middle one as output channels, so that every
convolution stays in the plane, where the resolution is. It adds its detail to a linear interpolation along the slices
whose means are set to the thick slice. As in MDSR (the same paper, Section 3.3), the factors share the body and have a
small tail each.
"""

import torch
from monai_sr_bundle.networks.bicubic import full_precision
from monai_sr_bundle.networks.edsr import ResidualBlock
from torch import nn
from torch.nn.functional import conv2d


class LinearSlices(nn.Module):
    """Interpolate thin slices linearly and set their mean to the thick slice; has no weights to train.

    Args:
        scale: thin slices per thick slice, 2 or more.
        slices: number of thick slices in the input, odd and at least 3; the middle one is enlarged.

    Shape:
        image: ``[B, slices, rows, columns]``.
        returns: ``[B, scale, rows, columns]``.
    """

    kernels: torch.Tensor

    def __init__(self, scale: int, slices: int) -> None:
        super().__init__()
        self.scale = scale
        # Thin slice k lies at (k + 0.5) / scale - 0.5 thick slices from the middle one.
        position = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
        offset = torch.arange(slices, dtype=torch.float64) - slices // 2
        weights = (1 - (position[:, None] - offset).abs()).clamp(min=0)
        weights += (offset == 0).double() - weights.mean(dim=0)
        self.register_buffer("kernels", weights.float()[:, :, None, None], persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self._interpolated(image)
        return full_precision(self._interpolated, image)

    def _interpolated(self, image: torch.Tensor) -> torch.Tensor:
        return conv2d(image, self.kernels)


class ThroughPlane(nn.Module):
    """Linear interpolation along the slices plus the detail that a residual network predicts from the thick slices.

    Args:
        scales: the factors, thin slices per thick slice.
        scale: the factor where `forward` is given none. It changes no weight.
        slices: number of neighbouring thick slices in the input, odd; the middle one is enlarged.
        channels: features of every convolution.
        blocks: residual blocks.

    Shape:
        image: ``[B, slices, rows, columns]``, intensities near ``[0, 1]``.
        scale: one of `scales`; that of the constructor if None.
        returns: ``[B, scale, rows, columns]``, not clipped: the thin slices of the middle one, in the input's order.

    The output pixels at ``p`` depend on input pixels within `receptive_radius` of ``p`` and on no others.

    Raises:
        ValueError: slices that are not an odd number of at least 3; `forward` at a scale that is not among `scales`.
    """

    def __init__(
        self, scales: tuple[int, ...] = (2, 4), scale: int = 4, slices: int = 5, channels: int = 48, blocks: int = 8
    ) -> None:
        super().__init__()
        if slices < 3 or slices % 2 == 0:
            raise ValueError(f"slices is {slices}, expected an odd number of at least 3: one slice and its neighbours.")
        self.scales, self.scale, self.slices = tuple(scales), scale, slices
        self.receptive_radius = 2 * blocks + 3
        self.head = nn.Conv2d(slices, channels, 3, padding=1)
        self.body = nn.Sequential(
            *[ResidualBlock(channels) for _ in range(blocks)], nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.tails = nn.ModuleDict()
        self.interpolations = nn.ModuleDict()
        for each in self.scales:
            tail = nn.Conv2d(channels, each, 3, padding=1)
            nn.init.normal_(tail.weight, std=1e-3)
            nn.init.zeros_(tail.bias)  # type: ignore[arg-type]
            self.tails[f"x{each}"] = tail
            self.interpolations[f"x{each}"] = LinearSlices(each, slices)

    def forward(self, image: torch.Tensor, scale: int | None = None) -> torch.Tensor:
        chosen = self.scale if scale is None else scale
        if chosen not in self.scales:
            raise ValueError(f"scale is {chosen}, expected one of those the network was built for.")
        features = self.head(image - 0.5)
        features = self.body(features).add_(features)
        result = image
        # A loop, because TorchScript cannot look modules up by name.
        for tail, interpolate in zip(self.tails.values(), self.interpolations.values()):  # noqa: B905
            if interpolate.scale == chosen:
                result = interpolate(image).add_(tail(features))
        return result
