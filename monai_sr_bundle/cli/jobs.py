"""From files to files: find, read, enlarge, write, and tell a listener how far it is.

The command line and the demo run a `Job`, and the viewers' worker tells the same figures; the engine knows no files.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from monai_sr_bundle.bundles import find_bundle
from monai_sr_bundle.engine.result import Result
from monai_sr_bundle.engine.session import (
    BackendName,
    Checked,
    DeviceName,
    EnhanceOptions,
    ScaleChoice,
    Session,
    SessionCache,
    choose_bundle,
)
from monai_sr_bundle.errors import InputError, InternalError, OutOfMemoryError, SuperResolutionError
from monai_sr_bundle.images import files
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.image import Image, with_spacing
from monai_sr_bundle.images.maps import check_maps, map_paths, write_maps
from monai_sr_bundle.images.staging import require_free
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.report.build import write_html, write_json


class Listener(Protocol):
    """Whoever wants to know: a terminal, a JSON stream, a window."""

    def started(self, source: files.Source, image: Image, session: Session, target: Path) -> None:
        """An image was read and the work on it begins."""

    def checked(self, image: Image, checked: Checked) -> None:
        """The present image was checked, and in a dry run that is all."""

    def progress(self, fraction: float) -> None:
        """This much of the present image is done."""

    def finished(self, source: files.Source, result: Result, written: Sequence[Path], seconds: float) -> None:
        """The present image is written."""

    def failed(self, source: files.Source | files.UnreadableFile, error: SuperResolutionError) -> None:
        """The present image could not be enlarged; the next one follows."""


@dataclass(frozen=True)
class Job:
    """A job of `monai-sr enhance`; the fields are its options."""

    inputs: Sequence[Path]
    out: str | os.PathLike[str]
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
    overwrite: bool = False
    dry_run: bool = False
    command: Sequence[str] = ()

    def run(self, listener: Listener) -> list[SuperResolutionError]:
        """Enlarge every image; one that fails leaves nothing behind and does not stop the others.

        Returns:
            The errors: of files that cannot be opened, then in the order of the images; empty when all went well.

        Raises:
            SuperResolutionError: nothing could be begun: no image found, results that would collide, an unknown bundle,
                a scale that it does not have, error bars asked for without a place to tell them.
        """
        if self.bundle is not None:
            find_bundle(self.bundle).at_scale(None if self.scale == "auto" else self.scale)
        for name, value in (("calibration", self.calibration), ("tolerance", self.tolerance)):
            if value is not None and not (self.report or self.error_bars):
                raise InputError(
                    f"--{name} {value}: needs a report or files of error bars. Add --report or --error-bars."
                )
        check_tolerance(self.tolerance)
        sessions = SessionCache(self.backend, self.device, self.calibration)
        errors: list[SuperResolutionError] = []
        unreadable: list[files.UnreadableFile] = []
        with files.discover(self.inputs, unreadable) as sources:
            for file in unreadable:
                errors.append(file.error)
                listener.failed(file, file.error)
            targets = files.output_paths(sources, self.out)
            for source, target, stem in zip(sources, targets, stems(targets), strict=True):
                try:
                    self._enhance(source, [target, *self._companions(source, stem)], sessions, listener)
                except BrokenPipeError:  # whoever reads what is told has gone
                    raise
                except Exception as error:  # whatever goes wrong with one image, the others go on
                    errors.append(_reported(error, source))
                    listener.failed(source, errors[-1])
        return errors

    def _enhance(self, source: files.Source, planned: list[Path], sessions: SessionCache, listener: Listener) -> None:
        start = time.perf_counter()
        target, *companions = planned
        for path in planned:
            require_free(path, overwrite=self.overwrite)
        image = files.read(source)
        if self.spacing_mm is not None:
            image = with_spacing(image, self.spacing_mm)
        session = sessions.open(choose_bundle(image, self.bundle, self.scale))
        options = EnhanceOptions(
            self.sampler, error_bars=self._wants_error_bars, force=self.force, force_model=self.force_model
        )
        checked = session.check(image, options, self.region)
        if self.error_bars:
            scales = session.bundle.scale_zyx
            sides = (image.pixels.shape[0], checked.region.rows, checked.region.columns)
            check_maps(image, tuple(scale * side for scale, side in zip(scales, sides, strict=True)))
        listener.started(source, image, session, target)
        if self.dry_run:
            listener.checked(image, checked)
            return
        result = session.enhance(image, options, self.region, listener.progress)
        maps = companions[int(self.preview) : len(companions) - 2 * self.report]
        with together(planned) as written:
            written.append(result.save(target, overwrite=self.overwrite))
            if self.preview:
                written.append(result.preview(companions[0]))
            if maps and result.error_bars:
                written += write_maps(
                    result.error_bars.half_width,
                    result.image,
                    result.described_provenance if source.format == "dicom" else result.provenance,
                    target,
                    maps,
                    percent=result.error_bars.calibration.coverage_percent,
                    unit=result.unit,
                    tolerance=result.tolerance(self.tolerance),
                    overwrite=self.overwrite,
                )
            if self.report:
                contents = result.report(
                    output=target,
                    seconds=time.perf_counter() - start,
                    command=self.command,
                    tolerance=self.tolerance,
                    maps=maps,
                )
                written.append(write_json(contents, companions[-2]))
                pictures = result.error_bar_pictures(self.tolerance), result.removed_picture()
                write_html(contents, companions[0] if self.preview else None, companions[-1], *pictures)
                written.append(companions[-1])
        listener.finished(source, result, written, time.perf_counter() - start)

    @property
    def _wants_error_bars(self) -> bool | None:
        """A report has error bars wherever its bundle is calibrated for the sampler options."""
        if self.error_bars or self.calibration is not None or self.tolerance is not None:
            return True
        return None if self.report else False

    def _companions(self, source: files.Source, stem: Path) -> list[Path]:
        preview, *report = (
            stem.with_name(f"{stem.name}.{name}") for name in ("preview.png", "report.json", "report.html")
        )
        maps = map_paths(source, stem, mask=self.tolerance is not None) if self.error_bars else []
        return [*([preview] if self.preview else []), *maps, *(report if self.report else [])]


def _reported(error: Exception, source: files.Source) -> SuperResolutionError:
    """The error, which names its image, without the frames that would keep the image's arrays alive."""
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
        InputError: not a finite number above 0.
    """
    if tolerance is not None and not 0 < tolerance < math.inf:
        raise InputError(f"--tolerance {tolerance:g}: expected a number above 0, in grey levels or HU.")


@contextmanager
def together(planned: Sequence[Path]) -> Iterator[list[Path]]:
    """A list for what was written; after any exception, an interrupt included, those files are taken away again.

    A result without the report that was asked for would look finished. What replaced an older result stays.
    """
    older = [path for path in planned if os.path.lexists(path)]
    new_folders = [parent for parent in planned[0].absolute().parents if not parent.exists()]
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for path in written:
            if path not in older:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for folder in new_folders:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def stems(targets: Sequence[Path]) -> list[Path]:
    """Return the name that preview and report of each result begin with: `chest_sr.png` has `chest_sr.preview.png`.

    Where `chest_sr.jpg` is a result, too, both keep their suffix: `chest_sr.png.preview.png`.
    """
    short = [
        target.with_name(target.name.removesuffix(".nii.gz" if target.name.endswith(".nii.gz") else target.suffix))
        for target in targets
    ]
    count = Counter(str(path).casefold() for path in short)
    return [path if count[str(path).casefold()] == 1 else target for path, target in zip(short, targets, strict=True)]
