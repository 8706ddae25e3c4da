"""Time, peak memory and images a second of a protocol's rows on the processor, in one run.

Every row has a process of its own for each size of input and number of threads (`speed_process`). The processes take
turns, so that all of them see the machine in the same states, and medians are compared: of a shared machine, ratios of
one run mean something and seconds alone do not. The machine's own rate of convolutions is measured in the same turns.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from monai_sr_bundle import __version__
from monai_sr_bundle.benchmark.cases import CaseLoader, list_items
from monai_sr_bundle.benchmark.multiply_adds import multiply_adds
from monai_sr_bundle.benchmark.protocol import Protocol, Row, check_bundles
from monai_sr_bundle.benchmark.speed_process import CONVOLUTION, CONVOLUTION_MULTIPLY_ADDS
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.errors import InputError, OutOfMemoryError
from monai_sr_bundle.images.staging import staged
from monai_sr_bundle.metrics.fidelity import PSNR
from monai_sr_bundle.report.build import library_versions

SIZES, THREADS, ROUNDS = (64, 256, 512, 1024), (1, 2), 5
MANY_STEPS, THUMBNAIL = 100, 64
"""A row of more steps is measured on inputs of at most so many pixels alone, once each."""
TABLE, RESULTS = "table.md", "speed.json"
# What the command line sets for itself: sleeping threads, and large buffers that go back to the system (`_compat`).
_AS_THE_COMMAND_LINE = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": str(4 * 1024**2),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 1024**2),
}
_PACKAGES = ("numpy", "onnxruntime", "openvino", "torch")


@dataclass
class Speed:
    """Time and memory of one row for one image, at one size of input and one number of threads.

    Attributes:
        method, label, backend: key, label and runtime of the protocol's row.
        size: rows and columns of the input, in pixels.
        threads: CPU threads.
        seconds: median over the runs, without the first one.
        runs: number of runs.
        peak_bytes: largest memory of the process, libraries included; None where the system does not tell.
        multiply_adds: multiply-adds of the network for one image.
        share_of_rate: its multiply-adds a second, in units of the machine's own rate of convolutions in float32.
        psnr: mean over the test images, in dB; None for drawn images.
    """

    method: str
    label: str
    backend: str
    size: int
    threads: int
    seconds: float
    runs: int
    peak_bytes: int | None
    multiply_adds: float
    share_of_rate: float
    psnr: float | None = None


@dataclass
class SpeedComparison:
    """The results of one run.

    Attributes:
        protocol: the protocol that was measured.
        images: number of test images; 0 if all images were drawn.
        processor: its name.
        cores: number of cores that this process may use.
        rates: multiply-adds a second of a convolution in float32, by the number of threads, one for each size.
        results: one for each row, size and number of threads.
        refused: why rows were not measured, by their keys.
        versions: versions of the libraries, by name.
    """

    protocol: Protocol
    images: int
    processor: str
    cores: int
    rates: dict[int, list[float]] = field(default_factory=dict)
    results: list[Speed] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)

    def times_faster(self, result: Speed, than: Speed | None) -> float | None:
        """Return how many times faster a result is than another one."""
        return None if than is None or than is result else than.seconds / result.seconds

    def find_result(self, result: Speed, **changes: str) -> Speed | None:
        """Return the result of the same size and threads whose other keys are these, if it was measured."""
        keys = {"size": result.size, "threads": result.threads, **changes}
        return next((each for each in self.results if all(getattr(each, k) == v for k, v in keys.items())), None)


@dataclass(frozen=True)
class InputImage:
    """An input ``[rows, columns]`` in a file, and the original, which a drawn one has not."""

    path: Path
    high_res: np.ndarray | None


def measure_speed(
    protocol: Protocol,
    data: Path | None = None,
    *,
    sizes: Sequence[int] = SIZES,
    threads: Sequence[int] = THREADS,
    rounds: int = ROUNDS,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SpeedComparison:
    """Measure every row of a protocol at every size and number of threads.

    Args:
        protocol: rows and images.
        data: folder of the prepared data sets, whose images of the smallest size are enlarged and compared with the
            originals. Default: drawn images, without PSNR.
        sizes: rows and columns of the inputs.
        threads: numbers of CPU threads.
        rounds: timed runs of each row, after one that is not timed; rows of more than `MANY_STEPS` steps have one.
        limit: number of test images. Default: the protocol's.
        progress: called after every size and number of threads with those that are done and all.

    Raises:
        InputError: see `cases.list_items`; test images of another size than the smallest.
        BundleError: see `check_bundles`.
        OutOfMemoryError: a process ended without a word.
    """
    check_bundles(protocol)
    versions = {"monai_sr_bundle": __version__, **library_versions(_PACKAGES)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    comparison = SpeedComparison(protocol, 0, _processor(), cores, versions=versions)
    with TemporaryDirectory() as folder:
        smallest = min(sizes)
        test_images = _test_images(protocol, data, limit, smallest, Path(folder)) if data else []
        comparison.images = len(test_images)
        cells = [(size, count) for size in sizes for count in threads]
        for done, (size, count) in enumerate(cells, start=1):
            images = test_images if test_images and size == smallest else [_drawn_image(size, Path(folder))]
            rows = [row for row in protocol.rows if (row.steps or 0) <= MANY_STEPS or size <= THUMBNAIL]
            _measure_cell(comparison, rows, images, size, count, rounds)
            if progress is not None:
                progress(done, len(cells))
    return comparison


def _measure_cell(
    comparison: SpeedComparison, rows: Sequence[Row], images: Sequence[InputImage], size: int, threads: int, rounds: int
) -> None:
    """Measure rows that take turns, at one size of input and one number of threads."""
    protocol = comparison.protocol
    rate = _Process({"method": CONVOLUTION}, protocol.scale, threads)
    processes: dict[Row, _Process] = {}
    try:
        for row in rows:
            process = _Process(asdict(row), protocol.scale, threads)
            if process.refusal is None:
                processes[row] = process
            else:
                comparison.refused[row.key] = process.refusal
                process.close()
        results: dict[Row, list[np.ndarray]] = {row: [] for row in processes}
        for row, process in processes.items():
            if (row.steps or 0) <= MANY_STEPS:
                process.run(images[0].path)  # the first run is slower than all others
                process.seconds.clear()
        rate.run(images[0].path)
        rate.seconds.clear()
        # Each image once for its PSNR, then as often again as there are rounds left.
        for turn in range(max(rounds, len(images))):
            image = images[turn % len(images)]
            rate.run(image.path)
            for row, process in processes.items():
                if turn < len(images) and image.high_res is not None:
                    results[row].append(process.enlarge(image.path))
                elif (row.steps or 0) <= MANY_STEPS or turn == 0:
                    process.run(image.path)
        rate_of_machine = CONVOLUTION_MULTIPLY_ADDS / statistics.median(rate.seconds)
        comparison.rates.setdefault(threads, []).append(rate_of_machine)
        for row, process in processes.items():
            bundle = row.bundle(protocol.scale)
            assert bundle is not None, "its process has refused it"
            # Convolutions: as many a pixel whatever the size.
            work = multiply_adds(bundle, "64x64", row) * (size / 64) ** 2
            seconds = statistics.median(process.seconds)
            psnr = _mean_psnr(results[row], images, protocol.levels) if results[row] else None
            comparison.results.append(
                Speed(
                    row.key, row.label, row.backend, size, threads, seconds, len(process.seconds), process.peak_bytes,
                    work, work / seconds / rate_of_machine, psnr,
                )
            )  # fmt: skip
    finally:
        for process in (rate, *processes.values()):
            process.close()


class _Process:
    """A row in a process of its own.

    Attributes:
        refusal: why the bundle was not opened; None if it was.
        seconds: duration of each run.
        peak_bytes: largest memory of the process so far.
    """

    def __init__(self, row: dict[str, Any], scale: int, threads: int) -> None:
        self.seconds: list[float] = []
        self.peak_bytes: int | None = None
        self._method = str(row["method"])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "monai_sr_bundle.benchmark.speed_process", json.dumps({"row": row, "scale": scale})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **_AS_THE_COMMAND_LINE, "OMP_NUM_THREADS": str(threads)},
        )
        self.refusal: str | None = self._answer().get("refused")

    def run(self, path: Path, out: Path | None = None) -> None:
        """Enlarge an image, and keep the result in a file if one is named."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path}\t{out}\n" if out else f"{path}\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.seconds.append(answer["seconds"])
        self.peak_bytes = answer["peak_bytes"]

    def enlarge(self, path: Path) -> np.ndarray:
        """Enlarge an image and return the result."""
        out = path.with_name("result.npy")
        self.run(path, out)
        return np.asarray(np.load(out))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise OutOfMemoryError(
                f"the process of {self._method} ended without a word, probably for lack of memory. Try smaller --sizes."
            )
        return dict(json.loads(line))


