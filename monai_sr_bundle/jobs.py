"""From files to files: find, read, enlarge, write, and tell a listener how far it is.

The command line and the demo run a `Job`, and the viewers' worker tells the same figures; the engine knows no files.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from monai_sr_bundle import engine
from monai_sr_bundle.backends.backend import Backend, BackendName, DeviceName, choose_draw, open_backend
from monai_sr_bundle.bundles import ERROR_BARS, Bundle, find_bundle
from monai_sr_bundle.errors import InputError, OutOfMemoryError, SuperResolutionError
from monai_sr_bundle.images import files
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.maps import check_maps, map_paths, write_maps
from monai_sr_bundle.images.staging import require_free
from monai_sr_bundle.inferers.consistency import DataConsistency
from monai_sr_bundle.inferers.interpolate import cubic_slice, enlarge_bicubic
from monai_sr_bundle.inferers.process import Draw
from monai_sr_bundle.preview import draw_preview, slice_values, value_unit
from monai_sr_bundle.report import (
    Consistency,
    build_report,
    describe_error_bars,
    measure_consistency,
    slab_mean,
    tell_findings,
    write_html,
    write_json,
)
from monai_sr_bundle.trust.calibration import Calibration, Entry
from monai_sr_bundle.trust.error_bars import TOLERATED, own_calibration, own_promise, promise
from monai_sr_bundle.trust.input_range import alike
from monai_sr_bundle.trust.picture import Pictures, draw_error_bars, draw_removed

Reduce = Callable[[np.ndarray], np.ndarray]


class Listener(Protocol):
    """Whoever wants to know: a terminal, a JSON stream, a window."""

    def found(self, source: files.Source, image: Image, bundle: Bundle, backend: Backend, target: Path) -> None:
        """An image was read and the work on it begins."""

    def progress(self, fraction: float) -> None:
        """This much of the present image is done."""

    def finished(self, source: files.Source, result: engine.Result, written: Sequence[Path], seconds: float) -> None:
        """The present image is written (nothing is written in a dry run)."""

    def failed(self, source: files.Source, error: SuperResolutionError) -> None:
        """The present image could not be enlarged; the next one follows."""


@dataclass(frozen=True)
class Job:
    """What to do with some files; the fields are the options of `monai-sr enhance`."""

    inputs: Sequence[Path]
    out: str | os.PathLike[str]
    bundle: str | None = None
    backend: BackendName = "auto"
    device: DeviceName = "auto"
    roi: engine.Roi | None = None
    spacing_mm: tuple[float, float] | None = None
    seed: int = 0
    sampler: str | None = None
    steps: int | None = None
    samples: int | None = None
    texture: float | None = None
    force: bool = False
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
            The errors, in the order of the images; empty when all went well.

        Raises:
            SuperResolutionError: nothing could be begun: no image found, results that would collide, unknown bundle,
                error bars asked for without a place to tell them.
        """
        if self.bundle is not None:
            find_bundle(self.bundle)
        for name, value in (("calibration", self.calibration), ("tolerance", self.tolerance)):
            if value is not None and not (self.report or self.error_bars):
                raise InputError(
                    f"--{name} {value}: error bars are told in the report. Add --report, or --error-bars for files."
                )
        check_tolerance(self.tolerance)
        opened: dict[Path, Backend] = {}
        errors: list[SuperResolutionError] = []
        with files.discover(self.inputs) as sources:
            targets = files.output_paths(sources, self.out)
            for source, target, stem in zip(sources, targets, stems(targets), strict=True):
                try:
                    self._one(source, [target, *self._companions(source, stem)], opened, listener)
                except (SuperResolutionError, MemoryError) as error:
                    errors.append(_reported(error, source))
                    listener.failed(source, errors[-1])
        return errors

    def _one(self, source: files.Source, planned: list[Path], opened: dict[Path, Backend], listener: Listener) -> None:
        began = time.perf_counter()
        target, *companions = planned
        for path in planned:
            require_free(path, overwrite=self.overwrite)
        image = files.read(source)
        if self.spacing_mm is not None:
            image = engine.with_spacing(image, self.spacing_mm)
        bundle, warnings = engine.choose_bundle(image, self.bundle, force=self.force)
        engine.check(image, self.roi)
        draw = choose_draw(bundle, self.seed, self.sampler, self.steps, self.samples, self.texture)
        promised = self._promised(bundle, draw)
        if self.error_bars:
            slices, rows, columns = image.pixels.shape
            x0, y0, x1, y1 = self.roi or (0, 0, columns, rows)
            check_maps(image, (slices, bundle.scale * (y1 - y0), bundle.scale * (x1 - x0)))
        if bundle.folder not in opened:
            opened[bundle.folder] = open_backend(bundle, self.backend, self.device)
        backend = opened[bundle.folder]
        listener.found(source, image, bundle, backend, target)
        if self.dry_run:
            return
        if self.report and promised is None and own_calibration(bundle) is not None and bundle.has_file(ERROR_BARS):
            warnings = (*warnings, "No error bars: those of the bundle are not calibrated for this way to draw.")
        reduce = bundle.degradation.reduce
        result = engine.run(
            image, bundle, backend, self.roi, draw, warnings, progress=listener.progress, promised=promised
        )
        measured, provenance = None, result.provenance
        if self.report or source.format == "dicom":
            measured = result_consistency(result, bundle)
        if measured and source.format == "dicom":
            provenance = replace(provenance, findings=findings(result, measured, shipped=self.calibration is None))
        maps = companions[int(self.preview) : len(companions) - 2 * self.report]
        with together(planned) as written:
            files.write(result.image, provenance, source, target, overwrite=self.overwrite)
            written.append(target)
            if self.preview:
                written.append(self._draw(image, bundle, result, companions[0]))
            if maps and result.error_bars:
                for path in write_maps(
                    result.error_bars.half_width,
                    result.image,
                    provenance,
                    target,
                    maps,
                    percent=result.error_bars.calibration.coverage_percent,
                    unit=value_unit(image),
                    tolerance=tolerance(image, bundle, self.tolerance),
                    overwrite=self.overwrite,
                ):
                    written.append(path)
            if self.report:
                seconds = time.perf_counter() - began
                contents = self._report(source, image, bundle, result, target, reduce, seconds, measured, maps)
                written.append(write_json(contents, companions[-2]))
                preview = companions[0] if self.preview else None
                pictures = self._error_pictures(image, bundle, result), self._removed_picture(image, bundle, result)
                write_html(contents, preview, companions[-1], *pictures)
        listener.finished(source, result, planned, time.perf_counter() - began)

    def _promised(self, bundle: Bundle, draw: Draw) -> tuple[Calibration, Entry] | None:
        """A report has error bars wherever its bundle has them for this draw."""
        asked = self.error_bars or self.calibration is not None or self.tolerance is not None
        if asked:
            return promise(bundle, draw, self.calibration)
        return own_promise(bundle, draw) if self.report else None

    def _error_pictures(self, image: Image, bundle: Bundle, result: engine.Result) -> Pictures | None:
        if result.error_bars is None:
            return None
        middle = result.image.pixels.shape[0] // 2
        return draw_error_bars(
            slice_values(result.image, middle),
            result.error_bars.half_width[middle],
            spacing=_spacing(result.image),
            window=display_window(image, bundle),
            tolerance=tolerance(image, bundle, self.tolerance),
            black_is_high=image.black_is_high,
        )

    def _removed_picture(self, image: Image, bundle: Bundle, result: engine.Result) -> bytes:
        if result.removed is None or not result.removed.places:
            return b""
        # Of a volume, the slice from which most was removed.
        most = int(result.removed.where.sum(axis=(1, 2)).argmax())
        return draw_removed(
            slice_values(result.image, most),
            result.removed.where[most],
            spacing=_spacing(result.image),
            window=display_window(image, bundle),
            black_is_high=image.black_is_high,
        )

    def _companions(self, source: files.Source, stem: Path) -> list[Path]:
        preview, *report = (
            stem.with_name(f"{stem.name}.{name}") for name in ("preview.png", "report.json", "report.html")
        )
        maps = map_paths(source, stem, mask=self.tolerance is not None) if self.error_bars else []
        return [*([preview] if self.preview else []), *maps, *(report if self.report else [])]

    def _draw(self, image: Image, bundle: Bundle, result: engine.Result, out: Path) -> Path:
        middle = result.image.pixels.shape[0] // 2
        return draw_preview(
            result.source,
            result.image,
            thin_interpolated(result.source, middle, bundle.scale)
            if bundle.enlarges_slices
            else interpolated(image, middle, self.roi, bundle.scale),
            result.provenance,
            slice_index=middle,
            window=display_window(image, bundle),
            out=out,
        )

    def _report(
        self,
        source: files.Source,
        image: Image,
        bundle: Bundle,
        result: engine.Result,
        target: Path,
        reduce: Reduce,
        seconds: float,
        measured: Consistency | None,
        maps: Sequence[Path],
    ) -> dict[str, Any]:
        where = comparable(result, bundle)
        return build_report(
            source=result.source,
            result=result.image,
            provenance=result.provenance,
            input_files=source.files,
            output=target,
            seconds=seconds,
            consistency=measured.as_dict() if measured else None,
            bicubic_consistency=self._bicubic_consistency(image, result.source, bundle, reduce, where).as_dict(),
            # What the reader of the file found has a place of its own in the report.
            warnings=[sentence for sentence in result.warnings if sentence not in image.notes],
            command=self.command,
            network_consistency=Consistency(*result.before_consistency, value_unit(image)).as_dict()
            if result.before_consistency
            else None,
            error_bars=describe_error_bars(
                result.error_bars,
                tolerance(image, bundle, self.tolerance),
                value_unit(image),
                engine.value_window(image, bundle),
                maps,
            )
            if result.error_bars
            else None,
            removed=result.removed,
            compared=result.compared,
        )

    def _bicubic_consistency(
        self, image: Image, source: Image, bundle: Bundle, reduce: Reduce, where: np.ndarray | None
    ) -> Consistency:
        def reduced(index: int) -> np.ndarray:
            if bundle.enlarges_slices:
                return slab_mean(lambda thin: thin_interpolated(source, thin, bundle.scale), index, bundle.scale)
            return reduce(interpolated(image, index, self.roi, bundle.scale))

        return measure_consistency(source, reduced, where)


