"""Results in the scene: a finer volume exactly in place, linked to its source, with its error bars; and away again.

A result has the node reference `SOURCE` and the attributes `SuperResolution.{Model, Version, Scale, BundleSHA, Texture,
Seed, Synthetic, Report}`. What was made from it (error bars, trust mask, difference) has the reference `RESULT`
and the attribute `KIND`. All of it is saved with the scene, so that a scene that is loaded again needs nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from SuperResolutionLib import display, filling, nodes, voxel_grid
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.volumes import SPACING_SOURCE, check, ijkToRasOf, sampled, shapeOf

SOURCE = "SuperResolution.Source"
RESULT = "SuperResolution.Result"
KIND = "SuperResolution.Kind"
ERROR_BARS, MASK, DIFFERENCE = "ErrorBars", "TrustMask", "Difference"

_PREFIX = "SuperResolution."
_NOT_KEPT = ("event", "id", "result", "errorBars")  # of the engine's answer: places in a temporary folder


def addResult(
    sourceNode,
    array: np.ndarray,
    extent: Sequence[int],
    done: dict,
    errorBars: np.ndarray | None = None,
    texture: float = 0.0,
    seed: int = 0,
    replace=None,
    spacingSource: str = "",
    wait: bool = True,
):
    """Put a result into the scene, beside its source, which stays as it is.

    Args:
        sourceNode: the volume that was enhanced.
        array: ``[slices, rows, columns]`` of the result. It becomes the volume's own, as `errorBars` do: leave them be.
        extent: ``[k0, k1, r0, r1, c0, c1]``, the region of the source it shows.
        done: the engine's answer: "bundle", "version", "sha256", "scaleZYX", "synthetic" and whatever else it told;
            `reportOf` gives it back.
        errorBars: half-widths on the grid of the result, where the bundle has any.
        texture: as asked for.
        seed: as asked for.
        replace: a result of the same source that takes the new voxels instead of a new node (live mode). What was
            made from it (mask, difference) follows, or goes where it can no longer be had.
        spacingSource: where the spacing of the source comes from, as `volumes.SPACING_SOURCE`; what is unknown of the
            source is unknown of the result.
        wait: until what was made from it has followed; else it is filled by `filling.step`.

    Returns:
        The result's volume node.

    Raises:
        ValueError: arrays that do not fit the region and the scale.
        InputError: the source can no longer be read.
    """
    check(sourceNode)
    scale = [int(factor) for factor in done["scaleZYX"]]
    expected = tuple(count * factor for count, factor in zip(voxel_grid.shapeOf(extent), scale))
    for what, given in (("result has", array), ("error bars have", errorBars)):
        if given is not None and given.shape != expected:
            raise ValueError(
                f"The {what} the shape {given.shape}, expected {expected}: region {list(extent)} times {scale}."
            )
    scene = sourceNode.GetScene()
    affine = voxel_grid.resultAffine(ijkToRasOf(sourceNode), extent, scale)
    node = replace or slicer.vtkMRMLScalarVolumeNode()
    modified = node.StartModify()
    fill(node, array, affine)
    node.SetAndObserveTransformNodeID(sourceNode.GetTransformNodeID())
    attributes = {
        "Model": done["bundle"], "Version": done["version"], "BundleSHA": done["sha256"],
        "Scale": " ".join(map(str, scale)), "Texture": repr(float(texture)), "Seed": str(int(seed)),
        "Synthetic": "1" if done["synthetic"] else "0",
        "Report": json.dumps({key: value for key, value in done.items() if key not in _NOT_KEPT}),
    }  # fmt: skip
    for name, value in attributes.items():
        node.SetAttribute(_PREFIX + name, value)
    if spacingSource:
        node.SetAttribute(SPACING_SOURCE, spacingSource)
    node.EndModify(modified)
    if replace is None:
        node.SetName(scene.GenerateUniqueName(f"{sourceNode.GetName()} SR{_inWords(scale)}"))
        _copyUnits(sourceNode, node)
        scene.AddNode(node)
        node.SetNodeReferenceID(SOURCE, sourceNode.GetID())
        display.addDisplay(node)
        display.copyWindow(sourceNode, node)
        nodes.putBelow(sourceNode, node)
    _followResult(node, errorBars, wait)
    return node


def resultsOf(sourceNode) -> list:
    """The results of a volume that are in its scene, oldest first; also after the scene was loaded again."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", sourceNode.GetScene())
    return [node for node in volumes if node.GetNodeReferenceID(SOURCE) == sourceNode.GetID()]


def sourceOf(resultNode):
    """The volume a result was made from, or None where it is no result or its source is gone."""
    return resultNode.GetNodeReference(SOURCE) if resultNode else None


def existingSource(resultNode):
    """As `sourceOf`.

    Raises:
        InputError: the source is gone.
    """
    source = sourceOf(resultNode)
    if source is None:
        raise InputError(
            f"The source of '{resultNode.GetName()}' is no longer in the scene. Load it, and enhance it again."
        )
    return source


