"""COCO: one JSON file of images, annotations and categories. https://cocodataset.org/#format-data

`bbox` is [x, y, width, height] with the edges of pixels as coordinates, as boxes here have them. What COCO has no place
for stands in fields of ours, which other programs pass over: `reader`, `codes`, `certainty`, `tracking_uid` of an
annotation, and `readings`, so that "no finding" is not lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from monai_sr_bundle.boxes.box import Box, BoxError, FindingCode
from monai_sr_bundle.boxes.readings import Reading
from monai_sr_bundle.errors import InputError

from labelling.formats.slices import Collector, ImageFacts, ImageNames, ImportedReadings


def write(readings: Sequence[Reading], facts: Mapping[str, ImageFacts]) -> dict[str, bytes]:
    """Return the file `instances.json`."""
    images: dict[str, dict[str, Any]] = {}
    annotations, statements = [], []
    findings = sorted({box.finding for reading in readings for box in reading.boxes})

    def image_id(name: str, image: ImageFacts) -> int:
        identity = image.identity
        entry = {
            "id": len(images) + 1, "file_name": name, "width": identity.columns, "height": identity.rows,
            "image": identity.id, "sha256": identity.sha256,
        }  # fmt: skip
        return int(images.setdefault(name, entry)["id"])

    for reading in readings:
        image = facts[reading.image.id]
        statements.append(
            {
                "image": reading.image.id,
                "reader": reading.reader.id,
                "role": reading.reader.role,
                "status": reading.status,
                "no_finding": reading.no_finding,
                "saw_enhanced": reading.saw_enhanced,
            }
        )
        if not reading.boxes and image.slices == 1:
            image_id(image.identity.id, image)
        for box in reading.boxes:
            width, height = box.x_max - box.x_min, box.y_max - box.y_min
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id(image.slice_name(box), image),
                    "category_id": findings.index(box.finding) + 1,
                    "bbox": [box.x_min, box.y_min, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": [],
                    "reader": reading.reader.id,
                    "codes": [vars(code) for code in box.codes],
                    "certainty": box.certainty,
                    "tracking_uid": box.tracking_uid,
                }
            )
    document = {
        "info": {"description": "boxes around findings; bbox in edges of pixels"},
        "images": list(images.values()),
        "categories": [{"id": number, "name": name} for number, name in enumerate(findings, start=1)],
        "annotations": annotations,
        "readings": statements,
    }
    return {"instances.json": json.dumps(document, indent=1).encode()}


def read(content: bytes, names: ImageNames, default_reader: str) -> ImportedReadings:
    """Read a COCO file of any program.

    Raises:
        BoxError: no COCO file, or a box that does not lie in its image.
    """
    collector = Collector(names, default_reader)
    try:
        document = json.loads(content)
        images = {entry["id"]: str(entry.get("file_name") or entry["image"]) for entry in document["images"]}
        findings = {entry["id"]: str(entry["name"]) for entry in document["categories"]}
        for statement in document.get("readings", ()):
            extra = {"status": statement["status"], "saw_enhanced": statement.get("saw_enhanced")}
            collector.add(statement["image"], None, statement.get("reader", ""), **extra)
        for number, entry in enumerate(document["annotations"]):
            x, y, width, height = (float(value) for value in entry["bbox"])
            certainty = entry.get("certainty")
            box = Box(
                findings[entry["category_id"]], x, y, x + width, y + height,
                certainty=None if certainty is None else float(certainty), tracking_uid=entry.get("tracking_uid") or "",
                codes=tuple(FindingCode(**code) for code in entry.get("codes") or ()),
            )  # fmt: skip
            collector.add(images[entry["image_id"]], box, entry.get("reader", ""), f"annotations[{number}]")
    except (BoxError, InputError):
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BoxError(
            f"it is no COCO file of boxes ({type(error).__name__}). Expected images, categories and annotations with "
            "bbox."
        ) from error
    return collector.finish()
