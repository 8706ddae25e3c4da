"""Parts of postprocessing, in numpy alone: its measurements, bicubic enlargement of noise, the means of thin slices."""

from __future__ import annotations

import numpy as np
from monai_sr_bundle.degradation import cubic_kernel
from monai_sr_bundle.inferers.data_consistency import ArtifactReport, Limits, ResidualStats

BICUBIC_REACH = 3
"""Pixels beyond one that bicubic enlargement sees, and one that the border of a region repeats."""
KEYS_A = -0.75


class PostprocessingRecord:
    """Measurements of postprocessing over the slices of an image, in units of the model's window.

    Attributes:
        residuals: the input minus the reduced network output, before data consistency.
    """

    def __init__(self) -> None:
        self.residuals = ResidualStats()
        self._probabilities: list[np.ndarray] = []
        self._weights: list[np.ndarray] = []

    def add_artifacts(self, probability: np.ndarray, weight: np.ndarray) -> None:
        """Record the artifact probability of one slice and the weight of its input pixels in data consistency."""
        self._probabilities.append(probability)
        self._weights.append(weight)

    @property
    def removed(self) -> ArtifactReport | None:
        """The artifacts that the network removed; None for a network that removes none."""
        if not self._probabilities:
            return None
        return ArtifactReport.from_probability(np.stack(self._probabilities), np.stack(self._weights))


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


def residual_of_means(thin: np.ndarray, thick: np.ndarray) -> np.ndarray:
    """Return the thick slices minus the means of the thin ones.

    Args:
        thin: ``[scale * slices, ...]`` float32.
        thick: ``[slices, ...]`` float32.

    Returns:
        ``[slices, ...]`` float32.
    """
    scale = len(thin) // len(thick)
    total = thin[0::scale].copy()
    for part in range(1, scale):
        total += thin[part::scale]
    return np.asarray(thick - total / np.float32(scale))


def consistent_slices(
    thin: np.ndarray, thick: np.ndarray, limits: Limits | None = None, record: PostprocessingRecord | None = None
) -> np.ndarray:
    """Change thin slices as little as is needed for their means to be the thick ones, in place.

    For a box as slice profile this is the projection: every thin slice gets the difference of its thick slice and the
    mean (Wang et al., "DDNM", ICLR 2023, with the mean as the operator and repetition as its inverse).

    Args:
        thin, thick: see `residual_of_means`; `thin` is changed.
        limits: the smallest and largest number that the storage can hold; any if None. What a slice at its limit
            cannot take goes to the others of its group.
        record: receives the residual before.

    Returns:
        `thin`.
    """
    if record is not None:
        record.residuals.add(residual_of_means(thin if limits is None else thin.clip(*limits), thick))
    scale = len(thin) // len(thick)
    if limits is None:
        residual = residual_of_means(thin, thick)
        for part in range(scale):
            thin[part::scale] += residual
        return thin
    low, high = np.float32(limits[0]), np.float32(limits[1])
    np.clip(thin, low, high, out=thin)
    # With every round that leaves something over, one slice more of the group has come to its limit.
    for _ in range(scale):
        residual = residual_of_means(thin, thick)
        free = [np.where(residual > 0, thin[part::scale] < high, thin[part::scale] > low) for part in range(scale)]
        share = residual * np.float32(scale) / np.maximum(sum(free), 1).astype(np.float32)
        for part in range(scale):
            thin[part::scale] += np.where(free[part], share, np.float32(0))
        np.clip(thin, low, high, out=thin)
    return thin
