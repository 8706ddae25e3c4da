"""What the SuperResolution module does with a scene, without Qt: the panel and the browser shell are thin over it.

It needs numpy, vtk, slicer and the standard library, and Python 3.9 or later. Nodes are found through the scene they
are in, never through `slicer.mrmlScene`.
"""
