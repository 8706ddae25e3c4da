"""Measure the server's speed, and look for lost boxes after kills: `python monailabel_app/tests/measure_targets.py`.

Prints one line a figure, and the machine with its load, which speed depends on. With `--kills 0` in some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from drawn_readings import box, reading
from labelled import tiny_bundle, write_images
from monai_sr_bundle.boxes.readings import ImageIdentity, format_readings
from processes import Server, wait_for

BUNDLE = "chest_xray_edsr_x4"
SUBMISSIONS = 200


def main() -> int:
    """Measure all, and print it."""
    parser = argparse.ArgumentParser(description="Speed and safety of the labelling server on this machine.")
    parser.add_argument("--kills", type=int, default=100, help="times that the server is killed (default 100)")
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as folder:
        print(f"machine: {os.cpu_count()} cores, {_processor()}, load {os.getloadavg()[0]:.1f}", flush=True)
        for measure in (measure_start, measure_listing, measure_submissions):
            print(measure(Path(folder, measure.__name__)), flush=True)
        print(count_lost_boxes(Path(folder, "kills"), kills))
        print(f"load at the end: {os.getloadavg()[0]:.1f}")
    return 0


def measure_start(folder: Path) -> str:
    """Start the server with all bundles three times, until it answers."""
    write_images(folder / "studies")
    server = Server(folder / "studies", folder / "store")
    seconds = []
    for _ in range(3):
        seconds.append(_timed(server.start))
        first_info = _timed(lambda: server.get("/info/"))
        server.stop()
    return f"server ready: {_list(seconds)} s; the first /info/ after it {first_info:.1f} s"


def measure_listing(folder: Path) -> str:
    """List 10,000 images, which are hard links of ten files."""
    (folder / "studies").mkdir(parents=True)
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 255, (512, 512), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    for number in range(10_000):
        (folder / "studies" / f"{number:05d}.png").hardlink_to(folder / f"{number % 10}.png")
    server = Server(folder / "studies", folder / "store").start()
    names: list[int] = []
    seconds = [_timed(lambda: names.append(len(_names(server)))) for _ in range(3)]
    server.stop()
    return f"{names[0]:,} images listed: {seconds[0]:.1f} s, then {_list(seconds[1:])} s"


def measure_submissions(folder: Path) -> str:
    """Submit boxes one after the other while a bundle of full size is trained."""
    sides = write_images(folder / "studies", size=256)
    server = Server(folder / "studies", folder / "store").start()
    for name in sides:
        _submit(server, name, "ada", 0)
    job = server.send("POST", f"/train/{BUNDLE}", json={"iterations": 100_000})["job"]
    wait_for(lambda: server.get(f"/train/{job}").get("fraction", 0) > 0, 600)
    image = next(iter(sides))
    seconds = [_timed(partial(_submit, server, image, "bob", number)) for number in range(SUBMISSIONS)]
    state = server.get(f"/train/{job}")["state"]
    server.send("DELETE", f"/train/{job}")
    server.stop()
    median, slowest = 1000 * statistics.median(seconds), 1000 * max(seconds)
    return f"{SUBMISSIONS} submissions during a {state}: median {median:.0f} ms, slowest {slowest:.0f} ms"


def count_lost_boxes(folder: Path, kills: int) -> str:
    """Kill the server while two readers submit, start it again, and look for every version that was acknowledged."""
    image = next(iter(write_images(folder / "studies", train=1, val=0, test=0)))
    server = Server(folder / "studies", folder / "store", str(tiny_bundle(folder)))
    random = np.random.default_rng(0)
    acknowledged: dict[str, set[tuple[int, str]]] = {"ada": set(), "bob": set()}
    total = lost = problems = 0

    def submit(reader: str, latest: int) -> None:
        try:
            while True:
                version = _submit(server, image, reader, latest)
                latest = version["number"]
                acknowledged[reader].add((latest, version["sha256"]))
        except requests.RequestException:
            pass  # killed

    for remaining in range(kills, -1, -1):
        server.start()
        problems += len(server.get("/audit")["problems"])
        threads = []
        for reader, versions in acknowledged.items():
            stored = server.get(f"/boxes/{image}/history", params={"reader": reader})["versions"]
            total += len(versions)
            lost += len(versions - {(each["number"], each["sha256"]) for each in stored})
            versions.clear()
            threads.append(threading.Thread(target=submit, args=(reader, len(stored))))
        if not remaining:
            break
        for thread in threads:
            thread.start()
        time.sleep(random.uniform(0.1, 0.6))
        server.kill()
        for thread in threads:
            thread.join()
    server.stop()
    return f"{kills} kills: {lost} of {total} acknowledged submissions lost, {problems} faults in the audit log"


def _submit(server: Server, image: str, reader: str, latest: int) -> dict[str, Any]:
    one = reading(reader, box(1, 2, 30 + latest % 50, 40), image=ImageIdentity(image))
    content = json.loads(format_readings([one]))
    return dict(server.send("PUT", f"/boxes/{image}", params={"based_on": latest}, json=content))


def _names(server: Server) -> Any:
    return server.get("/datastore/", params={"output": "all"})["objects"]


def _timed(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _list(seconds: list[float]) -> str:
    return ", ".join(f"{each:.1f}" for each in seconds)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor())


if __name__ == "__main__":
    sys.exit(main())
