"""Measure what a batch costs beside the images themselves: `python docs/batch_overhead.py [N] [ENGINE...]`.

N small drawn films (default 2000) are enlarged by bicubic interpolation, in one process, in two (`jobs`) and on a Ray
cluster of this machine (`ray`). The overhead of an image is the time of all cores from the first result to the last,
less what the images say that they took, over their number.
"""

import os
import shutil
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from monai_sr_bundle.cli.events import Finished
from monai_sr_bundle.cli.jobs import Job
from monai_sr_bundle.datasets.phantom import write_phantom_png

ENGINES = {"one": {}, "jobs": {"jobs": 2}, "ray": {"engine": "ray"}}
SIDE = 48


def measure(films: Path, out: Path, engine: str) -> str:
    """Run one batch and return a line about it."""
    finished: list[tuple[float, float]] = []

    def listen(event):
        if isinstance(event, Finished):
            finished.append((time.perf_counter(), event.seconds))

    start = time.perf_counter()
    errors = Job([films], f"{out}/", backend="onnx", bundle="bicubic", **ENGINES[engine]).run(listen)
    wall = time.perf_counter() - start
    if errors:
        raise SystemExit(f"{engine}: {errors[0]}")
    processes = 2 if engine == "jobs" else os.cpu_count() if engine == "ray" else 1
    span = finished[-1][0] - finished[0][0]
    work = sum(seconds for _, seconds in finished[1:])
    overhead = 1000 * (processes * span - work) / (len(finished) - 1)
    return (
        f"{engine}: {len(finished)} images, {processes} at once, {wall:.1f} s, first result after "
        f"{finished[0][0] - start:.1f} s; {1000 * work / (len(finished) - 1):.2f} ms of work and {overhead:.2f} ms of "
        "overhead an image"
    )


def main(words: list[str]) -> None:
    """Measure the engines that are named, or all."""
    count, engines = int(words[0]) if words else 2000, words[1:] or [*ENGINES]
    if "ray" in engines and find_spec("ray") is None:
        raise SystemExit(
            "ray is not installed here. Install it with `pip install '.[cluster]'` in this package's folder, or name "
            f"the other engines: python docs/batch_overhead.py {count} one jobs"
        )
    with tempfile.TemporaryDirectory() as folder:
        films = Path(folder, "films")
        films.mkdir()
        write_phantom_png(films / "000000.png", size=SIDE)
        for number in range(1, count):
            shutil.copy(films / "000000.png", films / f"{number:06d}.png")
        for engine in engines:
            print(measure(films, Path(folder, engine), engine), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
