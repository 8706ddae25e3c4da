"""The engine: an image with its grid in, the enlarged image with its grid out. Every interface goes through here.

A `Session` is a bundle that was opened once. Its `enhance` is the one place where an image becomes a result: modality,
checks, window, tiles, networks, data consistency, error bars, provenance.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from monai_sr_bundle.backends.backend import Backend
from monai_sr_bundle.backends.backend import BackendName as BackendName
from monai_sr_bundle.backends.backend import DeviceName as DeviceName
from monai_sr_bundle.backends.opening import choose_backend, open_backend
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.engine.pipeline import enlarge_image
from monai_sr_bundle.engine.result import Result
from monai_sr_bundle.errors import InputError, OutOfMemoryError, require_count
from monai_sr_bundle.families.family import Extent
from monai_sr_bundle.images import unit
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.given_spacing import with_spacing
from monai_sr_bundle.images.image import Image, named_modality
from monai_sr_bundle.images.input_checks import (
    LEAST_SIDE,
    InputComparison,
    check_content,
    compare_input,
    describe_differences,
    describe_outside,
)
from monai_sr_bundle.images.memory import free_memory
from monai_sr_bundle.images.one_image import read_one
from monai_sr_bundle.images.unit import Padding, image_padding, repeat_pixels, restore_padding
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.shipped_bundles import default_bundle, find_bundle
from monai_sr_bundle.uncertainty.calibration import Calibration, CalibrationEntry
from monai_sr_bundle.uncertainty.error_bars import (
    ErrorBars,
    can_be_measured,
    describe_undercoverage,
    find_bundle_calibration,
    find_calibration,
    has_error_bars,
)

ScaleChoice = int | Literal["auto"] | None
"""A scale, the largest one that an image has room for, or the bundle's own."""
LARGEST_SIDE, LARGEST_CT_SIDE = 4096, 1024
"""Pixels of the longer side of a film, and of a CT slice, that a result of the scale "auto" does not exceed."""
LEAST_DISTANCE_MM = 0.799
"""Distance of new slices that the scale "auto" does not fall below: that of the finest scan which the model has learnt
from, 0.8 mm, and what the rounding of positions in a file takes away."""


@dataclass(frozen=True)
class EnhanceOptions:
    """The options of one enlargement.

    Attributes:
        sampler: options of a diffusion model or a flow. Default: as the bundle states.
        slices: first slice, and the one after the last, of a volume; the others are seen as neighbours. Default: all.
        error_bars: True to require them, None to make them where the bundle is calibrated for the sampler options (a
            warning says where it is not). Default False.
        force: accept a modality that the bundle is not made for. Default False.
        force_model: enlarge by the model even an image that is outside its limits, which is interpolated otherwise.
            Default False.
        tile: side of a tile in input pixels (cells of a diffusion model). It changes no pixel, but with networks whose
            normalisation sees the whole tile. Default: as large as free memory allows.

    Raises:
        UsageError: a tile that is no whole number, or below 0.
    """

    sampler: SamplerOptions = field(default_factory=SamplerOptions)
    slices: tuple[int, int] | None = None
    error_bars: bool | None = False
    force: bool = False
    force_model: bool = False
    tile: int | None = None

    def __post_init__(self) -> None:
        if self.tile:
            require_count("tile", self.tile)

    @property
    def forced(self) -> tuple[str, ...]:
        """Return the options of `monai-sr enhance` for `force` and `force_model`, where they are set."""
        options = ("--force", self.force), ("--force-model", self.force_model)
        return tuple(option for option, is_set in options if is_set)


