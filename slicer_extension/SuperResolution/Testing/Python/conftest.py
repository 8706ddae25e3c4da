"""Fixtures of the Slicer library's tests: a real scene and real slice views of Slicer's C++ classes.

The Python layer is Slicer's own, see slicerpython.py; it is there before the library is imported.
SUPERRESOLUTION_PYTHON names a Python that has what monai_sr_bundle needs (the one that runs the tests where it does
not).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import slicerpython  # noqa: E402

slicerpython.start()

import phantom_volumes  # noqa: E402
from opened_panel import Opened  # noqa: E402
from slicer_application import Application  # noqa: E402
from sliceview import SliceView  # noqa: E402
from SuperResolutionLib import worker_client  # noqa: E402
from SuperResolutionLib.child_process import environmentFor  # noqa: E402


@pytest.fixture(scope="session")
def repository():
    """The folder of `monai_sr_bundle`, whose geometry is the truth; on sys.path."""
    sys.path.append(str(HERE.parents[3]))
    return HERE.parents[3]


@pytest.fixture(scope="session")
def workerPython(repository):
    """A Python that can run the worker, and its environment."""
    python = os.environ.get("SUPERRESOLUTION_PYTHON") or sys.executable
    environment = {**environmentFor(python), "PYTHONPATH": str(repository)}
    tried = subprocess.run(
        [python, "-c", "import onnxruntime, yaml, pydicom, nibabel"], env=environment, capture_output=True
    )
    assert tried.returncode == 0, (
        f"{python} has not what monai_sr_bundle needs: name another in SUPERRESOLUTION_PYTHON."
    )
    return python, environment


@pytest.fixture
def runPython(workerPython):
    """Runs that Python: ``runPython("-c", code, path)``. Returns what it printed."""
    python, environment = workerPython

    def run(*words, **options):
        done = subprocess.run(
            [python, *map(str, words)], env=environment, capture_output=True, text=True, check=True, **options
        )
        return done.stdout

    return run


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """A Python with pip and nothing else, in place of a Slicer that was just unpacked."""
    folder = tmp_path_factory.mktemp("bare") / "environment"
    python = os.environ.get("SUPERRESOLUTION_PYTHON") or sys.executable
    subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True)
    return str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


@pytest.fixture(scope="session")
def _slicer():
    """One application for the session: displayable managers remember the first application logic they met."""
    application = Application()
    yield application
    application.close()


@pytest.fixture
def application(_slicer):
    """Slicer's core with an empty scene."""
    _slicer.clear()
    return _slicer


@pytest.fixture
def sliceView(application):
    """Makes slice views: ``sliceView("Red")``."""
    views = []

    def make(*arguments, **options):
        views.append(SliceView(application, *arguments, **options))
        return views[-1]

    yield make
    for view in views:
        view.close(application)


@pytest.fixture
def source(application):
    """A drawn chest, coarse, with window 1400 and level -400."""
    volume = application.addVolume(phantom_volumes.COARSE, phantom_volumes.GRID)
    volume.GetDisplayNode().SetAutoWindowLevel(0)
    volume.GetDisplayNode().SetWindowLevel(1400, -400)
    return volume


@pytest.fixture
def result(source):
    """Its region `phantom_volumes.EXTENT`, enlarged, with error bars."""
    return phantom_volumes.addResult(source, texture=0.5, seed=7)


@pytest.fixture
def red(sliceView, source):
    """A slice view that shows the chest."""
    view = sliceView("Red", 420, 340)
    view.show(source)
    return view


@pytest.fixture(scope="session")
def worker(workerPython):
    """One worker for all tests: it starts in seconds, and a panel keeps its own as long."""
    python, environment = workerPython
    client = worker_client.WorkerClient(worker_client.workerCommand(python), environment)
    yield client
    client.close()


@pytest.fixture(scope="session")
def module(_slicer, workerPython):
    """SuperResolution.py, loaded as Slicer loads a module."""
    python, environment = workerPython
    slicerpython.start(_slicer)
    module = slicerpython.openModule()
    module.newCommand = lambda kind, *arguments: kind(*arguments, python=python, environment=environment)
    return module


@pytest.fixture
def panel(application, module, worker):
    """The panel, open on the screen of nobody."""
    panel = Opened(module, worker)
    yield panel
    panel.close()
