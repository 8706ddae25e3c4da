"""The boxes of an image, moved with its pixels: findings, rectangles and the image always tell the same place."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

BOXES, FINDINGS = "boxes_xyxy", "findings"
"""Keys of an item: float32 ``[boxes, 4]``, and as many names. They differ in number, so no batch can hold them."""


def moved_boxes(
    item: Mapping[Hashable, Any], matrix: np.ndarray, rows: int, columns: int, *, least_share: float = 0.0
) -> dict[Hashable, Any]:
    """The boxes of an item after its pixels have been moved: the upright rectangles around the moved corners.

    Args:
        item: with ``boxes_xyxy`` and `findings`, or with neither.
        matrix: ``[3, 3]``, from places before to places after, in pixels ``(x, y, 1)`` from the top left corner.
        rows, columns: of the image after; boxes are clipped to it.
        least_share: boxes of which less than this share of the area is left are dropped, and those without area.

    Returns:
        The two keys with what is left of the boxes; empty for an item without these keys.
    """
    if BOXES not in item:
        return {}
    boxes = np.asarray(item[BOXES], dtype=np.float64).reshape(-1, 4)
    corners = boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] @ matrix[:2, :2].T + matrix[:2, 2]
    around = np.hstack([corners.min(axis=1), corners.max(axis=1)])
    inside = around.clip(0, [columns, rows, columns, rows])
    kept = (area(inside) > 0) & (area(inside) >= least_share * area(around))
    findings = tuple(name for name, keep in zip(item[FINDINGS], kept, strict=True) if keep)
    return {BOXES: inside[kept].astype(np.float32), FINDINGS: findings}


def area(boxes: np.ndarray) -> np.ndarray:
    """Pixels in each of ``[boxes, 4]``."""
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