class Session:
    """A bundle, opened once: its networks on a device, and the calibration of its error bars.

    Args:
        bundle: the bundle to load; it enlarges by its `scale`, see `Bundle.at_scale`.
        backend: "torch", "onnx", "openvino", "openvino-bf16" or "auto" (PyTorch where it is installed).
        device: "cpu", "cuda" or "auto".
        calibration: calibration of the site, made by `monai-sr calibrate`. Default: the bundle's own.

    Attributes:
        backend: the loaded networks.

    Raises:
        BundleError: damaged weights; a backend or device that is not there.
        OutOfMemoryError: the networks do not fit.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: BackendName = "auto",
        device: DeviceName = "auto",
        calibration: Path | None = None,
    ) -> None:
        self.bundle, self.calibration = bundle, calibration
        self._backend, self._device = backend, device

    @cached_property
    def backend(self) -> Backend:
        try:
            return open_backend(self.bundle, self._backend, self._device)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"bundle {self.bundle.name} does not fit into memory. Close other programs, or use another machine."
            ) from error

    def with_calibration(self, calibration: Path) -> Session:
        """Return a session with another calibration and the same loaded networks."""
        session = Session(self.bundle, self._backend, self._device, calibration)
        session.__dict__["backend"] = self.backend
        return session

    def check(
        self,
        image: Image,
        options: EnhanceOptions = EnhanceOptions(),
        region: Region | None = None,
        has_pixels: bool = True,
    ) -> CheckedOptions:
        """Check all that can be checked of an image before anything is computed.

        Args:
            image: the image to enlarge.
            options: the options of the enlargement.
            region: rows and columns to enlarge. Default: all.
            has_pixels: False where only the shape of the image is known: nothing is then measured in its pixels.
                Default True.

        Raises:
            InputError: the image cannot be enlarged honestly, does not fit the bundle, or does not hold the region; an
                option that the bundle does not have.
            BundleError: error bars are required, and the bundle has none.
        """
        bundle, family = self.bundle, self.bundle.family
        warnings = unit.check_modality(image, bundle.modality, bundle.name, force=options.force)
        warnings = (*warnings, *family.check_image(image))
        unit.check_pixels(image)
        extent = _checked_extent(image, region, options.slices)
        if has_pixels:
            warnings = (*check_content(image, bundle.modality), *warnings)
        sampler = family.resolve(options.sampler)
        calibration = None
        if options.error_bars or (options.error_bars is None and self.calibration is not None):
            calibration = find_calibration(bundle, sampler, self.calibration)
        elif options.error_bars is None:
            calibration = find_bundle_calibration(bundle, sampler)
            if calibration is None and has_error_bars(bundle):
                warnings = (*warnings, f"No error bars: those of {bundle.name} are not calibrated for these options.")
        if calibration is not None and not can_be_measured(bundle, image.grid.shape_zyx[1:]):
            reason = f"those of {bundle.name} need an image of at least {LEAST_SIDE} x {LEAST_SIDE} pixels"
            if options.error_bars:
                raise InputError(f"{image.path.name}: no error bars: {reason}. Leave the option out.")
            calibration, warnings = None, (*warnings, f"No error bars: {reason}.")
        undercoverage = describe_undercoverage(bundle, image) if calibration and not self.calibration else ""
        error_bar_warnings = (undercoverage,) if undercoverage else ()
        if not has_pixels:
            return CheckedOptions(extent, sampler, calibration, (*warnings, *error_bar_warnings))
        measured = family.measure_input(image, unit.value_window(image, bundle.modality, bundle.window))
        limits = bundle.metadata.get("input_limits", {})
        comparison = compare_input(measured, limits or bundle.metadata.get("input_range", {}))
        if (outside := describe_outside(measured, limits)) and not options.force_model:
            sentence = (
                f"Interpolated, not enlarged by {bundle.name}: {outside}. --force-model enlarges it nevertheless."
            )
            without = ("No error bars: interpolation has none.",) if calibration is not None else ()
            warnings = (sentence, *without, *warnings)
            return CheckedOptions(extent, sampler, None, warnings, comparison, interpolated=True)
        warnings = (*warnings, *describe_differences(comparison), *error_bar_warnings)
        return CheckedOptions(extent, sampler, calibration, warnings, comparison, undercoverage)

    def enhance(
        self,
        image: Image,
        options: EnhanceOptions = EnhanceOptions(),
        region: Region | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Result:
        """Super-resolve one radiograph or CT volume, or a region of it. The input is never changed.

        Args:
            image: the image to enlarge.
            options: the options of the enlargement.
            region: rows and columns to enlarge; the same pixels as the crop of the whole result. Default: all.
            progress: called with the fraction that is done.

        Raises:
            InputError, BundleError: see `check`.
            OutOfMemoryError: even the smallest tile does not fit.
        """
        checked = self.check(image, options, region)
        if checked.interpolated:
            return self._interpolate(image, options, checked, progress)
        bundle, (first, last), region = self.bundle, checked.extent.slices, checked.extent.region
        # Before the pixels: OpenBLAS takes a buffer at its first product, and never returns where there is no room.
        grid = image.grid.cropped((first, region.top, region.left), (last - first, region.rows, region.columns))
        finer_grid = grid.scaled(bundle.scale_zyx)
        scale_z, scale_y, scale_x = bundle.scale_zyx
        too_large = OutOfMemoryError(
            f"{image.path.name}: the result of {scale_x * region.columns} x {scale_y * region.rows} x "
            f"{scale_z * (last - first)} pixels does not fit into memory. Choose a smaller region with --roi, or "
            "use another machine."
        )
        # Later, after hours of work, the system might end the process.
        if math.prod(finer_grid.shape_zyx) * (image.pixels.itemsize + 4 * bool(checked.calibration)) > free_memory():
            raise too_large
        window = unit.value_window(image, bundle.modality, bundle.window)
        padding = image_padding(image, bundle.modality)
        backend = self.backend  # before the clock starts: the first use loads the weights
        start = time.perf_counter()
        try:
            enlarged = enlarge_image(
                image,
                bundle,
                backend,
                checked.sampler,
                checked.extent,
                padding=padding,
                error_factor=checked.calibration[1].factor if checked.calibration else None,
                tile=options.tile,
                progress=progress,
            )
        except OutOfMemoryError as error:
            raise OutOfMemoryError(f"{image.path.name}: {error}") from error
        except MemoryError as error:
            raise too_large from error
        seconds = time.perf_counter() - start
        part = (slice(first, last), *region.as_slices)
        if padding is not None:
            bounded = not bundle.family.consistency
            restore_padding(enlarged.pixels, image.pixels, padding, bounded=bounded, part=part)
            padding = Padding(padding.image, part)
            if enlarged.half_width is not None:
                for half_width, slice_padding in zip(enlarged.half_width, padding, strict=True):
                    half_width[repeat_pixels(slice_padding, bundle.scale_zyx[1:])] = 0
        removed, residuals = enlarged.record.removed, enlarged.record.residuals
        span = window[1] - window[0]
        is_part = region != Region.whole(*image.pixels.shape[1:])
        provenance = replace(
            bundle.provenance(
                checked.sampler,
                weights_sha256=backend.weights_sha256,
                backend=backend.name,
                device=backend.device,
            ),
            roi_xyxy=region.xyxy if is_part else None,
            slices=(first, last) if (first, last) != (0, len(image.pixels)) else None,
            removed_places=removed.count if removed else 0,
        )
        artifact_warning = (removed.sentence,) if removed and removed.count else ()
        return Result(
            image=replace(image, pixels=enlarged.pixels, grid=finer_grid),
            source=replace(image, pixels=image.pixels[part], grid=grid),
            original=image,
            bundle=bundle,
            region=region,
            slices=(first, last),
            provenance=provenance,
            warnings=(*image.notes, *checked.warnings, *artifact_warning),
            seconds=seconds,
            error_bars=ErrorBars(enlarged.half_width, *checked.calibration, checked.undercoverage)
            if checked.calibration and enlarged.half_width is not None
            else None,
            before_consistency=(span * residuals.rms, span * residuals.maximum) if residuals.count else None,
            removed=removed,
            padding=padding,
            input_comparison=checked.comparison,
            site_calibration=self.calibration is not None,
            forced=options.forced,
        )

    def _interpolate(
        self,
        image: Image,
        options: EnhanceOptions,
        checked: CheckedOptions,
        progress: Callable[[float], None] | None,
    ) -> Result:
        """Interpolate an image that is outside the limits of the model, and say so."""
        if image.modality == "unknown" and self.bundle.modality == "CT":
            image = replace(image, modality="CT")  # as which it was taken
        bicubic = Session(find_bundle("bicubic").at_scale(self.bundle.scale), self._backend, self._device)
        plain = EnhanceOptions(slices=options.slices, force=True, tile=options.tile)
        result = bicubic.enhance(image, plain, checked.extent.region, progress)
        return replace(
            result,
            provenance=replace(result.provenance, instead_of=self.bundle.name),
            warnings=(*image.notes, *checked.warnings),
            input_comparison=checked.comparison,
            forced=options.forced,
        )


@dataclass(frozen=True)
class CheckedOptions:
    """The checked options of one enlargement.

    Attributes:
        extent: slices and region to enlarge.
        sampler: resolved options.
        calibration: calibration of the error bars, and its entry for these options; None without error bars.
        warnings: one sentence each, beside the notes of the image.
        comparison: measures of the image with the limits, or else the range, of the bundle; empty if it states none.
        undercoverage: sentence of `describe_undercoverage`, among the warnings too; empty for none. Default: none.
        interpolated: whether the image is outside the limits of the bundle and will be interpolated. Default False.
    """

    extent: Extent
    sampler: SamplerOptions
    calibration: tuple[Calibration, CalibrationEntry] | None
    warnings: tuple[str, ...]
    comparison: Mapping[str, InputComparison] = field(default_factory=dict)
    undercoverage: str = ""
    interpolated: bool = False


MOST_SESSIONS = 3


class SessionCache:
    """Sessions that stay open, the `MOST_SESSIONS` most recently used ones.

    Args:
        backend, device, calibration: see `Session`.
    """

    def __init__(
        self, backend: BackendName = "auto", device: DeviceName = "auto", calibration: Path | None = None
    ) -> None:
        self.backend = choose_backend(backend)
        self._device, self._calibration = device, calibration
        self._sessions: OrderedDict[tuple[Path, int], Session] = OrderedDict()

    def open(self, bundle: Bundle) -> Session:
        """Return the session of a bundle at its scale, opened now or before."""
        key = bundle.folder, bundle.scale
        session = self._sessions.pop(key, None)
        # Its files may have been replaced meanwhile.
        if session is None or (session.bundle.facts, session.bundle.metadata) != (bundle.facts, bundle.metadata):
            session = Session(bundle, self.backend, self._device, self._calibration)
            while len(self._sessions) >= MOST_SESSIONS:
                self._sessions.popitem(last=False)
        self._sessions[key] = session
        return session


def choose_bundle(image: Image, name: str | None = None, scale: ScaleChoice = None) -> Bundle:
    """Return the bundle for an image, at the scale to enlarge it by.

    Args:
        image: the whole image, whose modality decides when `name` is None, and whose size when `scale` is "auto".
        name: name or folder of a bundle.
        scale: output pixels per input pixel; "auto" for the largest of the bundle's scales whose result is within
            `LARGEST_SIDE`, `LARGEST_CT_SIDE` or `LEAST_DISTANCE_MM`, else its smallest one. Default: the bundle's own.

    Raises:
        BundleError: unknown bundle.
        InputError: the modality cannot be told, or the bundle does not enlarge by the scale.
    """
    bundle = _bundle_named_or_by_modality(image, name)
    if scale != "auto":
        return bundle.at_scale(scale)
    fitting = [each for each in bundle.scales if _has_room(image, bundle, each)]
    return bundle.at_scale(max(fitting, default=bundle.scales[0]))


def _has_room(image: Image, bundle: Bundle, scale: int) -> bool:
    """Return whether a result at one of a bundle's scales is still of use."""
    if bundle.scale_zyx[0] > 1:
        distance = image.grid.slice_distance_mm
        return distance is None or distance / scale >= LEAST_DISTANCE_MM
    limit = LARGEST_CT_SIDE if "CT" in (bundle.modality, image.modality) else LARGEST_SIDE
    return scale * max(image.pixels.shape[1:]) <= limit


