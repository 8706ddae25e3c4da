"""Results in the scene: finer volumes exactly in place, linked to their source, with their error bars.

A result has the node reference `SOURCE` and the attributes `SuperResolution.{Model, Version, Scale, BundleSHA, Texture,
Seed, Synthetic, Report}`. Volumes derived from it (error bars, difference) have the reference `RESULT` and the
attribute `KIND`. All of this is saved with the scene, so a scene that is loaded again is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import slicer
import vtk
from slicer.util import NodeModify
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from SuperResolutionLib import display, filling, nodes
from SuperResolutionLib.controller import describeScale
from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.volumes import (
    SPACING_SOURCE,
    check,
    ijkToRasOf,
    outerCorners,
    resultAffine,
    shapeOf,
    shapeOfExtent,
    toWorldOf,
    transformPoints,
)

SOURCE = "SuperResolution.Source"
RESULT = "SuperResolution.Result"
KIND = "SuperResolution.Kind"
ERROR_BARS, DIFFERENCE = "ErrorBars", "Difference"
_PREFIX = "SuperResolution."
_NOT_SAVED = ("event", "id", "result", "errorBars")  # fields of the worker's answer, with paths of temporary files
_SAMPLES = 1_000_000  # error bars that a share is counted from
_PIECE = 1 << 17  # voxels of a difference that are computed at a time, in some milliseconds


def addResult(
    sourceNode, array: np.ndarray, extent: Sequence[int], done: dict, errorBars: np.ndarray | None = None,
    texture: float = 0.0, seed: int = 0, spacingSource: str = "",
):  # fmt: skip
    """Put a result into the scene, and return its volume node; its source is not changed.

    The node keeps the array ``[slices, rows, columns]`` and the error bars (half-widths on the same grid, or None)
    without a copy: do not change them afterwards. `extent` is the region of the source, and `done` the worker's event
    "done". A result of the same region by the same model with the same options takes the new voxels, and loses its
    difference. `spacingSource` is as `volumes.SPACING_SOURCE` names it.
    """
    check(sourceNode)
    scale = [int(factor) for factor in done["scaleZYX"]]
    expected = tuple(count * factor for count, factor in zip(shapeOfExtent(extent), scale))
    for each in (array, errorBars):
        if each is not None and each.shape != expected:
            raise ValueError(f"shape {each.shape}, expected {expected}: region {list(extent)} times {scale}.")
    scene = sourceNode.GetScene()
    affine = resultAffine(ijkToRasOf(sourceNode), extent, scale)
    repeated = _findRepeated(sourceNode, extent, done, texture, seed)
    node = repeated or slicer.vtkMRMLScalarVolumeNode()
    with NodeModify(node):
        fill(node, array, affine)
        node.SetAndObserveTransformNodeID(sourceNode.GetTransformNodeID())
        attributes = {
            "Model": done["bundle"], "Version": done["version"], "BundleSHA": done["sha256"],
            "Scale": " ".join(map(str, scale)), "Texture": repr(float(texture)), "Seed": str(int(seed)),
            "Synthetic": "1" if done["synthetic"] else "0",
            "Report": json.dumps({key: value for key, value in done.items() if key not in _NOT_SAVED}),
        }  # fmt: skip
        for name, value in attributes.items():
            node.SetAttribute(_PREFIX + name, value)
        if spacingSource:
            node.SetAttribute(SPACING_SOURCE, spacingSource)
    if repeated is None:
        node.SetName(scene.GenerateUniqueName(nameOf(sourceNode, extent, done, texture, seed)))
        node.SetVoxelValueUnits(sourceNode.GetVoxelValueUnits())
        node.SetVoxelValueQuantity(sourceNode.GetVoxelValueQuantity())
        scene.AddNode(node)
        node.SetNodeReferenceID(SOURCE, sourceNode.GetID())
        display.addDisplay(node, likeNode=sourceNode)
        nodes.putBeside(sourceNode, node)
    for derived in derivedNodes(node):
        if derived.GetAttribute(KIND) == DIFFERENCE or errorBars is None:
            _removeVolume(nodes.Removal(scene), derived, node)
    if errorBars is not None:
        bars = _addDerived(node, errorBars.astype(np.float32, copy=False), ERROR_BARS, _("error bars"))
        if repeated is None:
            display.colorErrorBars(bars)
    _removeUnusedColors(nodes.Removal(scene))
    return node


def nameOf(sourceNode, extent: Sequence[int], done: dict, texture: float, seed: int) -> str:
    """Return the name of a result: its source, scale, model and region, and the texture if it has one."""
    k0, k1, r0, r1, c0, c1 = extent
    words = [f"{sourceNode.GetName()} {describeScale(done['scaleZYX'])}", done["bundle"]]
    whole = [edge for size in shapeOf(sourceNode) for edge in (0, size)]
    if list(extent) == whole:
        words.append(_("whole"))
    else:
        words.append(_("{width}x{height} at {column} {row}").format(width=c1 - c0, height=r1 - r0, column=c0, row=r0))
        if shapeOf(sourceNode)[0] > 1:
            isOne = k1 - k0 == 1
            text = _("slice {first}") if isOne else _("slices {first} to {last}")
            words.append(text.format(first=k0 + 1, last=k1))
    if texture > 0:
        words.append(_("texture {texture:g} seed {seed}").format(texture=texture, seed=seed))
    return ", ".join(words)


def _findRepeated(sourceNode, extent, done: dict, texture: float, seed: int):
    """Return the result of an earlier run with the same region, model and options, or None."""
    scale = " ".join(map(str, done["scaleZYX"]))
    options = {"BundleSHA": done["sha256"], "Scale": scale, "Texture": repr(float(texture)), "Seed": str(int(seed))}
    sampling = done["provenance"].get("sampling")
    for node in resultsOf(sourceNode):
        isSame = all(node.GetAttribute(_PREFIX + name) == value for name, value in options.items())
        isSame = isSame and extentOf(node) == list(extent)
        if isSame and reportOf(node)["provenance"].get("sampling") == sampling:
            return node
    return None


def resultsOf(sourceNode) -> list:
    """Return the results of a volume in its scene, oldest first."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", sourceNode.GetScene())
    return [node for node in volumes if node.GetNodeReferenceID(SOURCE) == sourceNode.GetID()]


