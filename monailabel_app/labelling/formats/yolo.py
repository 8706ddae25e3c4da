"""YOLO: a text file for each image with lines "class x_centre y_centre width height", all as shares of the image.

YOLO knows no reader, so that each has a folder: `labels/READER/IMAGE.txt`, and `classes.txt` beside them. An empty file
is an image in which the reader has found nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from monai_sr_bundle.boxes.box import Box, BoxError
from monai_sr_bundle.boxes.readings import Reading

from labelling.formats.slices import Collector, ImageFacts, ImageNames, ImportedReadings, folder_of

CLASSES = "classes.txt"


def write(readings: Sequence[Reading], facts: Mapping[str, ImageFacts]) -> dict[str, bytes]:
    """Return `classes.txt` and the label files, by path."""
    findings = sorted({box.finding for reading in readings for box in reading.boxes})
    lines: dict[str, list[str]] = {}
    for reading in readings:
        image = facts[reading.image.id]
        columns, rows = image.identity.columns or 1, image.identity.rows or 1
        if not reading.boxes and image.slices == 1:
            lines.setdefault(f"labels/{folder_of(reading.reader.id)}/{image.identity.id}.txt", [])
        for box in reading.boxes:
            shares = (
                (box.x_min + box.x_max) / 2 / columns, (box.y_min + box.y_max) / 2 / rows,
                (box.x_max - box.x_min) / columns, (box.y_max - box.y_min) / rows,
            )  # fmt: skip
            text = " ".join(f"{share:.8f}" for share in shares)
            path = f"labels/{folder_of(reading.reader.id)}/{image.slice_name(box)}.txt"
            lines.setdefault(path, []).append(f"{findings.index(box.finding)} {text}\n")
    files = {path: "".join(entries).encode() for path, entries in lines.items()}
    return {CLASSES: "".join(f"{name}\n" for name in findings).encode(), **files}


def read(files: Mapping[str, bytes], names: ImageNames, default_reader: str) -> ImportedReadings:
    """Read label files, with or without folders of readers.

    Args:
        files: `classes.txt` and label files, by path.

    Raises:
        BoxError: no `classes.txt`, a line that is no box, or a box that does not lie in its image.
    """
    listing = next((content for path, content in files.items() if PurePosixPath(path).name == CLASSES), None)
    if listing is None:
        raise BoxError(f"there is no {CLASSES}, by which the numbers of the classes have names. Add it.")
    findings = listing.decode("utf-8", "replace").split("\n")
    collector = Collector(names, default_reader)
    for path, content in sorted(files.items()):
        label_file = PurePosixPath(path)
        if label_file.name == CLASSES or label_file.suffix != ".txt":
            continue
        reader = label_file.parent.name if label_file.parent.parent.name == "labels" else ""
        image = label_file.name.removesuffix(".txt")
        lines = content.decode("utf-8", "replace").split("\n")
        if not any(line.strip() for line in lines):
            collector.add(image, None, reader)
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            match = names.find(image)
            try:
                label, *shares = line.split()
                numbers = [float(share) for share in shares]
                finding = dict(enumerate(findings))[int(label)].strip()  # where -1 is not the last class
            except (ValueError, KeyError) as error:
                raise BoxError(f"{label_file.name}, line {number}: expected a class and four shares.") from error
            if len(numbers) not in (4, 5):
                raise BoxError(
                    f"{label_file.name}, line {number}: a class and {len(numbers)} numbers, expected four shares of "
                    "a box, and perhaps a confidence. Outlines and turned boxes are not read: save upright boxes."
                )
            x, y, width, height = numbers[:4]
            columns, rows = (match[0].identity.columns or 1, match[0].identity.rows or 1) if match else (1, 1)
            # Eight digits of a share may put an edge a hair beyond the image.
            edges = (
                (x - width / 2) * columns,
                (y - height / 2) * rows,
                (x + width / 2) * columns,
                (y + height / 2) * rows,
            )
            edges = tuple(
                min(max(edge, 0.0), size) if -0.001 < edge < size + 0.001 else edge
                for edge, size in zip(edges, (columns, rows, columns, rows), strict=True)
            )  # type: ignore[assignment]
            collector.add(image, Box(finding, *edges), reader, f"{label_file.name}, line {number}")
    return collector.finish()
