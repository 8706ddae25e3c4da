"""Listeners of a job: lines with a bar for a terminal, or JSON lines for a program."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any, TextIO

from monai_sr_bundle.cli.events import (
    LAST_EVENTS,
    Checked,
    Event,
    Failed,
    Finished,
    Found,
    Listed,
    Progress,
    Skipped,
)
from monai_sr_bundle.cli.exit_codes import MEANINGS
from monai_sr_bundle.cli.lines import one_line
from monai_sr_bundle.images.geometry import UNKNOWN
from tqdm import tqdm

_NUMBER = re.compile(r"(?<!\w)[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")
"""A number in a sentence; none is the 4 of a bundle's name."""
_NUMBER_MARK = "\0"
"""Stands for a number in the kind of a warning; no warning holds it."""


def describe(event: Found) -> str:
    """Describe an image in one line: modality, size, bits, and spacing with its source."""
    source = event.spacing_source
    if event.spacing_xyz is not None:
        sides = [f"{side_mm:.4g}" for side_mm in event.spacing_xyz if side_mm is not None]
        order = "" if sides[0] == sides[1] else "between columns x rows, "
        spacing = f"{' x '.join(sides)} mm ({order}{source})"
    else:
        spacing = "spacing unknown" if source == UNKNOWN else f"spacing unknown ({source} only)"
    modality = "" if event.modality == "unknown" else f"{event.modality}, "
    return f"{modality}{_size(event.shape_zyx)} pixels, {event.bits} bit, {spacing}"


def _size(shape_zyx: Sequence[int]) -> str:
    slices, rows, columns = shape_zyx
    return f"{columns} x {rows}" + (f" x {slices}" if slices > 1 else "")


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.1f} MB"


class Tally:
    """Counts of a job: its images that are done, skipped or failed, and their warnings.

    Attributes:
        images: number of images that were found.
        processes: number of images that are worked on at the same time; None if that is up to a cluster.
        done, interpolated, warned: numbers of images.
        skipped: number of files for each reason.
        failed: number of files for each exit code.
        seconds, memory_bytes, disk_bytes: sum, largest and sum of the estimates of a dry run; else 0.
    """

    def __init__(self) -> None:
        self.images = self.done = self.interpolated = self.warned = 0
        self.processes: int | None = 1
        self.skipped: Counter[str] = Counter()
        self.failed: Counter[int] = Counter()
        self.seconds, self.memory_bytes, self.disk_bytes = 0.0, 0, 0
        self._kinds: Counter[str] = Counter()
        self._numbers: dict[str, list[str]] = {}
        self._start = time.monotonic()

    @property
    def files(self) -> int:
        """Number of files and images that are done, skipped or failed."""
        return self.done + self.skipped.total() + self.failed.total()

    @property
    def elapsed(self) -> float:
        """Seconds since the job began."""
        return time.monotonic() - self._start

    def add(self, event: Event) -> list[str]:
        """Count an event, and return those of its warnings that are the first of their kind."""
        if isinstance(event, Listed):
            self.images, self.processes = event.images, event.processes
        elif isinstance(event, Skipped):
            self.skipped[event.reason] += 1
        elif isinstance(event, Failed):
            self.failed[event.error.exit_code] += 1
        elif isinstance(event, Finished | Checked):
            self.done += 1
            self.interpolated += event.interpolated
            self.warned += bool(event.warnings)
            if isinstance(event, Checked):
                self.seconds += event.seconds
                self.memory_bytes = max(self.memory_bytes, event.memory_bytes)
                self.disk_bytes += event.disk_bytes
            return self._add_warnings(event.warnings)
        return []

    def _add_warnings(self, warnings: Sequence[str]) -> list[str]:
        new = []
        for warning in warnings:
            kind, numbers = _NUMBER.sub(_NUMBER_MARK, warning), _NUMBER.findall(warning)
            if kind not in self._kinds:
                new.append(warning)
            earlier_numbers = self._numbers.get(kind, numbers)
            self._numbers[kind] = [a if a == b else "..." for a, b in zip(earlier_numbers, numbers, strict=True)]
            self._kinds[kind] += 1
        return new

    @property
    def warnings(self) -> list[tuple[str, int]]:
        """Each kind of warning with its number of images, most frequent first; "..." for numbers that differ."""
        texts = []
        for kind, count in self._kinds.most_common():
            first, *others = kind.split(_NUMBER_MARK)
            pairs = zip(self._numbers[kind], others, strict=True)
            texts.append((first + "".join(number + other for number, other in pairs), count))
        return texts


