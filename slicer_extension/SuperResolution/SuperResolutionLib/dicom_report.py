"""Anomaly boxes as DICOM Structured Reports (TID 1500): `monai-sr boxes` in its own process, on the volume's files.

A report holds rectangles on slices, which `box_nodes.toBoxes` makes. The command line reads and writes them as readings
(`box.Reading`) in JSON.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from SuperResolutionLib import box_nodes
from SuperResolutionLib.box import Box, BoxError
from SuperResolutionLib.command import Command
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.headers import filesOf, slicesOf
from SuperResolutionLib.readings import ImageIdentity, Reader, Reading, Tool, format_readings, parse_readings
from SuperResolutionLib.translation import _
from SuperResolutionLib.volumes import shapeOf

SUFFIX = ".dcm"
TOOL = Tool("3D Slicer")


class SaveReport(Command):
    """A process that writes boxes as a report; see `Command`.

    Args:
        roiNodes: anomaly boxes of the volume.
        volumeNode: volume that was loaded from DICOM.
        path: path of the report; ends in `SUFFIX`.
        database: Slicer's DICOM database.
        overwrite: replace an existing report. Default False.
        process: `python` and `environment`; see `Command`.

    Attributes:
        summary: text for the user, once the report is written.
    """

    def __init__(self, roiNodes: Sequence, volumeNode, path, database, overwrite=False, **process):
        if not roiNodes:
            raise InputError(_("There are no boxes to save. Draw one first."))
        files = filesOf(volumeNode, database.fileForInstance)
        path = Path(path)
        if path.suffix.lower() != SUFFIX:
            message = _("'{name}' does not end in {ending}, as DICOM files do. Add it.")
            raise InputError(message, name=path.name, ending=SUFFIX)
        if os.path.realpath(path) in {os.path.realpath(file) for file in files}:
            message = _("'{name}' is a file of '{volume}', which is never replaced. Choose another name.")
            raise InputError(message, name=path.name, volume=volumeNode.GetName())
        self.summary, self._path, self._overwrite, self._count = "", path, overwrite, len(roiNodes)
        uids = slicesOf(volumeNode, files, database)
        slices, rows, columns = shapeOf(volumeNode)
        image = ImageIdentity(uids[0], columns=int(columns), rows=int(rows), slices=int(slices))
        readers: dict[str, list[Box]] = {}
        for node in roiNodes:
            for rectangle in box_nodes.toBoxes(node, volumeNode, uids):
                readers.setdefault(rectangle.reader, []).append(rectangle)
        readings = [Reading(image, Reader(reader), tuple(boxes), tool=TOOL) for reader, boxes in readers.items()]
        try:
            self._readings = format_readings(readings)
        except BoxError as error:
            raise InputError(_("The boxes cannot be written: {error} Correct the box."), error=error) from error
        super().__init__(_("The report cannot begin."), files, **process)

    def words(self, image: str) -> list[str]:
        table = os.path.join(os.path.dirname(image), "boxes.json")
        with open(table, "w", encoding="utf-8") as file:
            file.write(self._readings)
        return ["boxes", "to-dicom", image, table, str(self._path.absolute()), *(["--overwrite"] * self._overwrite)]

    def finish(self, folder: str, notes: Sequence[str]) -> None:
        text = _("Boxes written: {count}, in {path}.").format(count=self._count, path=self._path)
        self.summary = "\n".join([text, *notes])


class LoadReport(Command):
    """A process that adds the boxes of a report to a volume; see `Command`. It adds all of them, or none.

    Args:
        path: path of the report, from any program.
        volumeNode: volume that was loaded from DICOM and that the report describes.
        database: Slicer's DICOM database.
        process: `python` and `environment`; see `Command`.

    Attributes:
        summary: text for the user about what was read and what was not understood, once it is done.
    """

    def __init__(self, path, volumeNode, database, **process):
        files = filesOf(volumeNode, database.fileForInstance)
        self.summary, self._path, self._volume = "", Path(path), volumeNode
        self._uids = slicesOf(volumeNode, files, database)
        super().__init__(_("The report cannot be read."), files, **process)

    def words(self, image: str) -> list[str]:
        table = os.path.join(os.path.dirname(image), "boxes.json")
        return ["boxes", "from-dicom", str(self._path.absolute()), table, "--image", image]

    def finish(self, folder: str, notes: Sequence[str]) -> None:
        if self._volume.GetScene() is None:
            raise InputError(_("The volume was removed while its report was read. Load it, and read the report again."))
        with open(os.path.join(folder, "boxes.json"), encoding="utf-8") as file:
            readings = parse_readings(file.read())
        rectangles = [rectangle for reading in readings for rectangle in reading.boxes]
        added = box_nodes.addBoxes(rectangles, self._volume, self._uids)
        text = _("Boxes read: {count}, from {name}.").format(count=len(added), name=self._path.name)
        self.summary = "\n".join([text, *notes])
