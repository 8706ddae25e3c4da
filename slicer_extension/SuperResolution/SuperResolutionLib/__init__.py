"""The SuperResolution module without Qt: the panel is a thin layer over it.

It needs numpy, vtk, slicer and the standard library, and Python 3.9 or later. It reaches nodes through their own
scene, never through `slicer.mrmlScene`.
"""
