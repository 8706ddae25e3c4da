"""The memory that real runs of `monai-sr enhance` take: many images in one process, a long CT, a large film.

Every run is a process of its own, whose largest memory Linux counts. Images are drawn.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np
import psutil
from monai_sr_bundle import __version__
from monai_sr_bundle.benchmark.speed_process import peak_bytes
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.errors import InputError, InternalError, OutOfMemoryError
from monai_sr_bundle.images.staging import staged
from PIL import Image as Picture

IMAGES, SLICES, SIDE = 300, 300, 4096
GROWTH_PERCENT, HELD_SLICES, FILM_BYTES = 5.0, 4.0, 2 * 10**9
"""Bounds: growth over many images, slices of the result held beyond input and result, peak of the film."""
FEW_SLICES, CT_SIDE, FILM_SIDE = 12, 512, 64
PADDING_HU = -2000
FOLDER, TABLE, RESULTS = "memory", "table.md", "memory.json"


@dataclass(frozen=True)
class CommandRun:
    """A run of `monai-sr enhance`.

    Attributes:
        peak_bytes: largest memory of its process, libraries included.
        bytes_after: memory after each image.
        shape_zyx: slices, rows and columns of the last result.
        bundle: name of the bundle that was chosen for the last image.
    """

    peak_bytes: int
    bytes_after: tuple[int, ...]
    shape_zyx: tuple[int, int, int]
    bundle: str


@dataclass(frozen=True)
class Measurement:
    """One measurement and its bound.

    Attributes:
        what: the command that was run, in words.
        result: the figure, in words.
        bound: the bound, in words.
        passed: whether the figure keeps to it.
        figures: the numbers behind it.
    """

    what: str
    result: str
    bound: str
    passed: bool
    figures: dict[str, Any] = field(default_factory=dict)


def measure_memory(
    images: int = IMAGES,
    slices: int = SLICES,
    side: int = SIDE,
    runtime: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """Measure what runs of the default bundles hold.

    Args:
        images: number of films of one process, at least 12; 0 leaves the measurement out.
        slices: slices of the CT, more than 12; 0 leaves it out.
        side: rows and columns of the film, 64 to 4096; 0 leaves it out.
        runtime: words for the command line, as `--backend onnx`.
        progress: called with the number of finished measurements and of all.

    Raises:
        InputError: a number out of range; a system that counts no memory of other processes.
        OutOfMemoryError: a run ended with a signal.
    """
    if sys.platform != "linux":
        raise InputError("`monai-sr benchmark memory` needs Linux, which tells the peak memory of another process.")
    for name, number, least, most in (
        ("images", images, 12, 10**6),
        ("slices", slices, 13, 10**4),
        ("side", side, 64, 4096),
    ):
        if number and not least <= number <= most:
            raise InputError(f"--{name} is {number}, expected {least} to {most}, or 0 to leave it out.")
    chosen: list[Callable[[Path], Measurement]] = []
    if images:
        chosen.append(lambda folder: _many_images(folder, images, runtime))
    if slices:
        chosen.append(lambda folder: _long_ct(folder, slices, runtime))
    if side:
        chosen.append(lambda folder: _large_film(folder, side, runtime))
    results = []
    for measurement in chosen:
        with TemporaryDirectory() as folder:
            results.append(measurement(Path(folder)))
        if progress is not None:
            progress(len(results), len(chosen))
    return results


def _many_images(folder: Path, count: int, runtime: Sequence[str]) -> Measurement:
    films = folder / "films"
    films.mkdir()
    for number in range(count):
        _write_film(films / f"{number:06}.png", FILM_SIDE, seed=number % 8)
    run = _enhance(films, f"{folder / 'results'}/", (*runtime, "--report", "--preview"))
    share = count // 6
    first, last = (statistics.median(part) for part in (run.bytes_after[share : 2 * share], run.bytes_after[-share:]))
    growth = 100 * (last / first - 1)
    return Measurement(
        f"{count} films of {FILM_SIDE} x {FILM_SIDE} pixels in one process, with report and preview, by `{run.bundle}`",
        f"{first / 1e6:.0f} MB in the second sixth, {last / 1e6:.0f} MB in the last: {growth:+.1f} %",
        f"at most {GROWTH_PERCENT:g} % more",
        growth <= GROWTH_PERCENT,
        {"first_bytes": first, "last_bytes": last, "growth_percent": growth, "peak_bytes": run.peak_bytes},
    )


def _long_ct(folder: Path, count: int, runtime: Sequence[str]) -> Measurement:
    runs = []
    for number in (FEW_SLICES, count):
        _write_ct(folder / f"{number}.nii", number)
        runs.append(_enhance(folder / f"{number}.nii", folder / f"{number}_sr.nii", runtime))
    few, many = runs
    _, rows, columns = many.shape_zyx
    per_slice_in, per_slice_out = 2 * CT_SIDE**2, 2 * rows * columns
    more = count - FEW_SLICES
    held = (many.peak_bytes - few.peak_bytes - more * (per_slice_in + per_slice_out)) / per_slice_out
    return Measurement(
        f"a CT of {count} slices of {CT_SIDE} x {CT_SIDE} pixels, padded, to {columns} x {rows} by `{many.bundle}`",
        f"{many.peak_bytes / 1e6:.0f} MB: {count * per_slice_in / 1e6:.0f} MB of input, "
        f"{count * per_slice_out / 1e6:.0f} MB of result, and beyond what {FEW_SLICES} slices take {max(held, 0):.1f} "
        "slices of the result",
        f"at most {HELD_SLICES:g} slices",
        held <= HELD_SLICES,
        {"peak_bytes": many.peak_bytes, "few_slices_peak_bytes": few.peak_bytes, "held_slices": held},
    )


def _large_film(folder: Path, side: int, runtime: Sequence[str]) -> Measurement:
    _write_film(folder / "film.png", side, seed=0)
    run = _enhance(folder / "film.png", folder / "film_sr.png", runtime)
    _, rows, columns = run.shape_zyx
    return Measurement(
        f"a film of {side} x {side} pixels, to {columns} x {rows} by `{run.bundle}`",
        f"{run.peak_bytes / 1e6:.0f} MB",
        f"at most {FILM_BYTES / 1e6:.0f} MB",
        run.peak_bytes <= FILM_BYTES,
        {"peak_bytes": run.peak_bytes},
    )


def _write_film(out: Path, side: int, seed: int) -> None:
    film = draw_phantom(min(side, 1024), seed)
    rows = np.arange(side) * len(film) // side  # drawing has a cost of its own; pixels are repeated beyond it
    noise = np.random.default_rng(seed).normal(0, 2, (side, side))
    Picture.fromarray((255 * film[np.ix_(rows, rows)] + noise).clip(0, 255).astype(np.uint8)).save(out)


def _write_ct(out: Path, count: int) -> None:
    """Write noisy slices with a round field of view, one after the other."""
    chest = 1400 * draw_phantom(CT_SIDE).T - 1000
    y, x = np.mgrid[:CT_SIDE, :CT_SIDE] - (CT_SIDE - 1) / 2
    outside = x**2 + y**2 > (CT_SIDE / 2) ** 2
    random = np.random.default_rng(0)
    volume = np.empty((CT_SIDE, CT_SIDE, count), np.int16, order="F")
    for index in range(count):
        volume[..., index] = np.where(outside, PADDING_HU, chest + random.normal(0, 15, chest.shape))
    image = nibabel.Nifti1Image(volume, np.diag([-0.7, -0.7, 1.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, out)


def _enhance(source: Path, out: Path | str, options: Sequence[str]) -> CommandRun:
    """Run `monai-sr enhance` in a process of its own, and look at its memory after every image."""
    command = [sys.executable, "-m", "monai_sr_bundle", "enhance", str(source), str(out), *options]
    process = subprocess.Popen([*command, "--progress", "json"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    events, bytes_after, peak = [], [], 0
    with process.stdout as lines:
        for event in map(json.loads, lines):
            events.append(event)
            # The last event comes after everything was written. What `wait4` tells may be the peak of this process.
            peak = max(peak, peak_bytes(process.pid) or 0)
            if event["event"] == "finished":
                bytes_after.append(psutil.Process(process.pid).memory_info().rss)
    if process.wait() < 0:
        raise OutOfMemoryError(f"{' '.join(command)} was ended by signal {-process.returncode}: memory ran out.")
    if process.returncode:
        raise InternalError(f"{' '.join(command)} ended with {process.returncode}.")
    found_event = next(event for event in reversed(events) if event["event"] == "found")
    finished_event = next(event for event in reversed(events) if event["event"] == "finished")
    return CommandRun(peak, tuple(bytes_after), tuple(finished_event["shape_zyx"]), found_event["bundle"])


# Results


def memory_markdown(measurements: Sequence[Measurement]) -> str:
    """Return the measurements as a Markdown table."""
    rows = [("run", "memory", "bound"), ("---", "---", "---"), *((e.what, e.result, e.bound) for e in measurements)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def write_memory(measurements: Sequence[Measurement], out: Path, *, overwrite: bool = False) -> None:
    """Write table and results into `out/memory`.

    Raises:
        OutputError: the folder exists, or cannot be written.
    """
    content = {"version": __version__, "rows": [asdict(each) for each in measurements]}
    with staged(out / FOLDER, overwrite=overwrite) as folder:
        folder.mkdir()
        (folder / TABLE).write_text(memory_markdown(measurements), encoding="utf-8")
        (folder / RESULTS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
