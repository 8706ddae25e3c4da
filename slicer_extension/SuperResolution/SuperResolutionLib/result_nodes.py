"""Results in the scene: finer volumes exactly in place, linked to their source, with their error bars.

A result has the node reference `SOURCE` and the attribute `REPORT`. Volumes derived from it (error bars, difference)
have the reference `RESULT` and the attribute `KIND`. All of this is saved with the scene, so a scene that is loaded
again is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import slicer
import vtk
from slicer.util import NodeModify
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from SuperResolutionLib import display, filling, nodes, region
from SuperResolutionLib.controller import describeScale
from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.volumes import (
    SPACING_SOURCE,
    check,
    ijkToRasOf,
    ijkToWorldOf,
    outerCorners,
    resultAffine,
    shapeOf,
    transformPoints,
)

SOURCE = "SuperResolution.Source"
RESULT = "SuperResolution.Result"
REPORT = "SuperResolution.Report"  # the worker's answer as JSON, see `reportOf`
KIND = "SuperResolution.Kind"
ERROR_BARS, DIFFERENCE = "ErrorBars", "Difference"
_NOT_SAVED = ("event", "id", "result", "errorBars")  # fields of the worker's answer, with paths of temporary files
_SAMPLES = 1_000_000  # error bars that a share is counted from
_BESIDE = 0.1  # voxels of its source by which a result may lie beside them
_PIECE = 1 << 17  # voxels of a difference that are computed at a time, in some milliseconds


def addResult(
    sourceNode, array: np.ndarray, extent: Sequence[int], done: dict, errorBars: np.ndarray | None = None,
    spacingSource: str = "",
):  # fmt: skip
    """Put a result into the scene, and return its volume node; its source is not changed.

    The node keeps the array ``[slices, rows, columns]`` and the error bars (half-widths on the same grid, or None)
    without a copy: do not change them afterwards. `extent` is the region of the source, and `done` the worker's event
    "done". A result of the same region by the same model with the same options takes the new voxels, and loses its
    difference. `spacingSource` is as `volumes.SPACING_SOURCE` names it.
    """
    check(sourceNode)
    expected = tuple(np.multiply(np.diff(extent)[::2], done["scaleZYX"]).tolist())
    for each in (array, errorBars):
        if each is not None and each.shape != expected:
            raise ValueError(f"shape {each.shape}, expected {expected}: region {list(extent)} enlarged.")
    scene = sourceNode.GetScene()
    repeated = _findRepeated(sourceNode, extent, done)
    node = repeated or slicer.vtkMRMLScalarVolumeNode()
    with NodeModify(node):
        _fill(node, array, resultAffine(ijkToRasOf(sourceNode), extent, done["scaleZYX"]))
        node.SetAndObserveTransformNodeID(sourceNode.GetTransformNodeID())
        node.SetAttribute(REPORT, json.dumps({key: value for key, value in done.items() if key not in _NOT_SAVED}))
        if spacingSource:
            node.SetAttribute(SPACING_SOURCE, spacingSource)
    if repeated is None:
        node.SetName(scene.GenerateUniqueName(_nameOf(sourceNode, extent, done)))
        node.SetVoxelValueUnits(sourceNode.GetVoxelValueUnits())
        node.SetVoxelValueQuantity(sourceNode.GetVoxelValueQuantity())
        scene.AddNode(node)
        node.SetNodeReferenceID(SOURCE, sourceNode.GetID())
        display.addDisplay(node, likeNode=sourceNode)
        nodes.putBeside(sourceNode, node)
    nodes.Removal(*derivedNodes(node))  # of the former voxels
    if errorBars is not None:
        bars = _addDerived(node, errorBars.astype(np.float32, copy=False), ERROR_BARS, _("error bars"))
        display.colorErrorBars(bars)
    return node


def _nameOf(sourceNode, extent: Sequence[int], done: dict) -> str:
    """Return the name of a result: its source, scale, model and region, and the texture if it has one."""
    k0, k1, r0, r1, c0, c1 = extent
    words = [f"{sourceNode.GetName()} {describeScale(done['scaleZYX'])}", done["bundle"]]
    if list(extent) == region.whole(sourceNode):
        words.append(_("whole"))
    else:
        words.append(_("{width}x{height} at {column} {row}").format(width=c1 - c0, height=r1 - r0, column=c0, row=r0))
        if shapeOf(sourceNode)[0] > 1:
            text = _("slice {first}") if k1 - k0 == 1 else _("slices {first} to {last}")
            words.append(text.format(first=k0 + 1, last=k1))
    texture = (done["provenance"].get("sampling") or {}).get("texture")
    if texture:
        words.append(_("texture {texture:g} seed {seed}").format(texture=texture, seed=done["provenance"]["seed"]))
    return ", ".join(words)


def _findRepeated(sourceNode, extent: Sequence[int], done: dict):
    """Return the result of an earlier run with the same region, model and options, or None."""
    for node in resultsOf(sourceNode):
        if _optionsOf(reportOf(node)) == _optionsOf(done) and isInPlace(node) and extentOf(node) == list(extent):
            return node
    return None


def _optionsOf(report: dict) -> tuple:
    provenance = report["provenance"]
    return report["sha256"], report["scaleZYX"], provenance.get("seed"), provenance.get("sampling")


def resultsOf(sourceNode) -> list:
    """Return the results of a volume in its scene, oldest first."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", sourceNode.GetScene())
    return [node for node in volumes if node.GetNodeReferenceID(SOURCE) == sourceNode.GetID()]


