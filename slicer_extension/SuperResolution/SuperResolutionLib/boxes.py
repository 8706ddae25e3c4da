"""Anomaly boxes: what a reader saw where, and how sure. One region box (markups ROI) each, and plain records of them.

A record is a dictionary that JSON can hold:

    {"label": "Nodule", "reader": "A. Reader", "certainty": 0.8, "tracking": "",
     "cornersRAS": [[r, a, s], ... 8, first axis fastest],
     "bounds": [k0, k1, r0, r1, c0, c1] or None}

`certainty` is from 0 to 1, or None where the reader does not say. `tracking` is the UID that reports of one lesion
share; empty where there is none yet. `cornersRAS` are millimetres in the world. `bounds` are voxels of the volume the
record was asked for, with fractions: 0 is the outer face of the first voxel, the stop is excluded. A list of records is
all that a file, a report or a label server needs: `records` gives it, `addRecords` takes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from numbers import Real
from pathlib import Path

import numpy as np
import slicer

from SuperResolutionLib import display, geometry, nodes, region
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.volumes import check, ijkToRasOf, shapeOf, toWorldOf

LABEL, READER, CERTAINTY = "SuperResolution.Label", "SuperResolution.Reader", "SuperResolution.Certainty"
TRACKING = "SuperResolution.TrackingUID"
VOLUME = "SuperResolution.BoxOf"
"""Node reference of a box to the volume it was drawn on."""

SUFFIX = ".mrk.json"

_ORANGE = (1.0, 0.55, 0.1)
_TOLERANCE = 1e-5  # Slicer keeps the middle of a region box in single precision


def addBox(volumeNode, bounds: Sequence[float], label: str, reader: str, certainty: float | None, tracking: str = ""):
    """Put an anomaly box on a volume, at least one voxel thick along every axis.

    Args:
        volumeNode: radiograph or CT.
        bounds: ``[k0, k1, r0, r1, c0, c1]`` in voxels of the volume, fractions allowed, stops excluded.
        label: finding class, in words ("Nodule").
        reader: who says so.
        certainty: 0 to 1, or None.
        tracking: UID of the lesion, or nothing.

    Returns:
        The markups ROI node.

    Raises:
        InputError: no volume, bounds that are upside down or beside the volume, a label, reader or certainty that is
            none.
    """
    check(volumeNode)
    _checkWords(label, reader, certainty)
    bounds = _thickened(_checkedBounds(bounds, volumeNode), volumeNode)
    roi = _newRoi(volumeNode)
    try:
        region.place(roi, volumeNode, bounds)
    except InputError:
        removeBox(roi)
        raise
    describe(roi, label, reader, certainty, tracking)
    return roi


def describe(roiNode, label: str, reader: str, certainty: float | None, tracking: str | None = None) -> None:
    """Say what a region box is: it becomes an anomaly box, shown as an orange outline, or its words change.

    The words stand in the node's attributes and, because a markups file holds no attributes, in the label and the
    description of its point. A lesion that is tracked stays so where `tracking` is None.

    Raises:
        InputError: a label, reader or certainty that is none, or a box that is not drawn yet.
    """
    _checkWords(label, reader, certainty)
    if roiNode.GetNumberOfControlPoints() == 0:
        raise InputError(f"Box '{roiNode.GetName()}' has no size yet. Finish drawing it in a view.")
    if roiNode.GetAttribute(LABEL) is None:
        _showAsFinding(roiNode)
    label, reader = label.strip(), reader.strip()
    certainty = None if certainty is None else float(certainty)
    if tracking is None:
        tracking = roiNode.GetAttribute(TRACKING) or ""
    told = {"reader": reader, "certainty": certainty}
    if tracking:
        told["tracking"] = tracking
    modified = roiNode.StartModify()
    roiNode.SetName(label if certainty is None else f"{label} {certainty:.0%}")
    roiNode.SetAttribute(LABEL, label)
    roiNode.SetAttribute(READER, reader)
    roiNode.SetAttribute(CERTAINTY, "" if certainty is None else repr(certainty))
    roiNode.SetAttribute(TRACKING, tracking)
    roiNode.SetNthControlPointLabel(0, label)
    roiNode.SetNthControlPointDescription(0, json.dumps(told))
    roiNode.EndModify(modified)


def belongTo(roiNode, volumeNode) -> None:
    """Say on which volume a box was drawn, and make it at least one voxel of it thick along every axis.

    A box drawn on a radiograph is often thinner than its one slice. It grows along its own axes: a turned box stays
    turned.
    """
    roiNode.SetNodeReferenceID(VOLUME, volumeNode.GetID())
    nodes.putBelow(volumeNode, roiNode)
    worldToVoxels = np.linalg.inv(toWorldOf(volumeNode) @ ijkToRasOf(volumeNode))
    boxToWorld = toWorldOf(roiNode) @ slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToNodeMatrix())
    voxelsPerUnit = np.abs((worldToVoxels @ boxToWorld)[:3, :3])
    size = np.array(roiNode.GetSize())
    for axis in np.flatnonzero(voxelsPerUnit @ size < 1 - _TOLERANCE):
        own = int(voxelsPerUnit[axis].argmax())
        size[own] = max(size[own], 1 / voxelsPerUnit[axis, own])
    roiNode.SetSize(*size)


def boxes(scene, volumeNode=None) -> list:
    """The anomaly boxes in a scene, oldest first; only those drawn on a volume where one is named.

    Boxes that Slicer itself loaded from a markups file of ours are among them.
    """
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLMarkupsROINode", scene):
        if node.GetAttribute(LABEL) is None:
            _describeFromPoint(node)
        if node.GetAttribute(LABEL) is not None and (
            volumeNode is None or node.GetNodeReferenceID(VOLUME) == volumeNode.GetID()
        ):
            found.append(node)
    return found


def removeBox(roiNode) -> None:
    """Take a box out of the scene, with all that belongs to it."""
    nodes.remove(roiNode)


def record(roiNode, volumeNode=None) -> dict:
    """An anomaly box in plain numbers and words; `bounds` in voxels of `volumeNode`, or None."""
    certainty = roiNode.GetAttribute(CERTAINTY)
    return {
        "label": roiNode.GetAttribute(LABEL),
        "reader": roiNode.GetAttribute(READER),
        "certainty": float(certainty) if certainty else None,
        "tracking": roiNode.GetAttribute(TRACKING) or "",
        "cornersRAS": region.cornersWorld(roiNode).tolist(),
        "bounds": None if volumeNode is None else boundsIn(roiNode, volumeNode),
    }


def boundsIn(roiNode, volumeNode) -> list[float]:
    """The bounding box of a region box in voxels of a volume, ``[k0, k1, r0, r1, c0, c1]`` with fractions."""
    worldToVoxels = np.linalg.inv(toWorldOf(volumeNode) @ ijkToRasOf(volumeNode))
    places = geometry.transformed(worldToVoxels, region.cornersWorld(roiNode)) + 0.5
    low, high = places.min(axis=0)[::-1], places.max(axis=0)[::-1]
    return [float(edge) for edge in np.stack([low, high], axis=1).ravel()]


def records(scene, volumeNode=None) -> list[dict]:
    """`record` of all anomaly boxes in a scene; of those drawn on a volume, in its voxels, where one is named."""
    return [record(node, volumeNode) for node in boxes(scene, volumeNode)]


def addRecords(given: Sequence[dict], volumeNode) -> list:
    """Put boxes on a volume from records; all of them, or none where one of them is wrong.

    Where a record has `cornersRAS` they say where the box is, because they hold whatever grid the box was drawn on;
    else its `bounds`, in voxels of this volume.

    Returns:
        The markups ROI nodes.

    Raises:
        InputError: what is wrong with which record.
    """
    check(volumeNode)
    added = []
    try:
        for number, entry in enumerate(given, start=1):
            added.append(_fromRecord(entry, number, volumeNode))
    except InputError:
        for node in added:
            removeBox(node)
        raise
    return added


def saveBoxes(roiNodes: Sequence, path) -> None:
    """Write boxes into one markups file (.mrk.json), which Slicer opens too.

    Raises:
        InputError: another suffix, no boxes, or a place that cannot be written.
    """
    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise InputError(f"'{path.name}' does not end in {SUFFIX}. Slicer tells markups by this ending: add it.")
    if not roiNodes:
        raise InputError("There are no boxes to save. Draw one first.")
    unfinished = path.with_name(f".{path.name}.part{SUFFIX}")
    try:
        written = None
        for node in roiNodes:
            one = _asMarkups(node, unfinished)
            if written is None:
                written = one
            else:
                written["markups"] += one["markups"]
        unfinished.write_text(json.dumps(written, indent=1), encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise InputError(f"'{path}' cannot be written: {error.strerror or error}. Choose another folder.") from error
    finally:
        if unfinished.exists():
            unfinished.unlink()


def loadBoxes(path, volumeNode) -> list:
    """Add the boxes of a markups file (.mrk.json) to a volume; all of them, or none where the file is wrong.

    Slicer writes positions in the coordinates before a parent transform, so these boxes take the volume's.

    Returns:
        The markups ROI nodes.

    Raises:
        InputError: no such file, no markups file, no boxes in it, or boxes without finding, reader and certainty.
    """
    check(volumeNode)
    path = Path(path)
    try:
        kinds = [entry["type"] for entry in json.loads(path.read_text(encoding="utf-8"))["markups"]]
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}. Choose another file.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{path.name}' is no markups file of Slicer. Choose a file that ends in {SUFFIX}.") from error
    if "ROI" not in kinds:
        raise InputError(
            f"'{path.name}' holds no region box (it holds {', '.join(kinds) or 'nothing'}). Choose another."
        )
    loaded = [_loadOne(path, number, volumeNode) for number, kind in enumerate(kinds) if kind == "ROI"]
    unknown = [node for node in loaded if node.GetAttribute(LABEL) is None]
    if unknown:
        for node in loaded:
            removeBox(node)
        raise InputError(
            f"'{path.name}' holds {len(unknown)} region boxes without finding, reader and certainty. "
            "Load it with Slicer's Add Data, and say of each box what it is."
        )
    return loaded


def _newRoi(volumeNode):
    roi = volumeNode.GetScene().AddNewNodeByClass("vtkMRMLMarkupsROINode")
    roi.SetNodeReferenceID(VOLUME, volumeNode.GetID())
    nodes.putBelow(volumeNode, roi)
    return roi


def _showAsFinding(roiNode) -> None:
    """An outline alone: nothing covers the finding, and it is not moved by accident. A panel may show more."""
    display.outlineOnly(roiNode, _ORANGE)
    display.showHandles(roiNode, False)
    display.showName(roiNode, False)


def _fromRecord(entry: dict, number: int, volumeNode):
    try:
        words = (entry["label"], entry["reader"], entry["certainty"], entry.get("tracking", ""))
        corners, bounds = entry.get("cornersRAS"), entry.get("bounds")
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"Record {number} lacks {error}: expected label, reader, certainty, cornersRAS or bounds."
        ) from error
    try:
        if corners is None:
            if bounds is None:
                raise InputError("it has neither cornersRAS nor bounds, so it has no place.")
            return addBox(volumeNode, bounds, *words)
        _checkWords(*words[:3])
        points = _numbers(corners, (8, 3), "cornersRAS")
        roi = _newRoi(volumeNode)
        try:
            local = geometry.transformed(np.linalg.inv(toWorldOf(volumeNode)), points)
            region.placeCorners(roi, volumeNode, local)
        except InputError:
            removeBox(roi)
            raise
        describe(roi, *words)
        belongTo(roi, volumeNode)
        return roi
    except InputError as error:
        raise InputError(f"Record {number}: {error}") from error


def _checkWords(label, reader, certainty) -> None:
    for what, given in (("label", label), ("reader", reader)):
        if not isinstance(given, str) or not given.strip():
            raise InputError(f"The {what} is {given!r}, expected words. Say what was seen, and who says so.")
    number = isinstance(certainty, Real) and not isinstance(certainty, bool)
    if certainty is not None and (not number or not 0 <= certainty <= 1):  # a NaN is refused too
        raise InputError(f"The certainty is {certainty!r}, expected a number from 0 to 1 (0.8 for 80 percent).")


def _checkedBounds(bounds, volumeNode) -> list[float]:
    low, high = _numbers(bounds, (6,), "bounds").reshape(3, 2).T
    if (low >= high).any():
        raise InputError(
            f"The bounds are {list(bounds)}, expected [k0, k1, r0, r1, c0, c1] with each start below its stop."
        )
    shape = shapeOf(volumeNode)
    if (high <= 0).any() or (low >= shape).any():
        raise InputError(f"The box {list(bounds)} lies outside '{volumeNode.GetName()}', which has {shape} voxels.")
    return [float(edge) for edge in np.stack([low, high], axis=1).ravel()]


def _thickened(bounds: Sequence[float], volumeNode) -> list[float]:
    """Bounds that are at least one voxel thick, moved into the volume where they had to grow."""
    thick = []
    for (low, high), count in zip(np.reshape(bounds, (3, 2)), shapeOf(volumeNode)):
        if high - low < 1:
            low = min(max((low + high - 1) / 2, 0), count - 1)
            high = low + 1
        thick += [float(low), float(high)]
    return thick


def _numbers(given, shape: tuple[int, ...], what: str) -> np.ndarray:
    try:
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != shape or not np.isfinite(array).all():
        raise InputError(f"{what} is {given!r}, expected {' times '.join(map(str, shape))} numbers.")
    return array


def _describeFromPoint(roiNode) -> None:
    """Make a box of a region box that Slicer loaded from a file of ours: its words stand at its point."""
    if roiNode.GetNumberOfControlPoints() == 0:
        return
    try:
        told = json.loads(roiNode.GetNthControlPointDescription(0))
        words = told["reader"], told["certainty"], told.get("tracking", "")
        describe(roiNode, roiNode.GetNthControlPointLabel(0), *words)
    except (ValueError, KeyError, TypeError):  # another region box: not ours, and left alone
        return


def _asMarkups(roiNode, path: Path) -> dict:
    """What Slicer writes for one box."""
    storage = roiNode.CreateDefaultStorageNode()
    storage.SetFileName(str(path))
    if not storage.WriteData(roiNode):
        raise InputError(f"'{path.parent}' cannot be written. Choose another folder.")
    return json.loads(path.read_text(encoding="utf-8"))


def _loadOne(path: Path, number: int, volumeNode):
    scene = volumeNode.GetScene()
    storage = scene.AddNewNodeByClass("vtkMRMLMarkupsROIJsonStorageNode")
    roi = storage.AddNewMarkupsNodeFromFile(str(path), None, number)
    # A file of several boxes must not be where Slicer saves one of them.
    roi.SetAndObserveStorageNodeID(None)
    scene.RemoveNode(storage)
    roi.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    _describeFromPoint(roi)
    belongTo(roi, volumeNode)
    return roi
