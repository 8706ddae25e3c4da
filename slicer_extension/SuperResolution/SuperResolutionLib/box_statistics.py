"""Statistics inside an anomaly box before and after, computed piece by piece so that the interface stays responsive.

A thread is not used, because it would share the volumes with the views.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import slicer

from SuperResolutionLib import box_nodes, region, result_nodes, voxel_grid
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.volumes import ijkToRasOf, resample, shapeOf, toWorldOf

BUDGET = 0.01
"""Approximate seconds of a call of `BoxMeasurement.step`, which computes at least one piece."""
PIECE = 1 << 15
"""Voxels in a piece, which takes a few milliseconds."""

_RIM = 0.5
"""Width of the rim around a box, in widths of the box."""


class BoxMeasurement:
    """The measurement of one box at a time. The caller's timer calls `step` with the current choice.

    Attributes:
        rows: rows of `formatStatistics`; empty until they are computed.
        message: why there are no rows; empty if no box is chosen.
    """

    def __init__(self):
        self.rows, self.message = [], ""
        self._inputs, self._pieces = (), None

    @property
    def isBusy(self) -> bool:
        """True while pieces remain to be computed."""
        return self._pieces is not None

    def step(self, roiNode, resultNode) -> bool:
        """Continue the measurement, or restart it if the box or the result has changed.

        Args:
            roiNode, resultNode: box and result. If either is None, nothing is measured.

        Returns:
            True if `rows` or `message` changed.
        """
        until = time.monotonic() + BUDGET
        inputs = None if roiNode is None or resultNode is None else _stateOf(roiNode, resultNode)
        isNew, wasBusy = inputs != self._inputs, self.isBusy
        if isNew:
            self._inputs, self._pieces = inputs, inputs and measureBox(roiNode, resultNode)
            self.rows, self.message = [], "Measuring…" if inputs else ""
        try:
            while self._pieces is not None:
                statistics = next(self._pieces)
                if statistics:
                    unit = result_nodes.reportOf(resultNode)["consistency"]["unit"]
                    self.rows, self.message, self._pieces = formatStatistics(statistics, unit), "", None
                if time.monotonic() >= until:
                    break
        except InputError as error:
            self.rows, self.message, self._pieces = [], str(error), None
        return isNew or (wasBusy and not self.isBusy)


def formatStatistics(statistics: dict, unit: str) -> list[tuple[str, str, str]]:
    """Format statistics as rows of a name, the number before and the number after; the first row is the header.

    Args:
        statistics: result of `measureBox`.
        unit: unit of the voxels, in words.
    """
    before, after = statistics["before"], statistics["after"]
    rows = [(f"In {unit}", "interpolated", "enhanced")]
    for name, key in (
        ("Mean", "mean"), ("Standard deviation", "standardDeviation"), ("Sharpness", "sharpness"),
        ("Contrast to its rim", "contrast"),
    ):  # fmt: skip
        if before[key] is not None:
            rows.append((name, f"{before[key]:.4g}", f"{after[key]:.4g}"))
    if statistics["halfWidth"] is not None:
        rows.append(("Error bars, mean", "", f"± {statistics['halfWidth']:.3g}"))
    rows.append(("Share of the box enhanced", "", f"{statistics['share']:.0%}"))
    return rows


def _stateOf(roiNode, resultNode) -> tuple:
    """Return a key that changes when the statistics may change."""
    try:
        positions = (region.cornersWorld(roiNode), toWorldOf(resultNode) @ ijkToRasOf(resultNode))
    except InputError:
        positions = ()  # under a transform that is not linear, which `measureBox` reports
    positionKeys = tuple(position.tobytes() for position in positions)
    return roiNode.GetID(), resultNode.GetID(), resultNode.GetImageData().GetMTime(), *positionKeys


def measureBox(roiNode, resultNode) -> Iterator[dict | None]:
    """Measure the voxels of the result whose centres lie in the box, before and after, piece by piece.

    Before is the input interpolated (cubic) on the grid of the result, so both have the same voxels. Sharpness is the
    mean size of the gradient within the slice (central differences on the grid of the result), in units of the voxels
    per voxel of the input: edges raise it, and so does noise. Contrast is the mean in the box minus the mean in a rim
    around it, half as wide as the box on each side, within the result.

    Yields:
        None after each piece, and at last "before" and "after", each with "mean", "standardDeviation", "sharpness" and
        "contrast" (None without a rim); "halfWidth", the mean half-width of the error bars in the box, or None;
        "voxels", the number of voxels; "share", the share of the box that the result covers.

    Raises:
        InputError: the box lies outside the result, or the source of the result is gone.
    """
    source = result_nodes.existingSource(resultNode)
    bounds = np.array(box_nodes.boundsIn(roiNode, resultNode)).reshape(3, 2)
    shape = np.array(shapeOf(resultNode))
    # The rim is at least one voxel wide, so that gradients at the edge of the box are central differences.
    rim = np.maximum((bounds[:, 1] - bounds[:, 0]) * _RIM * (0, 1, 1), 1)
    first = np.clip(np.floor(bounds[:, 0] - rim).astype(int), 0, shape)
    last = np.clip(np.ceil(bounds[:, 1] + rim).astype(int), first, shape)
    crop = tuple(slice(low, high) for low, high in zip(first, last))
    slices, rows, columns = (int(count) for count in last - first)
    grid = voxel_grid.cropAffine(ijkToRasOf(resultNode), first[::-1])
    boxToWorld = toWorldOf(roiNode) @ slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToNodeMatrix())
    toBox, size = np.linalg.inv(boxToWorld) @ toWorldOf(resultNode) @ grid, roiNode.GetSize()
    after, bars = slicer.util.arrayFromVolume(resultNode)[crop], result_nodes.errorBarsOf(resultNode)
    widths, widthSum = None if bars is None else slicer.util.arrayFromVolume(bars)[crop], 0.0
    name, resultName = roiNode.GetName(), resultNode.GetName()
    voxelSize = abs(np.linalg.det((toWorldOf(resultNode) @ grid)[:3, :3]))
    boxSize = abs(np.linalg.det(toWorldOf(roiNode)[:3, :3])) * float(np.prod(size))
    sums = [_Sums(result_nodes.scaleOf(resultNode)) for _ in range(2)]

    pieceRows = max(1, PIECE // max(columns, 1))
    for k in range(slices):
        for row in range(0, rows, pieceRows):
            stop = min(row + pieceRows, rows)
            inside = _centresInside(toBox, size, [k, k + 1, row, stop, 0, columns])
            inRim = _centresInside(toBox, size, [k, k + 1, row, stop, 0, columns], 1 + 2 * _RIM) & ~inside
            low, top = max(row - 1, 0), min(stop + 1, rows)  # with the neighbours that gradients need
            pieces = resample(source, grid, [k, k + 1, low, top, 0, columns]), after[k : k + 1, low:top]
            for imageSums, piece in zip(sums, pieces):
                imageSums.add(piece.astype(np.float32, copy=False), slice(row - low, stop - low), inside, inRim)
            if widths is not None:
                widthSum += float(widths[k : k + 1, row:stop][inside].sum(dtype=np.float64))
            yield None
        for imageSums in sums:
            imageSums.endSlice()
    voxels = sums[0].count
    if not voxels:
        raise InputError(
            f"Box '{name}' lies outside '{resultName}', or between its voxels. Enhance a region that holds the box."
        )
    yield {
        "before": sums[0].statistics(),
        "after": sums[1].statistics(),
        "halfWidth": None if widths is None else widthSum / voxels,
        "voxels": voxels,
        "share": min(1.0, voxels * voxelSize / boxSize),
    }


class _Sums:
    """Sums over the pieces of one image so far.

    Args:
        scaleZyx: voxels of the image per voxel of the input.

    Attributes:
        count: number of voxels in the box.
    """

    def __init__(self, scaleZyx: Sequence[int]):
        self._scale, self.count = scaleZyx, 0
        self._offset = self._values = self._squares = self._gradients = 0.0
        self._rim = np.zeros(2)  # number of voxels, and their sum
        self._sliceRim, self._countBefore = np.zeros(2), 0

    def add(self, array: np.ndarray, rows: slice, inside: np.ndarray, inRim: np.ndarray) -> None:
        """Add the piece `rows` of an array; the masks `inside` and `inRim` mark voxels of the box and of its rim."""
        perRow, perColumn = (
            np.gradient(array, axis=axis)[:, rows] * self._scale[axis] if array.shape[axis] > 1 else 0.0
            for axis in (1, 2)
        )
        values = array[:, rows][inside].astype(np.float64)
        if values.size:
            if not self.count:
                self._offset = values[0]  # keeps the squares small, and so the variance exact
            self.count += values.size
            self._values += (values - self._offset).sum()
            self._squares += ((values - self._offset) ** 2).sum()
            lengths = np.broadcast_to(np.hypot(perRow, perColumn), inside.shape)
            self._gradients += lengths[inside].sum(dtype=np.float64)
        self._sliceRim += inRim.sum(), array[:, rows][inRim].sum(dtype=np.float64)

    def endSlice(self) -> None:
        """Count the rim of the slice if the slice has voxels in the box."""
        if self.count > self._countBefore:
            self._rim += self._sliceRim
        self._sliceRim, self._countBefore = np.zeros(2), self.count

    def statistics(self) -> dict:
        mean = self._values / self.count
        variance = max(self._squares / self.count - mean**2, 0.0)
        rim, total = self._rim
        return {
            "mean": float(self._offset + mean),
            "standardDeviation": float(np.sqrt(variance)),
            "sharpness": float(self._gradients / self.count),
            "contrast": float(self._offset + mean - total / rim) if rim else None,
        }


def _centresInside(toBox: np.ndarray, size, extent, factor: float = 1.0) -> np.ndarray:
    """Mark the voxels whose centre lies in a box enlarged by `factor`: ``[slices, rows, columns]`` bool."""
    k0, k1, r0, r1, c0, c1 = extent
    k, j, i = np.ogrid[k0:k1, r0:r1, c0:c1]
    inside = np.ones((k1 - k0, r1 - r0, c1 - c0), dtype=bool)
    for axis, length in enumerate(size):
        position = toBox[axis, 0] * i + toBox[axis, 1] * j + toBox[axis, 2] * k + toBox[axis, 3]
        inside &= np.abs(position) <= length / 2 * (factor + region.TOLERANCE)
    return inside