def sourceOf(resultNode):
    """Return the source volume of a result, or None if there is none."""
    return resultNode.GetNodeReference(SOURCE) if resultNode else None


def isInPlace(resultNode) -> bool:
    """Return whether the source of a result is in the scene and the result lies on whole voxels of it, as it did."""
    if sourceOf(resultNode) is None or resultNode.GetImageData() is None:
        return False
    edges = _edgesOf(resultNode)
    sizes = np.diff(edges.round())[:, 0] * reportOf(resultNode)["scaleZYX"]
    return np.abs(edges - edges.round()).max() < _BESIDE and np.array_equal(sizes, shapeOf(resultNode))


def existingSource(resultNode):
    """Return the source volume of a result, or raise an InputError: it is gone, or lies elsewhere now."""
    check(resultNode)
    if isInPlace(resultNode):
        return sourceOf(resultNode)
    text = _("The source of '{name}' is no longer in the scene. Load it, and enhance it again.")
    if sourceOf(resultNode):
        text = _("The spacing or the position of the source of '{name}' was changed since, so it is not in place any "
                 "more. Undo that, or enhance the source again.")  # fmt: skip
    raise InputError(text, name=resultNode.GetName())


def extentOf(resultNode) -> list[int]:
    """Return the extent of the source that a result shows; see `existingSource`."""
    existingSource(resultNode)
    return _edgesOf(resultNode).round().astype(int).ravel().tolist()


def _edgesOf(resultNode) -> np.ndarray:
    """Return the edges of a result in voxels of its source, with fractions: ``[3, 2]`` slices, rows, columns."""
    # By both grids, because Slicer may reverse the order of slices when it loads a saved volume.
    toSource = np.linalg.inv(ijkToRasOf(sourceOf(resultNode))) @ ijkToRasOf(resultNode)
    corners = outerCorners(toSource, region.whole(resultNode)) + 0.5
    return np.stack([corners.min(axis=0)[::-1], corners.max(axis=0)[::-1]], axis=1)


def reportOf(resultNode) -> dict:
    """Return the worker's answer about a result, without the paths of its files."""
    return json.loads(resultNode.GetAttribute(REPORT))


def unitOf(resultNode) -> str:
    """Return the unit of a result's voxels: "grey levels" or "HU"."""
    return reportOf(resultNode)["consistency"]["unit"]


