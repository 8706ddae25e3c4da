"""Processes that share the images of a comparison: two with one thread each do more than one with two threads."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import repeat
from multiprocessing import get_context
from types import TracebackType
from typing import Any, TypeVar

import torch
from monai_sr_bundle.errors import OutOfMemoryError

Result = TypeVar("Result")


class Workers:
    """A pool that is opened once and used for one run after the other.

    Args:
        count: number of processes, at least 1.
        threads: CPU threads of each process. Default: those of this process, shared.
    """

    def __init__(self, count: int, threads: int | None = None) -> None:
        self.count = count
        self.threads = threads or max(1, torch.get_num_threads() // count)
        # A fork would inherit the locks of PyTorch's threads without the threads.
        self._pool = ProcessPoolExecutor(count, get_context("spawn"), _start_process, (self.threads,))

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def map(
        self, factory: Callable[..., Callable[..., Result]], arguments: tuple[Any, ...], *inputs: Iterable[Any]
    ) -> Iterator[Result]:
        """Apply the function ``factory(*arguments)``, which every process makes once, to each set of inputs in order.

        Raises:
            OutOfMemoryError: a process ended without a word, as the kernel ends one that takes too much memory.
        """
        try:
            yield from self._pool.map(_run, repeat(factory), repeat(arguments), *inputs)
        except BrokenProcessPool as error:
            raise OutOfMemoryError(
                f"one of {self.count} processes ended without a word, probably for lack of memory. Try --workers 1."
            ) from error


_cached: tuple[Any, Callable[..., Any]] | None = None


def _start_process(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it and ends the others
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for ONNX Runtime, which has not started here yet
    torch.set_num_threads(threads)


def _run(factory: Callable[..., Callable[..., Any]], arguments: tuple[Any, ...], *inputs: Any) -> Any:
    global _cached
    if _cached is None or _cached[0] != (factory, arguments):
        _cached = None  # the old one's memory first
        _cached = ((factory, arguments), factory(*arguments))
    return _cached[1](*inputs)
