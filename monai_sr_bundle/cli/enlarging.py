"""One image of a job: it is read, enlarged and written, and a listener gets the progress.

Every process of a job has an `Enlarger`. The worker of a viewer writes its files with `remove_on_error`, too.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import psutil
from monai_sr_bundle.cli.events import Checked, Failed, Finished, Found, Listener, Progress
from monai_sr_bundle.engine import session as engine
from monai_sr_bundle.engine.estimate import Speed, needed_bytes
from monai_sr_bundle.engine.result import Result, describe_loss
from monai_sr_bundle.engine.session import BackendName, DeviceName, EnhanceOptions, ScaleChoice, Session, SessionCache
from monai_sr_bundle.errors import (
    InputError,
    InternalError,
    OutOfMemoryError,
    OutputError,
    SuperResolutionError,
    UsageError,
)
from monai_sr_bundle.images import files
from monai_sr_bundle.images.dicom_to_nifti import INVERTED_NOTE, dicom_to_nifti
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.given_spacing import with_spacing
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.maps import check_maps, check_result, write_maps
from monai_sr_bundle.images.staging import require_free
from monai_sr_bundle.images.working_folders import working_folder
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.report.build import options_chosen, write_html, write_json
from monai_sr_bundle.shipped_bundles import find_bundle

OutputFormat = Literal["same", "nifti"]


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """The options of `monai-sr enhance` that concern one image after the other; its help explains them."""

    bundle: str | None = None
    scale: ScaleChoice = "auto"
    backend: BackendName = "auto"
    device: DeviceName = "auto"
    region: Region | None = None
    spacing_mm: tuple[float, float] | None = None
    sampler: SamplerOptions = field(default_factory=SamplerOptions)
    force: bool = False
    force_model: bool = False
    calibration: Path | None = None
    tolerance: float | None = None
    error_bars: bool = False
    preview: bool = False
    report: bool = False
    output_format: OutputFormat = "same"
    dry_run: bool = False
    command: Sequence[str] = ()

    @property
    def wants_error_bars(self) -> bool | None:
        """True to compute error bars; None, for a report, to do so if its bundle is calibrated for the options."""
        if self.error_bars or self.calibration is not None or self.tolerance is not None:
            return True
        return None if self.report else False


@dataclass(frozen=True)
class Task:
    """One image and the files to make of it.

    Attributes:
        index: place among the images of the job.
        source: the image.
        target: file or folder of the result.
        preview: the picture beside it, if it is wanted.
        maps: files of error bars.
        report: its JSON and its page.
        overwrite: whether older files may be replaced.
    """

    index: int
    source: files.Source
    target: Path
    preview: Path | None
    maps: tuple[Path, ...]
    report: tuple[Path, ...]
    overwrite: bool

    @property
    def planned(self) -> list[Path]:
        """All files, the result first."""
        return [self.target, *([self.preview] if self.preview else []), *self.maps, *self.report]

    def failed(self, error: SuperResolutionError) -> Failed:
        """Return the event of an error with this image."""
        return Failed(str(self.source.path), self.source.name, error)


class Enlarger:
    """Opened bundles, which enlarge one image after the other.

    Args:
        options: options of the job.
    """

    def __init__(self, options: ImageOptions) -> None:
        self.options = options
        self._sessions = SessionCache(options.backend, options.device, options.calibration)
        self._speed = Speed()

    def run(self, task: Task, listener: Listener) -> None:
        """Enlarge one image and report its events, the last of which says whether it failed.

        Raises:
            BrokenPipeError: whoever reads what the listener is told has gone.
        """
        try:
            self._enhance(task, listener)
        except BrokenPipeError:
            raise
        except Exception as error:  # whatever goes wrong with one image, the others go on
            listener(task.failed(_name_image(error, task.source)))

    def _enhance(self, task: Task, listener: Listener) -> None:
        start, options, source = time.perf_counter(), self.options, task.source
        for path in task.planned:
            require_free(path, overwrite=task.overwrite)
        require_writable(task.target, *task.planned[1:])
        as_nifti = options.output_format == "nifti" and source.format != "nifti"
        if as_nifti and source.format != "dicom":
            raise InputError(
                f"{source.name}: a {source.format.upper()} file has no position in the patient, which a NIfTI needs. "
                "Leave --output-format out."
            )
        image = files.read(source)
        if options.spacing_mm is not None:
            image = with_spacing(image, options.spacing_mm)
        session = self._sessions.open(engine.choose_bundle(image, options.bundle, options.scale))
        enhance_options = EnhanceOptions(
            options.sampler,
            error_bars=options.wants_error_bars,
            force=options.force,
            force_model=options.force_model,
        )
        checked = session.check(image, enhance_options, options.region)
        if not as_nifti:
            scales = session.bundle.scale_zyx
            extent = checked.extent
            sides = (extent.slice_count, extent.region.rows, extent.region.columns)
            shape = tuple(scale * side for scale, side in zip(scales, sides, strict=True))
            check_result(image, shape)
            if options.error_bars:
                check_maps(image, shape)
        listener(_describe_start(task, image, session))
        if options.dry_run:
            listener(self._estimate(task, image, session, checked))
            return
        require_disk_space(task.target, _disk_bytes(task, image, session, checked))
        progress = _Progress(task, listener)
        result = session.enhance(image, enhance_options, options.region, progress)
        if as_nifti and image.black_is_high:
            result = replace(result, warnings=(*result.warnings, INVERTED_NOTE))
        result = replace(result, warnings=(*result.warnings, *describe_loss(image, task.target)))
        converted = dicom_to_nifti(result.image) if as_nifti else None
        with remove_on_error(task.planned) as written:
            if converted is not None:
                files.write(converted, result.provenance, task.target, overwrite=task.overwrite)
                written.append(task.target)
            else:
                written.append(result.save(task.target, overwrite=task.overwrite))
            if task.overwrite:  # an older report beside a new result would be a wrong one
                remove_files(iter(task.planned[1:]))
            if task.preview:
                written.append(result.preview(task.preview))
            if task.maps and result.error_bars:
                written += write_maps(
                    result.error_bars.half_width,
                    converted or result.image,
                    result.described_provenance if source.format == "dicom" else result.provenance,
                    task.target,
                    task.maps,
                    percent=result.error_bars.calibration.coverage_percent,
                    unit=result.unit,
                    tolerance=result.tolerance(options.tolerance),
                    overwrite=task.overwrite,
                )
            if task.report:
                contents = result.report(
                    output=task.target,
                    seconds=time.perf_counter() - start,
                    command=_repeatable(options, result),
                    tolerance=options.tolerance,
                    maps=task.maps,
                )
                json_path, page_path = task.report
                written.append(write_json(contents, json_path))
                pictures = result.error_bar_pictures(options.tolerance), result.removed_picture()
                write_html(contents, task.preview, page_path, *pictures)
                written.append(page_path)
        slices, rows, columns = result.image.pixels.shape
        listener(
            Finished(
                str(source.path),
                source.name,
                written=tuple(map(str, written)),
                shape_zyx=(slices, rows, columns),
                interpolated=bool(result.provenance.instead_of),
                warnings=(*result.warnings, *result.grain_warnings),
                seconds=time.perf_counter() - start,
            )
        )

    def _estimate(self, task: Task, image: Image, session: Session, checked: engine.CheckedOptions) -> Checked:
        if checked.interpolated:
            session = self._sessions.open(find_bundle("bicubic").at_scale(session.bundle.scale))
        bars = checked.calibration is not None
        sampler = session.bundle.family.resolve(SamplerOptions()) if checked.interpolated else checked.sampler
        seconds = self._speed.seconds(checked.extent, session, sampler, error_bars=bars)
        _, upper_bound = needed_bytes(checked.extent, image.pixels.itemsize, session, error_bars=bars)
        return Checked(
            str(task.source.path),
            task.source.name,
            interpolated=checked.interpolated,
            warnings=(*image.notes, *checked.warnings, *describe_loss(image, task.target)),
            seconds=seconds,
            memory_bytes=psutil.Process().memory_info().rss + upper_bound,
            disk_bytes=_disk_bytes(task, image, session, checked),
        )


def _repeatable(options: ImageOptions, result: Result) -> list[str]:
    """Return the command line with what was chosen for "auto", which another machine might choose otherwise."""
    chosen = [
        word
        for option, value in options_chosen(result.provenance).items()
        if getattr(options, option) == "auto"
        for word in (f"--{option}", value)
    ]
    # Behind "--" there are files alone.
    end = options.command.index("--") if "--" in options.command else len(options.command)
    return [*options.command[:end], *chosen, *options.command[end:]]


def _disk_bytes(task: Task, image: Image, session: Session, checked: engine.CheckedOptions) -> int:
    bars = bool(task.maps) and checked.calibration is not None
    return needed_bytes(checked.extent, image.pixels.itemsize, session, error_bars=bars)[0]


class _Progress:
    """Report the fraction of an image that is done, and the seconds left."""

    def __init__(self, task: Task, listener: Listener) -> None:
        self._task, self._listener, self._start = task, listener, time.monotonic()

    def __call__(self, fraction: float) -> None:
        left = (time.monotonic() - self._start) * (1 - fraction) / fraction if fraction > 0 else None
        source = self._task.source
        self._listener(Progress(str(source.path), source.name, round(fraction, 4), left and round(left, 2)))


def _describe_start(task: Task, image: Image, session: Session) -> Found:
    slices, rows, columns = image.pixels.shape
    x, y, _ = image.grid.spacing_xyz
    return Found(
        str(task.source.path),
        task.source.name,
        output=str(task.target),
        shape_zyx=(slices, rows, columns),
        bits=image.bits,
        modality=image.modality,
        spacing_xyz=(x, y, image.grid.slice_distance_mm) if image.grid.in_millimetres else None,
        spacing_source=image.grid.spacing_source,
        bundle=session.bundle.name,
        version=session.bundle.version,
        scale=session.bundle.scale,
        backend=session.backend.name,
        device=session.backend.device,
    )


def _name_image(error: Exception, source: files.Source) -> SuperResolutionError:
    """Return an error that names its image, without the frames that would keep the image's arrays alive."""
    if isinstance(error, MemoryError) and not isinstance(error, OutOfMemoryError):
        error = OutOfMemoryError(
            f"{source.path.name}: not enough memory for the image itself. Choose a smaller region with --roi, or use "
            "another machine."
        )
    elif not isinstance(error, SuperResolutionError):
        error = InternalError.of(source.name, error)
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def check_tolerance(tolerance: float | None) -> None:
    """Refuse a tolerance that means nothing.

    Raises:
        UsageError: not a finite number above 0.
    """
    if tolerance is not None and not 0 < tolerance < math.inf:
        raise UsageError(f"--tolerance {tolerance:g}: expected a number above 0, in grey levels or HU.")


