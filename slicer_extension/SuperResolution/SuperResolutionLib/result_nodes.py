"""Results in the scene: finer volumes exactly in place, linked to their source, with their error bars.

A result has the node reference `SOURCE` and the attributes `SuperResolution.{Model, Version, Scale, BundleSHA, Texture,
Seed, Synthetic, Report}`. Volumes derived from it (error bars, trust mask, difference) have the reference `RESULT` and
the attribute `KIND`. All of this is saved with the scene, so a scene that is loaded again is complete.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from slicer.util import NodeModify
from vtk.util.numpy_support import numpy_to_vtk

from SuperResolutionLib import display, filling, nodes
from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.volumes import (
    SPACING_SOURCE,
    check,
    ijkToRasOf,
    outerCorners,
    resample,
    resultAffine,
    shapeOf,
    shapeOfExtent,
)

SOURCE = "SuperResolution.Source"
RESULT = "SuperResolution.Result"
KIND = "SuperResolution.Kind"
ERROR_BARS, MASK, DIFFERENCE = "ErrorBars", "TrustMask", "Difference"
_PREFIX = "SuperResolution."
_NOT_SAVED = ("event", "id", "result", "errorBars")  # fields of the worker's answer, with paths of temporary files


def addResult(
    sourceNode, array: np.ndarray, extent: Sequence[int], done: dict, errorBars: np.ndarray | None = None,
    texture: float = 0.0, seed: int = 0, replace=None, spacingSource: str = "",
):  # fmt: skip
    """Put a result into the scene, and return its volume node; its source is not changed.

    The node keeps the array ``[slices, rows, columns]`` and the error bars (half-widths on the same grid, or None)
    without a copy: do not change them afterwards. `extent` is the region of the source, and `done` the worker's event
    "done". In live mode, `replace` is the result that takes the new voxels; by default it is one of the same region by
    the same model with the same options, or a new one. Its mask and difference are updated by `filling.step`, or
    removed if there are no error bars any more. `spacingSource` is as `volumes.SPACING_SOURCE` names it.
    """
    check(sourceNode)
    scale = [int(factor) for factor in done["scaleZYX"]]
    expected = tuple(count * factor for count, factor in zip(shapeOfExtent(extent), scale))
    for each in (array, errorBars):
        if each is not None and each.shape != expected:
            raise ValueError(f"shape {each.shape}, expected {expected}: region {list(extent)} times {scale}.")
    scene = sourceNode.GetScene()
    affine = resultAffine(ijkToRasOf(sourceNode), extent, scale)
    isFollowing, replace = replace is not None, replace or _findRepeated(sourceNode, extent, done, texture, seed)
    node = replace or slicer.vtkMRMLScalarVolumeNode()
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
    name = nameOf(sourceNode, extent, done, texture, seed)
    if isFollowing and not node.GetName().startswith(name):
        before = node.GetName()
        node.SetName(scene.GenerateUniqueName(name))
        for derived in derivedNodes(node):
            derived.SetName(derived.GetName().replace(before, node.GetName()))
    if replace is None:
        node.SetName(scene.GenerateUniqueName(name))
        node.SetVoxelValueUnits(sourceNode.GetVoxelValueUnits())
        node.SetVoxelValueQuantity(sourceNode.GetVoxelValueQuantity())
        scene.AddNode(node)
        node.SetNodeReferenceID(SOURCE, sourceNode.GetID())
        display.addDisplay(node)
        display.copyDisplay(sourceNode, node)
        nodes.putBeside(sourceNode, node)
    _updateDerived(node, errorBars)
    return node


def describeScale(scale: Sequence[int]) -> str:
    """Return "x4" if every enlarged axis is enlarged by four, otherwise the factors of slices, rows and columns."""
    enlarged = {factor for factor in scale if factor != 1}
    return f"x{enlarged.pop()}" if len(enlarged) == 1 else "x" + "x".join(map(str, scale))


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


def derivedNodes(resultNode, kind: str | None = None) -> list:
    """Return the volumes derived from a result: those of one kind (`ERROR_BARS`, `MASK`, `DIFFERENCE`), or all."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", resultNode.GetScene())
    return [
        node
        for node in volumes
        if node.GetNodeReferenceID(RESULT) == resultNode.GetID() and kind in (None, node.GetAttribute(KIND))
    ]


def errorBarsOf(resultNode):
    """Return the error bars of a result (half-widths, in the unit of its voxels), or None."""
    return next(iter(derivedNodes(resultNode, ERROR_BARS)), None)


