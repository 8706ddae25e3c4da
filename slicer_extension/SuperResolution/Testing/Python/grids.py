"""Voxel grids for tests: straight, oblique, left-handed."""

import numpy as np


def makeGrid(angles, spacing, origin, leftHanded=False):
    """An affine with axes turned by three angles (radians)."""
    affine = np.eye(4)
    for axis, angle in enumerate(angles):
        turn = np.eye(4)
        first, second = [a for a in range(3) if a != axis]
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        affine = affine @ turn
    affine = affine @ np.diag([*spacing, 1.0])
    if leftHanded:
        affine[:3, 2] *= -1
    affine[:3, 3] = origin
    return affine


GRIDS = [
    makeGrid((0, 0, 0), (0.7, 0.7, 2.5), (-150.0, 120.0, -300.0)),
    makeGrid((0.3, -0.8, 1.9), (0.139, 0.143, 1.0), (33.3, -71.9, 812.4)),
    makeGrid((-1.1, 0.2, 0.5), (0.7, 0.9, 5.0), (-150.0, 120.0, -300.0), leftHanded=True),
]
