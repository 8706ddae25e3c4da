"""Anomaly boxes in the scene: each is a region box (markups ROI) with finding, reader, certainty and UID of the lesion.

The finding is the label of the node's one point, and the rest is in its description, as JSON: a scene and a markups
file keep both. Outside the scene a box is `box.Box`, a rectangle on one slice: `toBoxes` makes one for each slice of an
anomaly box, and `addBoxes` joins them again. A box that is rotated against its volume becomes the smallest upright box
around it; a markups file (`saveBoxes`) keeps the rotation.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import slicer

from SuperResolutionLib import display, nodes, region
from SuperResolutionLib.box import Box, BoxError, check_edges
from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.volumes import check, ijkToRasOf, shapeOf, toWorldOf, transformPoints

VOLUME = "SuperResolution.BoxOf"  # node reference from a box to the volume it was drawn on
SUFFIX = ".mrk.json"
UNKNOWN_READER, UNKNOWN_FINDING = "Unknown", "Finding"  # names in the scene where a file gives none
_ORANGE = (1.0, 0.55, 0.1)
_SAME_PIXEL = 0.01


def addBox(volumeNode, bounds: Sequence[float], finding: str, reader: str, certainty: float | None, tracking: str = ""):
    """Put an anomaly box on a volume, at least one voxel thick along every axis, and return its markups ROI node.

    The bounds ``[k0, k1, r0, r1, c0, c1]`` are voxels of the volume, fractions allowed, stops excluded. The certainty
    is 0 to 1, or None if the reader does not say. `tracking` is the UID of the lesion; empty means a new one.
    """
    check(volumeNode)
    roi = slicer.vtkMRMLMarkupsROINode()
    region.placeBox(roi, volumeNode, bounds)
    describe(roi, finding, reader, certainty, tracking or _newUid())
    volumeNode.GetScene().AddNode(roi)
    belongTo(roi, volumeNode)
    return roi


def describe(roiNode, finding: str, reader: str, certainty: float | None, tracking: str | None = None) -> None:
    """Set finding, reader and certainty of an anomaly box; with `tracking` None, the UID of its lesion stays."""
    finding, reader, certainty = _checked(finding, reader, certainty)
    tracking = trackingOf(roiNode) if tracking is None else tracking
    words = {"reader": reader, "certainty": certainty, "tracking": tracking}
    modified = roiNode.StartModify()
    roiNode.SetName(finding if certainty is None else f"{finding} {certainty:.0%}")
    roiNode.SetNthControlPointLabel(0, finding)
    roiNode.SetNthControlPointDescription(0, json.dumps(words))
    roiNode.EndModify(modified)


def wordsOf(roiNode) -> tuple:
    """Return finding, reader and certainty of an anomaly box."""
    return _wordsOf(roiNode)[:3]


def trackingOf(roiNode) -> str:
    """Return the UID of the lesion that an anomaly box marks."""
    return _wordsOf(roiNode)[3]


def belongTo(roiNode, volumeNode) -> None:
    """Assign a box to a volume as an orange outline, at least one voxel thick along every axis.

    A box drawn on a radiograph is often thinner than its one slice. It grows along its own axes, so it keeps its
    rotation.
    """
    _showOutline(roiNode)
    roiNode.SetNodeReferenceID(VOLUME, volumeNode.GetID())
    nodes.putBelow(volumeNode, roiNode)
    worldToVoxels = np.linalg.inv(toWorldOf(volumeNode) @ ijkToRasOf(volumeNode))
    boxToWorld = toWorldOf(roiNode) @ slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToNodeMatrix())
    voxelsPerUnit = np.abs((worldToVoxels @ boxToWorld)[:3, :3])
    size = np.array(roiNode.GetSize())
    for axis in np.flatnonzero(voxelsPerUnit @ size < 1 - region.TOLERANCE):
        boxAxis = int(voxelsPerUnit[axis].argmax())
        size[boxAxis] = max(size[boxAxis], 1 / voxelsPerUnit[axis, boxAxis])
    roiNode.SetSize(*size)


def boxesOf(scene, volumeNode=None) -> list:
    """Return the anomaly boxes in a scene, or those drawn on one volume, oldest first.

    They include boxes that Slicer itself loaded from a markups file of this module.
    """
    boxes = [node for node in slicer.util.getNodesByClass("vtkMRMLMarkupsROINode", scene) if _wordsOf(node)]
    for node in boxes:
        if node.GetNodeReferenceID(VOLUME) is None and node.GetDisplayNode().GetFillVisibility():
            describe(node, *wordsOf(node))  # a markups file keeps neither the name nor the look
            _showOutline(node)
    return [node for node in boxes if volumeNode is None or node.GetNodeReferenceID(VOLUME) == volumeNode.GetID()]


def removeBox(roiNode) -> nodes.Removal:
    """Remove a box from the scene, with all that belongs to it. `undo` of the removal brings it back."""
    removal = nodes.Removal(roiNode.GetScene())
    removal.remove(roiNode)
    return removal


def boundsIn(roiNode, volumeNode) -> list[float]:
    """Return the bounding box of a region box in voxels of a volume, ``[k0, k1, r0, r1, c0, c1]`` with fractions."""
    worldToVoxels = np.linalg.inv(toWorldOf(volumeNode) @ ijkToRasOf(volumeNode))
    corners = transformPoints(worldToVoxels, region.cornersWorld(roiNode)) + 0.5
    return np.stack([corners.min(axis=0), corners.max(axis=0)], axis=1)[::-1].ravel().tolist()


def toBoxes(roiNode, volumeNode, uids: Sequence[str] = ()) -> list[Box]:
    """Return an anomaly box as rectangles on all slices whose middle lies in it, clipped to the volume.

    They name their slice by its SOP Instance UID in `uids`, or by its index if there are none.
    """
    finding, reader, certainty, tracking = _wordsOf(roiNode)
    tracking = tracking or _newUid()  # a scene of an earlier version may hold boxes without one
    shape = shapeOf(volumeNode)
    bounds = np.reshape(boundsIn(roiNode, volumeNode), (3, 2))
    (k0, k1), (r0, r1), (c0, c1) = np.clip(bounds, 0, np.array(shape)[:, None]).tolist()
    if not (k0 < k1 and r0 < r1 and c0 < c1):
        message = _("The box '{finding}' lies outside '{name}'. Move it onto the volume, or remove it.")
        raise InputError(message, finding=finding, name=volumeNode.GetName())
    inside = [k for k in range(shape[0]) if k0 <= k + 0.5 < k1] or [min(int((k0 + k1) / 2), shape[0] - 1)]
    return [
        Box(
            finding, c0, r0, c1, r1,
            slice_index=None if uids else k,
            reader="" if reader == UNKNOWN_READER else reader,
            certainty=certainty,
            sop_instance_uid=uids[k] if uids else "",
            tracking_uid=tracking,
        )
        for k in inside
    ]  # fmt: skip


def addBoxes(rectangles: Sequence[Box], volumeNode, uids: Sequence[str] = ()) -> list:
    """Add rectangles to a volume, all of them or none if one is wrong, and return their markups ROI nodes.

    Equal rectangles of one lesion on neighbouring slices become one anomaly box. `readings` has checked their words.
    `uids` are the SOP Instance UIDs of all slices, for rectangles that name their slice by UID.
    """
    check(volumeNode)
    shape = shapeOf(volumeNode)
    placed: list[tuple[int, Box]] = []
    for number, rectangle in enumerate(rectangles, start=1):
        k = uids.index(rectangle.sop_instance_uid) if rectangle.sop_instance_uid in uids else rectangle.slice_index
        if k is None and shape[0] == 1:
            k = 0
        if k is None or not 0 <= k < shape[0]:
            message = _("Box {number} is on slice {k}, expected one of the {count} of the volume, from 0.")
            raise InputError(message, number=number, k=k, count=shape[0])
        try:
            check_edges(rectangle, shape[2], shape[1])
        except BoxError as error:
            raise InputError(_("Box {number}: {error}"), number=number, error=error) from error
        placed.append((k, rectangle))
    lesions: list[tuple[Box, list[int]]] = []
    for k, rectangle in sorted(placed, key=lambda each: each[0]):
        lesion = next((each for each in lesions if each[1][-1] == k - 1 and _isSameLesion(each[0], rectangle)), None)
        if lesion:
            lesion[1].append(k)
        else:
            lesions.append((rectangle, [k]))
    return [
        addBox(
            volumeNode, [slices[0], slices[-1] + 1, box.y_min, box.y_max, box.x_min, box.x_max],
            box.finding or UNKNOWN_FINDING, box.reader or UNKNOWN_READER, box.certainty, box.tracking_uid,
        )
        for box, slices in lesions
    ]  # fmt: skip


def saveBoxes(roiNodes: Sequence, path) -> None:
    """Write boxes into one markups file (.mrk.json), which Slicer opens too."""
    path = Path(path)
    if not path.name.endswith(SUFFIX):
        message = _("'{name}' does not end in {ending}. Slicer recognises markups by this ending: add it.")
        raise InputError(message, name=path.name, ending=SUFFIX)
    if not roiNodes:
        raise InputError(_("There are no boxes to save. Draw one first."))
    unfinished = path.with_name(f".{path.name}.part{SUFFIX}")
    try:
        first, *others = (_toMarkups(node, unfinished) for node in roiNodes)
        for document in others:
            first["markups"] += document["markups"]
        unfinished.write_text(json.dumps(first, indent=1), encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        message = _("'{path}' cannot be written: {reason}. Choose another folder.")
        raise InputError(message, path=path, reason=error.strerror or error) from error
    finally:
        unfinished.unlink(missing_ok=True)


def loadBoxes(path, volumeNode) -> list:
    """Add the boxes of a markups file (.mrk.json) to a volume, all of them or none, and return their markups ROI nodes.

    Slicer writes positions in the coordinates before a parent transform, so these boxes get the volume's transform.
    """
    check(volumeNode)
    path = Path(path)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["markups"]
        kinds = [entry["type"] for entry in entries]
        points = {n: (entries[n].get("controlPoints") or [{}])[0] for n, kind in enumerate(kinds) if kind == "ROI"}
        words = {n: _parse(point.get("label"), point.get("description")) for n, point in points.items()}
    except OSError as error:
        message = _("'{path}' cannot be read: {reason}. Choose another file.")
        raise InputError(message, path=path, reason=error.strerror or error) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        message = _("'{name}' is no markups file of Slicer. Choose a file that ends in {ending}.")
        raise InputError(message, name=path.name, ending=SUFFIX) from error
    if not words:
        message = _("'{name}' holds no region box (it holds {kinds}). Choose another.")
        raise InputError(message, name=path.name, kinds=", ".join(kinds) or "nothing")
    if not all(words.values()):
        message = _("'{name}' holds {count} region boxes without finding, reader and certainty. Load it with Slicer's "
                    "Add Data, and say of each box what it is.")  # fmt: skip
        raise InputError(message, name=path.name, count=list(words.values()).count(()))
    return [_loadOne(path, number, volumeNode) for number in words]


def _newUid() -> str:
    return f"2.25.{uuid.uuid4().int}"


def _showOutline(roiNode) -> None:
    """Show a box as an outline alone: nothing covers the finding, and the box is not moved by accident."""
    display.outlineOnly(roiNode, _ORANGE)
    display.showHandles(roiNode, False)


def _isSameLesion(box: Box, following: Box) -> bool:
    words = ("finding", "reader", "certainty", "tracking_uid")
    same = bool(box.tracking_uid) and all(getattr(box, name) == getattr(following, name) for name in words)
    return same and np.abs(np.subtract(box.xyxy, following.xyxy)).max() <= _SAME_PIXEL


def _checked(finding, reader, certainty) -> tuple:
    for text, message in (
        (finding, _("The finding is {text!r}, expected words. Enter the finding and its reader.")),
        (reader, _("The reader is {text!r}, expected words. Enter the finding and its reader.")),
    ):
        if not isinstance(text, str) or not text.strip():
            raise InputError(message, text=text)
    if certainty is not None and not 0 <= certainty <= 1:  # a NaN is refused too
        message = _("The certainty is {certainty!r}, expected a number from 0 to 1 (0.8 for 80 percent).")
        raise InputError(message, certainty=certainty)
    return finding.strip(), reader.strip(), None if certainty is None else float(certainty)


def _parse(label, description) -> tuple:
    """Return finding, reader, certainty and UID of the lesion from a point; nothing from one of another module."""
    try:
        words = json.loads(description)
        return *_checked(label, words["reader"], words["certainty"]), words.get("tracking", "")
    except (ValueError, KeyError, TypeError):
        return ()


def _wordsOf(roiNode) -> tuple:
    if roiNode.GetNumberOfControlPoints() == 0:
        return ()
    return _parse(roiNode.GetNthControlPointLabel(0), roiNode.GetNthControlPointDescription(0))


def _toMarkups(roiNode, path: Path) -> dict:
    """Return the markups document that Slicer writes for one box."""
    storage = roiNode.CreateDefaultStorageNode()
    storage.SetFileName(str(path))
    if not storage.WriteData(roiNode):
        raise OSError(_("Slicer has written nothing"))
    return json.loads(path.read_text(encoding="utf-8"))


def _loadOne(path: Path, number: int, volumeNode):
    scene = volumeNode.GetScene()
    storage = scene.AddNewNodeByClass("vtkMRMLMarkupsROIJsonStorageNode")
    roi = storage.AddNewMarkupsNodeFromFile(str(path), None, number)
    # Slicer must not save one box over a file of several boxes.
    roi.SetAndObserveStorageNodeID(None)
    scene.RemoveNode(storage)
    roi.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    belongTo(roi, volumeNode)
    return roi
