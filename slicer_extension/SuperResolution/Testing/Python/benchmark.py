"""Measure how long a user waits from a click to the result, and how long the interface is blocked meanwhile.

    python slicer_extension/SuperResolution/Testing/Python/benchmark.py

First a drawn radiograph of 2000 x 2000 pixels: a box of 128 x 128 is moved with Live on, then enhanced by Run and drawn
in a view of 1000 x 1000 pixels, compared with its original, and canceled. All of that is wall time, by the same code as
the panel's, called every 20 ms as by its timer. Then what a user does with a large result: how long each click takes,
and the longest of the ticks after it, in seconds of this thread. The scene is Slicer's own, of the package slicer-core;
the worker computes with two threads.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent), str(HERE.parents[2])]

import phantom_volumes  # noqa: E402
from slicer_application import Application  # noqa: E402

application = Application()

import slicerpython  # noqa: E402
from sliceview import SliceView  # noqa: E402
from SuperResolutionLib import enhancer, filling, region, result_nodes, volumes  # noqa: E402
from SuperResolutionLib.child_process import environmentFor  # noqa: E402
from SuperResolutionLib.controller import Choice  # noqa: E402
from SuperResolutionLib.viewing import DIFFERENCE, IN_PLACE, Viewing  # noqa: E402
from SuperResolutionLib.worker_client import WorkerClient, workerCommand  # noqa: E402

PYTHON = os.environ.get("SUPERRESOLUTION_PYTHON") or sys.executable
TICK, FILM, BOX, MOVES = 0.02, 2000, 128, 12
SLICES, SIDE = 100, 1024  # slices, and rows and columns, of the large result


def main():
    measureFilm()
    application.clear()
    measureLargeResult()
    measureRest()
    application.close()


def measureFilm():
    environment = {**environmentFor(PYTHON), "OMP_NUM_THREADS": "2", "PYTHONPATH": str(HERE.parents[4])}
    worker = WorkerClient(workerCommand(PYTHON), environment)
    link = enhancer.Enhancer(worker)
    rows, columns = np.mgrid[0:FILM, 0:FILM]
    pixels = (2000 + 1000 * np.sin(rows / 9) * np.cos(columns / 7)).astype(np.uint16)[None]
    film = application.addVolume(pixels, np.diag([-0.15, -0.15, 1.0, 1.0]))
    box = application.addRoi(film, [0, 1, 900, 900 + BOX, 0, BOX])

    def choose(move, choice):
        region.placeBox(box, film, [0, 1, 900, 900 + BOX, 300 + 40 * move, 300 + 40 * move + BOX])
        link.choose(film, enhancer.BOX, box, choice)

    def step(isOver):
        while not (added := link.step()) and not isOver():
            panel = link.controller.panel()
            if panel.absence or panel.messageIsError:
                raise SystemExit(panel.absence or panel.message)
            time.sleep(TICK)
        return added

    for errorBars in (True, False):
        seconds = []
        for move in range(MOVES + 1):
            start = time.perf_counter()
            choose(move, Choice(errorBars=errorBars, live=True))
            (result,) = step(link.controller.requestRun)  # where the estimate is too long for Live to follow
            seconds.append(time.perf_counter() - start)
        network = result_nodes.reportOf(result)["networkSeconds"]
        print(f"click to result, error bars {'on' if errorBars else 'off'}: first {seconds[0]:.2f} s, then median "
              f"{np.median(seconds[1:]):.2f} s, of which {network:.2f} s in the network")  # fmt: skip
    view, viewing, seconds = SliceView(application, "Red", 1000, 1000), Viewing(application.logic), []
    view.show(film)
    view.picture()
    for move in range(MOVES):
        choose(move, Choice(seed=1))
        step(lambda: link.controller.panel().canRun)
        start = time.perf_counter()
        link.controller.requestRun()
        (result,) = step(lambda: False)
        viewing.show(IN_PLACE, result)
        view.picture()
        seconds.append(time.perf_counter() - start)
    print(f"click to visible: median {np.median(seconds):.2f} s")
    renders, seconds = [], []
    view.window.AddObserver("EndEvent", lambda *_: renders.append(1))
    for isOriginal in [True, False] * 10:
        renders.clear()
        start = time.process_time()
        viewing.showOriginal(isOriginal)
        changed = time.process_time() - start
        view.picture()
        seconds.append(time.process_time() - start)
    print(f"before/after: {len(renders)} render call; {1000 * changed:.1f} ms of processor, drawn in "
          f"{1000 * np.median(seconds):.0f} ms")  # fmt: skip
    viewing.stop()
    view.close(application)
    worker.enhance(pixels, region=[0, 1, 0, FILM, 0, FILM], modality="CXR")
    while not any(event["event"] == "progress" for event in worker.poll()):
        time.sleep(TICK)
    start = time.perf_counter()
    worker.cancel()
    returned = time.perf_counter() - start
    while worker.isEnding:
        worker.poll()
        time.sleep(0.005)
    print(f"cancel: {1000 * returned:.2f} ms, the process ended after {time.perf_counter() - start:.2f} s")
    worker.close()


def measureLargeResult():
    coarse = SIDE // phantom_volumes.SCALE
    rows, columns = np.mgrid[0:coarse, 0:coarse]
    slices = np.stack([1000 * np.sin(rows / 9 + k) * np.cos(columns / 7) for k in range(SLICES)])
    source = application.addVolume(slices.astype(np.int16), phantom_volumes.GRID)
    source.GetDisplayNode().SetAutoWindowLevel(0)
    fine = slices.repeat(phantom_volumes.SCALE, 1).repeat(phantom_volumes.SCALE, 2).astype(np.int16)
    bars = np.abs(fine).astype(np.float32) / 20
    viewing, extent, results = Viewing(application.logic), region.whole(source), []
    print(f"a result of {SLICES} x {SIDE} x {SIDE} voxels, {fine.nbytes / 1e6:.0f} MB:")
    arguments = source, fine, extent, phantom_volumes.DONE, bars
    measureClick("a result comes", lambda: results.append(result_nodes.addResult(*arguments)))
    (result,) = results
    measureClick("Show error bars", lambda: viewing.showErrorBars(result, 0.0))
    measureClick("Mark above tolerance", lambda: viewing.showMask(result, 25.0))
    measureClick("  its share in words", lambda: viewing.maskText(result))
    measureClick("Difference", lambda: viewing.show(DIFFERENCE, result))
    measureClick("Difference, off", viewing.stop)
    measureClick("the choice changes", lambda: enhancer.subjectOf(source, extent))
    measureClick("the image goes out", lambda: volumes.voxelsOf(source))
    measureClick("the result is removed", lambda: result_nodes.remove(result))


def measureClick(what, action):
    start = time.thread_time()
    action()
    clicked, ticks = time.thread_time() - start, []
    while filling.isBusy():
        start = time.thread_time()
        filling.step()
        ticks.append(time.thread_time() - start)
    after = f", then {len(ticks)} ticks, the longest {1000 * max(ticks):.0f} ms" if ticks else ""
    print(f"  {what:<24} {1000 * clicked:6.1f} ms{after}")


def measureRest():
    """Measure the cost of an open panel without work: its tick, as often as its timer calls it."""
    slicerpython.start(application)
    module = slicerpython.openModule(HERE.parents[2] / "SuperResolution.py")
    module.newClient = lambda python=None: WorkerClient(workerCommand(sys.executable))
    panel = module.SuperResolutionWidget()
    panel.logic.enhancer.controller.setAbsent("as after an installation that is missing")
    for _ in range(3):
        panel.onTick()
    start, count = time.thread_time(), 1000
    for _ in range(count):
        panel.onTick()
    perSecond = 1000 / module.IDLE_MS * (time.thread_time() - start) / count
    print(f"an open panel at rest: {100 * perSecond:.3f} % of a processor")
    panel.cleanup()


if __name__ == "__main__":
    main()