def _bundle_named_or_by_modality(image: Image, name: str | None) -> Bundle:
    if name is not None:
        return find_bundle(name)
    if image.modality == named_modality(image) == "unknown" and image.pixels.shape[0] > 1:
        raise InputError(
            f"{image.path.name}: a stack of {image.pixels.shape[0]} slices that does not say whether it is CT. "
            "Name a bundle with --bundle (`monai-sr bundles` lists them)."
        )
    return default_bundle("CXR" if image.modality == "unknown" else image.modality)


def enhance(
    image: Image | np.ndarray | str | Path,
    bundle: str | None = None,
    *,
    scale: ScaleChoice = "auto",
    backend: BackendName = "auto",
    device: DeviceName = "auto",
    roi: tuple[int, int, int, int] | None = None,
    slices: tuple[int, int] | None = None,
    spacing_mm: tuple[float, float] | None = None,
    seed: int = 0,
    sampler: str | None = None,
    steps: int | None = None,
    samples: int | None = None,
    texture: float | None = None,
    strength: float | None = None,
    error_bars: bool = False,
    calibration: Path | None = None,
    force: bool = False,
    force_model: bool = False,
    tile: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Result:
    """Super-resolve one radiograph or CT volume. The input is never changed.

    For many images, open a `Session` once.

    Args:
        image: an `Image`, an array (see `image_from_array`), or the path of one DICOM file or series, NIfTI or picture.
        bundle: name or folder of a bundle. Default: the one made for the image's modality.
        scale: output pixels per input pixel, one of the bundle's; see `choose_bundle`.
        backend: "torch", "onnx", "openvino", "openvino-bf16" or "auto" (PyTorch where it is installed).
        device: "cpu", "cuda" or "auto".
        roi: ``(x0, y0, x1, y1)`` in input pixels, upper edge excluded; the same pixels as the crop of the whole result.
        slices: first slice and the one after the last, of a volume of which only these are enlarged; the others are
            seen as neighbours.
        spacing_mm: row and column spacing for a file that lacks it.
        seed, sampler, steps, samples, texture, strength: see `SamplerOptions`.
        error_bars: also find out how far from the truth each pixel may be.
        calibration: calibration of the site, by `monai-sr calibrate`, for error bars. Default: the bundle's own.
        force: accept a modality that the bundle is not made for.
        force_model, tile: see `EnhanceOptions`.
        progress: called with the fraction that is done.

    Returns:
        The enlarged image on its grid, with how it was made.

    Raises:
        InputError: an image that cannot be read, is smaller than 8x8, is not finite, or does not fit the bundle; a
            scale that the bundle does not have.
        BundleError: unknown or damaged bundle, backend or device not there, no error bars where they are asked for.
        OutOfMemoryError: even the smallest tile does not fit.
    """
    if isinstance(image, str | Path):
        image = read_one(Path(image))
    elif not isinstance(image, Image):
        image = image_from_array(image)
    if spacing_mm is not None:
        image = with_spacing(image, spacing_mm)
    options = EnhanceOptions(
        sampler=SamplerOptions(seed, steps, samples, texture, sampler, strength),
        slices=slices,
        error_bars=error_bars or calibration is not None,
        force=force,
        force_model=force_model,
        tile=tile,
    )
    session = Session(choose_bundle(image, bundle, scale), backend, device, calibration)
    return session.enhance(image, options, Region.from_xyxy(roi) if roi else None, progress)


def _checked_extent(image: Image, region: Region | None, slices: tuple[int, int] | None) -> Extent:
    count, rows, columns = image.pixels.shape
    if slices is not None and not 0 <= slices[0] < slices[1] <= count:
        raise InputError(
            f"{image.path.name}: slices {slices[0]} to {slices[1]} do not lie in the image of {count}; expected FIRST "
            "and LAST with 0 <= FIRST < LAST <= slices, the last excluded."
        )
    if region is not None:
        x0, y0, x1, y1 = region.xyxy
        if not (0 <= x0 < x1 <= columns and 0 <= y0 < y1 <= rows):
            raise InputError(
                f"{image.path.name}: region {x0} {y0} {x1} {y1} does not lie in the image of {columns}x{rows} pixels; "
                "expected X0 Y0 X1 Y1 with 0 <= X0 < X1 <= columns and 0 <= Y0 < Y1 <= rows."
            )
    return Extent((count, rows, columns), slices or (0, count), region or Region.whole(rows, columns))
