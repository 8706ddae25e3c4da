"""Voxel grids for tests: straight, oblique, left-handed."""

import slicer
import vtk


def makeGrid(angles, spacing, origin):
    """An affine with axes turned by three angles (radians); a negative spacing makes a left-handed one."""
    transform = vtk.vtkTransform()
    transform.Translate(origin)
    for angle, axis in zip(angles, ((1, 0, 0), (0, -1, 0), (0, 0, 1))):
        transform.RotateWXYZ(vtk.vtkMath.DegreesFromRadians(angle), *axis)
    transform.Scale(spacing)
    return slicer.util.arrayFromVTKMatrix(transform.GetMatrix())


GRIDS = [
    makeGrid((0, 0, 0), (0.7, 0.7, 2.5), (-150.0, 120.0, -300.0)),
    makeGrid((0.3, -0.8, 1.9), (0.139, 0.143, 1.0), (33.3, -71.9, 812.4)),
    makeGrid((-1.1, 0.2, 0.5), (0.7, 0.9, -5.0), (-150.0, 120.0, -300.0)),
]
