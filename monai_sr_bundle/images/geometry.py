"""Pixel grids in millimetres: positions of samples before and after scaling or cropping.

One convention everywhere: an affine maps an index ``(x, y, z)`` = (column, row, slice), counted from 0 at the
*centre* of the first sample, to LPS millimetres (DICOM PS3.3 C.7.6.2). A sample is a box, so enlarging by ``s``
moves the first centre by half the change of spacing; this is `align_corners=False`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

UNKNOWN = "unknown"
RESOLUTION_TAG = "resolution tag"
"""Source of a spacing that is a picture's dots per inch: a print size, no length in the patient."""


class Region(NamedTuple):
    """A rectangle of pixels, in the one order of this package: rows, then columns, the upper edges excluded.

    Attributes:
        top, bottom: first row, and the row after the last.
        left, right: first column, and the column after the last.
    """

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def whole(cls, rows: int, columns: int) -> Region:
        """Return the region of all pixels of an image."""
        return cls(0, rows, 0, columns)

    @classmethod
    def from_xyxy(cls, corners: Sequence[int]) -> Region:
        """Return the region between corners ``(x0, y0, x1, y1)``, as users and DICOM give them."""
        left, top, right, bottom = corners
        return cls(top, bottom, left, right)

    @property
    def xyxy(self) -> tuple[int, int, int, int]:
        """Corners ``(x0, y0, x1, y1)``."""
        return self.left, self.top, self.right, self.bottom

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.bottom - self.top

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.right - self.left

    @property
    def as_slices(self) -> tuple[slice, slice]:
        """Slices that cut the region out of ``[rows, columns]``."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grown(self, margin: int, rows: int, columns: int) -> Region:
        """Return the region with `margin` pixels more on every side, as far as an image of this size reaches."""
        return Region(
            max(0, self.top - margin),
            min(rows, self.bottom + margin),
            max(0, self.left - margin),
            min(columns, self.right + margin),
        )

    def relative_to(self, outer: Region) -> Region:
        """Return where the region lies inside `outer`."""
        return Region(self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left)

    def scaled(self, factor: int) -> Region:
        """Return the same rectangle in pixels that are `factor` times smaller."""
        return Region(factor * self.top, factor * self.bottom, factor * self.left, factor * self.right)


def scale_affine(affine: np.ndarray, scale_xyz: Sequence[float]) -> np.ndarray:
    """Return the affine of the grid with `scale_xyz` samples for each one of `affine`, covering the same box.

    Args:
        affine: ``[4, 4]``, index ``(x, y, z)`` to millimetres.
        scale_xyz: output samples per input sample along each axis, above 0.

    Returns:
        ``[4, 4]`` float64.

    Raises:
        ValueError: a scale that is not above 0.
    """
    scale = np.asarray(scale_xyz, dtype=np.float64)
    if scale.shape != (3,) or not (scale > 0).all():
        raise ValueError(f"scale_xyz is {tuple(scale_xyz)}, expected three numbers above 0.")
    index_to_source = np.diag([*(1.0 / scale), 1.0])
    index_to_source[:3, 3] = (1.0 / scale - 1.0) / 2.0
    return np.asarray(affine, dtype=np.float64) @ index_to_source


def crop_affine(affine: np.ndarray, start_xyz: Sequence[float]) -> np.ndarray:
    """Return the affine of a crop whose first sample was at index `start_xyz`."""
    cropped = np.array(affine, dtype=np.float64)
    cropped[:3, 3] = (cropped @ [*start_xyz, 1.0])[:3]
    return cropped


def spacing_xyz(affine: np.ndarray) -> tuple[float, float, float]:
    """Return the distance between neighbouring samples along x, y and z, in the affine's unit."""
    x, y, z = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(x), float(y), float(z)


def ras_from_lps(affine: np.ndarray) -> np.ndarray:
    """Return the same grid with the first two world axes flipped; its own inverse (NIfTI and MRML are RAS)."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=np.float64)


@dataclass(frozen=True)
class Grid:
    """Positions of the samples of an image.

    Attributes:
        shape_zyx: slices, rows, columns.
        affine: ``[4, 4]`` float64, index ``(x, y, z)`` to LPS millimetres. Unit spacing where the spacing is unknown.
        spacing_source: origin of the spacing in words ("PixelSpacing", "ImagerPixelSpacing, detector plane",
            "given by the user", ...); `UNKNOWN` or `RESOLUTION_TAG` if it is no length in the patient.
        are_frames: whether the slices are frames or pages, at no known distance from each other. Default False.
    """

    shape_zyx: tuple[int, int, int]
    affine: np.ndarray
    spacing_source: str = UNKNOWN
    are_frames: bool = False

    @property
    def spacing_xyz(self) -> tuple[float, float, float]:
        """Distances between columns, rows and slices; millimetres only if `in_millimetres`.

        That between slices is along their normal, as DICOM's Spacing Between Slices is: shorter than a tilted step.
        """
        normal = np.cross(self.affine[:3, 0], self.affine[:3, 1])
        return *spacing_xyz(self.affine)[:2], float(abs(normal @ self.affine[:3, 2]) / np.linalg.norm(normal))

    @property
    def slice_distance_mm(self) -> float | None:
        """Distance between slices; None where it is unknown, and for one slice."""
        return self.spacing_xyz[2] if self.in_millimetres and self.shape_zyx[0] > 1 and not self.are_frames else None

    @property
    def in_millimetres(self) -> bool:
        """True if lengths measured on this grid are lengths in the patient (or in the detector plane)."""
        return self.spacing_source not in (UNKNOWN, RESOLUTION_TAG)

    def scaled(self, scale_zyx: Sequence[int]) -> Grid:
        """Return the grid with `scale_zyx` samples for each one of this grid."""
        z, y, x = (n * s for n, s in zip(self.shape_zyx, scale_zyx, strict=True))
        return replace(self, shape_zyx=(z, y, x), affine=scale_affine(self.affine, tuple(scale_zyx)[::-1]))

    def cropped(self, start_zyx: Sequence[int], shape_zyx: Sequence[int]) -> Grid:
        """Return the grid of a box of samples inside this one."""
        z, y, x = shape_zyx
        return replace(self, shape_zyx=(z, y, x), affine=crop_affine(self.affine, tuple(start_zyx)[::-1]))
