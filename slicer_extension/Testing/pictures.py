"""Draws docs/slicer/*.png, what slice views show in the tutorial, and Screenshots/*.png, the panel; without a screen.

    SUPERRESOLUTION_PYTHON=.venv/bin/python python slicer_extension/Testing/pictures.py [radiograph] [ct] [panel]

Slicer's own classes render the views; the look of some widgets is that of SuperResolution/Testing/Python/pythonqt.py.
The radiographs are drawn, the large one as a DICOM file; the CT is a test file that comes with pydicom. The results are
those of a real worker with the default models.
"""

import math
import os
import sys
import tempfile
from pathlib import Path

EXTENSION = Path(__file__).resolve().parents[1]
MODULE = EXTENSION / "SuperResolution"
PICTURES, SCREENSHOTS = EXTENSION.parent / "docs" / "slicer", EXTENSION / "Screenshots"
sys.path[:0] = [str(MODULE / "Testing" / "Python"), str(MODULE), str(EXTENSION.parent)]

from slicer_application import Application  # noqa: E402

core = Application()

import numpy as np  # noqa: E402
import slicer  # noqa: E402
import slicerpython  # noqa: E402
from dicomfiles import Database  # noqa: E402
from opened_panel import Opened  # noqa: E402
from PIL import Image  # noqa: E402
from pydicom.data import get_testdata_file  # noqa: E402
from sliceview import SliceView  # noqa: E402
from SuperResolutionLib import box_nodes, compare, display, drawing, filling, volumes  # noqa: E402
from SuperResolutionLib.child_process import environmentFor  # noqa: E402
from SuperResolutionLib.enhancer import Enhancer  # noqa: E402
from SuperResolutionLib.viewing import Viewing  # noqa: E402
from SuperResolutionLib.worker_client import WorkerClient, workerCommand  # noqa: E402

PYTHON = os.environ.get("SUPERRESOLUTION_PYTHON") or sys.executable
WORKER = PYTHON, {**environmentFor(PYTHON), "PYTHONPATH": str(EXTENSION.parent)}
client = WorkerClient(workerCommand(PYTHON), WORKER[1])
enhancer = Enhancer(client)
WIDTH, HEIGHT = 640, 480
GAP = 6  # pixels between two views
REGION = (0, 1, 1190, 1318, 590, 718)  # of the drawn film: ribs, vessels and a nodule


def main(names):
    PICTURES.mkdir(exist_ok=True)
    slicerpython.start(core)
    for scene in (radiograph, ct, panel):
        if not names or scene.__name__ in names:
            scene()
            core.clear()
    client.close()
    os._exit(0)  # Qt and VTK would be taken down in the wrong order


def radiograph():
    code = "from monai_sr_bundle.datasets import phantom; phantom.write_phantom_dicom(folder / 'f.dcm', 2000, 0, 0.2)"
    with tempfile.TemporaryDirectory() as folder:
        slicer.dicomDatabase = Database(Path(folder), code, WORKER)
        film = slicer.dicomDatabase.load(core, "film")
    view = SliceView(core, "Red", WIDTH, HEIGHT)
    before, after = (SliceView(core, name, WIDTH // 2, HEIGHT) for name in (compare.BEFORE, compare.AFTER))
    view.show(film)
    box = drawing.addRegion(film, REGION)
    keep("region", view.picture())

    result = enhancer.enhance(film, box)
    viewing = Viewing(core.logic)
    viewing.show("inPlace", result)
    enhanced = view.picture()
    viewing.showOriginal(True)
    keep("in_place", view.picture(), enhanced)
    viewing.showOriginal(False)
    viewing.showErrorBars(result, 0.0)
    keep("error_bars", view.picture())
    viewing.hideErrorBars()
    viewing.show("difference", result)
    filling.step(math.inf)
    keep("difference", view.picture())
    viewing.show("sideBySide", result)
    before.moveMouse(150, 260)
    keep("side_by_side", before.picture(), after.picture())
    viewing.show("inPlace", result)
    display.showHandles(box_nodes.addBox(film, (0, 1, 1264, 1298, 654, 688), "Nodule", "A. Reader", 0.8), True)
    box_nodes.addBox(film, (0, 1, 1210, 1240, 604, 648), "Opacity", "A. Reader", 0.4)
    keep("boxes", view.picture())
    viewing.stop()
    for each in (view, before, after):
        each.close(core)


def ct():
    volume = core.loadVolume(get_testdata_file("CT_small.dcm"), "CT")
    volume.GetDisplayNode().SetAutoWindowLevel(0)
    volume.GetDisplayNode().SetWindowLevel(1600, 350)
    before, after = (SliceView(core, name, WIDTH // 2, HEIGHT) for name in (compare.BEFORE, compare.AFTER))
    viewing = Viewing(core.logic)
    viewing.show("sideBySide", enhancer.enhance(volume, drawing.addRegion(volume, (0, 1, 40, 104, 30, 94))))
    keep("ct", before.picture(), after.picture())
    viewing.stop()
    for each in (before, after):
        each.close(core)


def panel():
    """The panel before, while and after a drawn radiograph is enhanced."""
    film = core.loadVolume(MODULE / "Resources" / "SampleData" / "DrawnChestRadiograph.nrrd", "DX")
    film.SetAttribute(volumes.SPACING_SOURCE, "detector plane")
    panel = Opened(slicerpython.openModule(), client)
    widget, ui, chosen = panel.widget, panel.ui, panel.chosen
    widget.parent.resize(500, 1320)

    def grab(name, height):
        assert widget.parent.grab().copy(0, 0, 500, height).save(str(SCREENSHOTS / f"{name}.png"))

    widget.setRegion([0, 1, 64, 192, 64, 192])
    panel.settle()
    grab("before", 880)
    chosen.texture, chosen.steps = 1.0, 32
    panel.settle()
    ui.runButton.click()
    panel.until(lambda: ui.progressBar.visible and ui.progressBar.value > 250, "progress")
    grab("running", 880)
    ui.cancelButton.click()

    chosen.texture, chosen.steps, chosen.reader, chosen.tolerance = 0.0, 0, "A. Reader", 120.0
    panel.run()
    ui.showErrorBarsCheckBox.click()
    ui.boxesCollapsibleButton.collapsed = False
    widget.addBox([0, 1, 98, 124, 90, 114])
    panel.settle()
    ui.boxesTable.item(0, 0).setText("Nodule")
    ui.boxesTable.item(0, 2).setText("80%")
    panel.settle()
    ui.boxesTable.selectRow(0)
    panel.settle()
    grab("result", 1290)
    panel.close()


def keep(name, *pictures):
    """Write pictures of views side by side as PNG."""
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    joined = np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)
    Image.fromarray(joined).save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
