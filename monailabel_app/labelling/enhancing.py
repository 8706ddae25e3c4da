"""Super-resolution in a process of its own, so that the server answers other requests meanwhile."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as WaitError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_sr_bundle.engine.session import EnhanceOptions, ScaleChoice, SessionCache, choose_bundle
from monai_sr_bundle.images import files
from monai_sr_bundle.images.files import Source
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.given_spacing import with_spacing
from monai_sr_bundle.images.maps import map_paths, write_maps
from monai_sr_bundle.inferers.sampler_options import SamplerOptions

from labelling.errors import BusyError, ServerError, StoppedError

LONGEST_SECONDS = 3600
MOST_WAITING = 8
"""Each waits in a thread of the server, of which the other requests need some."""


@dataclass(frozen=True)
class Task:
    """One image to enlarge.

    Attributes:
        source: files of the image.
        bundle: name or folder of a bundle.
        scale: see `engine.session.choose_bundle`.
        region_xyxy: left, top, right and bottom edge, in pixels of the source. Default: all.
        slices: first slice, and the one after the last. Default: all.
        spacing_mm: row and column spacing of a file that has none.
        sampler: options of a diffusion model or a flow.
        error_bars: True to require them, and to write them. None for figures of those that the bundle has.
        write: write the enlarged image and the error bars; else only measure. Default True.
        force, force_model: see `EnhanceOptions`.
    """

    source: Source
    bundle: str
    scale: ScaleChoice = None
    region_xyxy: tuple[int, int, int, int] | None = None
    slices: tuple[int, int] | None = None
    spacing_mm: tuple[float, float] | None = None
    sampler: SamplerOptions = field(default_factory=SamplerOptions)
    error_bars: bool | None = None
    write: bool = True
    force: bool = False
    force_model: bool = False


@dataclass(frozen=True)
class EnhancedImage:
    """Files and figures that a task has written.

    Attributes:
        files: the result; the slices of a series, or one file.
        maps: files of the error bars.
        report: content of report.json, without paths of this machine.
        mean_half_width: mean half-width of the error bars as a share of the window; None without.
    """

    files: tuple[Path, ...]
    maps: tuple[Path, ...]
    report: dict[str, Any]
    mean_half_width: float | None


class Enhancer:
    """A process that enlarges one image after the other, with its bundles loaded."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(MOST_WAITING)
        self._working = threading.Lock()
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._lifeline: multiprocessing.connection.Connection | None = None
        self._is_closed = False

    @contextmanager
    def enhance(self, task: Task, folder: Path) -> Iterator[EnhancedImage]:
        """Enlarge an image; the written files are there during the `with` block.

        Args:
            task: the image and the options.
            folder: folder for a temporary one.

        Raises:
            InputError, BundleError, OutputError, OutOfMemoryError: see `Session.enhance`.
            ServerError: the process ended or did not come to an end.
            BusyError: too many images wait already.
            StoppedError: `close` was called.
        """
        if not self._slots.acquire(blocking=False):
            raise BusyError(f"{MOST_WAITING} images are waiting to be enlarged. Try again later.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            out = Path(tempfile.mkdtemp(prefix="result-", dir=folder))
            try:
                yield self._run(task, out)
            finally:
                shutil.rmtree(out, ignore_errors=True)
        finally:
            self._slots.release()

    def close(self) -> None:
        """End the process, also in the middle of an image, and start no other."""
        self._is_closed = True
        self._end_process()

    def _end_process(self) -> None:
        with self._lock:
            if self._pool is not None and self._lifeline is not None:
                self._lifeline.close()
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._pool = self._lifeline = None

    def _run(self, task: Task, out: Path) -> EnhancedImage:
        with self._working:  # so that the time of an image does not count while it waits for another
            try:
                future: Future[EnhancedImage] = self._running_pool().submit(_enhance, task, out)
                return future.result(timeout=LONGEST_SECONDS)
            except (BrokenProcessPool, CancelledError) as error:
                self._end_process()
                raise ServerError(
                    "the process that enlarges images was ended, perhaps for lack of memory. Choose a smaller region."
                ) from error
            except WaitError as error:
                self._end_process()
                raise ServerError(
                    f"the image took longer than {LONGEST_SECONDS} s. Choose a smaller region."
                ) from error

    def _running_pool(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._is_closed:
                raise StoppedError("the server is being stopped.")
            if self._pool is None:
                context = multiprocessing.get_context("spawn")
                other_end, self._lifeline = context.Pipe(duplex=False)
                self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_end_with, initargs=(other_end,))
            return self._pool


_sessions: SessionCache | None = None
"""The open bundles of this process."""


def _enhance(task: Task, out: Path) -> EnhancedImage:
    global _sessions
    _sessions = _sessions or SessionCache()
    image = files.read(task.source)
    if task.spacing_mm is not None:
        image = with_spacing(image, task.spacing_mm)
    session = _sessions.open(choose_bundle(image, task.bundle, task.scale))
    options = EnhanceOptions(
        task.sampler,
        slices=task.slices,
        error_bars=task.error_bars,
        force=task.force,
        force_model=task.force_model,
    )
    region = Region.from_xyxy(task.region_xyxy) if task.region_xyxy else None
    result = session.enhance(image, options, region)
    bars = result.error_bars
    written: list[Path] = []
    maps: list[Path] = []
    if task.write:
        target = files.output_paths([task.source], out / "result" if task.source.in_folder else f"{out}{os.sep}")[0]
        target = result.save(target)
        written = sorted(target.iterdir()) if target.is_dir() else [target]
        if bars is not None and task.error_bars:
            stem = target if target.is_dir() else target.with_name(target.name.split(".")[0])
            maps = write_maps(
                bars.half_width,
                result.image,
                result.described_provenance if task.source.format == "dicom" else result.provenance,
                target,
                map_paths(task.source, stem, mask=False),
                percent=bars.calibration.coverage_percent,
                unit=result.unit,
                tolerance=result.tolerance(None),
                overwrite=False,
            )
    span = result.window[1] - result.window[0]
    return EnhancedImage(
        tuple(written),
        tuple(file for path in maps for file in (sorted(path.iterdir()) if path.is_dir() else [path])),
        _without_folders(result.report()),
        None if bars is None else bars.mean / span,
    )


def _without_folders(content: Any) -> Any:
    """Return a report in which paths are only names."""
    if isinstance(content, dict):
        return {key: _without_folders(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_folders(value) for value in content]
    if isinstance(content, str) and os.path.isabs(content):
        return os.path.basename(content)
    return content


def _end_with(lifeline: multiprocessing.connection.Connection) -> None:
    """End this process when the server closes its end of the pipe, or ends, even by SIGKILL.

    The queue alone would keep it waiting for ever, and an image would be enlarged to its end.
    """

    def watch() -> None:
        multiprocessing.connection.wait([lifeline])
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches both; the server hears it and closes its end
    threading.Thread(target=watch, daemon=True).start()
