"""Draws Screenshots/*.png: the panel before, while and after a drawn radiograph is enhanced, by Qt without a screen.

    SUPERRESOLUTION_PYTHON=.venv/bin/python python slicer_extension/Testing/panel_screenshots.py

The look of some widgets is that of their stand-ins in SuperResolution/Testing/Python/pythonqt.py.
"""

import os
import sys
import time
from pathlib import Path

EXTENSION = Path(__file__).resolve().parents[1]
MODULE = EXTENSION / "SuperResolution"
sys.path[:0] = [str(MODULE / "Testing" / "Python"), str(MODULE)]

from slicer_application import Application  # noqa: E402

core = Application()

import slicerpython  # noqa: E402
from pythonqt import qt  # noqa: E402
from SuperResolutionLib import volumes, worker_client  # noqa: E402
from waiting import waitFor  # noqa: E402

HEIGHTS = {"before": 880, "running": 880, "result": 1290}


def settle():
    later = time.monotonic() + 0.3
    waitFor(lambda: time.monotonic() > later, qt.QApplication.processEvents)
    waitFor(lambda: ui.runButton.enabled and ui.estimateLabel.text.startswith("About"), qt.QApplication.processEvents)


def draw(name):
    picture = widget.parent.grab().copy(0, 0, 500, HEIGHTS[name])
    assert picture.save(str(EXTENSION / "Screenshots" / f"{name}.png"))


python = os.environ.get("SUPERRESOLUTION_PYTHON") or sys.executable
environment = {**worker_client.environmentFor(python), "PYTHONPATH": str(EXTENSION.parent)}
slicerpython.start(core)
module = slicerpython.openModule()
module.newClient = lambda python_=None: worker_client.WorkerClient(worker_client.workerCommand(python), environment)
film = core.loadNrrd(MODULE / "Resources" / "SampleData" / "DrawnChestRadiograph.nrrd")
core.setModality(film, "DX")
film.SetAttribute(volumes.SPACING_SOURCE, "detector plane")
widget = module.SuperResolutionWidget()
ui, chosen = widget.ui, widget._parameterNode
widget.parent.resize(500, 1320)
widget.enter()

widget.setRegion([0, 1, 64, 192, 64, 192])
settle()
draw("before")

chosen.texture, chosen.steps = 1.0, 32
settle()
ui.runButton.click()
waitFor(lambda: ui.progressBar.visible and ui.progressBar.value > 250, qt.QApplication.processEvents)
draw("running")
ui.cancelButton.click()

chosen.texture, chosen.steps, chosen.reader, chosen.tolerance = 0.0, 0, "A. Reader", 120.0
settle()
ui.runButton.click()
waitFor(lambda: chosen.result is not None, qt.QApplication.processEvents)
settle()
ui.showErrorBarsCheckBox.click()
ui.showMaskCheckBox.click()
ui.boxesCollapsibleButton.collapsed = False
widget.addBox([0, 1, 98, 124, 90, 114])
settle()
ui.boxesTable.item(0, 0).setText("Nodule")
ui.boxesTable.item(0, 2).setText("80%")
settle()
ui.boxesTable.selectRow(0)
settle()
draw("result")
widget.cleanup()
os._exit(0)  # Qt and VTK would take each other down in the wrong order
