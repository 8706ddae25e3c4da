"""Measure how long the interface is blocked while a large result is shown, a box measured, a film read.

    python slicer_extension/SuperResolution/Testing/Python/benchmark_interface.py [--slices 100] [--side 1024]

Each line is one thing a user does with a result of that size: how long the click itself takes, and the longest of the
ticks after it, of which the panel's timer makes one every 20 ms. Seconds of this thread: what else the machine does
counts for nothing. Of what is done in another thread it is the longest time that this one could not go on, by the
clock. The scene is Slicer's own, of the package slicer-core; drawing the views is not in it.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent), str(HERE.parents[2])]

import phantom_volumes  # noqa: E402
from slicer_application import Application  # noqa: E402

application = Application()

import slicer  # noqa: E402
from SuperResolutionLib import (  # noqa: E402
    box_nodes,
    box_statistics,
    enhancer,
    filling,
    headers,
    install,
    region,
    result_nodes,
    volumes,
)
from SuperResolutionLib.viewing import Viewing  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--side", type=int, default=1024, help="rows and columns of the result")
    options = parser.parse_args()
    coarse = options.side // phantom_volumes.SCALE
    rows, columns = np.mgrid[0:coarse, 0:coarse]
    slices = [1000 * np.sin(rows / 9 + k) * np.cos(columns / 7) for k in range(options.slices)]
    source = application.addVolume(np.stack(slices).astype(np.int16), phantom_volumes.GRID, "chest")
    source.GetDisplayNode().SetAutoWindowLevel(0)
    fine = np.repeat(np.repeat(np.stack(slices), phantom_volumes.SCALE, 1), phantom_volumes.SCALE, 2).astype(np.int16)
    bars = np.abs(fine).astype(np.float32) / 20
    viewing, extent = Viewing(application.logic), region.whole(source)

    print(f"a result of {options.slices} x {options.side} x {options.side} voxels, {fine.nbytes / 1e6:.0f} MB")
    results = []
    did(
        "a result comes",
        lambda: results.append(result_nodes.addResult(source, fine, extent, phantom_volumes.DONE, bars, wait=False)),
    )
    (result,) = results
    did("Show error bars", lambda: viewing.showErrorBars(result, 0.0, "HU"))
    did("Mark above tolerance", lambda: viewing.showMask(result, 25.0))
    did("  its share in words", lambda: viewing.maskText(result))
    did("Difference", lambda: viewing.show("difference", result))
    did("Difference, off", viewing.stop)
    did("the choice changes", lambda: enhancer.subjectOf(source, extent))
    did("the image goes out", lambda: volumes.voxelsOf(source))
    for side in (32, 64, 128, 256):
        if side < coarse:
            measure(source, result, side)
    did("the result is removed", lambda: result_nodes.remove(result))
    readFilm()
    installation = install.Installation("base", source=tempfile.gettempdir())
    timeTicks("Install… looks", lambda: any(event["event"] == "failed" for event in installation.poll()))
    application.close()


def did(what, action):
    start = time.thread_time()
    action()
    clicked = time.thread_time() - start
    ticks = []
    while filling.isBusy():
        start = time.thread_time()
        filling.step()
        ticks.append(time.thread_time() - start)
    usual = 1000 * np.median(ticks or [0])
    after = f", then {len(ticks)} ticks of {usual:.0f} ms, the longest {1000 * max(ticks):.0f} ms" if ticks else ""
    print(f"  {what:<24} {1000 * clicked:6.1f} ms{after}")


def measure(source, result, side):
    """The figures of a box, as the panel's timer computes them."""
    first = (volumes.shapeOf(source)[1] - side) // 2
    bounds = [0, 1, first, first + side, first, first + side]
    box, measuring = box_nodes.addBox(source, bounds, "Nodule", "A. Reader", 0.5), box_statistics.BoxMeasurement()
    ticks = []
    while measuring.isBusy or not ticks:
        start = time.thread_time()
        measuring.step(box, result)
        ticks.append(time.thread_time() - start)
    box_nodes.removeBox(box)
    print(f"  a box of {side} pixels         {len(ticks):4d} ticks, the longest {1000 * max(ticks):.0f} ms")


def readFilm():
    """A film of 3000 x 2500 pixels; as compressed NRRD, by the reader that hands DICOM to GDCM."""
    rows, columns = np.mgrid[0:3000, 0:2500]
    film = application.addVolume((2000 + 1000 * np.sin(rows / 9) * np.cos(columns / 7)).astype(np.int16)[None])
    with tempfile.TemporaryDirectory() as folder:
        storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
        storage.SetFileName(f"{folder}/film.nrrd")
        storage.WriteData(film)
        read = headers._Film(storage.GetFileName())
        timeTicks("a MONOCHROME1 film", lambda: not read.is_alive())


def timeTicks(what, isOver):
    """Time the ticks of this thread while another thread works."""
    start = last = time.perf_counter()
    longest = 0.0
    while not isOver():
        time.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    print(f"  {what:<24} {1000 * (last - start):6.0f} ms in a thread, the longest block {1000 * longest:.0f} ms")


if __name__ == "__main__":
    main()
