"""Several processes on this machine (`--jobs N`), each with bundles of its own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from types import TracebackType

import psutil
from monai_sr_bundle import _compat
from monai_sr_bundle.cli.enlarging import Enlarger, ImageOptions, Task
from monai_sr_bundle.cli.events import LAST_EVENTS, Event
from monai_sr_bundle.cli.exit_codes import raise_terminated
from monai_sr_bundle.cli.lines import log_lines
from monai_sr_bundle.cli.parallel import LostProcess
from monai_sr_bundle.errors import InternalError, OutOfMemoryError

SECONDS_TO_END = 30.0
"""Seconds that a process has to remove its unfinished files before it is killed."""


class Processes:
    """Processes that share the cores of this machine; `Workers` of `parallel`.

    One that the system kills, as it does when memory is short, is not replaced while others are left.

    Args:
        options: options of the job.
        count: number of processes.
    """

    attempts = 2

    def __init__(self, options: ImageOptions, count: int) -> None:
        self._options, self.capacity = options, count
        self._threads = max(1, (psutil.cpu_count(logical=False) or 1) // count)
        # Threads and opened models do not survive a fork.
        self._context = multiprocessing.get_context("spawn")
        self._idle: list[Connection] = []
        self._busy: dict[Connection, Task] = {}
        self._processes: dict[Connection, multiprocessing.process.BaseProcess] = {}

    def submit(self, task: Task) -> None:
        while self._idle:
            connection = self._idle.pop()
            try:
                connection.send(task)
            except OSError:  # it was killed while it had nothing to do
                self._remove_process(connection)
            else:
                self._busy[connection] = task
                return
        connection = self._start()
        self._busy[connection] = task
        connection.send(task)

    def wait(self) -> Sequence[tuple[Task, Event | LostProcess]]:
        events: list[tuple[Task, Event | LostProcess]] = []
        for ready in wait(list(self._busy)):
            assert isinstance(ready, Connection)
            try:
                event = ready.recv()
            except (EOFError, OSError):
                events.append((self._busy.pop(ready), self._remove_process(ready)))
                continue
            events.append((self._busy[ready], event))
            if isinstance(event, LAST_EVENTS):
                del self._busy[ready]
                self._idle.append(ready)
        return events

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        for connection, process in self._processes.items():
            if connection in self._busy:
                process.terminate()
            connection.close()
        for process in self._processes.values():
            process.join(SECONDS_TO_END)
            if process.is_alive():
                process.kill()
                process.join()

    def _start(self) -> Connection:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._options, logging.getLogger().level), daemon=True
        )
        with _threads(self._threads):
            process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def _remove_process(self, connection: Connection) -> LostProcess:
        """Return why a process has ended."""
        process = self._processes.pop(connection)
        connection.close()
        process.join()
        code = process.exitcode or 0
        if code == -signal.SIGKILL:
            self.capacity = max(1, self.capacity - 1)
            return LostProcess(
                OutOfMemoryError,
                "its process was killed, as the system does when memory is short. Choose fewer --jobs, or a smaller "
                "region with --roi.",
            )
        signal_or_code = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return LostProcess(
            InternalError, f"its process ended ({signal_or_code}). Please report this line, without the image."
        )


def _serve(connection: Connection, options: ImageOptions, log_level: int) -> None:
    """Enlarge one image after the other, in a process of `Processes`, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt at the keyboard reaches all; the first process decides
    signal.signal(signal.SIGTERM, raise_terminated)
    log_lines(log_level)
    _compat.return_large_buffers()
    enlarger = Enlarger(options)
    try:
        while True:
            enlarger.run(connection.recv(), connection.send)
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        return


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let processes that are started meanwhile take so many threads, unless the user has said how many."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
