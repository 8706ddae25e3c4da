"""Pascal VOC: an XML file for each image and reader. http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/

VOC counts whole pixels from 1, both ends included, so edges are rounded to the nearest pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.boxes.readings import Reading

from labelling.formats.slices import ImageFacts, folder_of


def write(readings: Sequence[Reading], facts: Mapping[str, ImageFacts]) -> dict[str, bytes]:
    """Return the files `Annotations/READER/IMAGE.xml`."""
    boxes: dict[tuple[str, str], tuple[ImageFacts, list[Box]]] = {}
    for reading in readings:
        image = facts[reading.image.id]
        if not reading.boxes and image.slices == 1:
            boxes.setdefault((reading.reader.id, image.identity.id), (image, []))
        for box in reading.boxes:
            boxes.setdefault((reading.reader.id, image.slice_name(box)), (image, []))[1].append(box)
    return {
        f"Annotations/{folder_of(reader)}/{name}.xml": _annotation(name, image, image_boxes)
        for (reader, name), (image, image_boxes) in boxes.items()
    }


def _annotation(name: str, image: ImageFacts, boxes: Sequence[Box]) -> bytes:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "folder").text = "images"
    ElementTree.SubElement(root, "filename").text = name
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", image.identity.columns), ("height", image.identity.rows), ("depth", 1)):
        ElementTree.SubElement(size, tag).text = str(value)
    ElementTree.SubElement(root, "segmented").text = "0"
    for box in boxes:
        entry = ElementTree.SubElement(root, "object")
        for tag, text in (("name", box.finding), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
            ElementTree.SubElement(entry, tag).text = text
        corners = ElementTree.SubElement(entry, "bndbox")
        left = min(round(box.x_min) + 1, image.identity.columns or math.inf)
        top = min(round(box.y_min) + 1, image.identity.rows or math.inf)
        for tag, edge in (
            ("xmin", left), ("ymin", top), ("xmax", max(left, round(box.x_max))), ("ymax", max(top, round(box.y_max))),
        ):  # fmt: skip
            ElementTree.SubElement(corners, tag).text = str(edge)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
