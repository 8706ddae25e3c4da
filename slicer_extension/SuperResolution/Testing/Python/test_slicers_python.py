"""The panel on the Python layer of Slicer's releases: all run on the oldest supported one, these on the others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import slicerpython

TEST = Path(__file__).resolve().with_name("test_panel.py")
IN_SHORT = "region_is_drawn or saved_with_the_scene or from_a_script"  # form, parameter node, logic


@pytest.mark.parametrize("expression", [IN_SHORT, pytest.param("test", marks=pytest.mark.slow)])
@pytest.mark.parametrize("release", slicerpython.RELEASES[1:])
def test_the_panel_runs_on_the_layer_of_the_other_releases(module, release, expression):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", expression, TEST]
    environment = {**os.environ, "SUPERRESOLUTION_SLICER": release}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=850)
    assert done.returncode == 0, done.stdout + done.stderr
