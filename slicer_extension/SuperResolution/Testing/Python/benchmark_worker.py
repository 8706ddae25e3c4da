"""From a click to the result, on this machine: `python benchmark_worker.py [--threads 2] [--python PYTHON]`.

A drawn radiograph of 1024 x 1024 pixels; a region of 128 x 128 becomes 512 x 512 by the default bundle. Wall time is
what a user waits; the worker's processor seconds do not depend on what else the machine does.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))

from SuperResolutionLib.jobs import Worker, workerCommand  # noqa: E402
from SuperResolutionLib.process import environmentFor  # noqa: E402

REGION = [0, 1, 448, 576, 448, 576]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--python", default=sys.executable, help="with monai-sr-bundle and its dependencies")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    environment = {**environmentFor(options.python), "OMP_NUM_THREADS": str(options.threads)}
    environment["PYTHONPATH"] = str(HERE.parents[4])
    worker = Worker(workerCommand(options.python), environment)
    film = drawn()

    began = time.perf_counter()
    worker.start()
    wait(worker, lambda event: event["event"] == "ready")
    print(f"start until ready: {time.perf_counter() - began:.2f} s")

    seconds, _ = measured(worker, lambda: worker.plan(film.shape, REGION, "CXR", errorBars=True), "planned")
    print(f"first plan, which loads the bundle and measures the machine: {seconds:.2f} s")
    for bars in (False, True):
        times = []
        for _ in range(options.repeats):

            def ask(bars=bars):
                spacing = [1.0, 0.3, 0.3]
                return worker.enhance(film, REGION, "CXR", key="film", live=True, errorBars=bars, spacingZYX=spacing)

            used = processorSeconds(worker)
            seconds, done = measured(worker, ask, "done")
            times.append((seconds, done["seconds"], processorSeconds(worker) - used))
        wall, inside, used = (statistics.median(column) for column in zip(*times))
        print(
            f"click to result, error bars {'on' if bars else 'off'}: {wall:.2f} s (in the worker {inside:.2f} s, "
            f"processor {used:.2f} s), median of {options.repeats}, fastest {min(times)[0]:.2f} s"
        )
    peak = next(
        line for line in Path(f"/proc/{worker._process.identity}/status").read_text().splitlines() if "VmHWM" in line
    )
    print(f"most memory the worker has held: {int(peak.split()[1]) / 1024:.0f} MiB")

    worker.enhance(film, [0, 1, 0, 1024, 0, 1024], "CXR", key="film")
    wait(worker, lambda event: event["event"] == "progress")
    process = worker._process
    began = time.perf_counter()
    worker.cancel()
    print(f"cancel returned after {1000 * (time.perf_counter() - began):.2f} ms", end="")
    while not process.pursue():
        time.sleep(0.005)
    print(f", the worker was gone after {time.perf_counter() - began:.2f} s")
    began = time.perf_counter()
    seconds, _ = measured(worker, lambda: worker.enhance(film, REGION, "CXR", key="film"), "done")
    print(f"click to result with a fresh worker after that: {seconds:.2f} s")
    worker.close()


def drawn():
    """Smooth shadows and fine lines with a little noise; [1, 1024, 1024] uint16 of 12 bits."""
    rows, columns = np.mgrid[0:1024, 0:1024] / 1024
    shadows = np.sin(7 * rows) * np.cos(5 * columns) + 0.3 * np.sin(60 * rows + 9 * columns)
    noise = np.random.default_rng(0).standard_normal(rows.shape)
    return np.rint(2000 + 900 * shadows + 15 * noise).clip(0, 4095).astype(np.uint16)[None]


def measured(worker, ask, name):
    """Seconds from asking to the answer, as a panel that looks every 10 ms sees them; and the answer."""
    began = time.perf_counter()
    number = ask()
    event = wait(worker, lambda event: event.get("id") == number and event["event"] in (name, "failed"))
    if event["event"] == "failed":
        raise SystemExit(event["message"])
    return time.perf_counter() - began, event


def wait(worker, isIt):
    while True:
        for event in worker.poll():
            if isIt(event):
                return event
        time.sleep(0.01)


def processorSeconds(worker):
    """That the worker has used until now, of all its threads; Linux alone tells."""
    import os

    fields = Path(f"/proc/{worker._process.identity}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
