"""The panel on the Python layer of Slicer's releases: all run on the oldest supported one, these on the others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import slicerpython

HERE = Path(__file__).resolve().parent
IN_SHORT = "first_volume or saved_with_the_scene or from_a_script"  # form, parameter node, logic
needsOracle = pytest.mark.skipif(
    not slicerpython.LAYER.is_dir(),
    reason=f"SLICER'S PYTHON LAYER: {slicerpython.LAYER} is not there, so the panel was not tested",
)


def testPanel(expression, **environment):
    """Run tests of the panel in a process of their own, in which a test that hangs fails before this one does."""
    options = ["-q", "-p", "no:cacheprovider", "-o", "timeout=300", "-k", expression]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, HERE / "test_panel.py"],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


testPanel.__test__ = False


@needsOracle
def test_the_panel_runs_on_slicers_own_python_layer(module):
    for name in ("util", "ScriptedLoadableModule", "parameterNodeWrapper", "i18n"):
        assert Path(sys.modules[f"slicer.{name}"].__file__).is_relative_to(slicerpython.LAYER), name


@needsOracle
@pytest.mark.parametrize("expression", [IN_SHORT, pytest.param("test", marks=pytest.mark.slow)])
@pytest.mark.parametrize("release", slicerpython.RELEASES[1:])
def test_the_panel_runs_on_the_layer_of_the_other_releases(release, expression):
    done = testPanel(expression, SUPERRESOLUTION_SLICER=release)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_slicers_sources_the_panel_is_skipped_and_that_is_said(tmp_path):
    done = testPanel(IN_SHORT, MONAI_SR_ORACLE=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SLICER'S PYTHON LAYER: " in done.stdout
    assert " passed" not in done.stdout
