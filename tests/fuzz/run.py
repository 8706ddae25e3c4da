"""`python -m tests.fuzz.run`: read mutated files for minutes, and say what failed.

Cases are numbered. A case is made of the reader's name and its number alone, so it can be repeated, and a run goes on
where the last one stopped, after reading once more what failed before: a case counts by how it ends now. A process of
its own reads them, within limits of memory and time; when it dies, the case that it had is the one that killed it.
Failures are kept as zips in the state's folder; add those that are small to `tests/fuzz/corpus/READER`, where the tests
read them again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import mmap
import multiprocessing
import os
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutations import mutate
from tests.fuzz.readers import READERS, judge
from tests.fuzz.seeds import Files

HANG_SECONDS = 10.0
"""Seconds of processor time that one case may take, with the processes that it starts."""
LONGEST_WAIT = 200.0
"""Seconds by the clock after which a process is ended that waits, or runs native code, which sees no timer."""
MEMORY_BYTES = 1024**3
"""Memory that one case may add to its process."""
BATCH = 100
"""Cases of one reader in a row."""
KEPT = 3
"""Cases of one kind of failure whose files are kept."""
OUTCOMES = ("read", "refused")
SLOW = f"FAILURE takes more than {HANG_SECONDS:g} s"
IMPORTED_ONCE = (
    "monai_sr_bundle.backends.torch_backend", "monai_sr_bundle.boxes.box_files", "monai_sr_bundle.worker.server",
    "monai_sr_bundle.uncertainty.calibration", "monai_sr_bundle.datasets.manifest", "monai_sr_bundle.images.zipped",
    "highdicom", "encodings.ascii", "encodings.utf_8_sig",
)  # fmt: skip
"""What the processes of the cases would import each for itself."""
THREADED = ("request", "label")
"""Readers whose threads a fork would lose, so that each process makes them for itself."""


def case_files(name: str, number: int) -> Files:
    """Return the files of a case."""
    random = Random(f"{name} {number}")
    return mutate(random.choice(READERS[name].seeds()), random)


def write_case(case: Files, folder: Path) -> None:
    for name, data in case.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def pack_case(case: Files, path: Path) -> None:
    """Write the files of a case into one zip, the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in case.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def unpack_case(path: Path) -> Files:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def run_case(name: str, case: Files) -> str:
    """Read the files of a case; see `readers.judge`."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        write_case(case, Path(folder) / "case")
        return judge(READERS[name], Path(folder) / "case")


def _limit_memory() -> None:
    import resource

    import psutil

    bound = psutil.Process().memory_info().vms + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class _Meter:
    """The cost of one case: seconds of processors, and bytes of memory where Linux counts them."""

    def __init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the highest use starts again from the present one
        self._bytes, self._seconds = self._memory("VmRSS"), sum(os.times()[:4])

    def read(self) -> tuple[float, int]:
        """Return seconds and bytes since this was made."""
        return sum(os.times()[:4]) - self._seconds, max(0, self._memory("VmHWM") - self._bytes)

    @staticmethod
    def _memory(field: str) -> int:
        with suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
        return 0


class _Slow(BaseException):
    """A case that takes too long; no handler of a reader catches it."""


def _read_batch(name: str, numbers: range, current: mmap.mmap, pipe: Any) -> None:
    def stop(*_: object) -> None:
        raise _Slow

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # warnings, and what native decoders print
    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, 10 * HANG_SECONDS)
    with suppress(Exception, _Slow):
        run_case(name, READERS[name].seeds()[0])  # what is made once is no case's memory and time
    _limit_memory()
    for number in numbers:
        case = case_files(name, number)
        current[:8] = struct.pack("<q", number)
        meter = _Meter()
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
        try:
            outcome = run_case(name, case)
        except _Slow:
            outcome = SLOW
        except MemoryError:
            outcome = "FAILURE MemoryError"
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        seconds, memory = meter.read()
        if outcome in OUTCOMES and seconds > HANG_SECONDS:
            outcome = SLOW
        elif outcome in OUTCOMES and memory > MEMORY_BYTES:
            outcome = f"FAILURE takes {memory:,} bytes of memory"
        pipe.send((number, outcome, seconds, memory))
    pipe.send(None)


@dataclass
class Tally:
    """The outcomes of the cases of a reader so far.

    Attributes:
        read, refused: numbers of cases.
        failures: outcome of each case that failed, by its number.
        slowest: seconds of the slowest case that did not fail, and its number.
        largest: bytes of the one that took most memory, and its number.
    """

    read: int = 0
    refused: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, 0)
    largest: tuple[int, int] = (0, 0)

    @property
    def cases(self) -> int:
        return self.read + self.refused + len(self.failures)


class Fuzzer:
    """A fuzzer whose counts lie in a folder.

    Args:
        state: folder of the counts and of the files of failures.
        names: readers to take.
    """

    def __init__(self, state: Path, names: list[str]) -> None:
        self.state, self.names = state, names
        state.mkdir(parents=True, exist_ok=True)
        self.counts_file = state / "counts.json"
        counts = json.loads(self.counts_file.read_text()) if self.counts_file.exists() else {}
        self.tallies = {name: Tally(**counts.get(name, {})) for name in READERS}

    def run(self, minutes: float = math.inf, batches: float = math.inf) -> None:
        """Read what failed before once more, then batches of all readers in turn, for some minutes or some rounds."""
        if not minutes:
            return
        self._warm_up()
        end = time.monotonic() + 60 * minutes
        for name in self.names:
            for number in [int(text) for text in self.tallies[name].failures if READERS[name].is_installed()]:
                del self.tallies[name].failures[str(number)]
                self._run_batch(name, range(number, number + 1), math.inf)
            self._save()
        while time.monotonic() < end and batches > 0:
            batches -= 1
            for name in self.names:
                first = self.tallies[name].cases
                if READERS[name].is_installed():
                    self._run_batch(name, range(first, first + BATCH), end)
                self._save()
                if time.monotonic() >= end:
                    break

    def _warm_up(self) -> None:
        """Import and make what the processes of the cases inherit."""
        for module in IMPORTED_ONCE:
            importlib.import_module(module)
        if "label" in self.names and READERS["label"].is_installed():
            from tests.fuzz.label_server import prepare_server

            prepare_server()
        for name in self.names:
            for seed in READERS[name].seeds()[:8]:
                if name not in THREADED:
                    run_case(name, seed)

    def _run_batch(self, name: str, numbers: range, end: float) -> None:
        context = multiprocessing.get_context("fork")
        current = mmap.mmap(-1, 8)
        while numbers:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_read_batch, args=(name, numbers, current, sender), daemon=False)
            process.start()
            sender.close()
            done = numbers.start
            finished = False
            while True:
                if not receiver.poll(LONGEST_WAIT):
                    process.kill()
                    break
                try:
                    answer = receiver.recv()
                except EOFError:
                    break
                if answer is None:
                    finished = True
                    break
                self._count(name, *answer)
                done = answer[0] + 1
                if time.monotonic() >= end:
                    process.kill()
                    finished = True
                    break
            process.join()
            if finished:
                return
            died = struct.unpack("<q", current[:8])[0]
            code = process.exitcode or 0
            reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            self._count(name, max(died, done), f"FAILURE the process ends ({reason})")
            numbers = range(max(died, done) + 1, numbers.stop)

    def _count(self, name: str, number: int, outcome: str, seconds: float = 0.0, memory: int = 0) -> None:
        tally = self.tallies[name]
        if outcome in OUTCOMES:
            tally.slowest = max(tuple(tally.slowest), (round(seconds, 2), number))
            tally.largest = max(tuple(tally.largest), (memory, number))
            setattr(tally, outcome, getattr(tally, outcome) + 1)
            return
        tally.failures[str(number)] = outcome
        if list(tally.failures.values()).count(outcome) <= KEPT:
            path = self.state / "failures" / name / f"{number}.zip"
            with warnings.catch_warnings(action="ignore"):  # a zip in the case may name a file twice
                pack_case(case_files(name, number), path)
            print(f"{name} {number}: {outcome}\n    kept as {path}", flush=True)

    def _save(self) -> None:
        new = self.counts_file.with_suffix(".new")
        new.write_text(json.dumps({name: vars(tally) for name, tally in self.tallies.items()}, indent=1))
        new.replace(self.counts_file)

    def table(self) -> str:
        """Return a table of what has been done so far with the readers, and every failure with its number."""
        head = ("reader", "cases", "read", "refused", "failures", "slowest", "memory")
        lines = ["{:12} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9}".format(*head)]
        lines += [_format_row(name, self.tallies[name]) for name in self.names]
        tallies = [self.tallies[name] for name in self.names]
        failures = {
            f"{name} {number}": text for name in self.names for number, text in self.tallies[name].failures.items()
        }
        slowest, largest = (max(tuple(getattr(each, what)) for each in tallies) for what in ("slowest", "largest"))
        read, refused = sum(each.read for each in tallies), sum(each.refused for each in tallies)
        lines.append(_format_row("all", Tally(read, refused, failures, slowest, largest)))
        return "\n".join([*lines, *(f"{case}: {outcome}" for case, outcome in failures.items())])

    @property
    def failures(self) -> int:
        return sum(len(self.tallies[name].failures) for name in self.names)


def _format_row(name: str, tally: Tally) -> str:
    return (
        f"{name:12} {tally.cases:8,} {tally.read:8,} {tally.refused:8,} {len(tally.failures):8,} "
        f"{tally.slowest[0]:7.2f} s {tally.largest[0] / 1024**2:6.0f} MB"
    )


@contextmanager
def _quick_folder() -> Iterator[None]:
    """Put the files of the cases into memory where the machine has a place for it: disks are slow to remove folders."""
    memory = Path("/dev/shm")
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to run; 0 prints what was done so far")
    parser.add_argument("--state", type=Path, default=Path("build/fuzz"), help="folder of counts and failures")
    parser.add_argument("--readers", nargs="+", choices=list(READERS), default=list(READERS))
    parser.add_argument(
        "--case", nargs=2, metavar=("READER", "CASE"), help="read one, a number or a zip, with traceback"
    )
    options = parser.parse_args(words)
    if options.case:
        name, case = options.case
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            write_case(
                case_files(name, int(case)) if case.isdigit() else unpack_case(Path(case)), Path(folder) / "case"
            )
            READERS[name].read(Path(folder) / "case")
        return 0
    if options.minutes and (missing := [name for name in options.readers if not READERS[name].is_installed()]):
        print(f"not read in this environment: {', '.join(missing)}")
    fuzzer = Fuzzer(options.state, options.readers)
    with _quick_folder():
        fuzzer.run(options.minutes)
    print(fuzzer.table())
    return 1 if fuzzer.failures else 0


if __name__ == "__main__":
    sys.exit(main())
