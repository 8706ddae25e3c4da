"""Measure how long the interface is blocked while a large result is shown, a film compared and read, and at rest.

    python slicer_extension/SuperResolution/Testing/Python/benchmark_interface.py [--slices 100] [--side 1024]

Each line is one thing a user does with a result of that size: how long the click itself takes, and the longest of the
ticks after it, of which the panel's timer makes one every 20 ms. Seconds of this thread: what else the machine does
counts for nothing. Of what is done in another thread it is the longest time that this one could not go on, by the
clock. The scene is Slicer's own, of the package slicer-core; drawing the views is in the lines on the film alone.
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
from SuperResolutionLib import enhancer, filling, headers, install, region, result_nodes, volumes  # noqa: E402
from SuperResolutionLib.viewing import DIFFERENCE, Viewing  # noqa: E402

SIDE = 2000
"""Rows and columns of the film."""


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
    add = lambda: result_nodes.addResult(source, fine, extent, phantom_volumes.DONE, bars, wait=False)  # noqa: E731
    did("a result comes", lambda: results.append(add()))
    (result,) = results
    did("Show error bars", lambda: viewing.showErrorBars(result, 0.0))
    did("Mark above tolerance", lambda: viewing.showMask(result, 25.0))
    did("  its share in words", lambda: viewing.maskText(result))
    did("Difference", lambda: viewing.show(DIFFERENCE, result))
    did("Difference, off", viewing.stop)
    did("the choice changes", lambda: enhancer.subjectOf(source, extent))
    did("the image goes out", lambda: volumes.voxelsOf(source))
    did("the result is removed", lambda: result_nodes.remove(result))
    compareFilm()
    rest()
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


def compareFilm():
    """Show a result of 128 x 128 pixels on a film, and the original in its place, in a view of 1000 x 1000 pixels."""
    from sliceview import SliceView

    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    drawn = (2000 + 1000 * np.sin(rows / 9) * np.cos(columns / 7)).astype(np.int16)[None]
    film = application.addVolume(drawn, np.diag([-0.15, -0.15, 1, 1.0]))
    view = SliceView(application, "Red", 1000, 1000)
    view.show(film)
    view.picture()
    extent = [0, 1, 900, 1028, 900, 1028]
    fine = drawn[:, 900:1028, 900:1028].repeat(4, 1).repeat(4, 2)
    result = result_nodes.addResult(film, fine, extent, phantom_volumes.DONE)
    viewing, renders = Viewing(application.logic), []
    view.window.AddObserver("EndEvent", lambda *_: renders.append(1))
    start = time.process_time()
    viewing.show("inPlace", result)
    view.picture()
    print(
        f"  film of {SIDE} pixels      framed and drawn by {1000 * (time.process_time() - start):.0f} ms of processor"
    )
    seconds = []
    for isOriginal in [True, False] * 10:
        renders.clear()
        start = time.process_time()
        viewing.showOriginal(isOriginal)
        changed = time.process_time() - start
        view.picture()
        seconds.append(time.process_time() - start)
    middle = 1000 * np.median(seconds)
    ours = 1000 * changed
    print(f"  before/after             {len(renders)} render call; {ours:.1f} ms of processor, drawn {middle:.0f} ms")
    viewing.stop()
    view.close(application)


def rest():
    """What an open panel without work costs: its tick, as often as its timer calls it."""
    import slicerpython
    from SuperResolutionLib import worker_client

    slicerpython.start(application)
    module = slicerpython.openModule(HERE.parents[2] / "SuperResolution.py")
    module.newClient = lambda python=None: worker_client.WorkerClient(worker_client.workerCommand(sys.executable))
    panel = module.SuperResolutionWidget()
    panel.logic.enhancer.controller.setAbsent("as after an installation that is missing")
    for _ in range(3):
        panel.onTick()
    start, count = time.thread_time(), 1000
    for _ in range(count):
        panel.onTick()
    perSecond = 1000 / module.IDLE_MS * (time.thread_time() - start) / count
    print(f"  an open panel at rest    {100 * perSecond:.3f} % of a processor")
    panel.cleanup()


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
