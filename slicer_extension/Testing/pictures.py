"""Draws docs/slicer/*.png: what slice views show in the tutorial, rendered by Slicer's own classes without a screen.

    SUPERRESOLUTION_PYTHON=.venv/bin/python python slicer_extension/Testing/pictures.py [NAME...]

The radiograph is drawn, of 2000 x 2000 pixels; the CT is a test file that comes with pydicom. The results
are those of a real worker with the default models.
"""

import os
import sys
from pathlib import Path

EXTENSION = Path(__file__).resolve().parents[1]
MODULE = EXTENSION / "SuperResolution"
PICTURES = EXTENSION.parent / "docs" / "slicer"
sys.path[:0] = [str(MODULE / "Testing" / "Python"), str(MODULE), str(EXTENSION.parent)]

from slicer_application import Application  # noqa: E402

core = Application()

import numpy as np  # noqa: E402
import slicer  # noqa: E402
from PIL import Image  # noqa: E402
from pydicom.data import get_testdata_file  # noqa: E402
from sliceview import SliceView  # noqa: E402
from SuperResolutionLib import (  # noqa: E402
    box_nodes,
    compare,
    display,
    drawing,
    filling,
    result_nodes,
    volumes,
    worker_client,
)
from SuperResolutionLib.enhancer import Enhancer  # noqa: E402
from SuperResolutionLib.viewing import Viewing  # noqa: E402

WIDTH, HEIGHT = 640, 480
GAP = 6
COLORS = 128
"""Of a picture: enough for greys and a legend, and it stays small."""
FILM_PIXELS = 2000
REGION = (0, 1, 1190, 1318, 590, 718)
"""Slices, rows and columns of the drawn film that are enhanced: ribs, vessels and a nodule."""


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
    from monai_sr_bundle.datasets.phantom import draw_phantom

    drawn = np.rint(4095 * draw_phantom(FILM_PIXELS)).astype(np.uint16)  # of 12 bits
    film = core.addVolume(drawn[None], np.diag([-0.2, -0.2, 1, 1.0]), "film")
    core.setModality(film, "DX")
    film.SetAttribute(volumes.SPACING_SOURCE, "detector plane")
    box = drawing.addRegion(film, REGION)
    view = SliceView(core, "Red", WIDTH, HEIGHT)
    before, after = (SliceView(core, name, WIDTH // 2, HEIGHT) for name in (compare.BEFORE, compare.AFTER))
    view.show(film)
    draw("region", view.picture())

    result = enhancer.enhance(film, box)
    viewing = Viewing(core.logic)
    viewing.show("inPlace", result)
    shown = view.picture()
    viewing.showOriginal(True)
    draw("in_place", view.picture(), shown)
    viewing.showOriginal(False)
    viewing.showErrorBars(result, 0.0)
    draw("error_bars", view.picture())
    viewing.hideErrorBars()
    viewing.showMask(result, float(np.percentile(slicer.util.arrayFromVolume(result_nodes.errorBarsOf(result)), 95)))
    filled()
    draw("trust_mask", view.picture())
    viewing.show("difference", result)
    filled()
    draw("difference", view.picture())
    viewing.show("sideBySide", result)
    before.moveMouse(150, 260)
    draw("side_by_side", before.picture(), after.picture())
    viewing.show("inPlace", result)
    k0, _, r0, _, c0, _ = REGION
    for (top, left, height, width), label, certainty in (
        ((36, 30, 40, 40), "Nodule", 0.8), ((70, 74, 30, 44), "Opacity", 0.4),
    ):  # fmt: skip
        extent = (k0, 1, r0 + top, r0 + top + height, c0 + left, c0 + left + width)
        display.showHandles(box_nodes.addBox(film, extent, label, "A. Reader", certainty), label == "Nodule")
    draw("boxes", view.picture())
    viewing.stop()
    close(view, before, after)


def ct(enhancer, draw):
    volume = core.moduleLogics["Volumes"].AddArchetypeVolume(get_testdata_file("CT_small.dcm"), "CT_small", 4 | 8)
    core.newSubjectHierarchyItems()
    core.setModality(volume, "CT")
    volume.GetDisplayNode().SetAutoWindowLevel(0)
    volume.GetDisplayNode().SetWindowLevel(1600, 350)
    before, after = (SliceView(core, name, WIDTH // 2, HEIGHT) for name in (compare.BEFORE, compare.AFTER))
    result = enhancer.enhance(volume, drawing.addRegion(volume, (0, 1, 40, 104, 30, 94)))
    viewing = Viewing(core.logic)
    viewing.show("sideBySide", result)
    draw("ct", before.picture(), after.picture())
    viewing.stop()
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
