"""RUNet: a U-Net with residual blocks on an interpolated image.

Hu et al., "RUNet: A Robust UNet Architecture for Image Super-Resolution", CVPR Workshops 2019 (Figure 2). Different
from the paper: one channel instead of three; the result is added to the interpolated image, so that an untrained
network is already the interpolation; images of any size are padded inside to a multiple of 16 and cropped again.
"""

import torch
from torch import nn
from torch.nn.functional import interpolate, pad

GRID = 16
"""Four halvings: the interpolated image is padded to a multiple of this."""
REACH = 306
"""Receptive radius in interpolated pixels: 291 through convolutions, and up to 15 to the end of a cell of the coarsest
grid."""


class ResidualBlock(nn.Module):
    """Convolution, normalisation, ReLU, convolution, normalisation, and a skip."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # In place where nothing else needs the tensor: new memory for each would cost time.
        return torch.relu_(self.layers(features).add_(self.skip(features)))


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    """Build `blocks` residual blocks, the last of which changes the width."""
    return nn.Sequential(*[ResidualBlock(inputs, inputs) for _ in range(blocks - 1)], ResidualBlock(inputs, outputs))


class DecoderStage(nn.Module):
    """One step of the decoder: pixel shuffle, join the encoder's features, normalise, two convolutions."""

    def __init__(self, inputs: int, joined: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs // 4 + joined),
            nn.Conv2d(inputs // 4 + joined, outputs, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.ReLU(inplace=True),
        )

    def forward(self, features: torch.Tensor, joined: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat((nn.functional.pixel_shuffle(features, 2), joined), dim=1))


class RUNet(nn.Module):
    """Interpolate, then correct the interpolated image by a residual U-Net.

    Args:
        scale: output pixels per input pixel along each axis.
        channels: features of the first convolution, a multiple of 4 (64 in the paper: 41 million weights).
        interpolation: interpolation before the network, "bilinear" or "nearest".

    Shape:
        image: ``[B, 1, rows, columns]``, intensities near ``[0, 1]``.
        returns: ``[B, 1, scale * rows, scale * columns]``, not clipped.

    In evaluation mode an output pixel depends on input pixels within `receptive_radius` and on no others. It moves with
    the image only by multiples of `grid` input pixels, because of the pooling.

    Raises:
        ValueError: another interpolation, or channels that are no multiple of 4.
    """

    def __init__(self, scale: int = 2, channels: int = 64, interpolation: str = "bilinear") -> None:
        super().__init__()
        if interpolation not in ("bilinear", "nearest"):
            raise ValueError(f"interpolation is {interpolation!r}, expected 'bilinear' or 'nearest'.")
        if channels % 4 or channels < 4:
            raise ValueError(f"channels is {channels}, expected a multiple of 4: pixel shuffles divide by it.")
        self.multiple = GRID  # TorchScript sees no global
        self.scale, self.interpolation = scale, interpolation
        self.receptive_radius = -(-REACH // scale) + (interpolation == "bilinear")
        self.grid = min(pixels for pixels in range(1, GRID + 1) if pixels * scale % GRID == 0)
        w = channels
        self.stem = nn.Sequential(nn.Conv2d(1, w, 7, padding=3, bias=False), nn.BatchNorm2d(w), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList(
            [_stage(w, 2 * w, 4), _stage(2 * w, 4 * w, 4), _stage(4 * w, 8 * w, 7), _stage(8 * w, 8 * w, 2)]
        )
        self.bottom = nn.Sequential(
            nn.Conv2d(8 * w, 16 * w, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(16 * w, 8 * w, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        rises = [(8 * w, 8 * w, 8 * w), (8 * w, 4 * w, 6 * w), (6 * w, 2 * w, 4 * w), (4 * w, w, 3 * w // 2)]
        self.rises = nn.ModuleList([DecoderStage(*widths) for widths in rises])
        last = 3 * w // 2 + 1
        self.tail = nn.Sequential(
            nn.Conv2d(last, last, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(last, last, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(last, 1, 1),
        )
        nn.init.normal_(self.tail[-1].weight, std=1e-3)  # type: ignore[arg-type]
        nn.init.zeros_(self.tail[-1].bias)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        align: bool | None = None if self.interpolation == "nearest" else False
        enlarged = interpolate(image, scale_factor=float(self.scale), mode=self.interpolation, align_corners=align)
        rows, columns = enlarged.shape[2], enlarged.shape[3]
        padded = pad(enlarged, [0, -columns % self.multiple, 0, -rows % self.multiple], mode="replicate")
        features = self.stem(padded - 0.5)
        skips: list[torch.Tensor] = []
        for stage in self.stages:
            skips.append(features)
            features = stage(nn.functional.max_pool2d(features, 2))
        features = self.bottom(features)
        for index, rise in enumerate(self.rises):
            features = rise(features, skips[-1 - index])
        return self.tail(torch.cat((features, padded), dim=1)).add_(padded)[..., :rows, :columns]