def _reported(error: SuperResolutionError | MemoryError, source: files.Source) -> SuperResolutionError:
    """The error, which names its image, without the frames that would keep the image's arrays alive."""
    if not isinstance(error, SuperResolutionError):
        error = OutOfMemoryError(
            f"{source.path.name}: not enough memory for the image itself. Choose a smaller region with --roi, or use "
            "another machine."
        )
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def result_consistency(result: engine.Result, bundle: Bundle) -> Consistency:
    """How far a result, reduced again, is from what it was made from; of its `comparable` pixels."""

    def reduced(index: int) -> np.ndarray:
        if bundle.enlarges_slices:
            return slab_mean(lambda thin: slice_values(result.image, thin), index, bundle.scale)
        return bundle.degradation.reduce(slice_values(result.image, index))

    return measure_consistency(result.source, reduced, comparable(result, bundle))


def comparable(result: engine.Result, bundle: Bundle) -> np.ndarray | None:
    """Pixels of a source that its result says something of when it is reduced again.

    Not what was removed; nor, where a region was cut out of an image, the pixels at the cut: they are reduced from
    what lies on both of its sides.

    Returns:
        bool of the source's shape; None for all pixels.
    """
    followed = result.removed.followed if result.removed else None
    if bundle.enlarges_slices or not any(result.cut):
        return followed
    whole = np.zeros(result.source.pixels.shape, dtype=bool)
    _, rows, columns = whole.shape
    top, bottom, left, right = (DataConsistency(bundle.degradation).spread * side for side in result.cut)
    inner = (slice(None), slice(top, max(top, rows - bottom)), slice(left, max(left, columns - right)))
    whole[inner] = True if followed is None else followed[inner]
    return whole


