"""What is inside an anomaly box before and after, in numbers, computed piece by piece so that the interface goes on.

Not in a thread, which would share the volumes with the views.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import slicer

from SuperResolutionLib import box_nodes, region, result_nodes, voxel_grid
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.volumes import ijkToRasOf, sampled, shapeOf, toWorldOf

BUDGET = 0.01
"""Seconds that a call of `Measuring.step` takes, about; it computes at least one piece."""
PIECE = 1 << 15
"""Voxels of a piece: a few milliseconds."""

_RIM = 0.5
"""Width of the rim around a box, in widths of the box."""
_TOLERANCE = 1e-5  # Slicer keeps the middle of a region box in single precision


class Measuring:
    """The figures of one box at a time. The caller's timer calls `step` with the present choice.

    Attributes:
        rows: as `compared` gives them; empty while there are none.
        message: why there are none; empty where nothing is asked.
    """

    def __init__(self):
        self.rows, self.message = [], ""
        self._asked, self._pieces = (), None

    @property
    def isBusy(self) -> bool:
        """Whether pieces are missing."""
        return self._pieces is not None

    def step(self, roiNode, resultNode) -> bool:
        """Go on; from the beginning where the box, the result or what they hold has changed.

        Args:
            roiNode, resultNode: either may be None, and nothing is measured.

        Returns:
            Whether there is something else to show.
        """
        until = time.monotonic() + BUDGET
        asked = None if roiNode is None or resultNode is None else _stateOf(roiNode, resultNode)
        isNew, wasBusy = asked != self._asked, self.isBusy
        if isNew:
            self._asked, self._pieces = asked, asked and _measure(roiNode, resultNode)
            self.rows, self.message = [], "Measuring…" if asked else ""
        try:
            while self._pieces is not None:
                told = next(self._pieces)
                if told:
                    unit = result_nodes.reportOf(resultNode)["consistency"]["unit"]
                    self.rows, self.message, self._pieces = compared(told, unit), "", None
                if time.monotonic() >= until:
                    break
        except InputError as error:
            self.rows, self.message, self._pieces = [], str(error), None
        return isNew or (wasBusy and not self.isBusy)


def figures(roiNode, resultNode) -> dict:
    """What is in a box before and after, on the voxels of the result whose centres lie in the box.

    Before is the input interpolated (cubic) on the grid of the result, so that both have the same voxels. Sharpness
    is the mean size of the gradient within the slice (central differences on the grid of the result), in units of the
    voxels per voxel of the input: edges raise it, and so does noise. Contrast is the mean in the box minus that of a
    rim around it, half as wide as the box on each side, as far as the result goes.

    Returns:
        "before" and "after", each with "mean", "standardDeviation", "sharpness" and "contrast" (None without a rim);
        "halfWidth", the mean half-width of the error bars in the box, or None; "voxels", how many of the result;
        "share", the share of the box that the result covers.

    Raises:
        InputError: the box lies outside the result, or the source of the result is gone.
    """
    return next(filter(None, _measure(roiNode, resultNode)))


def compared(figures: dict, unit: str) -> list[tuple[str, str, str]]:
    """What `figures` found, for people: rows of a name, the number before and the number after; the first is the head.

    Args:
        figures: as `figures` gives them.
        unit: of the voxels, in words.
    """
    before, after = figures["before"], figures["after"]
    rows = [(f"In {unit}", "interpolated", "enhanced")]
    for name, key in (
        ("Mean", "mean"), ("Standard deviation", "standardDeviation"), ("Sharpness", "sharpness"),
        ("Contrast to its rim", "contrast"),
    ):  # fmt: skip
        if before[key] is not None:
            rows.append((name, f"{before[key]:.4g}", f"{after[key]:.4g}"))
    if figures["halfWidth"] is not None:
        rows.append(("Error bars, mean", "", f"± {figures['halfWidth']:.3g}"))
    rows.append(("Share of the box enhanced", "", f"{figures['share']:.0%}"))
    return rows


def _stateOf(roiNode, resultNode) -> tuple:
    """Changes when figures do."""
    try:
        places = (region.cornersWorld(roiNode), toWorldOf(resultNode) @ ijkToRasOf(resultNode))
    except InputError:
        places = ()  # bent, as `_measure` says
    told = tuple(place.tobytes() for place in places)
    return roiNode.GetID(), resultNode.GetID(), resultNode.GetImageData().GetMTime(), *told


def _measure(roiNode, resultNode) -> Iterator[dict | None]:
    """None after each piece, and at last the figures; see `figures`."""
    source = result_nodes.existingSource(resultNode)
    bounds = np.array(box_nodes.boundsIn(roiNode, resultNode)).reshape(3, 2)
    shape = np.array(shapeOf(resultNode))
    # With the rim, and at least one voxel more than the box, so that gradients at its edge are central differences.
    rim = np.maximum((bounds[:, 1] - bounds[:, 0]) * _RIM * (0, 1, 1), 1)
    first = np.clip(np.floor(bounds[:, 0] - rim).astype(int), 0, shape)
    last = np.clip(np.ceil(bounds[:, 1] + rim).astype(int), first, shape)
    cut = tuple(slice(low, high) for low, high in zip(first, last))
    slices, rows, columns = (int(count) for count in last - first)
    grid = voxel_grid.croppedAffine(ijkToRasOf(resultNode), first[::-1])
    boxToWorld = toWorldOf(roiNode) @ slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToNodeMatrix())
    toBox, size = np.linalg.inv(boxToWorld) @ toWorldOf(resultNode) @ grid, roiNode.GetSize()
    after, bars = slicer.util.arrayFromVolume(resultNode)[cut], result_nodes.errorBarsOf(resultNode)
    widths, widthsHeld = None if bars is None else slicer.util.arrayFromVolume(bars)[cut], 0.0
    name, resultName = roiNode.GetName(), resultNode.GetName()
    voxelSize = abs(np.linalg.det((toWorldOf(resultNode) @ grid)[:3, :3]))
    boxSize = abs(np.linalg.det(toWorldOf(roiNode)[:3, :3])) * float(np.prod(size))
    sums = [_Sums(result_nodes.scaleOf(resultNode)) for _ in range(2)]

    high = max(1, PIECE // max(columns, 1))
    for k in range(slices):
        for row in range(0, rows, high):
            stop = min(row + high, rows)
            held = _centresInside(toBox, size, [k, k + 1, row, stop, 0, columns])
            around = _centresInside(toBox, size, [k, k + 1, row, stop, 0, columns], 1 + 2 * _RIM) & ~held
            low, top = max(row - 1, 0), min(stop + 1, rows)  # with the neighbours that gradients need
            pieces = sampled(source, grid, [k, k + 1, low, top, 0, columns]), after[k : k + 1, low:top]
            for one, piece in zip(sums, pieces):
                one.add(piece.astype(np.float32, copy=False), slice(row - low, stop - low), held, around)
            if widths is not None:
                widthsHeld += float(widths[k : k + 1, row:stop][held].sum(dtype=np.float64))
            yield None
        for one in sums:
            one.endSlice()
    voxels = sums[0].count
    if not voxels:
        raise InputError(
            f"Box '{name}' lies outside '{resultName}', or between its voxels. Enhance a region that holds the box."
        )
    yield {
        "before": sums[0].told(),
        "after": sums[1].told(),
        "halfWidth": None if widths is None else widthsHeld / voxels,
        "voxels": voxels,
        "share": min(1.0, voxels * voxelSize / boxSize),
    }


class _Sums:
    """Of one image, over the pieces so far.

    Args:
        scaleZyx: voxels of the image per voxel of the input.

    Attributes:
        count: voxels in the box.
    """

    def __init__(self, scaleZyx: Sequence[int]):
        self._scale, self.count = scaleZyx, 0
        self._offset = self._values = self._squares = self._gradients = 0.0
        self._rim = np.zeros(2)  # how many, and their sum
        self._ofSlice, self._countBefore = np.zeros(2), 0

    def add(self, array: np.ndarray, own: slice, held: np.ndarray, around: np.ndarray) -> None:
        """A piece: rows `own` of an array, of which `held` lie in the box and `around` in its rim."""
        perRow, perColumn = (
            np.gradient(array, axis=axis)[:, own] * self._scale[axis] if array.shape[axis] > 1 else 0.0
            for axis in (1, 2)
        )
        inside = array[:, own][held].astype(np.float64)
        if inside.size:
            if not self.count:
                self._offset = inside[0]  # so that squares of large numbers need not be told apart
            self.count += inside.size
            self._values += (inside - self._offset).sum()
            self._squares += ((inside - self._offset) ** 2).sum()
            lengths = np.broadcast_to(np.hypot(perRow, perColumn), held.shape)
            self._gradients += lengths[held].sum(dtype=np.float64)
        self._ofSlice += around.sum(), array[:, own][around].sum(dtype=np.float64)

    def endSlice(self) -> None:
        """A slice without voxels in the box has no rim either."""
        if self.count > self._countBefore:
            self._rim += self._ofSlice
        self._ofSlice, self._countBefore = np.zeros(2), self.count

    def told(self) -> dict:
        mean = self._values / self.count
        variance = max(self._squares / self.count - mean**2, 0.0)
        rim, total = self._rim
        return {
            "mean": float(self._offset + mean),
            "standardDeviation": float(np.sqrt(variance)),
            "sharpness": float(self._gradients / self.count),
            "contrast": float(self._offset + mean - total / rim) if rim else None,
        }


def _centresInside(toBox: np.ndarray, size, extent, times: float = 1.0) -> np.ndarray:
    """Which voxels of an extent have their centre in a box, made larger: ``[slices, rows, columns]`` bool."""
    k0, k1, r0, r1, c0, c1 = extent
    k, j, i = np.ogrid[k0:k1, r0:r1, c0:c1]
    inside = np.ones((k1 - k0, r1 - r0, c1 - c0), dtype=bool)
    for axis, length in enumerate(size):
        place = toBox[axis, 0] * i + toBox[axis, 1] * j + toBox[axis, 2] * k + toBox[axis, 3]
        inside &= np.abs(place) <= length / 2 * (times + _TOLERANCE)
    return inside