def derivedNodes(resultNode, kind: str | None = None) -> list:
    """Return the volumes derived from a result: those of one kind (`ERROR_BARS`, `DIFFERENCE`), or all."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", resultNode.GetScene())
    derived = [node for node in volumes if node.GetNodeReferenceID(RESULT) == resultNode.GetID()]
    return [node for node in derived if kind in (None, node.GetAttribute(KIND))]


def errorBarsOf(resultNode):
    """Return the error bars of a result (half-widths, in the unit of its voxels), or None."""
    return next(iter(derivedNodes(resultNode, ERROR_BARS)), None) if resultNode else None


def widerShare(resultNode, tolerance: float) -> float:
    """Return the share of a result's pixels, 0 to 1, whose error bar is wider than `tolerance`, by a sample of them."""
    widths = slicer.util.arrayFromVolume(errorBarsOf(resultNode)).ravel()
    return float((widths[:: max(1, widths.size // _SAMPLES)] > tolerance).mean())


def addDifference(resultNode):
    """Return a volume whose voxels `filling.step` computes: a result minus its interpolated (cubic) source, float32."""
    source = existingSource(resultNode)
    nodes.Removal(*derivedNodes(resultNode, DIFFERENCE))
    array = np.zeros(shapeOf(resultNode), np.float32)
    node = _addDerived(resultNode, array, DIFFERENCE, _("difference"))
    pieces = _subtractSource(resultNode, source, node, array)
    filling.begin(node, pieces)
    display.colorDifference(node, samples=next(pieces))  # until all voxels are computed
    return node


def _subtractSource(resultNode, source, differenceNode, array: np.ndarray) -> Iterator[np.ndarray]:
    """Compute a difference piece by piece, and yield the pieces; slices in view come first."""
    after, affine = slicer.util.arrayFromVolume(resultNode), ijkToRasOf(resultNode)
    slices, rows, columns = array.shape
    height, remaining = max(1, _PIECE // columns), list(range(slices))
    while remaining:
        viewedSlices = _viewedSlices(resultNode)
        k = min(remaining, key=lambda k: np.abs(viewedSlices - k).min())
        remaining.remove(k)
        for row in range(0, rows, height):
            stop = min(row + height, rows)
            piece = after[k, row:stop] - interpolate(source, affine, [k, k + 1, row, stop, 0, columns])[0]
            array[k, row:stop] = piece
            yield piece
    display.colorDifference(differenceNode)


def _viewedSlices(resultNode) -> np.ndarray:
    """Return the slices of a result in which the middles of the slice views lie, with fractions."""
    views = slicer.util.getNodesByClass("vtkMRMLSliceNode", resultNode.GetScene())
    centers = [slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3] for view in views]
    parent = resultNode.GetParentTransformNode()
    if not centers or (parent is not None and not parent.IsTransformToWorldLinear()):
        return np.zeros(1)
    return transformPoints(np.linalg.inv(ijkToWorldOf(resultNode)), centers)[:, 2]


def interpolate(sourceNode, ijkToRas: np.ndarray, extent: Sequence[int]) -> np.ndarray:
    """Interpolate a volume (cubic) on an extent of a grid in its own coordinates: ``[slices, rows, columns]``."""
    gridToIndex = vtk.vtkTransform()
    gridToIndex.SetMatrix(slicer.util.vtkMatrixFromArray(np.linalg.inv(ijkToRasOf(sourceNode)) @ ijkToRas))
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(sourceNode.GetImageData())
    reslice.SetResliceTransform(gridToIndex)
    reslice.SetInterpolationModeToCubic()
    reslice.BorderOn()  # the outer half of the outermost voxels belongs to the volume
    reslice.SetOutputScalarType(vtk.VTK_FLOAT)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputSpacing(1, 1, 1)
    k0, k1, r0, r1, c0, c1 = extent
    reslice.SetOutputExtent(c0, c1 - 1, r0, r1 - 1, k0, k1 - 1)
    reslice.Update()
    return vtk_to_numpy(reslice.GetOutput().GetPointData().GetScalars()).reshape(k1 - k0, r1 - r0, c1 - c0)


def remove(resultNode) -> nodes.Removal:
    """Remove a result and all volumes derived from it; `undo` of the removal brings back all but the difference."""
    nodes.Removal(*derivedNodes(resultNode, DIFFERENCE))
    return nodes.Removal(*derivedNodes(resultNode), resultNode)


def _fill(node, array: np.ndarray, affine: np.ndarray) -> None:
    """Set voxels and affine of a volume node, which keeps a contiguous array: a copy would stop the interface."""
    image = vtk.vtkImageData()
    image.SetDimensions(array.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).reshape(-1), deep=False))
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))


def _addDerived(resultNode, array: np.ndarray, kind: str, name: str):
    """Add a volume on the grid of a result."""
    node = slicer.vtkMRMLScalarVolumeNode()
    _fill(node, array, ijkToRasOf(resultNode))
    node.SetAndObserveTransformNodeID(resultNode.GetTransformNodeID())
    node.SetName(f"{resultNode.GetName()} {name}")
    node.SetAttribute(KIND, kind)
    resultNode.GetScene().AddNode(node)
    node.SetNodeReferenceID(RESULT, resultNode.GetID())
    display.addDisplay(node)
    nodes.putBelow(resultNode, node)
    return node
