"""Check that the panel's tests ran on Slicer's own Python layer, or on its stand-in in slicerpython.py."""

import os
import sys
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2]
VARIABLE = "SUPERRESOLUTION_SLICER_PYTHON"


@pytest.mark.skipif(
    VARIABLE not in os.environ,
    reason=f"the panel was tested on stand-ins: name Base/Python of Slicer's sources in {VARIABLE}",
)
def test_the_panel_runs_on_slicers_own_python_layer(application):
    import slicerpython

    slicerpython.start(application)
    slicerpython.openModule(MODULE / "SuperResolution.py")
    folder = Path(os.environ[VARIABLE]).resolve()
    for name in ("slicer.ScriptedLoadableModule", "slicer.parameterNodeWrapper", "slicer.i18n"):
        assert Path(sys.modules[name].__file__).resolve().is_relative_to(folder), name
