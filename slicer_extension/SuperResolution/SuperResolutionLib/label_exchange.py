"""Boxes of a volume to and from the labelling server, in a thread; the panel never waits.

A volume remembers the newest version of each reader's boxes that was sent or fetched, and what the boxes were then.
So versions that were sent from elsewhere are not overwritten, and boxes that were not sent are not replaced unasked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import uuid
from collections.abc import Sequence
from dataclasses import replace

from SuperResolutionLib import box_nodes, result_nodes
from SuperResolutionLib.dicom_report import TOOL
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.headers import filesOf, slicesOf
from SuperResolutionLib.label_client import CONSENSUS, ConflictError, Content, LabelClient, Version
from SuperResolutionLib.readings import ImageIdentity, Reader, Reading, box_to_dict
from SuperResolutionLib.volumes import UIDS, shapeOf

SEEN = "SuperResolution.LabelVersions"
"""Attribute of a volume: for each reader the newest version that was sent or fetched, and its boxes, as JSON."""

_NO_FILE = "Save it, and put the saved file where the server has its images."
_ADVICE = "Load the volume through the DICOM module."


def ownBoxes(volumeNode, reader: str) -> list:
    """Return the anomaly boxes that a reader has drawn on a volume."""
    nodes = box_nodes.boxesOf(volumeNode.GetScene(), volumeNode)
    return [node for node in nodes if box_nodes.wordsOf(node)[1] == reader]


def isUnsent(volumeNode, reader: str) -> bool:
    """Return whether a volume has boxes of a reader that differ from those that were sent or fetched last."""
    nodes = ownBoxes(volumeNode, reader)
    return bool(nodes) and _digest(nodes, volumeNode) != _lastVersions(volumeNode).get(reader, {}).get("boxes")


class _Exchange:
    """Requests in a thread; the caller's timer calls `step`.

    Attributes:
        message: reason of a failure; empty while it runs and after success.
        summary: text for the user after success.
    """

    def __init__(self, client: LabelClient, volumeNode, reader: str, database) -> None:
        if not reader.strip():
            raise InputError("Enter the reader first: the server keeps the boxes of each reader apart.")
        self.message = self.summary = ""
        self._client, self._volume, self._reader = client, volumeNode, reader.strip()
        self._uids = _slicesOf(volumeNode, database)
        self._content = _contentOf(volumeNode, self._uids)
        slices, rows, columns = shapeOf(volumeNode)
        self._size = {"columns": int(columns), "rows": int(rows), "slices": int(slices)}
        self._error = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def step(self) -> bool:
        """Put what has arrived into the scene. Return True while requests run."""
        if self._thread.is_alive():
            return True
        try:
            if self._error is not None:
                raise self._error
            if self._volume.GetScene() is None:
                raise InputError("The volume was removed in the meantime.")
            self._finish()
        except InputError as error:
            self.message = str(error)
        return False

    def _run(self) -> None:
        try:
            self._identity = self._find()
            self._exchange()
        except InputError as error:
            self._error = error
        except Exception as error:
            logging.exception("boxes and the labelling server")
            self._error = InputError(f"A mistake of this module ({type(error).__name__}). Slicer's log says where.")

    def _find(self) -> ImageIdentity:
        user = self._client.user()
        isAllowed = user.role == "admin" or (user.role == "adjudicator" and self._isOpenToAdjudicators())
        if self._reader != user.name and not isAllowed:
            raise InputError(
                f"The token is that of the reader '{user.name}'. Enter this name as the reader, or another token."
            )
        image = self._client.find(self._content)
        here, there = (" x ".join(str(size[name]) for name in self._size) for size in (self._size, image))
        if here != there:
            raise InputError(
                f"The volume has {here} voxels, and the server's image {there} (columns x rows x slices). Load the "
                "whole image, as it is."
            )
        return ImageIdentity(image["id"], image["sha256"], **self._size)

    def _isOpenToAdjudicators(self) -> bool:
        """Return whether an adjudicator may do this with the boxes of this reader, who is another one."""
        raise NotImplementedError

    def _exchange(self) -> None:
        """Send the requests, in the thread."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Bring the answer into the scene."""
        raise NotImplementedError


