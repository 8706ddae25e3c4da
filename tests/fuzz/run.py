"""`python -m tests.fuzz.run`: read mutated files for minutes, and say what failed.

Cases are numbered. A case is made of the reader's name and its number alone, so it can be repeated, and a run goes on
where the last one stopped. A process of its own reads them, within limits of memory and time; when it dies, the case
that it had is the one that killed it. Failures are kept as zips in the state's folder; add those that are small to
`tests/fuzz/corpus/READER`, where the tests read them again.
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
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutations import mutate
from tests.fuzz.readers import READERS, judge
from tests.fuzz.seeds import Files

HANG_SECONDS = 10.0
"""Seconds of processor time that one case may take."""
MEMORY_BYTES = 3 * 1024**3
"""Address space that one case may add to its process."""
BATCH = 100
"""Cases of one reader in a row."""
KEPT = 3
"""Cases of one kind of failure whose files are kept."""
OUTCOMES = ("read", "refused")
IMPORTED_ONCE = (
    "monai_sr_bundle.backends.torch_backend", "monai_sr_bundle.boxes.box_files", "monai_sr_bundle.worker.server",
    "monai_sr_bundle.uncertainty.calibration", "monai_sr_bundle.datasets.manifest", "highdicom",
)  # fmt: skip
"""What the processes of the cases would import each for itself."""


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


class _Slow(BaseException):
    """A case that takes too long; no handler of a reader catches it."""


def _read_batch(name: str, numbers: range, current: mmap.mmap, pipe: Any) -> None:
    def stop(*_: object) -> None:
        raise _Slow

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what native decoders print
    with suppress(Exception):
        run_case(name, READERS[name].seeds()[0])  # what is made once is no case's memory and time
    _limit_memory()
    signal.signal(signal.SIGVTALRM, stop)
    for number in numbers:
        case = case_files(name, number)
        current[:8] = struct.pack("<q", number)
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
        try:
            outcome = run_case(name, case)
        except _Slow:
            outcome = f"FAILURE takes more than {HANG_SECONDS:g} s"
        except MemoryError:
            outcome = "FAILURE MemoryError"
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        pipe.send((number, outcome))
    pipe.send(None)


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
        known = json.loads(self.counts_file.read_text()) if self.counts_file.exists() else {}
        self.counts: dict[str, Counter[str]] = {name: Counter(known.get(name, {})) for name in READERS}

    def run(self, minutes: float = math.inf, batches: float = math.inf) -> None:
        """Read batches of all readers in turn, for some minutes or some rounds."""
        self._warm_up()
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end and batches > 0:
            batches -= 1
            for name in self.names:
                first = sum(self.counts[name].values())
                self._run_batch(name, range(first, first + BATCH), end)
                self._save()
                if time.monotonic() >= end:
                    break

    def _warm_up(self) -> None:
        """Import and make what the processes of the cases inherit."""
        for module in IMPORTED_ONCE:
            importlib.import_module(module)
        for name in self.names:
            READERS[name].seeds()

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
                # Native code does not see the timer; nor does a process that waits for ever.
                if not receiver.poll(20 * HANG_SECONDS):
                    process.kill()
                    break
                try:
                    answer = receiver.recv()
                except EOFError:
                    break
                if answer is None:
                    finished = True
                    break
                number, outcome = answer
                self._count(name, number, outcome)
                done = number + 1
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

    def _count(self, name: str, number: int, outcome: str) -> None:
        self.counts[name][outcome] += 1
        if outcome not in OUTCOMES and self.counts[name][outcome] <= KEPT:
            path = self.state / "failures" / name / f"{number}.zip"
            pack_case(case_files(name, number), path)
            print(f"{name} {number}: {outcome}\n    kept as {path}", flush=True)

    def _save(self) -> None:
        new = self.counts_file.with_suffix(".new")
        new.write_text(json.dumps(self.counts, indent=1))
        new.replace(self.counts_file)

    def table(self) -> str:
        """Return a table of what has been done so far."""
        lines = [f"{'reader':12} {'cases':>8} {'read':>8} {'refused':>8} {'failures':>8}"]
        rows = [(name, self.counts[name]) for name in READERS]
        rows.append(("all", sum((count for _, count in rows), Counter())))
        for name, count in rows:
            whole, read, refused = sum(count.values()), count["read"], count["refused"]
            lines.append(f"{name:12} {whole:8,} {read:8,} {refused:8,} {whole - read - refused:8,}")
        return "\n".join(lines)

    @property
    def failures(self) -> int:
        return sum(
            number for count in self.counts.values() for outcome, number in count.items() if outcome not in OUTCOMES
        )


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
    fuzzer = Fuzzer(options.state, options.readers)
    fuzzer.run(options.minutes)
    print(fuzzer.table())
    return 1 if fuzzer.failures else 0


if __name__ == "__main__":
    sys.exit(main())
