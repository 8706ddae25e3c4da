"""A drawn chest: the image a result should be, and the coarse input of it. No patient."""

import math

import numpy as np
from SuperResolutionLib import filling, region, result_nodes, volumes
from SuperResolutionLib.volumes import resultAffine, transformPoints

SCALE = 4
DONE = {
    "event": "done", "id": 2, "result": "/tmp/private/result.npy", "errorBars": "/tmp/private/error_bars.npy",
    "bundle": "chest_ct_edsr_x4", "version": "0.1.0", "sha256": "ab" * 32, "scaleZYX": [1, SCALE, SCALE],
    "generative": False, "synthetic": False,
    "consistency": {"rms": 0.3, "max": 2.0, "rmsBefore": 4.1, "maxBefore": 30.0, "unit": "grey levels"},
    "coverage": {"promised": 0.9, "calibratedOn": "64 slices; \"drawn\""}, "warnings": ["60 % of <it>; is fine"],
    "seconds": 0.4, "provenance": {"backend": "onnx", "seed": 0},
}  # fmt: skip
"""An answer of the engine."""


def fine():
    """HU of lungs, ribs and a nodule: ``[slices, rows, columns]`` int16."""
    slices, rows, columns = 5, 128, 160
    z, y, x = np.ogrid[0:slices, 0:rows, 0:columns]
    y, x = y / rows, x / columns
    image = np.full((slices, rows, columns), 40.0) + 4.0 * z
    for middle in (0.3, 0.7):
        lung = ((x - middle) / 0.17) ** 2 + ((y - 0.5) / 0.38) ** 2 < 1
        image[np.broadcast_to(lung, image.shape)] -= 860
    ribs = np.abs(np.sin(9 * np.pi * (y + 0.15 * np.abs(x - 0.5)))) > 0.93
    image += 260 * ribs
    image += 700 * np.exp(-(((x - 0.3) / 0.025) ** 2 + ((y - 0.45) / 0.03) ** 2))
    return np.clip(image, -1024, 1200).round().astype(np.int16)


FINE = fine()  # the whole chest as it should be
GRID = np.diag([-2.8, -2.8, 5, 1.0])
GRID[:3, 3] = 150, 120, -30  # where the coarse chest lies
COARSE = FINE.reshape(5, 32, SCALE, 40, SCALE).mean(axis=(2, 4)).round().astype(np.int16)  # means of squares of voxels
EXTENT = [1, 4, 8, 24, 8, 32]  # A region of the coarse chest with a nodule, and `CUT`, the same of the fine one
CUT = (slice(1, 4), slice(32, 96), slice(32, 128))
RESULT = FINE[CUT]  # its voxels as they should be
BARS = 5 + np.hypot(*np.gradient(FINE.astype(np.float32), axis=(1, 2)))[CUT] / 4  # wide where the image changes fast


def addResult(source, array=RESULT, **provenance):
    """Add a result of the coarse chest: its region `EXTENT`, enlarged."""
    done = {**DONE, "provenance": {**DONE["provenance"], **provenance}}
    return result_nodes.addResult(source, array, EXTENT, done, BARS)


def fillAll():
    """Compute all voxels of differences."""
    filling.step(math.inf)


def world(slices, row, column):
    """Return the position of a voxel of the fine chest in the world."""
    return transformPoints(resultAffine(GRID, [0, 5, 0, 32, 0, 40], (1, SCALE, SCALE)), [[column, row, slices]])[0]


def interpolateSource(result):
    """Interpolate the source of a result on the result's grid."""
    affine = volumes.ijkToRasOf(result)
    return result_nodes.interpolate(result_nodes.sourceOf(result), affine, region.whole(result))
