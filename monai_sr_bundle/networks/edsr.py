"""EDSR and MDSR: residual blocks without normalisation on the low-resolution grid, enlarged by one pixel shuffle.

Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPR Workshops 2017,
https://arxiv.org/abs/1707.02921 (Figures 2c and 3, Section 3.3). MDSR serves several factors, with a body that all of
them share and a small tail for each. Different from the paper: the networks add their detail to a bicubic enlargement,
as VDSR does (Kim et al., CVPR 2016), so that an untrained network is already bicubic; the pixel shuffle enlarges by the
whole factor at once, which keeps every convolution on the small grid; EDSR's default size is that of a network for a
CPU; and in MDSR the factors share the head too, and a tail is one convolution and one pixel shuffle. Its last blocks
have dilated convolutions, which see further for the same number of multiplications: what is noise and what is detail
shows in a wider neighbourhood (Zhang et al., "Learning deep CNN denoiser prior for image restoration", CVPR 2017).
"""

import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from torch import nn
from torch.nn.functional import pixel_shuffle


class ResidualBlock(nn.Module):
    """Two convolutions with a skip, without batch normalisation, which costs range and memory (EDSR, Section 3.1).

    Args:
        channels: features of both convolutions.
        dilation: distance in pixels between the taps of both convolutions. Default 1.
        identity: whether the block begins as the identity, and not near it. Default False.
    """

    def __init__(self, channels: int, dilation: int = 1, *, identity: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        if identity:
            nn.init.zeros_(self.second.weight)
            nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]
        else:
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
    """

    def __init__(self, scale: int = 4, channels: int = 48, blocks: int = 8) -> None:
        super().__init__()
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


class MDSR(nn.Module):
    """Bicubic enlargement by one of several factors plus the detail that one shared network predicts.

    Args:
        scales: the factors, output pixels per input pixel along each axis.
        scale: the factor where `forward` is given none. It changes no weight.
        channels: features of every convolution.
        dilations: distance in pixels between the taps of each residual block, from the first to the last. Default:
            eight blocks of 1 and two of 2.
        slices: number of neighbouring slices in the input, odd; the middle one is enlarged. Default 1.

    Shape:
        image: ``[B, slices, rows, columns]``, intensities near ``[0, 1]``.
        scale: one of `scales`; that of the constructor if None.
        returns: ``[B, 1, scale * rows, scale * columns]``, not clipped.

    The output pixel at ``scale * p`` depends on input pixels within `receptive_radius` of ``p`` and on no others.

    Raises:
        ValueError: an even number of slices; `forward` at a scale that is not among `scales`.
    """

    def __init__(
        self,
        scales: tuple[int, ...] = (2, 3, 4),
        scale: int = 4,
        channels: int = 48,
        dilations: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 1, 1, 2, 2),
        slices: int = 1,
    ) -> None:
        super().__init__()
        if slices < 1 or slices % 2 == 0:
            raise ValueError(f"slices is {slices}, expected an odd number above 0: one slice and its neighbours.")
        self.scales, self.scale, self.slices = tuple(scales), scale, slices
        self.receptive_radius = 2 * sum(dilations) + 3
        self.head = nn.Conv2d(slices, channels, 3, padding=1)
        self.body = nn.Sequential(
            *[ResidualBlock(channels, dilation, identity=True) for dilation in dilations],
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.tails = nn.ModuleDict()
        self.enlargers = nn.ModuleDict()
        for each in self.scales:
            tail = nn.Conv2d(channels, each * each, 3, padding=1)
            nn.init.normal_(tail.weight, std=1e-3)
            nn.init.zeros_(tail.bias)  # type: ignore[arg-type]
            self.tails[f"x{each}"] = tail
            self.enlargers[f"x{each}"] = Bicubic(each)

    def forward(self, image: torch.Tensor, scale: int | None = None) -> torch.Tensor:
        chosen = self.scale if scale is None else scale
        if chosen not in self.scales:
            raise ValueError(f"scale is {chosen}, expected one of those the network was built for.")
        features = self.head(image - 0.5)
        features = self.body(features).add_(features)
        result = middle = _middle(image, self.slices)
        # A loop, because TorchScript cannot look modules up by name.
        for tail, enlarge in zip(self.tails.values(), self.enlargers.values()):  # noqa: B905
            if enlarge.scale == chosen:
                result = enlarge(middle).add_(pixel_shuffle(tail(features), chosen))
        return result

    def load_edsr(self, weights: dict[str, torch.Tensor], scale: int = 4) -> None:
        """Copy head, body and tail of a trained `EDSR` of fewer blocks.

        The network then gives the same as that `EDSR` at its own scale, since the further blocks begin as the identity.
        The tails of other scales begin as the mean of the trained one over the output pixel.

        Args:
            weights: state dict of an `EDSR` with the same channels, whose head takes as many slices.
            scale: output pixels per input pixel of that `EDSR`. Default 4.

        Raises:
            ValueError: more blocks than this network has.
        """
        last = max(int(key.split(".")[1]) for key in weights if key.startswith("body."))
        if last > len(self.body) - 1:
            raise ValueError(f"the weights have {last} residual blocks, this network {len(self.body) - 1}.")
        renamed = {
            (f"body.{len(self.body) - 1}.{key.split('.')[2]}" if key.startswith(f"body.{last}.") else key): value
            for key, value in weights.items()
            if not key.startswith("tail.")
        }
        state = self.state_dict()
        state.update(renamed)
        for other in self.scales:
            mixing = _phase_overlap(scale, other)
            for name in ("weight", "bias"):
                tail = weights[f"tail.{name}"]
                state[f"tails.x{other}.{name}"] = torch.einsum("op,p...->o...", mixing.to(tail), tail)
        self.load_state_dict(state)


def _middle(image: torch.Tensor, slices: int) -> torch.Tensor:
    """Return the slice between its neighbours, ``[B, slices, ...]`` to ``[B, 1, ...]``."""
    return image if slices == 1 else image[:, slices // 2].unsqueeze(1)


def _phase_overlap(scale: int, other: int) -> torch.Tensor:
    """Return the matrix from the output channels of a tail for `scale` to those for `other`: ``[other^2, scale^2]``.

    Every new phase is the mean of the trained ones that lie in its part of the input pixel, by the area of the overlap.
    """
    trained = torch.arange(scale + 1, dtype=torch.float64) / scale
    needed = torch.arange(other + 1, dtype=torch.float64) / other
    first = torch.maximum(needed[:-1, None], trained[None, :-1])
    last = torch.minimum(needed[1:, None], trained[None, 1:])
    line = (last - first).clamp(min=0) * other
    return torch.kron(line, line)