def extentOf(resultNode) -> list[int]:
    """The region of the source that a result shows, ``[k0, k1, r0, r1, c0, c1]`` in voxels of the source.

    It is found from where both lie: Slicer may turn the order of slices round when it loads a saved volume.

    Raises:
        InputError: the source is gone.
    """
    toSource = np.linalg.inv(ijkToRasOf(existingSource(resultNode))) @ ijkToRasOf(resultNode)
    slices, rows, columns = shapeOf(resultNode)
    places = voxel_grid.outerCorners(toSource, [0, slices, 0, rows, 0, columns]) + 0.5
    edges = np.stack([places.min(axis=0)[::-1], places.max(axis=0)[::-1]], axis=1)
    return [int(edge) for edge in edges.round().ravel()]


def scaleOf(resultNode) -> list[int]:
    """Voxels of a result per voxel of its source along slices, rows and columns."""
    return [int(factor) for factor in resultNode.GetAttribute(_PREFIX + "Scale").split()]


def reportOf(resultNode) -> dict:
    """What the engine told when it made a result, without the places of its files."""
    return json.loads(resultNode.GetAttribute(_PREFIX + "Report"))


def madeFrom(resultNode, kind: str | None = None) -> list:
    """Volumes made from a result: of one kind (`ERROR_BARS`, `MASK`, `DIFFERENCE`), or all."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", resultNode.GetScene())
    return [
        node
        for node in volumes
        if node.GetNodeReferenceID(RESULT) == resultNode.GetID() and kind in (None, node.GetAttribute(KIND))
    ]


def errorBarsOf(resultNode):
    """The error bars of a result (half-widths, in the unit of its voxels), or None."""
    return next(iter(madeFrom(resultNode, ERROR_BARS)), None)


def addTrustMask(resultNode, tolerance: float, wait: bool = True):
    """Mark the voxels whose error bar is wider than `tolerance`, in the unit of the voxels.

    Args:
        resultNode: with error bars.
        tolerance: above 0.
        wait: until all voxels are marked; else they are by `filling.step`.

    Returns:
        A label map on the grid of the result: 1 where not to be trusted. It replaces an earlier mask of this result.

    Raises:
        InputError: a result without error bars, or a tolerance that is not above 0.
    """
    bars = errorBarsOf(resultNode)
    if bars is None:
        raise InputError(f"'{resultNode.GetName()}' has no error bars. Choose a model that has some and run it again.")
    if not tolerance > 0:
        raise InputError(f"The tolerance is {tolerance}, expected a number above 0 in the unit of the voxels.")
    widths = slicer.util.arrayFromVolume(bars)
    array = np.zeros(widths.shape, np.uint8)
    node = _madeFrom(resultNode, array, MASK, "trust mask", slicer.vtkMRMLLabelMapVolumeNode)
    node.SetAttribute(_PREFIX + "Tolerance", repr(float(tolerance)))
    node.GetDisplayNode().SetAndObserveColorNodeID(display.colors(node.GetScene(), "Mask").GetID())
    filling.begin(node, array, lambda extent: widths[_cut(extent)] > tolerance)
    if wait:
        filling.finish(node)
    return node


def toleranceOf(maskNode) -> float:
    """The widest error bar that a trust mask does not mark, in the unit of the voxels."""
    return float(maskNode.GetAttribute(_PREFIX + "Tolerance"))


def uncertainShare(maskNode) -> float:
    """The share of a trust mask's voxels that are not to be trusted, 0 to 1; while it is filled, of those marked."""
    mask = slicer.util.arrayFromVolume(maskNode)
    unfinished = filling.of(maskNode)
    done = mask.size - unfinished.voxelsLeft if unfinished else mask.size
    marks = mask.view(bool) if mask.dtype == np.uint8 else mask  # counting truths is ten times as fast
    return float(np.count_nonzero(marks)) / max(done, 1)


def addDifference(resultNode, wait: bool = True):
    """What a result has that interpolation has not: the result minus its source, interpolated (cubic) on its grid.

    Args:
        resultNode: whose source is there.
        wait: until all voxels are there; else they are filled by `filling.step`.

    Returns:
        A float32 volume on the grid of the result. It replaces an earlier difference of this result.

    Raises:
        InputError: the source is gone or can no longer be read.
    """
    source = existingSource(resultNode)
    check(source)
    after, place = slicer.util.arrayFromVolume(resultNode), ijkToRasOf(resultNode)
    array = np.zeros(after.shape, np.float32)

    def differing(extent) -> np.ndarray:
        return after[_cut(extent)].astype(np.float32) - sampled(source, place, extent)

    node = _madeFrom(resultNode, array, DIFFERENCE, "difference")
    filling.begin(node, array, differing, lambda: display.colorDifference(node))
    if wait:
        filling.finish(node)
    else:  # colours for what is seen until all of it is there
        display.colorDifference(node, of=filling.of(node).step())
    return node


