"""Thick slices to thin ones: every coronal and every sagittal plane of a volume by one network, and their mean.

A plane is slices by columns, or slices by rows; the network enlarges its slices axis alone. Zhao et al., "SMORE", IEEE
TMI 40(3), 2021, https://doi.org/10.1109/TMI.2020.3037187, combine several directions of planes, too; here it is by
their mean. The result is then made consistent with the input: the mean of the thin slices of a thick one is that one.

Only numpy; every backend and every interface goes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.inferers.tiling import Predict, infer_tiled

STRIP_BYTES = 256 * 1024**2
"""Bytes of thin slices in float32 that are computed at a time: a volume is cut into strips of rows."""
LEAST_ROWS = 64
"""Rows of the smallest strip: every strip computes the sagittal planes beyond its rows again."""


def strips(region: Region, slices: int, scale: int) -> Iterator[Region]:
    """Cut a region into strips of rows whose thin slices take `STRIP_BYTES` at most, or have `LEAST_ROWS` rows.

    Args:
        region: ``(row_start, row_stop, column_start, column_stop)``.
        slices: number of slices of the input.
        scale: thin slices per slice of the input.
    """
    top, bottom, left, right = region
    rows = max(LEAST_ROWS, STRIP_BYTES // (4 * scale * slices * (right - left)))
    for start in range(top, bottom, rows):
        yield Region(start, min(start + rows, bottom), left, right)


def enlarge_slices(
    volume: np.ndarray,
    predict: Predict,
    *,
    scale: int,
    halo: int,
    tile: int,
    region: Region,
    span: tuple[int, int] | None = None,
    to_unit: Callable[[np.ndarray], np.ndarray] = np.asarray,
    progress: Callable[[float], None] | None = None,
) -> tuple[np.ndarray, int]:
    """Return the thin slices of a region: the mean of the network's coronal and sagittal results.

    A region is the crop of the whole, bit for bit, as `infer_tiled` is.

    Args:
        volume: ``[slices, rows, columns]``.
        predict: the network; ``[1, 1, slices, columns]`` float32 to ``[1, 1, scale * slices, columns]``.
        scale: thin slices per slice of `volume`.
        halo: at least the network's receptive radius.
        tile: side of a tile of a plane.
        region: ``(row_start, row_stop, column_start, column_stop)``.
        span: first slice, and the one after the last. Default: all.
        to_unit: turns a plane of `volume` into float32 in units of the window.
        progress: called with the fraction of the planes that is done.

    Returns:
        ``[scale * slices of the span, region rows, region columns]`` float32, and the tile side that fitted.

    Raises:
        BundleError, OutOfMemoryError, MemoryError: see `infer_tiled`.
    """
    start_slice, stop_slice = span or (0, volume.shape[0])
    slices = stop_slice - start_slice
    top, bottom, left, right = region
    thin = np.empty((scale * slices, bottom - top, right - left), dtype=np.float32)
    coronal, sagittal = range(top, bottom), range(left, right)

    def enlarge_plane(plane: np.ndarray, start: int, stop: int, done: int) -> np.ndarray:
        nonlocal tile
        unit_plane = to_unit(np.ascontiguousarray(plane))
        part = Region(start_slice, stop_slice, start, stop)
        result, tile = infer_tiled(unit_plane, predict, scale=(scale, 1), halo=halo, tile=tile, region=part)
        if progress is not None:
            progress(done / (len(coronal) + len(sagittal)))
        return result

    for done, row in enumerate(coronal, start=1):
        thin[:, row - top] = enlarge_plane(volume[:, row], left, right, done)
    for done, column in enumerate(sagittal, start=len(coronal) + 1):
        sagittal_plane = thin[:, :, column - left]
        sagittal_plane += enlarge_plane(volume[:, :, column], top, bottom, done)
    thin *= np.float32(0.5)
    return thin, tile


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


def consistent_slices(thin: np.ndarray, thick: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """Change thin slices as little as is needed for their means to be the thick ones, in place.

    For a box as slice profile this is the projection: every thin slice gets the difference of its thick slice and the
    mean (Wang et al., "DDNM", ICLR 2023, with the mean as the operator and repetition as its inverse).

    Args:
        thin, thick: see `residual_of_means`; `thin` is changed.
        limits: the smallest and largest number that the storage can hold; any if None. What a slice at its limit
            cannot take goes to the others of its group.

    Returns:
        `thin`.
    """
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
