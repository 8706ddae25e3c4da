"""Several machines (`--engine ray`): Ray decides which of them works on an image, and starts the processes there.

Every machine needs this package, in the same version, and the folders of inputs and results under the same paths.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import chdir
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
from monai_sr_bundle import __version__
from monai_sr_bundle.cli.enlarging import Enlarger, ImageOptions, Task
from monai_sr_bundle.cli.events import Event
from monai_sr_bundle.cli.parallel import LostProcess
from monai_sr_bundle.errors import BundleError, InputError, InternalError
from ray.exceptions import RayError, RayTaskError

SECONDS_TO_END = 30.0
"""Seconds that the processes have to remove their unfinished files after an interrupt."""


class RayCluster:
    """A cluster of Ray; `Workers` of `parallel`. Every image takes one core, or one GPU with `--device cuda`.

    Args:
        options: options of the job.
        address: address of the cluster, as of `ray start --head`. Default: RAY_ADDRESS, else one on this machine alone,
            which ends with the job.

    Raises:
        InputError: there is no cluster at the address.
    """

    attempts = 3

    def __init__(self, options: ImageOptions, address: str | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
        # Ray's processes import from the folder that it is started in. Where this one does not (see `__main__`), it is
        # started in another: beside images may lie anything.
        folder = os.path.dirname(sys.executable) if "PYTHONSAFEPATH" in os.environ else os.getcwd()
        try:
            with chdir(folder):
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"--address {address}: no Ray cluster answers. Start one with `ray start --head`, and say the address "
                "that it prints."
            ) from error
        self._options = ray.put((options, os.getcwd(), __version__))
        gpus = 1 if options.device == "cuda" else 0
        # A lost image is tried again by `run_tasks`, which removes what was written of it before.
        self._remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_enlarge)
        self._running: dict[Any, Task] = {}

    @property
    def capacity(self) -> int:
        """Twice the cores that there are now, so that none waits for us."""
        return 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))

    def submit(self, task: Task) -> None:
        self._running[self._remote.remote(self._options, task)] = task

    def wait(self) -> Sequence[tuple[Task, Event | LostProcess]]:
        ready, _ = ray.wait(list(self._running))
        events: list[tuple[Task, Event | LostProcess]] = []
        for reference in ready:
            task = self._running.pop(reference)
            try:
                events += [(task, event) for event in ray.get(reference)]
            except RayTaskError as error:
                events.append((task, task.failed(InternalError.of(task.source.name, error.cause))))
            except RayError as error:
                reason = type(error).__name__
                events.append((task, LostProcess(InternalError, f"the process that worked on it was lost ({reason}).")))
        return events

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        for reference in self._running:
            ray.cancel(reference)
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=SECONDS_TO_END)
        ray.shutdown()


def _enlarge(job: tuple[ImageOptions, str, str], task: Task) -> list[Event]:
    """Enlarge one image in a process of Ray and return its events."""
    options, folder, version = job
    if version != __version__:
        error = BundleError(
            f"{task.source.name}: {platform.node()} has monai-sr-bundle {__version__}, expected {version} as where the "
            "job was started. Install the same version on every machine."
        )
        return [task.failed(error)]
    needed = (Path(folder), *(Path(folder, file) for file in task.source.files))
    missing = next((path for path in needed if not path.exists()), None)
    if missing is not None:
        error_of_path = InputError(
            f"{task.source.name}: {missing} does not exist on {platform.node()}. Keep inputs and results on storage "
            "that every machine has under the same path; for zips, set TMPDIR to such a folder."
        )
        return [task.failed(error_of_path)]
    os.chdir(folder)
    events: list[Event] = []
    _open_enlarger(options).run(task, events.append)
    return events


@lru_cache(maxsize=1)
def _open_enlarger(options: ImageOptions) -> Enlarger:
    """Return the one of this process: Ray keeps processes, so that a bundle is opened once in each."""
    return Enlarger(options)