def existingErrorBars(resultNode):
    """Return the error bars of a result, or raise an InputError: it has none."""
    bars = errorBarsOf(resultNode)
    if bars is None:
        text = _("'{name}' has no error bars. Enhance with a model that has them.")
        raise InputError(text.format(name=resultNode.GetName()))
    return bars


def addTrustMask(resultNode, tolerance: float):
    """Mark the voxels whose error bar is wider than `tolerance`, in the unit of the voxels.

    `filling.step` marks them. Returns a label map on the grid of the result, 1 where the error bar is wider; it
    replaces an earlier mask.
    """
    widths = slicer.util.arrayFromVolume(existingErrorBars(resultNode))
    if not tolerance > 0:
        text = _("The tolerance is {tolerance:g}. Enter the widest error bar that you accept, in grey levels or HU.")
        raise InputError(text.format(tolerance=tolerance))
    array = np.zeros(widths.shape, np.uint8)
    node = _addDerived(resultNode, array, MASK, _("trust mask"), slicer.vtkMRMLLabelMapVolumeNode)
    node.SetAttribute(_PREFIX + "Tolerance", repr(float(tolerance)))
    node.GetDisplayNode().SetAndObserveColorNodeID(display.colors(node.GetScene(), "Mask").GetID())
    filling.begin(node, array, lambda extent: widths[_slices(extent)] > tolerance)
    return node


def toleranceOf(maskNode) -> float:
    """Return the widest error bar that a trust mask does not mark, in the unit of the voxels."""
    return float(maskNode.GetAttribute(_PREFIX + "Tolerance"))


def uncertainShare(maskNode) -> float:
    """Return the marked share of a trust mask, 0 to 1."""
    mask = slicer.util.arrayFromVolume(maskNode)
    marks = mask.view(bool) if mask.dtype == np.uint8 else mask  # counting booleans is ten times as fast
    return float(np.count_nonzero(marks)) / mask.size


def addDifference(resultNode):
    """Subtract the interpolated (cubic) source from a result: what super-resolution added.

    `filling.step` computes the voxels. Returns a float32 volume on the grid of the result; it replaces an earlier
    difference.
    """
    source = existingSource(resultNode)
    check(source)
    after, affine = slicer.util.arrayFromVolume(resultNode), ijkToRasOf(resultNode)
    array = np.zeros(after.shape, np.float32)

    def subtract(extent) -> np.ndarray:
        return after[_slices(extent)].astype(np.float32) - resample(source, affine, extent)

    node = _addDerived(resultNode, array, DIFFERENCE, _("difference"))
    filling.begin(node, array, subtract, lambda: display.colorDifference(node))
    # Preliminary colours until all voxels are computed.
    display.colorDifference(node, samples=filling.fillingOf(node).step())
    return node


def _slices(extent) -> tuple[slice, slice, slice]:
    return tuple(slice(*extent[first : first + 2]) for first in (0, 2, 4))


def remove(resultNode) -> nodes.Removal:
    """Remove a result and all volumes derived from it from the scene. Views that showed it show its source again.

    Returns the removal, whose `undo` brings back the result and its error bars. Mask and difference are made anew when
    they are asked for.
    """
    scene, source = resultNode.GetScene(), sourceOf(resultNode)
    for kind in (MASK, DIFFERENCE):
        for node in derivedNodes(resultNode, kind):
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


def _updateDerived(resultNode, errorBars) -> None:
    """Update the volumes derived from an earlier state of a result."""
    scene = resultNode.GetScene()
    if errorBars is not None:
        isNew = errorBarsOf(resultNode) is None
        bars = _addDerived(resultNode, errorBars.astype(np.float32, copy=False), ERROR_BARS, _("error bars"))
        if isNew:
            display.colorErrorBars(bars)
    masks = derivedNodes(resultNode, MASK)
    if errorBars is None:
        for node in [*derivedNodes(resultNode, ERROR_BARS), *masks]:
            _removeVolume(nodes.Removal(scene), node, resultNode)
    elif masks:
        addTrustMask(resultNode, toleranceOf(masks[0]))
    if derivedNodes(resultNode, DIFFERENCE):
        addDifference(resultNode)
    _removeUnusedColors(nodes.Removal(scene))


def _addDerived(resultNode, array: np.ndarray, kind: str, name: str, nodeClass=None):
    """Add a volume on the grid of a result. It replaces an earlier one of its kind."""
    replaced = next(iter(derivedNodes(resultNode, kind)), None)
    node = replaced or (nodeClass or slicer.vtkMRMLScalarVolumeNode)()
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