def interpolated(resultNode) -> np.ndarray:
    """The source of a result on the result's grid, without super-resolution: ``[slices, rows, columns]`` float32."""
    source = existingSource(resultNode)
    check(source)
    return sampled(source, ijkToRasOf(resultNode), voxel_grid.whole(shapeOf(resultNode)))


def _cut(extent) -> tuple[slice, slice, slice]:
    return tuple(slice(*extent[first : first + 2]) for first in (0, 2, 4))


def remove(resultNode) -> None:
    """Take a result and all that was made from it out of the scene, which is then as before.

    Views that showed it show its source again.
    """
    scene, source = resultNode.GetScene(), sourceOf(resultNode)
    for node in [*madeFrom(resultNode), resultNode]:
        _removeVolume(scene, node, source)
    _removeUnusedColors(scene)


def fill(node, array: np.ndarray, affine: np.ndarray) -> None:
    """Give a volume its voxels and its place.

    Args:
        node: volume node, which is filled without a copy where the array owns its voxels: a copy of a large one would
            be felt.
        array: ``[slices, rows, columns]``; it becomes the volume's own, so leave it be.
        affine: ``[4, 4]``, voxel index to RAS.
    """
    owned = array if array.flags.owndata and array.flags.c_contiguous else np.array(array, order="C")
    image = vtk.vtkImageData()
    image.SetDimensions(array.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(owned.reshape(-1), deep=False))  # which keeps the array alive
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))


def _followResult(resultNode, errorBars, wait: bool) -> None:
    """Bring what was made from an earlier state of a result up to date."""
    scene = resultNode.GetScene()
    if errorBars is not None:
        new = errorBarsOf(resultNode) is None
        bars = _madeFrom(resultNode, errorBars.astype(np.float32, copy=False), ERROR_BARS, "error bars")
        if new:
            display.colorErrorBars(bars)
    masks = madeFrom(resultNode, MASK)
    if errorBars is None:
        for node in [*madeFrom(resultNode, ERROR_BARS), *masks]:
            _removeVolume(scene, node, resultNode)
    elif masks:
        addTrustMask(resultNode, toleranceOf(masks[0]), wait)
    if madeFrom(resultNode, DIFFERENCE):
        addDifference(resultNode, wait)
    _removeUnusedColors(scene)


def _madeFrom(resultNode, array: np.ndarray, kind: str, name: str, nodeClass=None):
    """A volume on the grid of a result, in place of an earlier one of its kind."""
    node = next(iter(madeFrom(resultNode, kind)), None)
    if node is not None:
        modified = node.StartModify()
        fill(node, array, ijkToRasOf(resultNode))
        node.EndModify(modified)
        return node
    scene = resultNode.GetScene()
    node = (nodeClass or slicer.vtkMRMLScalarVolumeNode)()
    fill(node, array, ijkToRasOf(resultNode))
    node.SetAndObserveTransformNodeID(resultNode.GetTransformNodeID())
    node.SetName(scene.GenerateUniqueName(f"{resultNode.GetName()} {name}"))
    node.SetAttribute(KIND, kind)
    scene.AddNode(node)
    node.SetNodeReferenceID(RESULT, resultNode.GetID())
    display.addDisplay(node)
    nodes.putBelow(resultNode, node)
    return node


def _inWords(scale: list[int]) -> str:
    """x4 where every enlarged axis is enlarged by four, else the factors of slices, rows and columns."""
    enlarged = {factor for factor in scale if factor != 1}
    return f"x{enlarged.pop()}" if len(enlarged) == 1 else "x" + "x".join(map(str, scale))


def _copyUnits(sourceNode, resultNode) -> None:
    """Hounsfield units stay Hounsfield units."""
    for get, put in (
        (sourceNode.GetVoxelValueUnits, resultNode.SetVoxelValueUnits),
        (sourceNode.GetVoxelValueQuantity, resultNode.SetVoxelValueQuantity),
    ):
        if get() is not None:
            entry = slicer.vtkCodedEntry()
            entry.Copy(get())
            put(entry)


def _removeVolume(scene, node, instead) -> None:
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", scene):
        if composite.GetBackgroundVolumeID() == node.GetID():
            composite.SetBackgroundVolumeID(instead and instead.GetID())
        if composite.GetForegroundVolumeID() == node.GetID():
            composite.SetForegroundVolumeID(None)
            composite.SetForegroundOpacity(0.0)
        if composite.GetLabelVolumeID() == node.GetID():
            composite.SetLabelVolumeID(None)
    nodes.remove(node)


def _removeUnusedColors(scene) -> None:
    used = {node.GetColorNodeID() for node in slicer.util.getNodesByClass("vtkMRMLDisplayNode", scene)}
    for table in slicer.util.getNodesByClass("vtkMRMLColorTableNode", scene):
        if table.GetAttribute(display.COLORS) and table.GetID() not in used:
            nodes.remove(table)
