"""Anomaly boxes in the scene: each is a region box (markups ROI) with finding, reader, certainty and UID of the lesion.

The finding is the label of the node's one point, and the rest is in its description, as JSON: a scene and a markups
file keep both. Outside the scene a box is `box.Box`, a rectangle on one slice.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence

import numpy as np
import slicer
from slicer.util import NodeModify

from SuperResolutionLib import display, nodes, region
from SuperResolutionLib.box import Box
from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.volumes import check, shapeOf

VOLUME = "SuperResolution.BoxOf"  # node reference from a box to the volume it was drawn on
UNKNOWN_READER, UNKNOWN_FINDING = "Unknown", "Finding"  # names in the scene where a file gives none
_ORANGE = (1.0, 0.55, 0.1)
_SAME_PIXEL = 0.01


def addBox(volumeNode, bounds: Sequence[float], finding: str, reader: str, certainty: float | None, tracking: str = ""):
    """Put an anomaly box on a volume, at least one voxel thick along every axis, and return its markups ROI node.

    The bounds ``[k0, k1, r0, r1, c0, c1]`` are voxels of the volume, fractions allowed, stops excluded. The certainty
    is 0 to 1, or None if the reader does not say. `tracking` is the UID of the lesion; empty means a new one.
    """
    check(volumeNode)
    edges = np.reshape(bounds, (3, 2))
    half = np.maximum(np.diff(edges), 1) / 2  # a box drawn on a radiograph is often thinner than its one slice
    roi = slicer.vtkMRMLMarkupsROINode()
    region.placeBox(roi, volumeNode, (edges.mean(axis=1, keepdims=True) + half * (-1, 1)).ravel())
    describe(roi, finding, reader, certainty, tracking or f"2.25.{uuid.uuid4().int}")
    volumeNode.GetScene().AddNode(roi)
    display.outlineOnly(roi, _ORANGE)  # nothing covers the finding or is moved by accident
    roi.SetNodeReferenceID(VOLUME, volumeNode.GetID())
    nodes.putBelow(volumeNode, roi)
    return roi


def describe(roiNode, finding: str, reader: str, certainty: float | None, tracking: str = "") -> None:
    """Set finding, reader and certainty of an anomaly box; with `tracking` empty, the UID of its lesion stays."""
    finding, reader = finding.strip(), reader.strip()
    if not finding or not reader:
        raise InputError(_("A box needs a finding and a reader, in words. Enter both."))
    if certainty is not None and not 0 <= certainty <= 1:  # a NaN is refused too
        message = _("The certainty is {certainty!r}, expected a number from 0 to 1 (0.8 for 80 percent).")
        raise InputError(message, certainty=certainty)
    words = {"reader": reader, "certainty": certainty, "tracking": tracking or _wordsOf(roiNode)[3]}
    with NodeModify(roiNode):
        roiNode.SetName(finding if certainty is None else f"{finding} {certainty:.0%}")
        roiNode.SetNthControlPointLabel(0, finding)
        roiNode.SetNthControlPointDescription(0, json.dumps(words))


def wordsOf(roiNode) -> tuple:
    """Return finding, reader and certainty of an anomaly box."""
    return _wordsOf(roiNode)[:3]


def boxesOf(scene, volumeNode=None) -> list:
    """Return the anomaly boxes in a scene, or those on one volume, oldest first."""
    boxes = [node for node in slicer.util.getNodesByClass("vtkMRMLMarkupsROINode", scene) if _wordsOf(node)]
    return [node for node in boxes if volumeNode is None or node.GetNodeReferenceID(VOLUME) == volumeNode.GetID()]


def boundsIn(roiNode, volumeNode) -> list[float]:
    """Return the bounding box of a region box in voxels of a volume, ``[k0, k1, r0, r1, c0, c1]`` with fractions."""
    corners = region.cornersZyx(roiNode, volumeNode)
    return np.stack([corners.min(axis=0), corners.max(axis=0)], axis=1).ravel().tolist()


def toBoxes(roiNode, volumeNode, uids: Sequence[str] = ()) -> list[Box]:
    """Return an anomaly box as upright rectangles on all slices whose middle lies in it, clipped to the volume.

    They name their slice by its SOP Instance UID in `uids`, or by its index if there are none.
    """
    finding, reader, certainty, tracking = _wordsOf(roiNode)
    shape = shapeOf(volumeNode)
    bounds = np.reshape(boundsIn(roiNode, volumeNode), (3, 2))
    (k0, k1), (r0, r1), (c0, c1) = np.clip(bounds, 0, np.array(shape)[:, None]).tolist()
    if not (k0 < k1 and r0 < r1 and c0 < c1):
        message = _("The box '{finding}' lies outside '{name}'. Move it onto the volume, or remove it.")
        raise InputError(message, finding=finding, name=volumeNode.GetName())
    inside = [k for k in range(shape[0]) if k0 <= k + 0.5 < k1] or [min(int((k0 + k1) / 2), shape[0] - 1)]
    return [
        Box(
            finding, c0, r0, c1, r1, reader="" if reader == UNKNOWN_READER else reader, certainty=certainty,
            slice_index=None if uids else k, sop_instance_uid=uids[k] if uids else "", tracking_uid=tracking,
        )
        for k in inside
    ]  # fmt: skip


def addBoxes(rectangles: Sequence[Box], volumeNode, uids: Sequence[str] = ()) -> list:
    """Add rectangles that `readings` has checked to a volume, all or none, and return their markups ROI nodes.

    Equal rectangles of one lesion on neighbouring slices become one anomaly box. `uids` are the SOP Instance UIDs of
    all slices, for rectangles that name their slice by UID.
    """
    count = shapeOf(volumeNode)[0]
    placed: list[tuple[int, Box]] = []
    for number, rectangle in enumerate(rectangles, start=1):
        k = uids.index(rectangle.sop_instance_uid) if rectangle.sop_instance_uid in uids else rectangle.slice_index
        if k is None and count == 1:
            k = 0
        if k is None or not 0 <= k < count:
            message = _("Box {number} is on slice {k}, expected one of the {count} of the volume, from 0.")
            raise InputError(message, number=number, k=k, count=count)
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


def _isSameLesion(box: Box, following: Box) -> bool:
    words = ("finding", "reader", "certainty", "tracking_uid")
    same = bool(box.tracking_uid) and all(getattr(box, name) == getattr(following, name) for name in words)
    return same and np.abs(np.subtract(box.xyxy, following.xyxy)).max() <= _SAME_PIXEL


def _wordsOf(roiNode) -> tuple:
    """Return finding, reader, certainty and UID of the lesion; nothing of a region box of another kind."""
    if roiNode.GetNumberOfControlPoints() == 0:
        return ()
    try:
        words = json.loads(roiNode.GetNthControlPointDescription(0))
        return roiNode.GetNthControlPointLabel(0), words["reader"], words["certainty"], words["tracking"]
    except (ValueError, LookupError, TypeError):
        return ()