def findings(result: engine.Result, measured: Consistency, *, shipped: bool) -> str:
    """What the provenance of a result says of its agreement with the input and its error bars; see `tell_findings`.

    Args:
        result: whose error bars and removed marks are told.
        measured: of it, by `result_consistency`.
        shipped: the calibration came with the bundle, not from the site.

    Returns:
        Sentences; none where nothing of the input can be compared.
    """
    if math.isnan(measured.rms):
        return ""
    followed = result.removed.followed if result.removed else None
    return tell_findings(
        measured,
        result.provenance.operator,
        result.error_bars,
        shipped=shipped,
        alike=alike(result.compared),
        followed=1.0 if followed is None else float(followed.mean()),
        before=result.before_consistency,
    )


def check_tolerance(asked: float | None) -> None:
    """Refuse a tolerance that means nothing.

    Raises:
        InputError: not a finite number above 0.
    """
    if asked is not None and not 0 < asked < math.inf:
        raise InputError(f"--tolerance {asked:g}: expected a number above 0, in grey levels or HU.")


def tolerance(image: Image, bundle: Bundle, asked: float | None = None) -> float:
    """Half-width of an error bar above which a pixel is marked, in grey levels or HU.

    Args:
        image, bundle: whose window decides where the reader names none.
        asked: by the reader.
    """
    low, high = engine.value_window(image, bundle)
    return TOLERATED * (high - low) if asked is None else asked


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