class Terminal:
    """Lines for a person: a bar with the time left on stderr, results on stdout.

    Of several images, each kind of warning is printed once, and counted in a table at the end. An image that was
    interpolated is marked so in its own line.

    Args:
        bar: show the bar. Default True.
        quiet: show errors only. Default False.
        dry_run: say what would be written. Default False.

    Attributes:
        written: files and folders that the job has written.
    """

    def __init__(self, *, bar: bool = True, quiet: bool = False, dry_run: bool = False) -> None:
        self.bar, self.quiet, self.dry_run = bar and not quiet, quiet, dry_run
        self.written: list[Path] = []
        self._bar: tqdm | None = None
        self._tally = Tally()
        self._found: dict[tuple[str, str], Found] = {}  # of several processes, what each works on

    def __call__(self, event: Event) -> None:
        """Print an event of a job."""
        new_warnings = self._tally.add(event)
        if isinstance(event, Listed):
            if self._in_parallel:
                self._open_bar(event.images, "{n_fmt}/{total_fmt} images")
        elif isinstance(event, Found):
            self._show_found(event)
        elif isinstance(event, Progress):
            if self._bar is not None and not self._in_parallel:
                self._bar.update(event.fraction - self._bar.n)
        elif isinstance(event, Skipped):
            if self._tally.images == 1:
                self._print(f"{event.name}: skipped, {event.reason}")
        elif isinstance(event, Failed):
            self.report_end(_name_place(event), event.error.exit_code)
        else:
            self._show_done(event, new_warnings)
        if self._in_parallel and self._bar is not None and isinstance(event, LAST_EVENTS):
            self._bar.update()

    @property
    def _in_parallel(self) -> bool:
        return self._tally.processes != 1 and self._tally.images > 1

    def _show_found(self, event: Found) -> None:
        if self._in_parallel:
            self._found[event.input, event.name] = event
            return
        self._print_found(event)
        if not self.dry_run:
            self._open_bar(1.0, "{percentage:3.0f}%")

    def _print_found(self, event: Found) -> None:
        model = f"{event.bundle} {event.version} | x{event.scale} | {event.backend} on {event.device}"
        self._print(f"{event.name}: {describe(event)} | {model}")

    def _show_done(self, event: Finished | Checked, new_warnings: Sequence[str]) -> None:
        if self._in_parallel:
            self._print_found(self._found.pop((event.input, event.name)))
        else:
            self._close_bar()
        if isinstance(event, Finished):
            self.written += map(Path, event.written)
            how = ", interpolated," if event.interpolated else ""
            self._print(
                f"  {_size(event.shape_zyx)} pixels{how} in {event.seconds:.1f} s -> {', '.join(event.written)}"
            )
        else:
            how = "interpolated; " if event.interpolated else ""
            self._print(
                f"  {how}estimate: {event.seconds:.1f} s, {_bytes(event.memory_bytes)} of memory, "
                f"{_bytes(event.disk_bytes)} on disk before compression"
            )
        for warning in new_warnings:
            self._print(f"  note: {warning}")

    def conclude(self) -> None:
        """Print a summary of several files: a line of counts, and a table of skips, failures and repeated warnings."""
        self._close_bar()
        tally = self._tally
        if max(tally.files, tally.images) < 2:
            return
        unfinished = max(0, tally.images - tally.files)
        unfinished_clause = f", {unfinished} not begun or not finished" if unfinished else ""
        share = f" ({100 * tally.interpolated / tally.done:.1f} %)" if tally.done else ""
        self._print(
            f"{tally.files + unfinished} files: {tally.done} {'would be done' if self.dry_run else 'done'}, "
            f"{tally.interpolated}{share} of them interpolated, {tally.warned} with a note; "
            f"{tally.skipped.total()} skipped, {tally.failed.total()} failed{unfinished_clause}; {tally.elapsed:.1f} s"
        )
        rows = [(count, f"skipped: {reason}") for reason, count in tally.skipped.most_common()]
        rows += [(count, f"failed: {MEANINGS[code]} ({code})") for code, count in sorted(tally.failed.items())]
        rows += [(count, f"note: {warning}") for warning, count in tally.warnings if count > 1]
        for count, text in rows:
            self._print(f"{count:>7}  {text}")
        if self.dry_run and tally.done:
            processes = tally.processes or 1
            in_parallel = f" with {processes} processes" if processes > 1 else ""
            self._print(
                f"estimate: {tally.seconds / processes:.0f} s in the networks{in_parallel}, "
                f"{_bytes(processes * tally.memory_bytes)} of memory, {_bytes(tally.disk_bytes)} on disk before "
                "compression"
            )

    def report_end(self, reason: object, exit_code: int) -> None:
        """Print one line on stderr about the end of the whole job."""
        if self._in_parallel:
            self._print_above_bar(f"monai-sr: error: {reason}", sys.stderr)
            return
        self._close_bar()
        print(one_line(f"monai-sr: error: {reason}"), file=sys.stderr)

    def _open_bar(self, total: float, done: str) -> None:
        if self.bar:
            self._bar = tqdm(
                total=total,
                leave=False,
                disable=None,  # if stderr is no terminal
                bar_format=f"  {done}|{{bar:30}}| {{elapsed}} (left {{remaining}})",
                file=sys.stderr,
            )

    def _print(self, text: str) -> None:
        if not self.quiet:
            self._print_above_bar(text, sys.stdout)

    def _print_above_bar(self, text: str, stream: TextIO) -> None:
        if self._bar is not None and not self._bar.disable:
            self._bar.write(one_line(text), file=stream)
        else:
            print(one_line(text), file=stream, flush=True)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class JsonLines:
    """One JSON object per line for a program, with the fields of the classes of `events`.

    `event` is `listed`, `found`, `progress`, `checked` (in a dry run), `finished`, `skipped`, `failed` or, at the end,
    `summary`. `input` is the path on the command line, `name` tells the images of a folder or zip apart; both are null
    in the `failed` that ends a job as a whole. Every line is flushed.
    """

    def __init__(self) -> None:
        self._tally = Tally()

    def __call__(self, event: Event) -> None:
        """Write an event of a job."""
        self._tally.add(event)
        if isinstance(event, Failed):
            self._write("failed", input=event.input, name=event.name, **_describe_error(event.error))
        else:
            self._write(type(event).__name__.lower(), **asdict(event))

    def conclude(self) -> None:
        """Write `summary`: the counts of all files, and the kinds of warnings with their counts."""
        tally = self._tally
        warnings = [{"text": text, "count": count} for text, count in tally.warnings]
        self._write(
            "summary", images=tally.images, done=tally.done, interpolated=tally.interpolated,
            skipped=tally.skipped.total(), failed=tally.failed.total(), warned=tally.warned, warnings=warnings,
            seconds=round(tally.elapsed, 3),
        )  # fmt: skip

    def report_end(self, reason: object, exit_code: int) -> None:
        """Write the `failed` of the whole job, for an interrupt or an error that belongs to no image."""
        self._write("failed", input=None, name=None, message=str(reason), exit_code=exit_code)

    def _write(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), flush=True)


def _name_place(event: Failed) -> str:
    """Return the message with the path of the file in the folder, where it begins with the name of the file alone."""
    message, name = str(event.error), PurePath(event.name).name
    return event.name + message.removeprefix(name) if message.startswith(f"{name}:") else message


def _describe_error(error: Any) -> dict[str, Any]:
    return {"message": str(error), "exit_code": error.exit_code}
