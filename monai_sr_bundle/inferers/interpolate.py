"""Bicubic enlargement in numpy, where no network does it, and squares of pixels as channels and back."""

from __future__ import annotations

import numpy as np
from monai_sr_bundle.degradation import cubic_kernel

KEYS_A = -0.75


def cubic_taps(size: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Return input index and weight of the four samples behind each output sample, border samples repeated."""
    position = (np.arange(size * scale) + 0.5) / scale - 0.5
    index = np.floor(position).astype(int)[:, None] + np.arange(-1, 3)
    return np.clip(index, 0, size - 1), cubic_kernel(position[:, None] - index, KEYS_A)


def enlarge_bicubic(image: np.ndarray, scale: int) -> np.ndarray:
    """Return the same enlargement as `networks.bicubic.Bicubic`: Keys 1981 with a = -0.75, `align_corners=False`.

    Args:
        image: ``[rows, columns]``.
        scale: output samples per input sample.

    Returns:
        ``[scale * rows, scale * columns]`` float32.
    """
    source = np.asarray(image, dtype=np.float32)
    index, weight = cubic_taps(source.shape[0], scale)
    tall = np.zeros((len(index), source.shape[1]), dtype=np.float32)
    for k in range(4):
        tall += weight[:, k, None].astype(np.float32) * source[index[:, k]]
    index, weight = cubic_taps(source.shape[1], scale)
    result = np.zeros((len(tall), len(index)), dtype=np.float32)
    for k in range(4):
        tap = tall[:, index[:, k]]
        tap *= weight[:, k].astype(np.float32)
        result += tap
    return result


def unshuffle(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Turn squares of pixels into channels.

    Args:
        pixels: ``[B, 1, factor * rows, factor * columns]``.
        factor: pixels along each side of a square.

    Returns:
        ``[B, factor**2, rows, columns]``.
    """
    batch, _, rows, columns = pixels.shape
    squares = pixels.reshape(batch, rows // factor, factor, columns // factor, factor)
    return np.ascontiguousarray(squares.transpose(0, 2, 4, 1, 3)).reshape(
        batch, factor * factor, rows // factor, columns // factor
    )


def shuffle(cells: np.ndarray, factor: int) -> np.ndarray:
    """Turn channels back into squares of pixels; the inverse of `unshuffle`."""
    batch, _, rows, columns = cells.shape
    squares = cells.reshape(batch, factor, factor, rows, columns).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(squares).reshape(batch, 1, factor * rows, factor * columns)
