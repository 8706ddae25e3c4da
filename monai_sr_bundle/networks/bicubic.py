"""Bicubic interpolation as a network: the baseline, and the skip connection of the networks that add detail to it.

Keys, "Cubic convolution interpolation for digital image processing", IEEE Trans. ASSP 29(6), 1981. It is one
fixed convolution per output phase and a pixel shuffle, with the same numbers as
`interpolate(mode="bicubic", align_corners=False)` (a = -0.75), but without the cubic Resize operator that ONNX
parsers of TensorRT refuse, and several times faster.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import conv2d, pad, pixel_shuffle

KEYS_A = -0.75


def cubic_phases(scale: int) -> torch.Tensor:
    """Return the weights of five samples, -2 to +2, for each of `scale` output samples: ``[scale, 5]`` float64."""
    # Output phase p lies at (p + 0.5) / scale - 0.5 input samples: between -2 and +2 for every phase.
    phases = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    d, a = (torch.arange(-2, 3) - phases[:, None]).abs(), KEYS_A
    # Equation 15
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    outer = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, inner, torch.where(d < 2, outer, 0.0))


class Bicubic(nn.Module):
    """Enlarge by bicubic interpolation; has no weights to train.

    Args:
        scale: output pixels per input pixel along each axis, 2 to 64.

    Shape:
        image: ``[B, 1, rows, columns]``.
        returns: ``[B, 1, scale * rows, scale * columns]``.

    Raises:
        ValueError: `scale` below 2 or above 64.
    """

    kernels: torch.Tensor

    def __init__(self, scale: int = 4) -> None:
        super().__init__()
        if not 2 <= scale <= 64:
            raise ValueError(f"scale is {scale}, expected a whole number from 2 to 64.")
        self.scale = scale
        rows = cubic_phases(scale)
        kernels = torch.einsum("pi,qj->pqij", rows, rows).reshape(scale * scale, 1, 5, 5)
        # Not part of the state dict: it is a constant, and old checkpoints stay loadable if it is stored otherwise.
        self.register_buffer("kernels", kernels.float(), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self._enlarged(image)
        return full_precision(self._enlarged, image)

    def _enlarged(self, image: torch.Tensor) -> torch.Tensor:
        return pixel_shuffle(conv2d(pad(image, (2, 2, 2, 2), mode="replicate"), self.kernels), self.scale)


@torch.jit.ignore
def full_precision(enlarge: Any, image: torch.Tensor) -> torch.Tensor:
    """Return ``enlarge(image)``, in float32 even under autocast.

    Half precision would round the result, to which detail is added, to coarser steps than images are stored in.
    """
    if not torch.is_autocast_enabled(image.device.type):
        return enlarge(image)
    with torch.autocast(image.device.type, enabled=False):
        return enlarge(image.float())
