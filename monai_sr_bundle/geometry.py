"""Pixel grids in millimetres: where a sample lies, before and after scaling or cropping.

One convention everywhere: an affine maps an index ``(x, y, z)`` = (column, row, slice), counted from 0 at the
*centre* of the first sample, to LPS millimetres (DICOM PS3.3 C.7.6.2). A sample is a box, so enlarging by ``s``
moves the first centre by half the change of spacing; this is `align_corners=False`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

UNKNOWN = "unknown"
RESOLUTION_TAG = "resolution tag"
"""A picture's dots per inch: a print size, which says nothing about the patient."""


def scale_affine(affine: np.ndarray, scale_xyz: Sequence[float]) -> np.ndarray:
    """Affine of the grid with `scale_xyz` samples where `affine` has one, covering the same box.

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
    """Affine of a crop whose first sample was at index `start_xyz`."""
    cropped = np.array(affine, dtype=np.float64)
    cropped[:3, 3] = (cropped @ [*start_xyz, 1.0])[:3]
    return cropped


def spacing_xyz(affine: np.ndarray) -> tuple[float, float, float]:
    """Distance between neighbouring samples along x, y and z, in the affine's unit."""
    x, y, z = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(x), float(y), float(z)


def ras_from_lps(affine: np.ndarray) -> np.ndarray:
    """The same grid with the first two world axes flipped; its own inverse (NIfTI and MRML are RAS)."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=np.float64)


@dataclass(frozen=True)
class Grid:
    """Where the samples of an image lie.

    Attributes:
        shape_zyx: slices, rows, columns.
        affine: ``[4, 4]`` float64, index ``(x, y, z)`` to LPS millimetres. Unit spacing where the spacing is unknown.
        spacing_source: in words, where the spacing came from ("PixelSpacing", "ImagerPixelSpacing, detector plane",
            "given by the user", ...); `UNKNOWN` or `RESOLUTION_TAG` when it says nothing about the patient.
    """

    shape_zyx: tuple[int, int, int]
    affine: np.ndarray
    spacing_source: str = UNKNOWN

    @property
    def spacing_xyz(self) -> tuple[float, float, float]:
        """Spacing along columns, rows and slices; millimetres only if `in_millimetres`."""
        return spacing_xyz(self.affine)

    @property
    def in_millimetres(self) -> bool:
        """Whether lengths measured on this grid are lengths in the patient (or in the detector plane)."""
        return self.spacing_source not in (UNKNOWN, RESOLUTION_TAG)

    def scaled(self, scale_zyx: Sequence[int]) -> Grid:
        """The grid with `scale_zyx` samples for each one of this grid."""
        z, y, x = (n * s for n, s in zip(self.shape_zyx, scale_zyx, strict=True))
        return replace(self, shape_zyx=(z, y, x), affine=scale_affine(self.affine, tuple(scale_zyx)[::-1]))

    def cropped(self, start_zyx: Sequence[int], shape_zyx: Sequence[int]) -> Grid:
        """The grid of a box of samples inside this one."""
        z, y, x = shape_zyx
        return replace(self, shape_zyx=(z, y, x), affine=crop_affine(self.affine, tuple(start_zyx)[::-1]))

    def with_spacing(self, row_mm: float, column_mm: float, source: str) -> Grid:
        """The same grid with other in-plane spacing: `row_mm` between rows, `column_mm` between columns.

        The first sample's centre stays where it is.
        """
        affine = np.array(self.affine, dtype=np.float64)
        old_x, old_y, _ = self.spacing_xyz
        affine[:3, 0] *= column_mm / old_x
        affine[:3, 1] *= row_mm / old_y
        return replace(self, affine=affine, spacing_source=source)
