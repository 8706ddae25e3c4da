"""Several images of a job at the same time, by the workers of `processes` or `ray_cluster`."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from monai_sr_bundle.cli.enlarging import Task, remove_files
from monai_sr_bundle.cli.events import LAST_EVENTS, Event
from monai_sr_bundle.errors import SuperResolutionError


@dataclass(frozen=True)
class LostProcess:
    """The process that worked on an image has ended in the middle of it.

    Attributes:
        kind, reason: class and text of the error, if the image is not tried again.
    """

    kind: type[SuperResolutionError]
    reason: str


class Workers(Protocol):
    """Processes, here or elsewhere, each with an `Enlarger`.

    Attributes:
        attempts: how often an image is tried whose process ends.
    """

    attempts: int

    @property
    def capacity(self) -> int:
        """Number of images that they take at the same time."""
        ...

    def submit(self, task: Task) -> None:
        """Begin with an image; fewer than `capacity` are being worked on."""
        ...

    def wait(self) -> Sequence[tuple[Task, Event | LostProcess]]:
        """Return the events since the last call, and wait for one if there is none."""
        ...


def run_tasks(workers: Workers, tasks: Iterable[Task], listener: Callable[[Task, Event], None]) -> None:
    """Let the workers do all tasks, and report their events in the order in which they happen.

    An image whose process was lost comes again after all others, and what the process had written of it is removed.
    """
    waiting = deque((task, 1) for task in tasks)
    running: dict[int, tuple[int, list[Path]]] = {}  # attempts so far, and the files that were there before
    while waiting or running:
        if waiting and len(running) < workers.capacity:
            task, attempt = waiting.popleft()
            running[task.index] = attempt, [path for path in task.planned if os.path.lexists(path)]
            workers.submit(task)
            continue
        for task, event in workers.wait():
            if isinstance(event, LostProcess):
                attempt, older = running.pop(task.index)
                remove_files(path for path in task.planned if path not in older)
                if attempt < workers.attempts:
                    waiting.append((task, attempt + 1))
                else:
                    message = f"{task.source.name}: {event.reason} It was tried {attempt} times."
                    listener(task, task.failed(event.kind(message)))
            else:
                listener(task, event)
                if isinstance(event, LAST_EVENTS):
                    del running[task.index]