def interpolated(image: Image, index: int, roi: engine.Roi | None, scale: int) -> np.ndarray:
    """The bicubic enlargement of a region of one slice, seeing beyond the region's border as the networks do.

    Returns:
        ``[scale * rows, scale * columns]`` float32 modality values.
    """
    _, rows, columns = image.pixels.shape
    x0, y0, x1, y1 = roi or (0, 0, columns, rows)
    left, top = min(x0, 4), min(y0, 4)
    values = slice_values(image, index)[y0 - top : y1 + 4, x0 - left : x1 + 4]
    return enlarge_bicubic(values, scale)[scale * top :, scale * left :][: scale * (y1 - y0), : scale * (x1 - x0)]


def _spacing(image: Image) -> tuple[float, float]:
    """Between rows and columns, in one unit."""
    x, y, _ = image.grid.spacing_xyz
    return (y, x) if image.grid.in_millimetres else (1.0, 1.0)


def thin_interpolated(source: Image, index: int, scale: int) -> np.ndarray:
    """A slice of the cubic interpolation along the slices, ``[rows, columns]`` float32 modality values.

    Args:
        source: the region that was enlarged; it has all slices.
        index: of the thin slice.
        scale: thin slices per slice of the source.
    """
    return cubic_slice(lambda thick: slice_values(source, thick), source.pixels.shape[0], index, scale)


def stems(targets: Sequence[Path]) -> list[Path]:
    """What the preview and report of each result are named after: `chest_sr.png` has `chest_sr.preview.png`.

    Where `chest_sr.jpg` is a result, too, both keep their suffix: `chest_sr.png.preview.png`.
    """
    short = [
        target.with_name(target.name.removesuffix(".nii.gz" if target.name.endswith(".nii.gz") else target.suffix))
        for target in targets
    ]
    count = Counter(str(path).casefold() for path in short)
    return [path if count[str(path).casefold()] == 1 else target for path, target in zip(short, targets, strict=True)]


def display_window(image: Image, bundle: Bundle) -> tuple[float, float]:
    """The values shown black and white: the DICOM file's own window for a radiograph, else that of the model."""
    dataset = image.header[0] if image.format == "dicom" and image.header else None
    if image.modality != "CT" and dataset is not None:
        centre, width = (_first_number(dataset, name) for name in ("WindowCenter", "WindowWidth"))
        if math.isfinite(centre) and 1 < width < math.inf:
            return centre - width / 2, centre + width / 2
    return engine.value_window(image, bundle)


def _first_number(dataset: Mapping[str, Any], keyword: str) -> float:
    """Of an attribute with one number or more; not a number where it has none."""
    values = np.atleast_1d(dataset.get(keyword, ()))
    return float(values[0]) if values.size and values.dtype == np.float64 else math.nan
