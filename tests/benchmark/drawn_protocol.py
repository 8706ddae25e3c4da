"""A protocol on drawn chests, for the tests of comparisons."""

from __future__ import annotations

from typing import Any

from monai_sr_bundle.benchmark.protocol import Protocol, Row


def drawn_protocol(*rows: Row, **changes: Any) -> Protocol:
    """Return a protocol of these rows, on the image set `drawn`, with some keys replaced."""
    facts: dict[str, Any] = {
        "name": "drawn", "title": "Drawn chests", "about": "For tests.", "modality": "CXR", "sets": ("drawn",),
        "operator": "bicubic_antialias_x4", "window": (0.0, 255.0), "levels": 255, "rows": rows,
    }  # fmt: skip
    return Protocol(**facts | changes)
