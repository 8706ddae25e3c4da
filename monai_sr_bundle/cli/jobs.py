"""From files to files: find the images, plan their results, and let one process or several enlarge them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from monai_sr_bundle.cli.enlarging import Enlarger, ImageOptions, Task, check_tolerance
from monai_sr_bundle.cli.events import Event, Failed, Listed, Listener, Skipped
from monai_sr_bundle.cli.parallel import run_tasks
from monai_sr_bundle.cli.processes import Processes
from monai_sr_bundle.errors import SuperResolutionError, UsageError
from monai_sr_bundle.images import files
from monai_sr_bundle.images.maps import map_paths
from monai_sr_bundle.images.working_folders import remove_abandoned
from monai_sr_bundle.shipped_bundles import find_bundle

EngineName = Literal["local", "ray"]
DONE_BEFORE = "its result exists already"


@dataclass(frozen=True)
class Job(ImageOptions):
    """A job of `monai-sr enhance`; the fields are its options.

    Attributes:
        replace_results: replace results of this package, and no other files. Default False.
    """

    inputs: Sequence[Path]
    out: str | os.PathLike[str]
    overwrite: bool = False
    replace_results: bool = False
    skip_existing: bool = False
    jobs: int = 1
    engine: EngineName = "local"
    address: str | None = None

    def run(self, listener: Listener) -> list[SuperResolutionError]:
        """Enlarge every image; one that fails leaves nothing behind and does not stop the others.

        The listener is told what became of every file that was named or found in a folder.

        Returns:
            The errors: of files that cannot be opened, then in the order of the images; empty when all went well.

        Raises:
            SuperResolutionError: nothing could be begun: results that would collide, an unknown bundle, a scale that it
                does not have, error bars asked for without a place to tell them, no cluster.
        """
        self._check()
        unreadable: list[files.UnreadableFile] = []
        left_out: list[files.LeftOutFile] = []
        failures: dict[int, SuperResolutionError] = {}
        with files.discover(self.inputs, unreadable, left_out) as sources:
            tasks = self._plan(sources)
            listener(Listed(len(sources), None if self.engine == "ray" else self.jobs))
            for file in left_out:
                listener(Skipped(str(file.path), file.name, file.reason))
            for bad_file in unreadable:
                listener(Failed(str(bad_file.path), bad_file.name, bad_file.error))
            waiting = []
            for task in tasks:
                if self.skip_existing and all(map(os.path.lexists, task.planned)):
                    listener(Skipped(str(task.source.path), task.source.name, DONE_BEFORE))
                else:
                    waiting.append(task)

            def tell(task: Task, event: Event) -> None:
                if isinstance(event, Failed):
                    failures[task.index] = event.error
                listener(event)

            self._enlarge(waiting, tell)
        return [*(bad_file.error for bad_file in unreadable), *(failures[index] for index in sorted(failures))]

    def _check(self) -> None:
        if self.bundle is not None:
            find_bundle(self.bundle).at_scale(None if self.scale == "auto" else self.scale)
        for name, value in (("calibration", self.calibration), ("tolerance", self.tolerance)):
            if value is not None and not (self.report or self.error_bars):
                raise UsageError(
                    f"--{name} {value}: needs a report or files of error bars. Add --report or --error-bars."
                )
        check_tolerance(self.tolerance)

    def _plan(self, sources: Sequence[files.Source]) -> list[Task]:
        written_as = [self._written_as(source) for source in sources]
        targets = files.output_paths(written_as, self.out)
        tasks = []
        for index, (source, source_as_written, target, stem) in enumerate(
            zip(sources, written_as, targets, stems(targets), strict=True)
        ):
            preview, *report = (
                stem.with_name(f"{stem.name}.{name}") for name in ("preview.png", "report.json", "report.html")
            )
            remove_abandoned(target.parent)  # which puts back what a killed process was replacing
            task = Task(
                index,
                source,
                target,
                preview if self.preview else None,
                tuple(map_paths(source_as_written, stem, mask=self.tolerance is not None)) if self.error_bars else (),
                tuple(report) if self.report else (),
                self.overwrite,
            )
            # A run that goes on may have been ended between a result and its companions.
            is_unfinished = self.skip_existing and not all(map(os.path.lexists, task.planned))
            if not self.overwrite and target.exists() and (self.replace_results or is_unfinished):
                task = replace(task, overwrite=_is_result(target))
            tasks.append(task)
        files.check_apart([path for task in tasks for path in task.planned], sources)
        return tasks

    def _written_as(self, source: files.Source) -> files.Source:
        """Return the source as if it were of the format of its result."""
        if self.output_format == "same" or source.format != "dicom":
            return source
        name = source.name if source.in_folder else _without_suffix(source.name)
        return files.Source("nifti", source.files[:1], source.path, f"{name}.nii.gz")

    def _enlarge(self, tasks: Sequence[Task], listener: Callable[[Task, Event], None]) -> None:
        options = ImageOptions(**{each.name: getattr(self, each.name) for each in fields(ImageOptions)})
        if self.engine == "local" and (self.jobs == 1 or len(tasks) < 2):
            enlarger = Enlarger(options)
            for task in tasks:
                enlarger.run(task, lambda event, task=task: listener(task, event))  # type: ignore[misc]
            return
        pool: AbstractContextManager[Any]
        if self.engine == "local":
            pool = Processes(options, min(self.jobs, len(tasks)))
        else:
            from monai_sr_bundle.cli.ray_cluster import RayCluster

            pool = RayCluster(options, self.address)
        with pool as workers:
            run_tasks(workers, tasks, listener)


def stems(targets: Sequence[Path]) -> list[Path]:
    """Return the name that preview and report of each result begin with: `chest_sr.png` has `chest_sr.preview.png`.

    Where `chest_sr.jpg` is a result, too, both keep their suffix: `chest_sr.png.preview.png`.
    """
    short = [target.with_name(_without_suffix(target.name)) for target in targets]
    count = Counter(str(path).casefold() for path in short)
    return [path if count[str(path).casefold()] == 1 else target for path, target in zip(short, targets, strict=True)]


def _without_suffix(name: str) -> str:
    """Return a name without the suffix of a kind of file that is read; the last dot may be one of a UID."""
    return name[: len(name) - len(files.suffix_of(name))]


def _is_result(path: Path) -> bool:
    """Return whether a file or a folder is a result of this package."""
    try:
        with files.discover([path]) as sources:
            return all(map(files.is_result, sources))
    except SuperResolutionError:
        return False
