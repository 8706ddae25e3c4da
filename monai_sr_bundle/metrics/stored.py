"""Rounding to the storage: metrics compare images as a user stores them, not the network's floats."""

import torch


def as_stored(image: torch.Tensor, levels: int = 255) -> torch.Tensor:
    """Clamp to ``[0, 1]`` and round to the steps of the storage.

    Args:
        image: any shape.
        levels: steps between 0 and 1: 255 for 8 bits, 1400 for whole HU in a window of 1400 HU.
    """
    return torch.round(image.clamp(0.0, 1.0) * levels) / levels


def level_limits(levels: int) -> tuple[float, float] | None:
    """Return the smallest and largest number that a storage of these levels can hold, or None for any.

    8 bits hold nothing outside the window; HU beyond it are stored like others.
    """
    return (0.0, 1.0) if levels == 255 else None
