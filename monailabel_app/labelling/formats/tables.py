"""Tables of boxes: the CSV of NIH ChestX-ray14 (in and out), and that of VinBigData (out)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from monai_sr_bundle.boxes.box import Box, BoxError
from monai_sr_bundle.boxes.readings import Reading

from labelling.formats.slices import Collector, ImageFacts, ImageNames, ImportedReadings, folder_of

NIH_COLUMNS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
"""Columns of BBox_List_2017.csv; its header has three empty cells more."""
VINBIGDATA_COLUMNS = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")
VINBIGDATA_CLASSES = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD", "Infiltration",
    "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary fibrosis", "No finding",
)  # fmt: skip
"""Classes in the order of their numbers, from 0. A finding that is none of them gets a number after these."""
_VINBIGDATA_NAMES = {
    "Nodule": "Nodule/Mass", "Mass": "Nodule/Mass", "Effusion": "Pleural effusion", "Infiltrate": "Infiltration",
    "Opacity": "Lung Opacity",
}  # fmt: skip


def write_nih(readings: Sequence[Reading], facts: Mapping[str, ImageFacts]) -> dict[str, bytes]:
    """Return one table of each reader, which the format does not name: `READER/BBox_List.csv`."""
    rows: dict[str, list[list[str]]] = {}
    for reading in readings:
        of_reader = rows.setdefault(reading.reader.id, [])
        for box in reading.boxes:
            numbers = (box.x_min, box.y_min, box.x_max - box.x_min, box.y_max - box.y_min)
            name = facts[reading.image.id].slice_name(box)
            of_reader.append([name, box.finding, *(f"{number:.3f}" for number in numbers)])
    return {f"{folder_of(reader)}/BBox_List.csv": _format(NIH_COLUMNS, entries) for reader, entries in rows.items()}


def read_nih(content: bytes, names: ImageNames, default_reader: str) -> ImportedReadings:
    """Read a table of NIH ChestX-ray14.

    Raises:
        BoxError: other columns, a cell that is no number, or a box that does not lie in its image.
    """
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig", "replace"), newline=None)))
    except csv.Error as error:
        raise BoxError(f"it is no table that can be read ({error}). Copy the file again.") from error
    header = [cell.strip() for cell in lines[0]] if lines else []
    if header[:3] not in (
        ["Image Index", "Finding Label", "Bbox [x"],
        ["Image Index", "Finding Label", "Bbox [x,y,w,h]"],
    ):
        raise BoxError(f"the columns are {', '.join(header[:6]) or 'missing'}, expected {', '.join(NIH_COLUMNS)}.")
    collector = Collector(names, default_reader)
    for number, row in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        try:
            image, finding = row[0].strip(), row[1].strip()
            x, y, width, height = (float(cell) for cell in row[2:6])
        except (ValueError, IndexError) as error:
            raise BoxError(f"line {number}: expected an image, a finding and four numbers.") from error
        collector.add(image, Box(finding, x, y, x + width, y + height), label=f"line {number}")
    return collector.finish()


def write_vinbigdata(readings: Sequence[Reading], facts: Mapping[str, ImageFacts]) -> dict[str, bytes]:
    """Return `train.csv`; a reader without a finding has one row of the class "No finding"."""
    classes = list(VINBIGDATA_CLASSES)
    rows = []
    for reading in readings:
        image = facts[reading.image.id]
        if reading.no_finding:
            rows.append([image.identity.id, "No finding", "14", reading.reader.id, "", "", "", ""])
        for box in reading.boxes:
            name = _VINBIGDATA_NAMES.get(box.finding, box.finding)
            if name not in classes:
                classes.append(name)
            cells = [image.slice_name(box), name, str(classes.index(name)), reading.reader.id]
            rows.append([*cells, *(f"{edge:.3f}" for edge in box.xyxy)])
    return {"train.csv": _format(VINBIGDATA_COLUMNS, rows)}


def _format(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode()
