"""Anomaly boxes as a DICOM Structured Report (TID 1500) and back, by `monai-sr boxes` on the files of their volume.

A report holds rectangles on slices, as `box_nodes.toBoxes` makes them; the command line exchanges them as readings
(`box.Reading`) in JSON.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from SuperResolutionLib import box_nodes
from SuperResolutionLib.box import Box, BoxError, ImageIdentity, Reader, Reading, Tool, format_readings, parse_readings
from SuperResolutionLib.command import Command
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.headers import filesOf, slicesOf
from SuperResolutionLib.volumes import shapeOf

SUFFIX = ".dcm"
TOOL = Tool("3D Slicer")

_INSTEAD = "Keep its boxes as markups, or load the volume through the DICOM module."


class SaveReport(Command):
    """Boxes being written; see `Command`.

    Args:
        roiNodes: anomaly boxes of the volume.
        volumeNode: loaded from DICOM.
        path: of the report; ends in `SUFFIX`.
        database: Slicer's DICOM database.
        overwrite: replace an older report.
        python, environment: as `Command`.

    Attributes:
        told: what was written, in words, when it is done.
    """

    def __init__(self, roiNodes: Sequence, volumeNode, path, database, overwrite=False, python=None, environment=None):
        if not roiNodes:
            raise InputError("There are no boxes to save. Draw one first.")
        files = filesOf(volumeNode, database.fileForInstance, _INSTEAD)
        path = Path(path)
        if path.suffix.lower() != SUFFIX:
            raise InputError(f"'{path.name}' does not end in {SUFFIX}, as DICOM files do. Add it.")
        if os.path.realpath(path) in {os.path.realpath(file) for file in files}:
            raise InputError(
                f"'{path.name}' is a file of '{volumeNode.GetName()}', which is never replaced. Choose another name."
            )
        if path.exists() and not overwrite:
            raise InputError(f"'{path}' exists already. Choose another name.")
        self.told, self._path, self._overwrite = "", path, overwrite
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

    def finish(self, folder: str, said: Sequence[str]) -> None:
        for node, tracking in self._tracking.items():
            if node.GetScene() is not None:
                box_nodes.track(node, tracking)
        self.told = _told(f"{_counted(len(self._tracking))} in {self._path}.", said)


class LoadReport(Command):
    """Boxes being read onto a volume; see `Command`. All of them come into the scene, or none.

    Args:
        path: of the report, whoever made it.
        volumeNode: loaded from DICOM, of which the report is.
        database: Slicer's DICOM database.
        python, environment: as `Command`.

    Attributes:
        told: what was read, and what was not understood, in words, when it is done.
    """

    def __init__(self, path, volumeNode, database, python=None, environment=None):
        files = filesOf(volumeNode, database.fileForInstance, _INSTEAD)
        self.told, self._path, self._volume = "", Path(path), volumeNode
        self._uids = slicesOf(volumeNode, files, database)
        super().__init__("Reading the report", files, python, environment)

    def words(self, image: str) -> list[str]:
        found = os.path.join(os.path.dirname(image), "boxes.json")
        return ["boxes", "from-dicom", str(self._path.absolute()), found, "--image", image]

    def finish(self, folder: str, said: Sequence[str]) -> None:
        if self._volume.GetScene() is None:
            raise InputError("The volume was removed while its report was read. Load it, and read the report again.")
        with open(os.path.join(folder, "boxes.json"), encoding="utf-8") as file:
            readings = parse_readings(file.read())
        rectangles = [rectangle for reading in readings for rectangle in reading.boxes]
        added = box_nodes.addBoxes(rectangles, self._volume, self._uids)
        self.told = _told(f"{_counted(len(added))} from {self._path.name}.", said)


def _readings(rectangles: Sequence[Box], volumeNode, uids: Sequence[str]) -> list[Reading]:
    """Return one reading of the volume for each reader."""
    slices, rows, columns = shapeOf(volumeNode)
    image = ImageIdentity(uids[0], columns=int(columns), rows=int(rows), slices=int(slices))
    readers: dict[str, list[Box]] = {}
    for rectangle in rectangles:
        readers.setdefault(rectangle.reader, []).append(rectangle)
    return [Reading(image, Reader(reader), tuple(found), tool=TOOL) for reader, found in readers.items()]


def _counted(count: int) -> str:
    return f"{count} box{'es' * (count != 1)}"


def _told(what: str, said: Sequence[str]) -> str:
    return "\n".join([what, *(f"Note: {line}" for line in said)])
