"""The SuperResolution module without Qt: the panel is a thin layer over it.

It needs numpy, vtk, slicer and the standard library, and Python 3.12 or later, as Slicer 5.10 has. It reaches nodes
through their own scene, never through `slicer.mrmlScene`.

`box`, `readings` and `geometry` are files of `monai_sr_bundle`, boxes/ and images/. CMake puts them here; in a clone
that Slicer uses in place they are read where they lie.
"""

from pathlib import Path

__path__ += [str(Path(__file__).resolve().parents[3] / "monai_sr_bundle" / folder) for folder in ("boxes", "images")]