def sourceOf(resultNode):
    """Return the source volume of a result, or None if there is none."""
    return resultNode.GetNodeReference(SOURCE) if resultNode else None


def existingSource(resultNode):
    """Return the source volume of a result, or raise an InputError: it is gone."""
    source = sourceOf(resultNode)
    if source is None:
        text = _("The source of '{name}' is no longer in the scene. Load it, and enhance it again.")
        raise InputError(text.format(name=resultNode.GetName()))
    return source


def extentOf(resultNode) -> list[int]:
    """Return the region of the source that a result shows, ``[k0, k1, r0, r1, c0, c1]`` in voxels of the source.

    It is computed from both grids, because Slicer may reverse the order of slices when it loads a saved volume.
    """
    toSource = np.linalg.inv(ijkToRasOf(existingSource(resultNode))) @ ijkToRasOf(resultNode)
    slices, rows, columns = shapeOf(resultNode)
    corners = outerCorners(toSource, [0, slices, 0, rows, 0, columns]) + 0.5
    edges = np.stack([corners.min(axis=0)[::-1], corners.max(axis=0)[::-1]], axis=1)
    return [int(edge) for edge in edges.round().ravel()]


def reportOf(resultNode) -> dict:
    """Return the worker's answer about a result, without the paths of its files."""
    return json.loads(resultNode.GetAttribute(_PREFIX + "Report"))


def unitOf(resultNode) -> str:
    """Return the unit of a result's voxels: "grey levels" or "HU"."""
    return reportOf(resultNode)["consistency"]["unit"]


