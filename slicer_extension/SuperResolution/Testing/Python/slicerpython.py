"""Slicer's Python layer and its application, as far as a scripted module needs them, for tests without Slicer.

The layer (`slicer.util`, `ScriptedLoadableModule`, `parameterNodeWrapper`, `i18n`) is Slicer's own, of the release that
SUPERRESOLUTION_SLICER names, by default the oldest supported one, read from the folder `ORACLE`. Without that folder
the tests that need it are skipped. The application is a stand-in.
"""

import importlib
import os
import sys
import tempfile
import types
import unittest
from pathlib import Path

import pythonqt
import qt
import slicer

RELEASES = ("slicer_5_10_0", "slicer_5_12_3", "slicer_main")  # folders in `ORACLE`, the oldest first
ORACLE = Path(os.environ.get("MONAI_SR_ORACLE") or Path(__file__).resolve().parents[5] / "shared" / "oracle")
LAYER = ORACLE / (os.environ.get("SUPERRESOLUTION_SLICER") or RELEASES[0]) / "Base" / "Python" / "slicer"
MODULE = Path(__file__).resolve().parents[2] / "SuperResolution.py"


class Application(qt.QObject):
    """slicer.app and its module manager: what the panel and Slicer's Python layer ask of them."""

    startupCompleted, moduleAboutToBeUnloaded = qt.Signal(), qt.Signal(str)
    connect, disconnect = pythonqt.connect, pythonqt.disconnect
    applicationName, slicerHome = "Slicer", ""
    processEvents = staticmethod(qt.QApplication.processEvents)

    def __init__(self):
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.temporaryPath = self._folder.name
        settings = qt.QSettings(f"{self.temporaryPath}/Slicer.ini", qt.QSettings.IniFormat)
        self.asked, self.answer = [], True  # what the user was asked, and answers
        self.testingEnabled = lambda: True
        self.layoutManager = lambda: None
        self.moduleManager = lambda: self
        self.userSettings = lambda: settings
        self.moduleDocumentationUrl = "https://example.org/{}".format
        self.translate = lambda context, text: text


def start():
    """Set up `slicer` for its Python layer and a scripted module."""
    pythonqt.install(slicer)
    slicer.app, slicer.modules, slicer.selfTests = Application(), types.SimpleNamespace(), {}
    if LAYER.is_dir():
        slicer.__path__.insert(0, str(LAYER))  # before that of the wheel, which has the util of its own version
        sys.modules.pop("slicer.util", None)
        importlib.import_module("slicer.util")
    slicer.util.mainWindow = lambda: None
    # A dialog that nobody sees would wait for ever.
    slicer.util.confirmOkCancelDisplay = lambda text, *arguments, **options: (
        slicer.app.asked.append(text) or slicer.app.answer
    )


def openModule(core):
    """Load the panel as Slicer does, for a `slicer_application.Application`. Returns the Python module."""
    if not LAYER.is_dir():
        raise unittest.SkipTest(f"SLICER'S PYTHON LAYER: {LAYER} is not there, so the panel was not tested")
    slicer.app.applicationLogic = lambda: core.logic
    sys.path.insert(0, str(MODULE.parent))
    module = importlib.import_module(MODULE.stem)
    parent = types.SimpleNamespace(path=str(MODULE), icon=None)
    slicer.modules.superresolution = types.SimpleNamespace(path=str(MODULE), parent=parent)
    slicer.modules.superresolution.module = module.SuperResolution(parent)
    return module