class SendBoxes(_Exchange):
    """Sends the boxes of a reader as the next version.

    Args:
        client: the server.
        volumeNode: the source image.
        reader: the reader whose boxes are sent; `CONSENSUS` for the decision of an adjudicator.
        database: Slicer's DICOM database; None if there is none.
        isDraft: send them as a draft. Default False: as submitted. No boxes then say that there is no finding.

    Raises:
        InputError: no reader, a box outside the volume, or a volume that no server can know.
    """

    def __init__(self, client: LabelClient, volumeNode, reader: str, database, isDraft: bool = False) -> None:
        super().__init__(client, volumeNode, reader, database)
        self._nodes, self._isDraft = ownBoxes(volumeNode, self._reader), isDraft
        self._others = len(box_nodes.boxesOf(volumeNode.GetScene(), volumeNode)) - len(self._nodes)
        for node in self._nodes:
            if not node.GetAttribute(box_nodes.TRACKING):
                box_nodes.track(node, f"2.25.{uuid.uuid4().int}")
        self._digest = _digest(self._nodes, volumeNode)
        self._boxes = [box for node in self._nodes for box in box_nodes.toBoxes(node, volumeNode, self._uids)]
        self._sawEnhanced = bool(result_nodes.resultsOf(volumeNode))
        self._lastVersion = _lastVersions(volumeNode).get(self._reader, {})
        self._thread.start()

    def _isOpenToAdjudicators(self) -> bool:
        return self._reader == CONSENSUS

    def _exchange(self) -> None:
        last = self._lastVersion
        isSame = (last.get("address"), last.get("image")) == (self._client.address, self._identity.id)
        newest = self._client.newest(self._identity.id, self._reader)
        former = newest.reading or Reading(self._identity, Reader(self._reader))
        # The scene does not hold codes: those of the former version stay with its findings.
        codes = {box.finding: box.codes for box in former.boxes}
        reading = Reading(
            self._identity,
            Reader(self._reader, former.reader.role),
            tuple(replace(box, codes=codes.get(box.finding, ())) for box in self._boxes),
            status="draft" if self._isDraft else "submitted",
            no_finding=not self._boxes and not self._isDraft,
            saw_enhanced=self._sawEnhanced or bool(former.saw_enhanced),
            tool=TOOL,
        )
        try:
            self._version = self._client.save(reading, last["number"] if isSame else 0)
        except ConflictError as error:
            raise InputError(
                f"The server has version {newest.number} of the boxes of '{self._reader}', which were sent from "
                "elsewhere and not fetched here. Nothing was sent. Press Fetch boxes to see them."
            ) from error

    def _finish(self) -> None:
        _remember(self._volume, self._client, self._version, self._digest)
        count = len(self._nodes)
        boxes = f"{count} box{'es' * (count != 1)}" if count or self._isDraft else "no finding"
        self.summary = f"Version {self._version.number} is on the server: {boxes}, "
        self.summary += "a draft." if self._isDraft else "submitted."
        if self._others:
            self.summary += f" Of other readers {self._others} stay here: each reader sends their own."


class FetchBoxes(_Exchange):
    """Puts the newest version of a reader's boxes in the place of those that the volume has of this reader.

    Args:
        client: the server.
        volumeNode: the source image.
        reader: the reader; an adjudicator may name another one, or `CONSENSUS`.
        database: Slicer's DICOM database; None if there is none.

    Raises:
        InputError: no reader, or a volume that no server can know.
    """

    def __init__(self, client: LabelClient, volumeNode, reader: str, database) -> None:
        super().__init__(client, volumeNode, reader, database)
        self._before = _digest(ownBoxes(volumeNode, self._reader), volumeNode)
        self._thread.start()

    def _isOpenToAdjudicators(self) -> bool:
        return True

    def _exchange(self) -> None:
        self._version = self._client.newest(self._identity.id, self._reader)

    def _finish(self) -> None:
        version, reading = self._version, self._version.reading
        replaced = ownBoxes(self._volume, self._reader)
        if _digest(replaced, self._volume) != self._before:
            raise InputError("The boxes were changed while others were fetched, and stay as they are. Fetch again.")
        if reading is None:
            # A version whose content was deleted on request counts as seen, so that the reader can go on.
            _remember(self._volume, self._client, version, "")
            self.summary = f"The server has no boxes of '{self._reader}' on this image."
            return
        # The reader of the consensus stands in the reading alone.
        rectangles = [replace(box, reader=self._reader) for box in reading.boxes]
        added = box_nodes.addBoxes(rectangles, self._volume, self._uids)
        for node in replaced:
            box_nodes.removeBox(node)
        _remember(self._volume, self._client, version, _digest(added, self._volume))
        count = "no finding" if reading.no_finding else f"{len(added)} box{'es' * (len(added) != 1)}"
        kind = "a draft" if reading.status == "draft" else "submitted"
        self.summary = f"Version {version.number} of '{self._reader}': {count}, {kind}."


def _slicesOf(volumeNode, database) -> Sequence[str]:
    """Return the SOP Instance UID of each slice; none of a volume that is not from DICOM."""
    uids = (volumeNode.GetAttribute(UIDS) or "").split()
    if not uids or (len(uids) == 1 and shapeOf(volumeNode)[0] == 1):
        return uids
    if database is None:
        raise InputError("Slicer has no DICOM database open. Open the DICOM module once, and try again.")
    return slicesOf(volumeNode, filesOf(volumeNode, database.fileForInstance, _ADVICE), database)


def _contentOf(volumeNode, uids: Sequence[str]) -> Content:
    if uids:
        return Content(instance=uids[0])
    storage = volumeNode.GetStorageNode()
    file = (storage.GetFileName() if storage else None) or ""
    if not file:
        raise InputError(f"'{volumeNode.GetName()}' was not loaded from a file, so no server knows it. {_NO_FILE}")
    return Content(file=file)


def _digest(roiNodes: Sequence, volumeNode) -> str:
    """Return a digest of places and words of boxes, in any order; empty without boxes.

    A box outside the volume counts by its bounds, as it cannot be sent.
    """
    entries = []
    for node in roiNodes:
        try:
            entries += [{**box_to_dict(box), "reader": box.reader} for box in box_nodes.toBoxes(node, volumeNode)]
        except InputError:
            entries.append({"bounds": box_nodes.boundsIn(node, volumeNode)})
    for entry in entries:
        entry.pop("tracking_uid", None)
    lines = sorted(json.dumps(entry, sort_keys=True) for entry in entries)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def _lastVersions(volumeNode) -> dict:
    try:
        entries = json.loads(volumeNode.GetAttribute(SEEN) or "{}")
    except ValueError:
        return {}
    return entries if isinstance(entries, dict) else {}


def _remember(volumeNode, client: LabelClient, version: Version, digest: str) -> None:
    entry = {"address": client.address, "image": version.image, "number": version.number, "boxes": digest}
    volumeNode.SetAttribute(SEEN, json.dumps({**_lastVersions(volumeNode), version.reader: entry}, sort_keys=True))