def derivedNodes(resultNode, kind: str | None = None) -> list:
    """Return the volumes derived from a result: those of one kind (`ERROR_BARS`, `DIFFERENCE`), or all."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", resultNode.GetScene())
    return [
        node
        for node in volumes
        if node.GetNodeReferenceID(RESULT) == resultNode.GetID() and kind in (None, node.GetAttribute(KIND))
    ]


def errorBarsOf(resultNode):
    """Return the error bars of a result (half-widths, in the unit of its voxels), or None."""
    return next(iter(derivedNodes(resultNode, ERROR_BARS)), None) if resultNode else None


def widerShare(resultNode, tolerance: float) -> float:
    """Return the share of a result's pixels, 0 to 1, whose error bar is wider than `tolerance`, by a sample of them."""
    widths = slicer.util.arrayFromVolume(errorBarsOf(resultNode)).ravel()
    return float((widths[:: max(1, widths.size // _SAMPLES)] > tolerance).mean())


def addDifference(resultNode):
    """Subtract the interpolated (cubic) source from a result: what super-resolution added.

    `filling.step` computes the voxels. Returns a float32 volume on the grid of the result.
    """
    source = existingSource(resultNode)
    check(source)
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
    views = slicer.util.getNodesByClass("vtkMRMLSliceNode", resultNode.GetScene())
    centers = [slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3] for view in views] or [np.zeros(3)]
    seen = transformPoints(np.linalg.inv(toWorldOf(source) @ affine), centers)[:, 2]
    height = max(1, _PIECE // columns)
    for k in sorted(range(slices), key=lambda k: np.abs(seen - k).min()):
        for row in range(0, rows, height):
            stop = min(row + height, rows)
            piece = after[k, row:stop] - interpolate(source, affine, [k, k + 1, row, stop, 0, columns])[0]
            array[k, row:stop] = piece
            yield piece
    display.colorDifference(differenceNode)


def interpolate(sourceNode, ijkToRas: np.ndarray, extent: Sequence[int]) -> np.ndarray:
    """Interpolate a volume (cubic) on an extent of a finer grid: the comparison without super-resolution.

    The affine of the grid is in the volume's own coordinates, before its parent transform. Returns ``[slices, rows,
    columns]`` float32.
    """
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
    return vtk_to_numpy(reslice.GetOutput().GetPointData().GetScalars()).reshape(shapeOfExtent(extent))


def remove(resultNode) -> nodes.Removal:
    """Remove a result and all volumes derived from it from the scene. Views that showed it show its source again.

    Returns the removal, whose `undo` brings back the result and its error bars. The difference is made anew when it is
    asked for.
    """
    scene, source = resultNode.GetScene(), sourceOf(resultNode)
    for node in derivedNodes(resultNode, DIFFERENCE):
        _removeVolume(nodes.Removal(scene), node, source)
    removal = nodes.Removal(scene)
    for node in [*derivedNodes(resultNode, ERROR_BARS), resultNode]:
        _removeVolume(removal, node, source)
    _removeUnusedColors(removal)
    return removal


def fill(node, array: np.ndarray, affine: np.ndarray) -> None:
    """Set the voxels ``[slices, rows, columns]`` and the affine from voxel index to RAS of a volume node.

    The node keeps an array that owns its memory without a copy, which would stop the interface.
    """
    voxels = array if array.flags.owndata and array.flags.c_contiguous else np.array(array, order="C")
    image = vtk.vtkImageData()
    image.SetDimensions(array.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(voxels.reshape(-1), deep=False))  # keeps the array alive
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))


def _addDerived(resultNode, array: np.ndarray, kind: str, name: str):
    """Add a volume on the grid of a result. It replaces an earlier one of its kind."""
    replaced = next(iter(derivedNodes(resultNode, kind)), None)
    node = replaced or slicer.vtkMRMLScalarVolumeNode()
    with NodeModify(node):
        fill(node, array, ijkToRasOf(resultNode))
        node.SetAndObserveTransformNodeID(resultNode.GetTransformNodeID())
    if replaced is not None:
        return node
    scene = resultNode.GetScene()
    node.SetName(scene.GenerateUniqueName(f"{resultNode.GetName()} {name}"))
    node.SetAttribute(KIND, kind)
    scene.AddNode(node)
    node.SetNodeReferenceID(RESULT, resultNode.GetID())
    display.addDisplay(node)
    nodes.putBelow(resultNode, node)
    return node


def _removeVolume(removal: nodes.Removal, node, instead) -> None:
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", node.GetScene()):
        if composite.GetBackgroundVolumeID() == node.GetID():
            composite.SetBackgroundVolumeID(instead and instead.GetID())
        if composite.GetForegroundVolumeID() == node.GetID():
            composite.SetForegroundVolumeID(None)
            composite.SetForegroundOpacity(0.0)
        if composite.GetLabelVolumeID() == node.GetID():
            composite.SetLabelVolumeID(None)
    removal.remove(node)


def _removeUnusedColors(removal: nodes.Removal) -> None:
    used = {node.GetColorNodeID() for node in slicer.util.getNodesByClass("vtkMRMLDisplayNode", removal.scene)}
    for table in slicer.util.getNodesByClass("vtkMRMLColorTableNode", removal.scene):
        if table.GetAttribute(display.COLORS) and table.GetID() not in used:
            removal.remove(table)
