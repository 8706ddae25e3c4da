"""Voxel grids in millimetres, by the geometry of the package `monai_sr_bundle`.

An affine maps an index ``(i, j, k)`` = (column, row, slice), counted from 0 at the *centre* of the first voxel, to
millimetres. A voxel is a box. MRML's millimetres are RAS.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from SuperResolutionLib.geometry import crop_affine, scale_affine


def resultAffine(ijkToRas: np.ndarray, extent: Sequence[int], scaleZyx: Sequence[float]) -> np.ndarray:
    """Return the affine of the enlarged region of a volume.

    The extent is in voxels of the volume, stops excluded, and the scale that along slices, rows and columns.
    """
    return scale_affine(crop_affine(ijkToRas, (extent[4], extent[2], extent[0])), scaleZyx[::-1])


def shapeOf(extent: Sequence[int]) -> tuple[int, int, int]:
    """Return slices, rows and columns of an extent ``[k0, k1, r0, r1, c0, c1]``."""
    k0, k1, r0, r1, c0, c1 = extent
    return k1 - k0, r1 - r0, c1 - c0


def transformPoints(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points ``[n, 3]`` by an affine ``[4, 4]``."""
    points = np.asarray(points, dtype=np.float64)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def corners(boundsIjk: Sequence[float]) -> np.ndarray:
    """Return the corners ``[8, 3]`` of a box ``[iMin, iMax, jMin, jMax, kMin, kMax]``, i changing fastest."""
    i, j, k = np.asarray(boundsIjk, dtype=np.float64).reshape(3, 2)
    return np.array([[i[n & 1], j[n >> 1 & 1], k[n >> 2 & 1]] for n in range(8)])


def outerCorners(ijkToRas: np.ndarray, extent: Sequence[float]) -> np.ndarray:
    """Return the outer corners of an extent ``[k0, k1, r0, r1, c0, c1]``: ``[8, 3]``, i fastest.

    Bounds may be fractions: 0 is the outer face of the first voxel, whose centre is at 0.5.
    """
    k0, k1, r0, r1, c0, c1 = np.asarray(extent, dtype=np.float64) - 0.5
    return transformPoints(ijkToRas, corners([c0, c1, r0, r1, k0, k1]))
