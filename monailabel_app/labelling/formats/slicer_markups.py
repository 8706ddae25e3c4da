"""3D Slicer markups: a region box (ROI) for each lesion, as Slicer and MONAI Label's own module write it.

The schema is that of Slicer's markups, with the class in the control point's label and reader and certainty in its
description, where this project's Slicer module puts them, too. Coordinates are LPS or RAS millimetres.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from monai_sr_bundle.boxes.box import Box, BoxError
from monai_sr_bundle.boxes.readings import Reading

from labelling.formats.slices import Collector, ImageFacts, ImageNames, ImportedReadings

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
UNNAMED = "Finding"
"""Finding of a box to which Slicer has given a name of its own."""
_NAME_OF_SLICER = re.compile(r"(R|ROI|MarkupsROI|Detection ROI)([ _-]*[0-9]+)*")
_NUMBER = re.compile(r"-[0-9]+$")
_SAME_EDGE = 0.01


def write(reading: Reading, image: ImageFacts) -> bytes:
    """Return the markups of one reading."""
    affine = image.affine()
    markups = []
    for box, first, last in _lesions(reading.boxes, image):
        low = np.array([box.x_min - 0.5, box.y_min - 0.5, first - 0.5])
        high = np.array([box.x_max - 0.5, box.y_max - 0.5, last + 0.5])
        centre = affine[:3, :3] @ ((low + high) / 2) + affine[:3, 3]
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        orientation = affine[:3, :3] / lengths
        size = lengths * (high - low)
        words = {"reader": reading.reader.id, "certainty": box.certainty}
        if box.tracking_uid:
            words["tracking"] = box.tracking_uid
        markups.append(
            {
                "type": "ROI",
                "coordinateSystem": "LPS",
                "coordinateUnits": "mm",
                "locked": False,
                "roiType": "Box",
                "name": box.finding or UNNAMED,
                "center": [float(value) for value in centre],
                "orientation": [float(value) for value in orientation.ravel()],
                "size": [float(value) for value in size],
                "insideOut": False,
                "controlPoints": [
                    {
                        "id": "1",
                        "label": box.finding or UNNAMED,
                        "description": json.dumps(words),
                        "position": [float(value) for value in centre],
                        "positionStatus": "defined",
                    }
                ],
            }
        )
    return json.dumps({"@schema": SCHEMA, "markups": markups}, indent=1).encode()


def read(content: bytes, image: ImageFacts, names: ImageNames, default_reader: str) -> ImportedReadings:
    """Read markups that were drawn on an image, of Slicer, of MONAI Label's module or of ours.

    A box is on every slice whose middle lies in it, as this project's Slicer module counts. A rotated one becomes the
    smallest upright box around it. Markups that are no boxes are listed, and left out.

    Raises:
        BoxError: no markups, or a box outside the image.
    """
    collector = Collector(names, default_reader)
    try:
        document = json.loads(content)
        markups = document["markups"]
        if not isinstance(markups, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BoxError("it is no file of Slicer's markups, expected JSON with a list of markups.") from error
    others = 0
    collector.add(image.identity.id, None)
    for number, markup in enumerate(markups):
        if not isinstance(markup, dict) or markup.get("type") != "ROI":
            others += 1
            continue
        try:
            corners = _corners(markup)
            words = _words(markup)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
            raise BoxError(f"markups[{number}] is no box with centre, orientation and size.") from error
        for box in _slices(corners, image, words, number):
            collector.add(image.identity.id, box, label=f"markups[{number}]")
    if others:
        collector.imported.notes.append(f"{others} markups that are no boxes (ROI) are left out.")
    return collector.finish()


def _lesions(boxes: Sequence[Box], image: ImageFacts) -> list[tuple[Box, int, int]]:
    """Join equal rectangles of one lesion on neighbouring slices: a box, its first slice, and its last."""
    joined: list[tuple[Box, int, int]] = []
    for box in sorted(boxes, key=lambda each: (each.tracking_uid, each.finding, image.index_of(each))):
        index = image.index_of(box)
        if joined:
            last, first_slice, last_slice = joined[-1]
            same = box.tracking_uid and (box.finding, box.tracking_uid) == (last.finding, last.tracking_uid)
            if same and index == last_slice + 1 and np.allclose(box.xyxy, last.xyxy, atol=_SAME_EDGE):
                joined[-1] = last, first_slice, index
                continue
        joined.append((box, index, index))
    return joined


def _corners(markup: dict[str, Any]) -> np.ndarray:
    """Return the eight corners of a box in LPS millimetres, ``[8, 3]``."""
    centre = np.array([float(value) for value in markup["center"]])
    size = np.array([float(value) for value in markup["size"]])
    orientation = np.array([float(value) for value in markup.get("orientation") or np.eye(3).ravel()]).reshape(3, 3)
    if centre.shape != (3,) or size.shape != (3,) or not np.isfinite([*centre, *size, *orientation.ravel()]).all():
        raise ValueError("three numbers")
    flip = np.diag([-1.0, -1.0, 1.0]) if markup.get("coordinateSystem", "LPS") in ("RAS", 0, "0") else np.eye(3)
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    return (centre + (signs * size) @ orientation.T) @ flip


def _words(markup: dict[str, Any]) -> dict[str, Any]:
    points = markup.get("controlPoints") or [{}]
    # Slicer names a point after its node, with a number: "Nodule-1".
    name = _NUMBER.sub("", str(points[0].get("label") or markup.get("name") or "").strip()).strip()
    described: dict[str, Any] = {}
    try:
        described = json.loads(points[0].get("description") or "{}")
    except (ValueError, RecursionError):
        described = {}
    described = described if isinstance(described, dict) else {}
    certainty = described.get("certainty")
    tracking = described.get("tracking")
    return {
        "finding": UNNAMED if not name or _NAME_OF_SLICER.fullmatch(name) else name[:64].strip(),
        "certainty": float(certainty) if isinstance(certainty, int | float) else None,
        "tracking_uid": tracking if isinstance(tracking, str) else "",
    }


def _slices(corners: np.ndarray, image: ImageFacts, words: dict[str, Any], number: int) -> list[Box]:
    columns, rows, slices = image.identity.columns or 0, image.identity.rows or 0, image.slices
    indices = np.c_[corners, np.ones(8)] @ np.linalg.inv(image.affine()).T
    low, high = indices[:, :3].min(axis=0) + 0.5, indices[:, :3].max(axis=0) + 0.5
    (x0, y0, z0), (x1, y1, z1) = low, high
    if not (x0 < columns and x1 > 0 and y0 < rows and y1 > 0) or (slices > 1 and not (z0 < slices and z1 > 0)):
        raise BoxError(f"markups[{number}] lies outside the image. Was it drawn on another one?")
    edges = (max(x0, 0.0), max(y0, 0.0), min(x1, float(columns)), min(y1, float(rows)))
    if slices == 1:
        inside: list[int | None] = [None]
    else:
        inside = [k for k in range(slices) if z0 <= k + 0.5 < z1] or [min(max(int((z0 + z1) / 2), 0), slices - 1)]
    return [Box(words["finding"], *map(float, edges), slice_index=k, **{
        key: words[key] for key in ("certainty", "tracking_uid")}) for k in inside]  # fmt: skip
