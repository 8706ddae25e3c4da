"""Processes that share the images of a comparison: two with a thread each do more than one with two."""

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

Found = TypeVar("Found")


class Workers:
    """A pool that is opened once and used for one run after the other.

    Args:
        count: processes, at least 1.
        threads: of each; by default, all of them together have as many as this process.
    """

    def __init__(self, count: int, threads: int | None = None) -> None:
        self.count = count
        self.threads = threads or max(1, torch.get_num_threads() // count)
        # A fork would inherit the locks of PyTorch's threads without the threads.
        self._pool = ProcessPoolExecutor(count, get_context("spawn"), _begin, (self.threads,))

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def map(
        self, make: Callable[..., Callable[..., Found]], arguments: tuple[Any, ...], *inputs: Iterable[Any]
    ) -> Iterator[Found]:
        """Results of ``make(*arguments)`` for each set of inputs, in their order; every process makes its own once.

        Raises:
            OutOfMemoryError: a process ended without a word, as the kernel ends one that takes too much memory.
        """
        try:
            yield from self._pool.map(_work, repeat(make), repeat(arguments), *inputs)
        except BrokenProcessPool as error:
            raise OutOfMemoryError(
                f"one of {self.count} processes ended without a word, probably for lack of memory. Try --workers 1."
            ) from error


_made: tuple[Any, Callable[..., Any]] | None = None


def _begin(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it and ends the others
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for ONNX Runtime, which has not started here yet
    torch.set_num_threads(threads)


def _work(make: Callable[..., Callable[..., Any]], arguments: tuple[Any, ...], *inputs: Any) -> Any:
    global _made
    if _made is None or _made[0] != (make, arguments):
        _made = None  # the old one's memory first
        _made = ((make, arguments), make(*arguments))
    return _made[1](*inputs)