def _drawn_image(size: int, folder: Path) -> InputImage:
    path = folder / f"drawn_{size}.npy"
    if not path.is_file():
        np.save(path, draw_phantom(size).astype(np.float32)[None])
    return InputImage(path, None)


def _test_images(protocol: Protocol, data: Path, limit: int | None, size: int, folder: Path) -> list[InputImage]:
    load, images = CaseLoader(protocol, rotation_degrees=0), []
    for number, item in enumerate(list_items(protocol, data, limit)):
        case = load(item)
        if case.low_res.shape[1:] != (size, size):
            raise InputError(
                f"{case.name}: {case.low_res.shape[2]}x{case.low_res.shape[1]} pixels after the reduction, but the "
                f"smallest of --sizes is {size}; expected the same. Name the size of the test images in --sizes."
            )
        path = folder / f"test_{number}.npy"
        np.save(path, case.low_res)
        images.append(InputImage(path, case.high_res[0, 0].numpy()))
    return images


def _mean_psnr(results: Sequence[np.ndarray], images: Sequence[InputImage], levels: int) -> float:
    pairs = ((result, image.high_res) for result, image in zip(results, images, strict=True))
    unit = ([torch.from_numpy(each)[None, None] for each in pair] for pair in pairs)
    return statistics.fmean(float(PSNR(levels)(*pair)) for pair in unit)  # type: ignore[arg-type]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    titles = {"avx512f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX"}
    has = [title for flag, title in titles.items() if flag in flags]
    return ", ".join([names[0] if names else platform.processor() or platform.machine(), *has])


