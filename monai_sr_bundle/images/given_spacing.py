"""The pixel spacing that a user gives for an image whose file states none, or another one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from monai_sr_bundle.errors import UsageError
from monai_sr_bundle.images.image import Image

GIVEN_BY_USER = "given by the user"
"""`Grid.spacing_source` of a spacing that the user gives."""


def with_spacing(image: Image, spacing_mm: tuple[float, float]) -> Image:
    """Return the image with the in-plane spacing that the user gives (`--spacing-mm ROW COLUMN`).

    If the file has a spacing too, the user's is used and a note says so. The first sample's centre stays where it is.

    Raises:
        UsageError: a spacing that is not above 0.
    """
    row, column = spacing_mm
    if not (row > 0 and column > 0 and np.isfinite([row, column]).all()):
        raise UsageError(f"--spacing-mm {row:g} {column:g}: expected two numbers above 0, in millimetres.")
    notes = image.notes
    x, y, _ = image.grid.spacing_xyz
    if image.grid.in_millimetres:
        remark = f"The file states {y:.4g} x {x:.4g} mm ({image.grid.spacing_source}), which the user replaced."
        notes = (*notes, remark)
    affine = np.array(image.grid.affine, dtype=np.float64)
    affine[:3, 0] *= column / x
    affine[:3, 1] *= row / y
    return replace(image, grid=replace(image.grid, affine=affine, spacing_source=GIVEN_BY_USER), notes=notes)
