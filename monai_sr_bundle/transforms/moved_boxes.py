"""The boxes of an image, moved with its pixels: findings, rectangles and the image always tell the same place."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

BOXES, FINDINGS = "boxes_xyxy", "findings"
"""Keys of an item: float32 ``[boxes, 4]``, and as many names. Their number differs, so they cannot be batched."""


def moved_boxes(
    item: Mapping[Hashable, Any], matrix: np.ndarray, rows: int, columns: int, *, least_share: float = 0.0
) -> dict[Hashable, Any]:
    """Return the boxes of an item after its pixels have been moved: the upright rectangles around the moved corners.

    Args:
        item: dictionary with ``boxes_xyxy`` and `findings`, or with neither.
        matrix: ``[3, 3]``, from old to new positions in pixels ``(x, y, 1)`` from the top left corner.
        rows, columns: size of the moved image, to which boxes are clipped.
        least_share: smallest share of its area that a clipped box keeps, or it is dropped. Default 0.

    Returns:
        The two keys with the remaining boxes; empty for an item without these keys.
    """
    if BOXES not in item:
        return {}
    boxes = np.asarray(item[BOXES], dtype=np.float64).reshape(-1, 4)
    corners = boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] @ matrix[:2, :2].T + matrix[:2, 2]
    around = np.hstack([corners.min(axis=1), corners.max(axis=1)])
    inside = around.clip(0, [columns, rows, columns, rows])
    is_inside = (area(inside) > 0) & (area(inside) >= least_share * area(around))
    findings = tuple(name for name, keep in zip(item[FINDINGS], is_inside, strict=True) if keep)
    return {BOXES: inside[is_inside].astype(np.float32), FINDINGS: findings}


def area(boxes: np.ndarray) -> np.ndarray:
    """Return the area of each of ``[boxes, 4]`` in pixels."""
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
