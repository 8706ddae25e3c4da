"""Draws docs/slicer/*.png, what slice views show in the tutorial, and Screenshots/*.png, the panel; without a screen.

    CT_SERIES=folder python -m pytest slicer_extension/SuperResolution/Testing/Python/pictures.py [-k radiograph]

Slicer's own classes render the views, and Qt the panel, with the stand-ins of pythonqt.py. A real worker makes the
results, with the default models. The radiographs are drawn. The CT is a patient's, LIDC-IDRI-0314 of The Cancer Imaging
Archive (CC BY 3.0): `CT_SERIES` is the folder of its DICOM files from z = -543.8 to -538.8 mm.
"""

import os
from pathlib import Path

import numpy as np
import phantom_volumes
import pytest
from dicomfiles import FILM_OF_2000
from PIL import Image
from SuperResolutionLib import box_nodes, compare, display, drawing, volumes, windows
from SuperResolutionLib.enhancer import Enhancer
from SuperResolutionLib.viewing import Viewing

MODULE = Path(__file__).resolve().parents[2]
PICTURES, SCREENSHOTS = MODULE.parents[1] / "docs" / "slicer", MODULE.parent / "Screenshots"
WIDTH, HEIGHT, GAP = 640, 480, 6  # pixels, of a picture and between two views
FILM_REGION = (0, 1, 1190, 1318, 590, 718)  # of the drawn film: ribs, vessels and a nodule
CT_REGION = (3, 4, 250, 346, 146, 242)  # bronchi and vessels at the right hilum, and the oblique fissure
CT_SERIES = os.environ.get("CT_SERIES")


@pytest.fixture
def pair(sliceView):
    return [sliceView(name, WIDTH // 2, HEIGHT) for name in (compare.BEFORE, compare.AFTER)]


def test_radiograph(application, openDatabase, worker, sliceView, pair):
    film, view = openDatabase(FILM_OF_2000).load(application), sliceView("Red", WIDTH, HEIGHT)
    view.show(film)
    box = drawing.addRegion(film, FILM_REGION)
    viewing, result = compareInAllWays(film, box, worker, application, view, pair, "")
    textures = []
    for seed in (0, 1):
        textured = Enhancer(worker).enhance(film, box, "chest_xray_residual_flow_x4", texture=1.0, seed=seed)
        viewing.show("inPlace", textured)
        textures.append(view.picture())
    keep("texture", *textures)
    viewing.show("inPlace", result)
    display.showHandles(box_nodes.addBox(film, (0, 1, 1264, 1298, 654, 688), "Nodule", "A. Reader", 0.8), True)
    box_nodes.addBox(film, (0, 1, 1210, 1240, 604, 648), "Opacity", "A. Reader", 0.4)
    keep("boxes", view.picture())


@pytest.mark.skipif(not CT_SERIES, reason="CT_SERIES is not set: name the folder of the six slices, see above")
def test_ct(application, openDatabase, worker, sliceView, pair):
    copying = f"import shutil; shutil.copytree({os.path.abspath(CT_SERIES)!r}, folder, dirs_exist_ok=True)"
    series, view = openDatabase(copying).load(application), sliceView("Red", WIDTH, HEIGHT)
    windows.show(series, windows.windowsOf(series)[0])
    view.show(series)
    compareInAllWays(series, drawing.addRegion(series, CT_REGION), worker, application, view, pair, "ct_")


def compareInAllWays(volume, box, worker, application, view, pair, prefix):
    """Enhance a region of a volume, and keep a picture of the region and of each way to look at its result."""
    before, after = pair
    keep(prefix + "region", view.picture())
    result, viewing = Enhancer(worker).enhance(volume, box), Viewing(application.logic)
    viewing.show("inPlace", result)
    enhanced = view.picture()
    viewing.showOriginal(True)
    keep(prefix + "in_place", view.picture(), enhanced)
    viewing.showOriginal(False)
    viewing.showErrorBars(result, 0.0)
    keep(prefix + "error_bars", view.picture())
    viewing.hideErrorBars()
    viewing.show("difference", result)
    phantom_volumes.fillAll()
    keep(prefix + "difference", view.picture())
    viewing.show("sideBySide", result)
    before.moveMouse(150, 260)
    keep(prefix + "side_by_side", before.picture(), after.picture())
    return viewing, result


def test_panel(application, panel):
    """The panel before, while and after a drawn radiograph is enhanced."""
    film = application.loadVolume(MODULE / "Resources" / "SampleData" / "DrawnChestRadiograph.nrrd", "DX")
    film.SetAttribute(volumes.SPACING_SOURCE, "detector plane")
    widget, ui, chosen = panel.widget, panel.ui, panel.chosen
    chosen.inputVolume = film
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
    ui.boxesTable.selectRow(0)
    panel.settle()
    grab("result", 1290)


def keep(name, *pictures):
    """Write pictures of views side by side as PNG."""
    gap = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    joined = np.hstack([part for picture in pictures for part in (gap, picture)][1:])
    Image.fromarray(joined).quantize(dither=Image.Dither.NONE).save(PICTURES / f"{name}.png", optimize=True)
