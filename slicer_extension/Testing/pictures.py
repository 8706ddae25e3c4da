"""Draws docs/slicer/*.png: what slice views show in the tutorial, rendered by Slicer's own classes without a screen.

    SUPERRESOLUTION_PYTHON=.venv/bin/python python slicer_extension/Testing/pictures.py [NAME...]

The radiograph is the drawn one of the module's sample data, the CT is a test file that comes with pydicom. The results
are those of a real worker with the default models.
"""

import os
import sys
from pathlib import Path

EXTENSION = Path(__file__).resolve().parents[1]
MODULE = EXTENSION / "SuperResolution"
PICTURES = EXTENSION.parent / "docs" / "slicer"
sys.path[:0] = [str(MODULE / "Testing" / "Python"), str(MODULE)]

from slicer_application import Application  # noqa: E402

core = Application()

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from pydicom.data import get_testdata_file  # noqa: E402
from sliceview import SliceView  # noqa: E402
from SuperResolutionLib import box_nodes, compare, display, filling, result_nodes, volumes, worker_client  # noqa: E402
from SuperResolutionLib.enhancer import Enhancer  # noqa: E402
from SuperResolutionLib.viewing import Viewing  # noqa: E402

SIDE = 420
GAP = 6
COLORS = 128
"""Of a picture: enough for greys and a legend, and it stays small."""
FILM = MODULE / "Resources" / "SampleData" / "DrawnChestRadiograph.nrrd"
REGION = (0, 1, 72, 152, 52, 132)
"""Slices, rows and columns of the drawn film that are enhanced: ribs, vessels and the border of the heart."""


def main(names):
    python = os.environ.get("SUPERRESOLUTION_PYTHON") or sys.executable
    environment = {**worker_client.environmentFor(python), "PYTHONPATH": str(EXTENSION.parent)}
    enhancer = Enhancer(worker_client.WorkerClient(worker_client.workerCommand(python), environment))
    PICTURES.mkdir(exist_ok=True)
    for draw in (radiograph, ct):
        draw(enhancer, lambda name, *pictures: keep(name, pictures) if not names or name in names else None)
        core.clear()
    enhancer.close()
    os._exit(0)  # VTK's windows would be taken down in the wrong order


def radiograph(enhancer, draw):
    film = core.loadNrrd(FILM)
    core.setModality(film, "DX")
    film.SetAttribute(volumes.SPACING_SOURCE, "detector plane")
    box = core.addRoi(film, REGION, "SR region")
    display.outlineOnly(box, (1.0, 0.85, 0.2))
    view = SliceView(core, "Red", SIDE, SIDE)
    before, after = (SliceView(core, name, SIDE, SIDE) for name in (compare.BEFORE, compare.AFTER))
    view.show(film)
    draw("region", view.picture())

    result = enhancer.enhance(film, box)
    box.SetDisplayVisibility(False)
    viewing = Viewing(core.logic, {"Red": view.renderer}.get)
    compare.fitTo(view.logic, result)
    viewing.show("sideBySide", result)
    for one in (before, after):
        compare.fitTo(one.logic, result)
        one.composite.SetForegroundVolumeID(None)
    draw("side_by_side", before.picture(), after.picture())
    viewing.stop()
    compare.fitTo(view.logic, result)
    viewing.show("reveal", result)
    draw("reveal", view.picture())
    viewing.show("difference", result)
    filled()
    draw("difference", view.picture())
    viewing.stop()
    unit = result_nodes.reportOf(result)["consistency"]["unit"]
    viewing.showErrorBars(result, 0.0, unit)
    draw("error_bars", view.picture())
    viewing.hideErrorBars()
    viewing.show("over", result)
    viewing.showMask(result, 100.0)
    filled()
    draw("trust_mask", view.picture())
    viewing.hideMask(result)
    viewing.stop()
    view.show(result)
    compare.fitTo(view.logic, result)
    for extent, label, certainty in (
        ((0, 1, 98, 124, 90, 114), "Opacity", 0.4),
        ((0, 1, 87, 109, 54, 76), "Nodule", 0.8),
    ):
        display.showName(box_nodes.addBox(film, extent, label, "A. Reader", certainty), True)
    draw("boxes", view.picture())
    close(view, before, after)


def ct(enhancer, draw):
    volume = core.moduleLogics["Volumes"].AddArchetypeVolume(get_testdata_file("CT_small.dcm"), "CT_small", 4 | 8)
    core.newSubjectHierarchyItems()
    core.setModality(volume, "CT")
    volume.GetDisplayNode().SetAutoWindowLevel(0)
    volume.GetDisplayNode().SetWindowLevel(1600, 350)
    before, after = (SliceView(core, name, SIDE, SIDE) for name in (compare.BEFORE, compare.AFTER))
    box = core.addRoi(volume, (0, 1, 40, 104, 30, 94), "SR region")
    result = enhancer.enhance(volume, box)
    box.SetDisplayVisibility(False)
    Viewing(core.logic).show("sideBySide", result)
    for one in (before, after):
        compare.fitTo(one.logic, result)
    draw("ct", before.picture(), after.picture())
    close(before, after)


def filled():
    while filling.isBusy():
        filling.step()


def close(*views):
    for view in views:
        view.close(core)


def keep(name, pictures):
    """Write pictures side by side as PNG."""
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    joined = np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)
    path = PICTURES / f"{name}.png"
    Image.fromarray(joined).quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
