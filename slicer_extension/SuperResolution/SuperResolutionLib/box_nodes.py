"""Anomaly boxes in the scene: each is a region box (markups ROI) with finding, reader and certainty.

Outside the scene a box is `box.Box`, a rectangle on one slice: `toBoxes` makes one for each slice of an anomaly box,
all with the tracking UID of its lesion, and `addBoxes` joins them again. A box that is rotated against its volume
becomes the smallest upright box around it; a markups file (`saveBoxes`) keeps the rotation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import slicer

from SuperResolutionLib import display, nodes, region, voxel_grid
from SuperResolutionLib.box import Box, BoxError, check_edges
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.translation import _
from SuperResolutionLib.volumes import check, ijkToRasOf, shapeOf, toWorldOf

LABEL, READER, CERTAINTY = "SuperResolution.Label", "SuperResolution.Reader", "SuperResolution.Certainty"
TRACKING = "SuperResolution.TrackingUID"
VOLUME = "SuperResolution.BoxOf"
"""Node reference from a box to the volume it was drawn on."""

SUFFIX = ".mrk.json"
UNKNOWN_READER, UNKNOWN_FINDING = "Unknown", "Finding"
"""Names in the scene for an unnamed reader and an unnamed finding."""

_ORANGE = (1.0, 0.55, 0.1)
_SAME_PIXEL = 0.01


def addBox(volumeNode, bounds: Sequence[float], finding: str, reader: str, certainty: float | None, tracking: str = ""):
    """Put an anomaly box on a volume, at least one voxel thick along every axis, and return its markups ROI node.

    Args:
        volumeNode: radiograph or CT.
        bounds: ``[k0, k1, r0, r1, c0, c1]`` in voxels of the volume, fractions allowed, stops excluded.
        finding: class of the finding, in words ("Nodule").
        reader: name of the reader.
        certainty: certainty of the finding, 0 to 1; None if the reader does not say.
        tracking: UID of the lesion. Default empty: no UID yet.

    Raises:
        InputError: no volume or one that no box can follow, an empty finding or reader, or a certainty outside 0 to 1.
            The scene is not changed.
    """
    check(volumeNode)
    roi = volumeNode.GetScene().AddNewNodeByClass("vtkMRMLMarkupsROINode")
    try:
        region.placeBox(roi, volumeNode, bounds)
        describe(roi, finding, reader, certainty, tracking)
    except InputError:
        removeBox(roi)
        raise
    belongTo(roi, volumeNode)
    return roi


def describe(roiNode, finding: str, reader: str, certainty: float | None, tracking: str | None = None) -> None:
    """Set finding, reader and certainty of a region box, which becomes an anomaly box: an orange outline.

    They are stored in the node's attributes and, because a markups file holds no attributes, in the label and the
    description of its point. With `tracking` None, the tracking UID does not change.

    Raises:
        InputError: an empty finding or reader, a certainty outside 0 to 1, or a box that is not drawn yet.
    """
    for text, message in (
        (finding, _("The finding is {text!r}, expected words. Enter the finding and its reader.")),
        (reader, _("The reader is {text!r}, expected words. Enter the finding and its reader.")),
    ):
        if not isinstance(text, str) or not text.strip():
            raise InputError(message, text=text)
    if certainty is not None and not 0 <= certainty <= 1:  # a NaN is refused too
        message = _("The certainty is {certainty!r}, expected a number from 0 to 1 (0.8 for 80 percent).")
        raise InputError(message, certainty=certainty)
    if roiNode.GetNumberOfControlPoints() == 0:
        raise InputError(_("Box '{name}' has no size yet. Finish drawing it in a view."), name=roiNode.GetName())
    if roiNode.GetAttribute(LABEL) is None:
        # An outline alone: nothing covers the finding, and the box is not moved by accident.
        display.outlineOnly(roiNode, _ORANGE)
        display.showHandles(roiNode, False)
    finding, reader = finding.strip(), reader.strip()
    certainty = None if certainty is None else float(certainty)
    if tracking is None:
        tracking = roiNode.GetAttribute(TRACKING) or ""
    words = {"reader": reader, "certainty": certainty, **({"tracking": tracking} if tracking else {})}
    modified = roiNode.StartModify()
    roiNode.SetName(finding if certainty is None else f"{finding} {certainty:.0%}")
    roiNode.SetAttribute(LABEL, finding)
    roiNode.SetAttribute(READER, reader)
    roiNode.SetAttribute(CERTAINTY, "" if certainty is None else repr(certainty))
    roiNode.SetAttribute(TRACKING, tracking)
    roiNode.SetNthControlPointLabel(0, finding)
    roiNode.SetNthControlPointDescription(0, json.dumps(words))
    roiNode.EndModify(modified)


def track(roiNode, tracking: str) -> None:
    """Set the UID of the lesion that an anomaly box marks."""
    describe(roiNode, *wordsOf(roiNode), tracking)


def wordsOf(roiNode) -> tuple:
    """Return finding, reader and certainty of an anomaly box."""
    certainty = roiNode.GetAttribute(CERTAINTY)
    return roiNode.GetAttribute(LABEL), roiNode.GetAttribute(READER), float(certainty) if certainty else None


def belongTo(roiNode, volumeNode) -> None:
    """Assign a box to a volume, and make it at least one voxel thick along every axis.

    A box drawn on a radiograph is often thinner than its one slice. It grows along its own axes, so it keeps its
    rotation.
    """
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
    roiNodes = slicer.util.getNodesByClass("vtkMRMLMarkupsROINode", scene)
    for node in roiNodes:
        _describeFromPoint(node)
    return [
        node for node in roiNodes
        if node.GetAttribute(LABEL) is not None
        and (volumeNode is None or node.GetNodeReferenceID(VOLUME) == volumeNode.GetID())
    ]  # fmt: skip


def removeBox(roiNode) -> nodes.Removal:
    """Remove a box from the scene, with all that belongs to it. `undo` of the removal brings it back."""
    removal = nodes.Removal(roiNode.GetScene())
    removal.remove(roiNode)
    return removal


def boundsIn(roiNode, volumeNode) -> list[float]:
    """Return the bounding box of a region box in voxels of a volume, ``[k0, k1, r0, r1, c0, c1]`` with fractions."""
    worldToVoxels = np.linalg.inv(toWorldOf(volumeNode) @ ijkToRasOf(volumeNode))
    corners = voxel_grid.transformPoints(worldToVoxels, region.cornersWorld(roiNode)) + 0.5
    return np.stack([corners.min(axis=0), corners.max(axis=0)], axis=1)[::-1].ravel().tolist()


def toBoxes(roiNode, volumeNode, uids: Sequence[str] = ()) -> list[Box]:
    """Return an anomaly box as rectangles on all slices whose middle lies in it, clipped to the volume.

    Args:
        roiNode: anomaly box.
        volumeNode: source volume; the rectangles are in its voxels.
        uids: SOP Instance UID of each slice, by which rectangles name their slice. Default empty: they use the index.

    Raises:
        InputError: nothing of the box lies in the volume.
    """
    finding, reader, certainty = wordsOf(roiNode)
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
            tracking_uid=roiNode.GetAttribute(TRACKING) or "",
        )
        for k in inside
    ]  # fmt: skip


def addBoxes(rectangles: Sequence[Box], volumeNode, uids: Sequence[str] = ()) -> list:
    """Add rectangles to a volume, all of them or none if one is wrong, and return their markups ROI nodes.

    Equal rectangles of one lesion on neighbouring slices become one anomaly box.

    Args:
        rectangles: boxes in pixels of the volume.
        volumeNode: source volume.
        uids: SOP Instance UID of each slice, for rectangles that name their slice by UID.

    Raises:
        InputError: a rectangle has no slice, lies outside the volume, is empty, or its words are not valid.
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
    added = []
    try:
        for box, slices in lesions:
            bounds = [slices[0], slices[-1] + 1, box.y_min, box.y_max, box.x_min, box.x_max]
            words = (box.finding or UNKNOWN_FINDING, box.reader or UNKNOWN_READER, box.certainty, box.tracking_uid)
            added.append(addBox(volumeNode, bounds, *words))
    except InputError:
        for node in added:
            removeBox(node)
        raise
    return added