# Results


def speed_markdown(comparison: SpeedComparison) -> str:
    """Return a comparison as a Markdown table with its conditions."""
    facts = speed_json(comparison)
    lines = [
        f"## {comparison.protocol.title}",
        "",
        comparison.protocol.about,
        "",
        f"{facts['processor']}; {facts['cores']} cores. A convolution of 64 channels in float32: "
        + ", ".join(f"{rate / 1e9:.0f} G multiply-adds a second on {count} thread{'s' * (int(count) > 1)}"
                    for count, rate in facts["convolution_rate"].items()) + ".",
        "",
        "| method | runtime | input | threads | seconds | images a second | peak memory (MB) "
        "| of the convolution's rate | times as fast as ONNX Runtime | as the reference | PSNR (dB) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in facts["rows"]:
        cells = [
            row["label"], row["backend"], f"{row['size']} x {row['size']}", str(row["threads"]),
            f"{row['seconds']:.3g}", f"{row['images_per_second']:.3g}", _number(row["peak_mb"], ".0f"),
            f"{row['share_of_rate']:.2f}", _number(row["times_onnx"], ".2f"), _number(row["times_reference"], ",.0f"),
            _number(row["psnr"], ".2f"),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"Not measured: {key}: {reason}" for key, reason in facts["refused"].items())]
    return "\n".join(lines).rstrip() + "\n"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def speed_json(comparison: SpeedComparison) -> dict[str, Any]:
    """Return a comparison as plain values."""
    protocol = comparison.protocol
    rows = []
    for result in comparison.results:
        row = asdict(result)
        peak = row.pop("peak_bytes")
        on_onnx = comparison.find_result(result, label=result.label, backend="onnx")
        reference = comparison.find_result(result, method=protocol.reference)
        row |= {
            "images_per_second": 1 / result.seconds,
            "peak_mb": None if peak is None else peak / 1e6,
            "times_onnx": comparison.times_faster(result, on_onnx),
            "times_reference": comparison.times_faster(result, reference),
        }
        rows.append(row)
    return {
        "protocol": asdict(protocol),
        "images": comparison.images,
        "processor": comparison.processor,
        "cores": comparison.cores,
        "convolution_rate": {str(count): statistics.median(rates) for count, rates in comparison.rates.items()},
        "versions": comparison.versions,
        "refused": comparison.refused,
        "rows": rows,
    }


def write_speed(comparison: SpeedComparison, out: Path, *, overwrite: bool = False) -> None:
    """Write table and results into a folder of the protocol's name.

    Raises:
        OutputError: the folder exists, or cannot be written.
    """
    target = out / comparison.protocol.name
    with staged(target, overwrite=overwrite) as folder:
        folder.mkdir()
        (folder / TABLE).write_text(speed_markdown(comparison), encoding="utf-8")
        (folder / RESULTS).write_text(json.dumps(speed_json(comparison), indent=1) + "\n", encoding="utf-8")
