"""Fixtures of the Slicer library's tests: a real scene and real slice views of Slicer's C++ classes.

SUPERRESOLUTION_PYTHON names a Python that has what monai_sr_bundle needs, by default the one that runs the tests.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import slicerpython  # noqa: E402

slicerpython.start()  # before the library is imported

import phantom_volumes  # noqa: E402
import slicer  # noqa: E402
from dicomfiles import Database  # noqa: E402
from opened_panel import Opened  # noqa: E402
from slicer_application import Application  # noqa: E402
from sliceview import SliceView  # noqa: E402
from SuperResolutionLib import worker_client  # noqa: E402
from SuperResolutionLib.child_process import environmentFor  # noqa: E402


@pytest.fixture(scope="session")
def repository():
    """The folder of `monai_sr_bundle`."""
    return HERE.parents[3]


@pytest.fixture(scope="session")
def workerPython(repository):
    """A Python that can run the worker, and its environment."""
    python = os.environ.get("SUPERRESOLUTION_PYTHON") or sys.executable
    return python, {**environmentFor(python), "PYTHONPATH": str(repository)}


@pytest.fixture(scope="session")
def process(workerPython):
    """The arguments of a `Command` that name that Python."""
    return {"python": workerPython[0], "environment": workerPython[1]}


@pytest.fixture
def runPython(workerPython):
    """Runs that Python: ``runPython("-c", code, path)``. Returns what it printed."""
    python, environment = workerPython

    def run(*words, **options):
        return subprocess.check_output([python, *words], env=environment, text=True, **options)

    return run


@pytest.fixture(scope="session")
def bare(tmp_path_factory, workerPython):
    """A Python with pip and nothing else, in place of a Slicer that was just unpacked."""
    folder = tmp_path_factory.mktemp("bare") / "environment"
    subprocess.run([workerPython[0], "-m", "venv", folder], check=True)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="session")
def _slicer():
    """One application for the session: displayable managers remember the first application logic they met."""
    return Application()


@pytest.fixture
def application(_slicer):
    """Slicer's core with an empty scene."""
    _slicer.clear()
    return _slicer


@pytest.fixture
def sliceView(application, request):
    """Makes slice views: ``sliceView("Red")``."""

    def make(*arguments):
        view = SliceView(application, *arguments)
        request.addfinalizer(view.close)
        return view

    return make


@pytest.fixture(scope="session")
def studies(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="session")
def databases(studies, workerPython):
    """Slicer's DICOM database of each image: a CR and a DX of 48 rows and 40 columns, and an oblique CT of 5 slices."""
    film = (
        "dicom_files.radiograph(folder / 'film.dcm', np.arange(1920, dtype=np.uint16).reshape(48, 40) % 999, {0!r}, "
        "SOPInstanceUID='{1}', StudyInstanceUID='{1}.1', SeriesInstanceUID='{1}.2')"
    )
    codes = {"CR": film.format("CR", "2.25.601"), "DX": film.format("DX", "2.25.602")}
    codes["CT"] = "dicom_files.ct_series(folder, dicom_files.phantom(slices=5))"
    for name in codes:
        (studies / name).mkdir()
    return {name: Database(studies / name, code, workerPython) for name, code in codes.items()}


@pytest.fixture
def loadDicom(application, databases, monkeypatch):
    """Opens the database of an image, and loads the image as Slicer does: ``loadDicom("CR")``."""

    def load(name):
        monkeypatch.setattr(slicer, "dicomDatabase", databases[name], raising=False)
        return databases[name].load(application)

    return load


@pytest.fixture
def openDatabase(workerPython, tmp_path, monkeypatch):
    """Opens Slicer's DICOM database of the files that some code draws: ``openDatabase(code)``."""

    def open(code):
        (tmp_path / "film").mkdir()
        database = Database(tmp_path / "film", code, workerPython)
        monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
        return database

    return open


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
    return phantom_volumes.addResult(source, sampling={"texture": 0.5}, seed=7)


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
def module(_slicer, process):
    """SuperResolution.py, loaded as Slicer loads a module."""
    module = slicerpython.openModule(_slicer)
    module.newCommand = lambda kind, *arguments: kind(*arguments, **process)
    return module


@pytest.fixture
def panel(application, module, worker):
    """The panel, open on the screen of nobody."""
    panel = Opened(module, worker)
    yield panel
    panel.close()
