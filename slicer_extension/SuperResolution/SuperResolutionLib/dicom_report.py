"""Anomaly boxes as DICOM Structured Reports (TID 1500): `monai-sr boxes` in its own process, on the volume's files.

A report holds rectangles on slices, which `box_nodes.toBoxes` makes. The command line reads and writes them as readings
(`box.Reading`) in JSON.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from SuperResolutionLib import box_nodes
from SuperResolutionLib.box import Box, BoxError
from SuperResolutionLib.command import Command
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.headers import filesOf, slicesOf
from SuperResolutionLib.readings import ImageIdentity, Reader, Reading, Tool, format_readings, parse_readings
from SuperResolutionLib.volumes import shapeOf

SUFFIX = ".dcm"
TOOL = Tool("3D Slicer")

_ADVICE = "Keep its boxes as markups, or load the volume through the DICOM module."


class SaveReport(Command):
    """A process that writes boxes as a report; see `Command`.

    Args:
        roiNodes: anomaly boxes of the volume.
        volumeNode: volume that was loaded from DICOM.
        path: path of the report; ends in `SUFFIX`.
        database: Slicer's DICOM database.
        overwrite: replace an existing report. Default False.
        python, environment: passed to `Command`.

    Attributes:
        summary: text for the user, once the report is written.
    """

    def __init__(self, roiNodes: Sequence, volumeNode, path, database, overwrite=False, python=None, environment=None):
        if not roiNodes:
            raise InputError("There are no boxes to save. Draw one first.")
        files = filesOf(volumeNode, database.fileForInstance, _ADVICE)
        path = Path(path)
        if path.suffix.lower() != SUFFIX:
            raise InputError(f"'{path.name}' does not end in {SUFFIX}, as DICOM files do. Add it.")
        if os.path.realpath(path) in {os.path.realpath(file) for file in files}:
            raise InputError(
                f"'{path.name}' is a file of '{volumeNode.GetName()}', which is never replaced. Choose another name."
            )
        if path.exists() and not overwrite:
            raise InputError(f"'{path}' exists already. Choose another name.")
        self.summary, self._path, self._overwrite = "", path, overwrite
        self._tracking = {
            node: node.GetAttribute(box_nodes.TRACKING) or f"2.25.{uuid.uuid4().int}" for node in roiNodes
        }
        uids = slicesOf(volumeNode, files, database)
        rectangles = [
            replace(rectangle, tracking_uid=tracking)
            for node, tracking in self._tracking.items()
            for rectangle in box_nodes.toBoxes(node, volumeNode, uids)
        ]
        try:
            self._readings = format_readings(_readings(rectangles, volumeNode, uids))
        except BoxError as error:
            raise InputError(f"The boxes cannot be written: {error} Correct the box.") from error
        super().__init__("The report", files, python, environment)

    def words(self, image: str) -> list[str]:
        table = os.path.join(os.path.dirname(image), "boxes.json")
        with open(table, "w", encoding="utf-8") as file:
            file.write(self._readings)
        return ["boxes", "to-dicom", image, table, str(self._path.absolute()), *(["--overwrite"] * self._overwrite)]

    def finish(self, folder: str, notes: Sequence[str]) -> None:
        for node, tracking in self._tracking.items():
            if node.GetScene() is not None:
                box_nodes.track(node, tracking)
        self.summary = _summarize(f"{_countBoxes(len(self._tracking))} in {self._path}.", notes)


class LoadReport(Command):
    """A process that adds the boxes of a report to a volume; see `Command`. It adds all of them, or none.

    Args:
        path: path of the report, from any program.
        volumeNode: volume that was loaded from DICOM and that the report describes.
        database: Slicer's DICOM database.
        python, environment: passed to `Command`.

    Attributes:
        summary: text for the user about what was read and what was not understood, once it is done.
    """

    def __init__(self, path, volumeNode, database, python=None, environment=None):
        files = filesOf(volumeNode, database.fileForInstance, _ADVICE)
        self.summary, self._path, self._volume = "", Path(path), volumeNode
        self._uids = slicesOf(volumeNode, files, database)
        super().__init__("Reading the report", files, python, environment)

    def words(self, image: str) -> list[str]:
        table = os.path.join(os.path.dirname(image), "boxes.json")
        return ["boxes", "from-dicom", str(self._path.absolute()), table, "--image", image]

    def finish(self, folder: str, notes: Sequence[str]) -> None:
        if self._volume.GetScene() is None:
            raise InputError("The volume was removed while its report was read. Load it, and read the report again.")
        with open(os.path.join(folder, "boxes.json"), encoding="utf-8") as file:
            readings = parse_readings(file.read())
        rectangles = [rectangle for reading in readings for rectangle in reading.boxes]
        added = box_nodes.addBoxes(rectangles, self._volume, self._uids)
        self.summary = _summarize(f"{_countBoxes(len(added))} from {self._path.name}.", notes)


def _readings(rectangles: Sequence[Box], volumeNode, uids: Sequence[str]) -> list[Reading]:
    """Return one reading of the volume for each reader."""
    slices, rows, columns = shapeOf(volumeNode)
    image = ImageIdentity(uids[0], columns=int(columns), rows=int(rows), slices=int(slices))
    readers: dict[str, list[Box]] = {}
    for rectangle in rectangles:
        readers.setdefault(rectangle.reader, []).append(rectangle)
    return [Reading(image, Reader(reader), tuple(boxes), tool=TOOL) for reader, boxes in readers.items()]


def _countBoxes(count: int) -> str:
    return f"{count} box{'es' * (count != 1)}"


def _summarize(result: str, notes: Sequence[str]) -> str:
    return "\n".join([result, *(f"Note: {line}" for line in notes)])