@contextmanager
def remove_on_error(planned: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield a list for the written files, and remove them after any exception, an interrupt included.

    A result without the report that was asked for would look finished. A file that replaced an older result stays.
    """
    older = [path for path in planned if os.path.lexists(path)]
    new_folders = [parent for parent in planned[0].absolute().parents if not parent.exists()]
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        remove_files(path for path in written if path not in older)
        for folder in new_folders:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def remove_files(paths: Iterator[Path]) -> None:
    """Remove files and folders, as far as they exist."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def require_writable(out: Path, *companions: Path) -> None:
    """Raise OutputError if no file can be made where a result is to lie; call it before hours of computing.

    Args:
        out: file or folder to make.
        companions: files beside it.
    """
    folder = _existing_parent(out)
    try:
        with working_folder(folder) as trial:  # rights alone do not tell: the disk may be read-only or full
            for path in (out, *companions):
                (trial / path.name).touch()
    except OSError as error:
        raise OutputError(
            f"{out}: the result cannot be written, because no file can be made in {folder} ({error.strerror}). Choose "
            "a folder that you may write to, or a shorter name. Nothing was computed."
        ) from error


def _existing_parent(out: Path) -> Path:
    """Return the innermost folder around a result that is there before it is written."""
    return next(parent for parent in Path(os.path.abspath(out)).parents if parent.is_dir())


def require_disk_space(out: Path, needed_bytes: int) -> None:
    """Raise OutputError if a result does not fit onto the disk; call it before hours of computing.

    Args:
        out: file or folder to make.
        needed_bytes: its size, uncompressed (how far it shrinks is known only when it is written); what an older `out`
            takes is not counted, as it is replaced only when the new one is complete.
    """
    folder = _existing_parent(out)
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise OutputError(
            f"{out}: the result needs up to about {needed_bytes:,} bytes, and {folder} has {free:,} free. Make room "
            "or choose another folder. Nothing was computed."
        )
