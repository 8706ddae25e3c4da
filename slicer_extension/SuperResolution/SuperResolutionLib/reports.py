"""Anomaly boxes as a DICOM Structured Report (TID 1500) and back, by `monai-sr boxes` on the files of their volume.

A report holds rectangles on slices: a box that goes through several becomes one on each, all with the tracking UID of
its lesion, and equal rectangles of one lesion on neighbouring slices come back as one box. A box that is turned against
the volume leaves as the smallest upright one around it.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from SuperResolutionLib import boxes
from SuperResolutionLib.command import Command
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.headers import filesOf, slicesOf
from SuperResolutionLib.volumes import shapeOf

SUFFIX = ".dcm"
UNKNOWN_READER, UNKNOWN_FINDING = "Unknown", "Finding"
"""Of boxes of a report that does not name them."""

_INSTEAD = "Keep its boxes as markups, or load the volume through the DICOM module."
_SAME_PIXEL = 0.01


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
        self._tracking = {node: node.GetAttribute(boxes.TRACKING) or f"2.25.{uuid.uuid4().int}" for node in roiNodes}
        uids = slicesOf(volumeNode, files, database)
        self._rectangles = [
            {"tracking_uid": tracking, **rectangle}
            for node, tracking in self._tracking.items()
            for rectangle in _rectangles(boxes.record(node, volumeNode), volumeNode, uids)
        ]
        super().__init__("The report", files, python, environment)

    def words(self, image: str) -> list[str]:
        table = os.path.join(os.path.dirname(image), "boxes.json")
        with open(table, "w", encoding="utf-8") as file:
            json.dump({"boxes": self._rectangles}, file)
        return ["boxes", "to-dicom", image, table, str(self._path.absolute()), *(["--overwrite"] * self._overwrite)]

    def finish(self, folder: str, said: Sequence[str]) -> None:
        for node, tracking in self._tracking.items():
            if node.GetScene() is not None:
                told = boxes.record(node)
                boxes.describe(node, told["label"], told["reader"], told["certainty"], tracking)
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
        self._slices = {uid: number for number, uid in enumerate(slicesOf(volumeNode, files, database))}
        super().__init__("Reading the report", files, python, environment)

    def words(self, image: str) -> list[str]:
        found = os.path.join(os.path.dirname(image), "boxes.json")
        return ["boxes", "from-dicom", str(self._path.absolute()), found, "--image", image]

    def finish(self, folder: str, said: Sequence[str]) -> None:
        if self._volume.GetScene() is None:
            raise InputError("The volume was removed while its report was read. Load it, and read the report again.")
        with open(os.path.join(folder, "boxes.json"), encoding="utf-8") as file:
            found = _joined(json.load(file)["boxes"], self._slices)
        boxes.addRecords(found, self._volume)
        self.told = _told(f"{_counted(len(found))} from {self._path.name}.", said)


def _rectangles(record: dict, volumeNode, uids: Sequence[str]) -> list[dict]:
    """A box on each slice whose middle lies in it, cut at the edges of the volume, as the package's `Box`.

    Raises:
        InputError: nothing of the box lies in the volume.
    """
    bounds, shape = np.reshape(record["bounds"], (3, 2)), shapeOf(volumeNode)
    (k0, k1), *edges = np.clip(bounds, 0, np.array(shape)[:, None])
    (r0, r1), (c0, c1) = edges
    if not (k0 < k1 and r0 < r1 and c0 < c1):
        raise InputError(
            f"The box '{record['label']}' lies outside '{volumeNode.GetName()}'. Move it onto the volume, or remove it."
        )
    inside = [k for k in range(shape[0]) if k0 <= k + 0.5 < k1] or [min(int((k0 + k1) / 2), shape[0] - 1)]
    reader = record["reader"]
    words = {"label": record["label"], "reader": "" if reader == UNKNOWN_READER else reader}
    if record["certainty"] is not None:
        words["certainty"] = record["certainty"]
    corners = {"x_min": float(c0), "y_min": float(r0), "x_max": float(c1), "y_max": float(r1)}
    return [{**words, **corners, "sop_instance_uid": uids[k]} for k in inside]


def _joined(found: Sequence[dict], slices: dict) -> list[dict]:
    """Records for `boxes.addRecords`: equal rectangles of one lesion on neighbouring slices are one box."""
    records: list[dict] = []
    for each in sorted(found, key=lambda one: slices[one["sop_instance_uid"]]):
        k = slices[each["sop_instance_uid"]]
        record = {
            "label": each.get("label") or UNKNOWN_FINDING,
            "reader": each.get("reader") or UNKNOWN_READER,
            "certainty": each.get("certainty"),
            "tracking": each.get("tracking_uid", ""),
            "bounds": [k, k + 1, each["y_min"], each["y_max"], each["x_min"], each["x_max"]],
        }
        begun = next((one for one in records if _goesOn(one, record)), None)
        if begun:
            begun["bounds"][1] = k + 1
        else:
            records.append(record)
    return records


def _goesOn(record: dict, following: dict) -> bool:
    same = all(record[name] == following[name] for name in ("label", "reader", "certainty", "tracking"))
    same = same and bool(record["tracking"])
    edges = np.abs(np.subtract(record["bounds"][2:], following["bounds"][2:])).max()
    return same and record["bounds"][1] == following["bounds"][0] and edges <= _SAME_PIXEL


def _counted(count: int) -> str:
    return f"{count} box{'es' * (count != 1)}"


def _told(what: str, said: Sequence[str]) -> str:
    return "\n".join([what, *(f"Note: {line}" for line in said)])
