"""From a click to the result, on this machine, and where the time goes.

    python slicer_extension/SuperResolution/Testing/Python/benchmark_worker.py [--threads 2] [--moves 12]

A drawn radiograph of 2000 x 2000 pixels; a box of 128 x 128, which becomes 512 x 512 by the default bundle, is moved
with Live on, by the same code as the panel's, looked after every 20 ms as its timer does. The scene is Slicer's own, of
the package slicer-core. Wall time is what a user waits; the worker's processor seconds do not depend on what else the
machine does. "Click to visible" is Run in another place, until a view of 1000 x 1000 pixels has drawn the framed
result.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent), str(HERE.parents[2])]

from slicer_application import Application  # noqa: E402
from SuperResolutionLib import region, result_nodes  # noqa: E402
from SuperResolutionLib.child_process import environmentFor  # noqa: E402
from SuperResolutionLib.controller import Choice  # noqa: E402
from SuperResolutionLib.enhancer import BOX, Enhancer  # noqa: E402
from SuperResolutionLib.viewing import IN_PLACE, Viewing  # noqa: E402
from SuperResolutionLib.worker_client import WorkerClient, workerCommand  # noqa: E402

TICK = 0.02
SIDE, FILM = 128, 2000


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--python", default=sys.executable, help="with monai-sr-bundle and its dependencies")
    parser.add_argument("--moves", type=int, default=12)
    options = parser.parse_args()
    environment = {**environmentFor(options.python), "OMP_NUM_THREADS": str(options.threads)}
    environment["PYTHONPATH"] = str(HERE.parents[4])
    application = Application()
    worker = WorkerClient(workerCommand(options.python), environment)
    enhancer = Watched(worker)
    volume = application.addVolume(drawRadiograph(), np.diag([-0.3, -0.3, 1.0, 1.0]), "drawn")
    box = application.addRoi(volume, [0, 1, 900, 900 + SIDE, 448, 448 + SIDE])

    print(f"{options.threads} threads, {len(os.sched_getaffinity(0))} cores, {options.moves} moves")
    for errorBars in (True, False):
        choice = Choice(errorBars=errorBars, live=True)
        first = moved(enhancer, volume, box, choice)
        print(f"\nerror bars {'on' if errorBars else 'off'}; first result {first['click to result']:.2f} s")
        rows = []
        for move in range(options.moves):
            left = 300 + 40 * move
            region.placeBox(box, volume, [0, 1, 900, 900 + SIDE, left, left + SIDE])
            rows.append(moved(enhancer, volume, box, choice))
        for name in first:
            seconds = [1000 * each[name] for each in rows]
            print(f"  {name:<24} median {statistics.median(seconds):6.0f} ms, fastest {min(seconds):6.0f}")
    clickToVisible(application, enhancer, volume, box, options.moves)
    print(f"\nlongest tick: {1000 * enhancer.longest:.1f} ms")
    print(f"most memory the worker has held: {highWaterMark(worker) / 2**20:.0f} MiB")
    cancel(worker)
    application.close()


class Watched(Enhancer):
    """An enhancer that notes its longest step."""

    def __init__(self, worker):
        super().__init__(worker)
        self.worker, self.longest = worker, 0.0

    def step(self):
        start = time.perf_counter()
        added = super().step()
        self.longest = max(self.longest, time.perf_counter() - start)
        return added


def moved(enhancer, volume, box, choice):
    """Wait for the result of a box that was moved just now. Returns seconds, by what they were spent on."""
    before = processorSeconds(enhancer.worker)
    start = time.perf_counter()
    enhancer.choose(volume, BOX, box, choice)
    while not (added := enhancer.step()):
        panel = enhancer.controller.panel()
        if panel.absence or panel.messageIsError:
            raise SystemExit(panel.absence or panel.message)
        enhancer.controller.requestRun()  # where the estimate is too long for Live to follow; else it runs already
        time.sleep(TICK)
    seconds, done = time.perf_counter() - start, result_nodes.reportOf(added[0])
    return {
        "click to result": seconds,
        "network": done["networkSeconds"],
        "rest of the worker": done["seconds"] - done["networkSeconds"],
        "outside the worker": seconds - done["seconds"],
        "processor of the worker": processorSeconds(enhancer.worker) - before,
    }


def clickToVisible(application, enhancer, volume, box, moves):
    """Press Run for regions that were planned already, and look until each result is seen."""
    from sliceview import SliceView

    view, viewing = SliceView(application, "Red", 1000, 1000), Viewing(application.logic)
    seconds, processor = [], []
    view.show(volume)
    view.picture()
    for move in range(moves):
        left = 320 + 40 * move
        region.placeBox(box, volume, [0, 1, 1200, 1200 + SIDE, left, left + SIDE])
        enhancer.choose(volume, BOX, box, Choice())
        while not enhancer.controller.panel().canRun:
            enhancer.step()
            time.sleep(TICK)
        start, used = time.perf_counter(), processorSeconds(enhancer.worker) + time.process_time()
        enhancer.controller.requestRun()
        while not (added := enhancer.step()):
            time.sleep(TICK)
        viewing.show(IN_PLACE, added[0])
        view.picture()
        seconds.append(time.perf_counter() - start)
        processor.append(processorSeconds(enhancer.worker) + time.process_time() - used)
    viewing.stop()
    view.close(application)
    print(f"\nclick to visible: median {statistics.median(seconds):.2f} s, fastest {min(seconds):.2f}; "
          f"processor of both processes {statistics.median(processor):.2f} s")  # fmt: skip


def cancel(worker):
    """Measure how long it takes to end running work."""
    worker.enhance(drawRadiograph(), [0, 1, 0, FILM, 0, FILM], "CXR")
    while not any(event["event"] == "progress" for event in worker.poll()):
        time.sleep(TICK)
    process = worker._process
    start = time.perf_counter()
    worker.cancel()
    print(f"cancel returned after {1000 * (time.perf_counter() - start):.2f} ms", end="")
    while not process.pursue():
        time.sleep(0.005)
    print(f", the worker was gone after {time.perf_counter() - start:.2f} s")
    worker.close()


def drawRadiograph():
    """Smooth shadows and fine lines with a little noise; [1, FILM, FILM] uint16 of 12 bits."""
    rows, columns = np.mgrid[0:FILM, 0:FILM] / 1024
    shadows = np.sin(7 * rows) * np.cos(5 * columns) + 0.3 * np.sin(60 * rows + 9 * columns)
    noise = np.random.default_rng(0).standard_normal(rows.shape)
    return np.rint(2000 + 900 * shadows + 15 * noise).clip(0, 4095).astype(np.uint16)[None]


def processorSeconds(worker):
    """Return the processor time of all threads of the worker so far, on Linux."""
    process = worker._process
    if process is None or process.identity is None:
        return 0.0
    fields = Path(f"/proc/{process.identity}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def highWaterMark(worker):
    """Bytes that the worker has held at the most; Linux alone tells."""
    status = Path(f"/proc/{worker._process.identity}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if "VmHWM" in line).split()[1])


if __name__ == "__main__":
    main()
