"""Measure how long a user waits from a click to the result, and how long the interface is blocked meanwhile.

    python -m pytest -s slicer_extension/SuperResolution/Testing/Python/benchmark.py

First a drawn radiograph of 2000 x 2000 pixels: a box of 128 x 128 is enhanced at several places, drawn in a view of
1000 x 1000 pixels, compared with its original, and canceled; wall time. Then the open panel at rest, and what a user
does with a large result: how long each click takes, and the longest of the ticks after it, in seconds of this thread.
"""

import os
import time

import numpy as np
import phantom_volumes
import pytest
import slicer
from SuperResolutionLib import filling, region, result_nodes
from SuperResolutionLib.enhancer import Enhancer
from SuperResolutionLib.viewing import DIFFERENCE, IN_PLACE, Viewing
from waiting import waitFor

os.environ["OMP_NUM_THREADS"] = "2"  # for the worker
FILM, BOX, PLACES = 2000, 128, 12
SLICES, SIDE = 100, 1024  # slices, and rows and columns, of the large result


@pytest.fixture
def film(application):
    rows, columns = np.mgrid[0:FILM, 0:FILM]
    pixels = (2000 + 1000 * np.sin(rows / 9) * np.cos(columns / 7)).astype(np.uint16)[None]
    return application.addVolume(pixels, np.diag([-0.15, -0.15, 1.0, 1.0]), modality="DX")


def test_click_to_result(application, sliceView, film, worker):
    enhancer, viewing = Enhancer(worker), Viewing(application.logic)
    box = application.addRoi()
    view = sliceView("Red", 1000, 1000)
    view.show(film)
    for errorBars in (True, False):
        toResult, toPicture = [], []
        for index in range(PLACES + 1):
            region.placeBox(box, film, [0, 1, 900, 900 + BOX, 300 + 40 * index, 300 + 40 * index + BOX])
            start = time.perf_counter()
            result = enhancer.enhance(film, box, errorBars=errorBars)
            toResult.append(time.perf_counter() - start)
            viewing.show(IN_PLACE, result)
            view.picture()
            toPicture.append(time.perf_counter() - start)
        print(f"click to result, error bars {'on' if errorBars else 'off'}: first {toResult[0]:.2f} s, then median "
              f"{np.median(toResult[1:]):.2f} s; click to visible: {np.median(toPicture[1:]):.2f} s")  # fmt: skip
    renders = []
    view.window.AddObserver("EndEvent", lambda *_: renders.append(1))
    start = time.process_time()
    viewing.showOriginal(True)
    view.picture()
    took = 1000 * (time.process_time() - start)
    print(f"before/after: {len(renders)} render call, drawn in {took:.0f} ms of processor")
    viewing.stop()


def test_panel_at_rest(panel, module):
    panel.settle()
    start, ticks = time.thread_time(), 1000
    for _ in range(ticks):
        panel.widget.onTick()
    perSecond = 1000 / module.IDLE_MS * (time.thread_time() - start) / ticks
    print(f"an open panel at rest: {100 * perSecond:.3f} % of a processor")


def test_cancel(film, worker):
    worker.enhance(slicer.util.arrayFromVolume(film), region=[0, 1, 0, FILM, 0, FILM], modality="CXR")
    waitFor(lambda: any(event["event"] == "progress" for event in worker.poll()))
    start = time.perf_counter()
    worker.cancel()
    returned = time.perf_counter() - start
    waitFor(lambda: not worker.isEnding, worker.poll)
    print(f"cancel: {1000 * returned:.2f} ms, the process ended after {time.perf_counter() - start:.2f} s")


def test_large_result(application):
    coarse = SIDE // phantom_volumes.SCALE
    rows, columns = np.mgrid[0:coarse, 0:coarse]
    slices = np.stack([1000 * np.sin(rows / 9 + k) * np.cos(columns / 7) for k in range(SLICES)])
    source = application.addVolume(slices.astype(np.int16), phantom_volumes.GRID)
    fine = slices.repeat(phantom_volumes.SCALE, 1).repeat(phantom_volumes.SCALE, 2).astype(np.int16)
    bars = np.abs(fine).astype(np.float32) / 20
    viewing, arguments = Viewing(application.logic), (source, fine, region.whole(source), phantom_volumes.DONE, bars)
    print(f"a result of {SLICES} x {SIDE} x {SIDE} voxels, {fine.nbytes / 1e6:.0f} MB:")
    result = measureClick("a result comes", lambda: result_nodes.addResult(*arguments))
    measureClick("Show error bars", lambda: viewing.showErrorBars(result, 0.0))
    measureClick("Difference", lambda: viewing.show(DIFFERENCE, result))
    measureClick("Difference, off", viewing.stop)
    measureClick("the result is removed", lambda: result_nodes.remove(result))


def measureClick(what, action):
    start = time.thread_time()
    returned = action()
    clicked, ticks = time.thread_time() - start, []
    while filling.isBusy():
        start = time.thread_time()
        filling.step()
        ticks.append(time.thread_time() - start)
    after = f", then {len(ticks)} ticks, the longest {1000 * max(ticks):.0f} ms" if ticks else ""
    print(f"  {what:<24} {1000 * clicked:6.1f} ms{after}")
    return returned
