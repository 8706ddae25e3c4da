"""Readings for the tests."""

from __future__ import annotations

from typing import Any

from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.boxes.readings import ImageIdentity, Reader, Reading

IMAGE = ImageIdentity("chest.png", columns=200, rows=100, slices=1)


def box(*edges: float, finding: str = "Nodule", **fields: Any) -> Box:
    return Box(finding, *(edges or (10.0, 20.0, 30.0, 50.0)), **fields)


def reading(reader: str = "ada", *boxes: Box, image: ImageIdentity = IMAGE, **fields: Any) -> Reading:
    fields = {"status": "submitted", "no_finding": not boxes, **fields}
    return Reading(image, Reader(reader), tuple(boxes), **fields)
