"""Listeners of a job: lines with a bar for a terminal, or JSON lines for a program."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from monai_sr_bundle.engine.result import Result
from monai_sr_bundle.engine.session import Checked, Session
from monai_sr_bundle.errors import SuperResolutionError
from monai_sr_bundle.images.files import Source, UnreadableFile
from monai_sr_bundle.images.geometry import UNKNOWN
from monai_sr_bundle.images.image import Image


def one_line(text: object) -> str:
    """Return a text that stays on its line and cannot steer the terminal, whatever a file name holds."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in str(text))


def describe(image: Image) -> str:
    """Describe an image in one line: modality, size, bits, and spacing with its source."""
    x, y, z = image.grid.spacing_xyz
    if image.grid.in_millimetres:
        spacing = f"{x:.4g} x {y:.4g}{f' x {z:.4g}' if len(image.pixels) > 1 else ''} mm ({image.grid.spacing_source})"
    else:
        source = image.grid.spacing_source
        spacing = "spacing unknown" if source == UNKNOWN else f"spacing unknown ({source} only)"
    modality = "" if image.modality == "unknown" else f"{image.modality}, "
    return f"{modality}{_size(image)} pixels, {image.bits} bit, {spacing}"


def _size(image: Image) -> str:
    slices, rows, columns = image.pixels.shape
    return f"{columns} x {rows}" + (f" x {slices}" if slices > 1 else "")


class Terminal:
    """Lines for a person: a bar with the time left on stderr, results on stdout.

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
        self._checked: list[Checked] = []

    def started(self, source: Source, image: Image, session: Session, target: Path) -> None:
        """Print the image, and the bundle, backend and device that work on it."""
        if self.quiet:
            return
        bundle, backend = session.bundle, session.backend
        model = f"{bundle.name} {bundle.version} | x{bundle.scale} | {backend.name} on {backend.device}"
        print(one_line(f"{source.name}: {describe(image)} | {model}"), flush=True)
        if self.dry_run:
            print(one_line(f"  would write {target}"))
        elif self.bar:
            self._bar = tqdm(
                total=1.0,
                leave=False,
                disable=None,  # if stderr is no terminal
                bar_format="  {percentage:3.0f}%|{bar:30}| {elapsed} (left {remaining})",
                file=sys.stderr,
            )

    def checked(self, image: Image, checked: Checked) -> None:
        """Print what the result would say of the image."""
        self._checked.append(checked)
        if not self.quiet:
            for note in (*image.notes, *checked.warnings):
                print(one_line(f"  note: {note}"))

    def conclude(self) -> None:
        """Print how many images of a dry run would be interpolated, and how many have a warning."""
        count = len(self._checked)
        if self.quiet or count < 2:
            return
        interpolated = sum(checked.interpolated for checked in self._checked)
        warned = sum(bool(checked.warnings) for checked in self._checked)
        print(
            f"{count} images: {interpolated} ({100 * interpolated / count:.1f} %) would be interpolated, "
            f"{warned} ({100 * warned / count:.1f} %) have a warning"
        )

    def progress(self, fraction: float) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(fraction - self._bar.n)

    def finished(self, source: Source, result: Result, written: Sequence[Path], seconds: float) -> None:
        """Print what was written and how long it took."""
        self.close()
        self.written += written
        if self.quiet:
            return
        paths = ", ".join(map(str, written))
        print(one_line(f"  {_size(result.image)} pixels in {seconds:.1f} s -> {paths}"))
        for warning in result.warnings:
            print(one_line(f"  note: {warning}"))

    def failed(self, source: Source | UnreadableFile, error: SuperResolutionError) -> None:
        """Print one line on stderr."""
        self.stopped(error, error.exit_code)

    def stopped(self, reason: object, exit_code: int) -> None:
        """Print one line on stderr about the end of the whole job."""
        self.close()
        print(one_line(f"monai-sr: error: {reason}"), file=sys.stderr)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class JsonLines:
    """One JSON object per line for a program: `found`, `progress`, `finished`, `failed`; in a dry run `checked`.

    `input` is the path on the command line, `name` tells the images of a folder or zip apart; both are null in the
    `failed` that ends a job as a whole.

    Args:
        stream: stream to write to; every line is flushed. Default stdout.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self._start_time = 0.0

    def started(self, source: Source, image: Image, session: Session, target: Path) -> None:
        """Write `found`: the image, and the bundle, backend and device that work on it."""
        self._start_time = time.monotonic()
        bundle, backend = session.bundle, session.backend
        has_spacing = image.grid.in_millimetres
        self._emit(
            event="found", input=str(source.path), name=source.name, output=str(target),
            shape_zyx=list(image.pixels.shape), bits=image.bits, modality=image.modality,
            spacing_xyz=list(image.grid.spacing_xyz) if has_spacing else None,
            spacing_source=image.grid.spacing_source, bundle=bundle.name, version=bundle.version, scale=bundle.scale,
            backend=backend.name, device=backend.device,
        )  # fmt: skip

    def checked(self, image: Image, checked: Checked) -> None:
        """Write `checked`: in a dry run, whether the image would be interpolated, and the warnings."""
        self._emit(event="checked", interpolated=checked.interpolated, warnings=[*image.notes, *checked.warnings])

    def progress(self, fraction: float) -> None:
        """Write `progress`: the fraction that is done and the seconds left."""
        elapsed = time.monotonic() - self._start_time
        left = elapsed * (1 - fraction) / fraction if fraction > 0 else None
        self._emit(event="progress", fraction=round(fraction, 4), seconds_left=None if left is None else round(left, 2))

    def finished(self, source: Source, result: Result, written: Sequence[Path], seconds: float) -> None:
        """Write `finished`: what was written, and the warnings."""
        self._emit(
            event="finished", input=str(source.path), name=source.name, written=[str(path) for path in written],
            shape_zyx=list(result.image.pixels.shape), warnings=list(result.warnings), seconds=round(seconds, 3),
        )  # fmt: skip

    def failed(self, source: Source | UnreadableFile, error: SuperResolutionError) -> None:
        """Write `failed`: the message, and the exit code of its class."""
        self._emit(
            event="failed", input=str(source.path), name=source.name, message=str(error), exit_code=error.exit_code
        )

    def stopped(self, reason: object, exit_code: int) -> None:
        """Write the `failed` of the whole job, for an interrupt or an error that belongs to no image."""
        self._emit(event="failed", input=None, name=None, message=str(reason), exit_code=exit_code)

    def _emit(self, **fields: Any) -> None:
        print(json.dumps(fields), file=self.stream, flush=True)
