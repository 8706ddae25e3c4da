"""Boxes of a volume to and from the labelling server, in a thread; the panel never waits.

A volume remembers the newest version of each reader's boxes that was sent or fetched, and what the boxes were then.
So versions that were sent from elsewhere are not overwritten, and boxes that were not sent are not replaced unasked.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace

from SuperResolutionLib import box_nodes, nodes, result_nodes
from SuperResolutionLib.box import Box
from SuperResolutionLib.dicom_jobs import TOOL
from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.headers import slicesOf, uidsOf
from SuperResolutionLib.label_client import LabelClient
from SuperResolutionLib.readings import ImageIdentity, Reader, Reading

SEEN = "SuperResolution.LabelVersions"  # attribute of a volume: newest version and boxes of each reader, JSON


def ownBoxes(volumeNode, reader: str) -> list:
    """Return the anomaly boxes that a reader has drawn on a volume."""
    nodes = box_nodes.boxesOf(volumeNode.GetScene(), volumeNode)
    return [node for node in nodes if box_nodes.wordsOf(node)[1] == reader]


def isUnsent(volumeNode, reader: str) -> bool:
    """Return whether a volume has boxes of a reader that differ from those that were sent or fetched last."""
    nodes = ownBoxes(volumeNode, reader)
    return bool(nodes) and _stateOf(nodes, volumeNode) != _lastVersions(volumeNode).get(reader, {}).get("boxes")


class _Exchange:
    """Requests in a thread; the caller's timer calls `step`.

    A subclass sends its requests in `_exchange`, in the thread, and brings the answer into the scene in `_finish`.
    `reader` is that of the boxes, or `CONSENSUS` for the decision of an adjudicator. `message` is the reason of a
    failure, else empty, and `summary` the text for the user after success.
    """

    def __init__(self, client: LabelClient, volumeNode, reader: str) -> None:
        if not reader.strip():
            raise InputError(_("Enter the reader first: the server keeps the boxes of each reader apart."))
        self.message = self.summary = ""
        self._client, self._volume, self._reader = client, volumeNode, reader.strip()
        self._content, self._uids = contentOf(volumeNode), slicesOf(volumeNode) if uidsOf(volumeNode) else []
        self._size = dict(zip(("columns", "rows", "slices"), volumeNode.GetImageData().GetDimensions()))
        self._isReversed = False
        self._own = ownBoxes(volumeNode, self._reader)
        self._state = _stateOf(self._own, volumeNode)
        self._error: Exception | None = InputError(_("A mistake of this module. Slicer's log says where."))
        self._thread = threading.Thread(target=self._run, daemon=True)

    def step(self) -> bool:
        """Start the requests, and put what has arrived into the scene. Return True while they run."""
        if self._thread.ident is None:
            self._thread.start()
        if self._thread.is_alive():
            return True
        try:
            if self._error is not None:
                raise self._error
            if self._volume.GetScene() is None:
                raise InputError(_("The volume was removed in the meantime."))
            self._finish()
        except InputError as error:
            self.message = str(error)
        except Exception:  # the panel must not wait for an end that does not come
            logging.exception("An error of the exchange of boxes that was not expected")
            self.message = _("A mistake of this module. Slicer's log says where.")
        return False

    def _run(self) -> None:
        try:
            name, role = self._client.user()
            if role == "reader" and name != self._reader:
                text = _("The token is that of the reader '{name}'. Enter this name as the reader, or another token.")
                raise InputError(text, name=name)
            image = self._client.find(**self._content)
            here, there = (" x ".join(str(size[axis]) for axis in self._size) for size in (self._size, image))
            if here != there:
                text = _("The volume has {here} voxels, and the server's image {there} (columns x rows x slices). Load "
                         "the whole image, as it is.")  # fmt: skip
                raise InputError(text, here=here, there=there)
            self._isReversed = image["left_handed"]  # Slicer reverses the slices of such a file
            self._exchange(ImageIdentity(image["id"], image["sha256"], **self._size))
            self._error = None
        except (InputError, OSError) as error:
            self._error = error

    def _inOrder(self, boxes: Sequence[Box]) -> list[Box]:
        """Return boxes with the numbers of slices that the server has, or of the server with those of the volume."""
        if not self._isReversed:
            return list(boxes)
        last = self._size["slices"] - 1
        return [box if box.slice_index is None else replace(box, slice_index=last - box.slice_index) for box in boxes]

    def _remember(self, boxes: list[str]) -> None:
        """Note in the volume which version was sent or fetched, and its boxes."""
        entry = {"address": self._client.address, "image": self._image, "number": self._number, "boxes": boxes}
        versions = {**_lastVersions(self._volume), self._reader: entry}
        self._volume.SetAttribute(SEEN, json.dumps(versions, sort_keys=True))


class SendBoxes(_Exchange):
    """Sends the boxes of a reader as the next version, a draft or submitted, which says "no finding" without a box."""

    def __init__(self, client: LabelClient, volumeNode, reader: str, isDraft: bool) -> None:
        super().__init__(client, volumeNode, reader)
        self._isDraft = isDraft
        self._boxes = [box for node in self._own for box in box_nodes.toBoxes(node, volumeNode, self._uids)]
        self._sawEnhanced = bool(result_nodes.resultsOf(volumeNode))
        self._last = _lastVersions(volumeNode).get(self._reader, {})

    def _exchange(self, identity: ImageIdentity) -> None:
        self._image = identity.id
        isSame = (self._last.get("address"), self._last.get("image")) == (self._client.address, identity.id)
        former = self._client.newest(identity.id, self._reader)[1] or Reading(identity, Reader(self._reader))
        # The scene does not hold codes: those of the former version stay with its findings.
        codes = {box.finding: box.codes for box in former.boxes}
        reading = Reading(
            identity,
            Reader(self._reader, former.reader.role),
            tuple(replace(box, codes=codes.get(box.finding, ())) for box in self._inOrder(self._boxes)),
            status="draft" if self._isDraft else "submitted",
            no_finding=not self._boxes and not self._isDraft,
            saw_enhanced=self._sawEnhanced or bool(former.saw_enhanced),
            tool=TOOL,
        )
        self._number = self._client.save(reading, self._last["number"] if isSame else 0)

    def _finish(self) -> None:
        self._remember(self._state)
        self.summary = _describe(self._number, self._isDraft, len(self._own))
        others = set(box_nodes.boxesOf(self._volume.GetScene(), self._volume)) - set(self._own)
        if others:
            text = _("Boxes of other readers that stay here: {count}. Each reader sends their own.")
            self.summary += " " + text.format(count=len(others))


class FetchBoxes(_Exchange):
    """Puts the newest version of a reader's boxes in the place of those that the volume has of them; see `_Exchange`.

    An adjudicator may fetch the boxes of any reader.
    """

    def _exchange(self, identity: ImageIdentity) -> None:
        self._image = identity.id
        self._number, self._reading = self._client.newest(identity.id, self._reader)

    def _finish(self) -> None:
        replaced, added = ownBoxes(self._volume, self._reader), []
        if _stateOf(replaced, self._volume) != self._state:
            raise InputError(_("The boxes were changed while others were fetched, and stay as they are. Fetch again."))
        if self._reading is None:
            # A version whose content was deleted on request counts as seen, so that the reader can go on.
            self.summary = _("The server has no boxes of '{reader}' on this image.").format(reader=self._reader)
        else:
            # The reader of the consensus stands in the reading alone.
            rectangles = [replace(box, reader=self._reader) for box in self._inOrder(self._reading.boxes)]
            added = box_nodes.addBoxes(rectangles, self._volume, self._uids)
            for node in replaced:
                nodes.Removal(node)
            self.summary = _describe(self._number, self._reading.status == "draft", len(added))
        self._remember(_stateOf(added, self._volume))


def _describe(number: int, isDraft: bool, count: int) -> str:
    draft = _("Version {number} is on the server, a draft. Boxes: {count}.")
    submitted = _("Version {number} is on the server, submitted. Boxes: {count}.")
    return (draft if isDraft else submitted).format(number=number, count=count)


def contentOf(volumeNode) -> dict[str, str]:
    """Return the arguments of `LabelClient.find`: what identifies the image of a volume by its content."""
    uids, storage = uidsOf(volumeNode), volumeNode.GetStorageNode()
    if uids:
        return {"instance": uids[0]}
    if storage is None or not storage.GetFileName():
        message = _("'{name}' was not loaded from a file, so no server knows it. Save it, and put the saved file where "
                    "the server has its images.")  # fmt: skip
        raise InputError(message, name=volumeNode.GetName())
    return {"file": storage.GetFileName()}


def _stateOf(roiNodes: Sequence, volumeNode) -> list[str]:
    """Return words and places of boxes, in an order that does not depend on theirs."""
    entries = []
    for node in roiNodes:
        bounds = [round(edge, 3) + 0.0 for edge in box_nodes.boundsIn(node, volumeNode)]  # there is no -0.0
        entries.append(json.dumps([*box_nodes.wordsOf(node), *bounds]))
    return sorted(entries)


def _lastVersions(volumeNode) -> dict:
    return json.loads(volumeNode.GetAttribute(SEEN) or "{}")