def saveBoxes(roiNodes: Sequence, path) -> None:
    """Write boxes into one markups file (.mrk.json), which Slicer opens too.

    Raises:
        InputError: another suffix, no boxes, or a path that cannot be written.
    """
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

    Raises:
        InputError: the file does not exist, is no markups file, or holds no boxes with finding, reader and certainty.
    """
    check(volumeNode)
    path = Path(path)
    try:
        kinds = [entry["type"] for entry in json.loads(path.read_text(encoding="utf-8"))["markups"]]
    except OSError as error:
        message = _("'{path}' cannot be read: {reason}. Choose another file.")
        raise InputError(message, path=path, reason=error.strerror or error) from error
    except (ValueError, KeyError, TypeError) as error:
        message = _("'{name}' is no markups file of Slicer. Choose a file that ends in {ending}.")
        raise InputError(message, name=path.name, ending=SUFFIX) from error
    if "ROI" not in kinds:
        message = _("'{name}' holds no region box (it holds {kinds}). Choose another.")
        raise InputError(message, name=path.name, kinds=", ".join(kinds) or "nothing")
    roiNodes = [_loadOne(path, number, volumeNode) for number, kind in enumerate(kinds) if kind == "ROI"]
    unknown = [node for node in roiNodes if node.GetAttribute(LABEL) is None]
    if unknown:
        for node in roiNodes:
            removeBox(node)
        message = _(
            "'{name}' holds {count} region boxes without finding, reader and certainty. Load it with Slicer's Add "
            "Data, and say of each box what it is."
        )
        raise InputError(message, name=path.name, count=len(unknown))
    return roiNodes


def _isSameLesion(box: Box, following: Box) -> bool:
    words = ("finding", "reader", "certainty", "tracking_uid")
    same = bool(box.tracking_uid) and all(getattr(box, name) == getattr(following, name) for name in words)
    return same and np.abs(np.subtract(box.xyxy, following.xyxy)).max() <= _SAME_PIXEL


def _describeFromPoint(roiNode) -> None:
    """Make an anomaly box of a region box that Slicer loaded from our markups file, with the words at its point."""
    if roiNode.GetNumberOfControlPoints() == 0 or roiNode.GetAttribute(LABEL) is not None:
        return
    try:
        words = json.loads(roiNode.GetNthControlPointDescription(0))
        finding = roiNode.GetNthControlPointLabel(0)
        describe(roiNode, finding, words["reader"], words["certainty"], words.get("tracking", ""))
    except (ValueError, KeyError, TypeError):  # a region box of someone else, which stays unchanged
        return


def _toMarkups(roiNode, path: Path) -> dict:
    """Return the markups document that Slicer writes for one box."""
    storage = roiNode.CreateDefaultStorageNode()
    storage.SetFileName(str(path))
    if not storage.WriteData(roiNode):
        raise InputError(_("'{parent}' cannot be written. Choose another folder."), parent=path.parent)
    return json.loads(path.read_text(encoding="utf-8"))


def _loadOne(path: Path, number: int, volumeNode):
    scene = volumeNode.GetScene()
    storage = scene.AddNewNodeByClass("vtkMRMLMarkupsROIJsonStorageNode")
    roi = storage.AddNewMarkupsNodeFromFile(str(path), None, number)
    # Slicer must not save one box over a file of several boxes.
    roi.SetAndObserveStorageNodeID(None)
    scene.RemoveNode(storage)
    roi.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    _describeFromPoint(roi)
    belongTo(roi, volumeNode)
    return roi
