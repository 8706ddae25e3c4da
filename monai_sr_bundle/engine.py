"""The engine: one image with its grid in, the enlarged image with its grid out. Every door goes through here.

read -> [grid, window] -> tiles -> network -> stored numbers -> write. Arrays are numpy's; PyTorch lives in its backend.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from monai_sr_bundle.backends.backend import (
    Backend,
    BackendName,
    DeviceName,
    choose_draw,
    enlarge,
    open_backend,
)
from monai_sr_bundle.bundles import Bundle, default_bundle, find_bundle
from monai_sr_bundle.errors import InputError, OutOfMemoryError
from monai_sr_bundle.geometry import Grid
from monai_sr_bundle.images import files, unit
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.slices import check_slices
from monai_sr_bundle.inferers.consistency import ResidualStats
from monai_sr_bundle.inferers.flow import process_of
from monai_sr_bundle.inferers.process import Draw
from monai_sr_bundle.inferers.removed import Removed
from monai_sr_bundle.inferers.slices import middle, neighbours
from monai_sr_bundle.inferers.through_plane import consistent_slices, enlarge_slices, missing_in_means, strips
from monai_sr_bundle.inferers.tiled import fitting_tile
from monai_sr_bundle.provenance import Provenance
from monai_sr_bundle.trust.calibration import Calibration, Entry
from monai_sr_bundle.trust.error_bars import HALO, ErrorBars, error_scale, promise
from monai_sr_bundle.trust.input_range import Compared, compared, judged, measure, unlike

logger = logging.getLogger(__name__)

Roi = tuple[int, int, int, int]
Slices = tuple[int, int]
STRIP = 256
"""Rows of a result that are rounded at a time: the arithmetic is in float64, which the whole would need twice over."""


@dataclass(frozen=True)
class Result:
    """What came out.

    Attributes:
        image: the enlarged image, in the storage of the input, on the finer grid.
        source: the part of the input it was made from, on its own grid.
        provenance: how it was made.
        warnings: one sentence each; what the reader of the result must know.
        seconds: time spent in the network.
        error_bars: where they were asked for.
        before_consistency: root mean square and largest absolute distance to the input, in modality values, of what the
            network made, reduced again, before data consistency; None without it. Of the pixels that are followed.
        removed: of a bundle that removes what was put on an image; None of any other.
        compared: spacing, sharpness and noise of the input beside those the bundle has learnt from; empty where it does
            not state them.
        cut: whether the image goes on beyond the region's top, bottom, left and right.
    """

    image: Image
    source: Image
    provenance: Provenance
    warnings: tuple[str, ...]
    seconds: float
    error_bars: ErrorBars | None = None
    before_consistency: tuple[float, float] | None = None
    removed: Removed | None = None
    compared: Mapping[str, Compared] = field(default_factory=dict)
    cut: tuple[bool, bool, bool, bool] = (False, False, False, False)


def image_from_array(
    array: np.ndarray, spacing_mm: tuple[float, float] | None = None, modality: str = "unknown"
) -> Image:
    """An image from a bare array, for the Python door.

    Args:
        array: ``[rows, columns]`` or ``[slices, rows, columns]``; uint8, uint16 or int16 as stored, or float32.
        spacing_mm: row and column spacing; unknown if None.
        modality: "CXR", "CT" (then the numbers are HU) or "unknown".

    Raises:
        InputError: another number of axes or another type.
    """
    pixels = np.asarray(array)
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim != 3 or pixels.dtype not in (np.uint8, np.uint16, np.int16, np.float32):
        raise InputError(
            f"the array is {pixels.dtype} with shape {np.shape(array)}, expected uint8, uint16, int16 or float32 of "
            "shape [rows, columns] or [slices, rows, columns]."
        )
    if modality not in ("CXR", "CT", "unknown"):
        raise InputError(f"modality is {modality!r}, expected 'CXR', 'CT' or 'unknown'.")
    integer = np.issubdtype(pixels.dtype, np.integer)
    limits = (int(np.iinfo(pixels.dtype).min), int(np.iinfo(pixels.dtype).max)) if integer else None
    slices, rows, columns = pixels.shape
    image = Image(
        pixels=pixels,
        grid=Grid((slices, rows, columns), np.eye(4)),
        modality=modality,  # type: ignore[arg-type]
        format="array",
        path=Path("array"),
        stored_range=limits,
        bits=8 * pixels.dtype.itemsize,
    )
    return with_spacing(image, spacing_mm) if spacing_mm else image


def with_spacing(image: Image, spacing_mm: tuple[float, float]) -> Image:
    """The image with the in-plane spacing its owner states (`--spacing-mm ROW COLUMN`).

    Where the file states one too, the owner's is used and a note says so.

    Raises:
        InputError: a spacing that is not above 0.
    """
    row, column = spacing_mm
    if not (row > 0 and column > 0 and np.isfinite([row, column]).all()):
        raise InputError(f"--spacing-mm {row:g} {column:g}: expected two numbers above 0, in millimetres.")
    notes = image.notes
    if image.grid.in_millimetres:
        x, y, _ = image.grid.spacing_xyz
        notes = (
            *notes,
            f"The file states {y:.4g} x {x:.4g} mm ({image.grid.spacing_source}), which the user replaced.",
        )
    return replace(image, grid=image.grid.with_spacing(row, column, "given by the user"), notes=notes)


def choose_bundle(image: Image, name: str | None = None, *, force: bool = False) -> tuple[Bundle, tuple[str, ...]]:
    """The bundle for an image, and what must be said about the choice.

    Args:
        image: whose modality decides when `name` is None.
        name: a bundle's name or folder.
        force: use a bundle made for another modality.

    Raises:
        BundleError: unknown bundle.
        InputError: the modality does not fit, or cannot be told; as `check_slices`.
    """
    if name is None:
        if image.modality == "unknown" and image.pixels.shape[0] > 1:
            raise InputError(
                f"{image.path.name}: a stack of {image.pixels.shape[0]} slices that does not say whether it is CT. "
                "Name a bundle with --bundle (`monai-sr bundles` lists them)."
            )
        modality = "CXR" if image.modality == "unknown" else image.modality
        warnings = (
            () if image.modality != "unknown" else ("The file does not name its modality; taken as a chest X-ray.",)
        )
        return default_bundle(modality), warnings
    bundle = find_bundle(name)
    fits = unit.check_modality(image, bundle.modality, bundle.name, force=force)
    return bundle, (*fits, *check_slices(image, bundle.name)) if bundle.enlarges_slices else fits


def value_window(image: Image, bundle: Bundle) -> tuple[float, float]:
    """The values that become 0 and 1 inside the model; see `images.unit.value_window`."""
    return unit.value_window(image, bundle.modality, bundle.window)


def enhance(
    image: Image | np.ndarray | str | Path,
    bundle: str | None = None,
    *,
    backend: BackendName = "auto",
    device: DeviceName = "auto",
    roi: Roi | None = None,
    slices: Slices | None = None,
    spacing_mm: tuple[float, float] | None = None,
    seed: int = 0,
    sampler: str | None = None,
    steps: int | None = None,
    samples: int | None = None,
    texture: float | None = None,
    error_bars: bool = False,
    calibration: Path | None = None,
    force: bool = False,
    tile: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Result:
    """Super-resolve one radiograph or CT volume. The input is never changed.

    Args:
        image: an `Image`, an array (see `image_from_array`), or the path of one DICOM file or series, NIfTI or picture.
        bundle: name or folder; by default the one made for the image's modality.
        backend: "torch", "onnx" or "auto" (PyTorch where it is installed).
        device: "cpu", "cuda" or "auto".
        roi: ``(x0, y0, x1, y1)`` in input pixels, upper edge excluded; the same pixels as the crop of the whole result.
        slices: first slice and the one after the last, of a volume of which only these are enlarged; the others are
            seen as neighbours.
        spacing_mm: row and column spacing for a file that lacks it.
        seed: of the noise, for diffusion models.
        sampler, steps, samples, texture: of a diffusion model or a flow, as `Draw`; what its bundle states where None.
        error_bars: also find out how far from the truth each pixel may be.
        calibration: of the site, by `monai-sr calibrate`, for error bars; the bundle's own if None.
        force: accept a modality the bundle is not made for.
        tile: side of a tile in input pixels (cells of a diffusion model); by default as large as free memory allows.
            Changes no pixel, but with networks whose normalisation sees the whole tile.
        progress: called with the fraction that is done.

    Returns:
        The enlarged image on its grid, with how it was made.

    Raises:
        InputError: an image that cannot be read, is smaller than 8x8, is not finite, or does not fit the bundle.
        BundleError: unknown or damaged bundle, backend or device not there, no error bars where they are asked for.
        OutOfMemoryError: even the smallest tile does not fit.
    """
    if isinstance(image, str | Path):
        image = read_one(Path(image))
    elif not isinstance(image, Image):
        image = image_from_array(image)
    if spacing_mm is not None:
        image = with_spacing(image, spacing_mm)
    chosen, warnings = choose_bundle(image, bundle, force=force)
    check(image, roi, slices)
    draw = choose_draw(chosen, seed, sampler, steps, samples, texture)
    promised = promise(chosen, draw, calibration) if error_bars or calibration is not None else None
    opened = open_backend(chosen, backend, device)
    return run(image, chosen, opened, roi, draw, warnings, tile, progress, promised, slices)


def read_one(path: Path) -> Image:
    """Read the one image a path holds: a DICOM file or series, a NIfTI or a picture.

    Raises:
        InputError: not an image, or a folder or zip with several.
    """
    with files.discover([path]) as sources:
        if len(sources) > 1:
            raise InputError(
                f"{path.name}: holds {len(sources)} images, expected one. Name one of them, or use `monai-sr enhance` "
                "for them all."
            )
        return files.read(sources[0])


def check(image: Image, roi: Roi | None = None, slices: Slices | None = None) -> None:
    """Refuse an image or region that cannot be enlarged honestly.

    Raises:
        InputError: too small, not finite, or a region outside the image.
    """
    unit.check_pixels(image)
    count, rows, columns = image.pixels.shape
    if slices is not None and not 0 <= slices[0] < slices[1] <= count:
        raise InputError(
            f"{image.path.name}: slices {slices[0]} to {slices[1]} do not lie in the image of {count}; expected FIRST "
            "and LAST with 0 <= FIRST < LAST <= slices, the last excluded."
        )
    if roi is not None:
        x0, y0, x1, y1 = roi
        if not (0 <= x0 < x1 <= columns and 0 <= y0 < y1 <= rows):
            raise InputError(
                f"{image.path.name}: region {x0} {y0} {x1} {y1} does not lie in the image of {columns}x{rows} pixels; "
                "expected X0 Y0 X1 Y1 with 0 <= X0 < X1 <= columns and 0 <= Y0 < Y1 <= rows."
            )


def run(
    image: Image,
    bundle: Bundle,
    backend: Backend,
    roi: Roi | None = None,
    draw: Draw | None = None,
    warnings: tuple[str, ...] = (),
    tile: int | None = None,
    progress: Callable[[float], None] | None = None,
    promised: tuple[Calibration, Entry] | None = None,
    slices: Slices | None = None,
) -> Result:
    """Enlarge a checked image with a loaded backend; see `enhance`.

    Args:
        promised: what `trust.error_bars.promise` gives; no error bars if None.
    """
    draw = draw or choose_draw(bundle)
    count, rows, columns = image.pixels.shape
    x0, y0, x1, y1 = roi or (0, 0, columns, rows)
    first, last = slices or (0, count)
    scale_z, scale, _ = bundle.scale_zyx
    # Before the pixels: OpenBLAS takes a buffer at its first product, and never returns where there is no room.
    grid = image.grid.cropped((first, y0, x0), (last - first, y1 - y0, x1 - x0))
    finer_grid = grid.scaled(bundle.scale_zyx)
    beside = _compared(image, bundle)
    began = time.perf_counter()
    try:
        residuals, finding = ResidualStats(), _Finding()
        if bundle.enlarges_slices:
            region = (y0, y1, x0, x1)
            pixels = _thin_slices(image, bundle, backend, (first, last), region, tile, progress, residuals)
            half_width = None
        else:
            pixels, half_width = _enlarged(
                image,
                bundle,
                backend,
                (first, last),
                (y0, y1, x0, x1),
                draw,
                tile,
                progress,
                promised,
                residuals,
                finding,
            )
    except OutOfMemoryError as error:
        raise OutOfMemoryError(f"{image.path.name}: {error}") from error
    except MemoryError as error:
        raise OutOfMemoryError(
            f"{image.path.name}: the result of {scale * (x1 - x0)} x {scale * (y1 - y0)} x {scale_z * (last - first)} "
            "pixels does not fit into memory. Choose a smaller region with --roi, or use another machine."
        ) from error
    seconds = time.perf_counter() - began
    sampling = process_of(bundle.diffusion).sampling(draw) if bundle.diffusion else None
    source = replace(image, pixels=image.pixels[first:last, y0:y1, x0:x1], grid=grid)
    removed = finding.told()
    provenance = Provenance(
        bundle=bundle.name,
        version=bundle.version,
        weights_sha256=backend.weights_sha256,
        manufacturer=str(bundle.metadata["authors"]),
        scale_zyx=bundle.scale_zyx,
        operator=bundle.operator,
        generative=bundle.generates(sampling),
        backend=backend.name,
        device=backend.device,
        seed=draw.seed,
        sampling=sampling,
        roi_xyxy=roi,
        slices=slices,
        created=datetime.now().astimezone(),
        removed_places=removed.places if removed else 0,
    )
    enlarged = replace(image, pixels=pixels, grid=finer_grid)
    single = f"A single slice: {bundle.name} sees {bundle.slices}, and took it for its own neighbours."
    alone = (single,) if count == 1 < bundle.slices else ()
    taken = [removed.sentence] if removed and removed.places else []
    told = (*image.notes, *warnings, *unit.check_spacing(image), *alone, *unlike(beside), *taken)
    bars = ErrorBars(half_width, *promised) if promised and half_width is not None else None
    low, high = value_window(image, bundle)
    before = ((high - low) * residuals.rms, (high - low) * residuals.maximum) if residuals.count else None
    cut = y0 > 0, y1 < rows, x0 > 0, x1 < columns
    return Result(enlarged, source, provenance, told, seconds, bars, before, removed, beside, cut)


class _Finding:
    """What a network has removed from the slices of a volume."""

    def __init__(self) -> None:
        self.probable: list[np.ndarray] = []
        self.followed: list[np.ndarray] = []

    def told(self) -> Removed | None:
        return Removed.of(np.stack(self.probable), np.stack(self.followed)) if self.probable else None


def _compared(image: Image, bundle: Bundle) -> dict[str, Compared]:
    """An image beside those the bundle has learnt from; of a volume, its middle slice."""
    known = bundle.metadata.get("input_range")
    if not known:
        return {}
    if bundle.enlarges_slices:
        known_z = image.grid.in_millimetres and image.pixels.shape[0] > 1
        return compared({"slice_spacing_mm": float(image.grid.spacing_xyz[2])} if known_z else {}, known)
    spacing = float(np.sqrt(np.prod(image.grid.spacing_xyz[:2]))) if image.grid.in_millimetres else None
    seen = judged(image.pixels[image.pixels.shape[0] // 2])
    return compared(measure(unit.from_stored(image, seen, value_window(image, bundle)), spacing), known)


def _enlarged(
    image: Image,
    bundle: Bundle,
    backend: Backend,
    span: Slices,
    region: tuple[int, int, int, int],
    draw: Draw,
    tile: int | None,
    progress: Callable[[float], None] | None,
    promised: tuple[Calibration, Entry] | None,
    residuals: ResidualStats,
    finding: _Finding,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The pixels of the region, in the storage of the image; and its error bars, in modality values."""
    (count, rows, columns), scale = image.pixels.shape, bundle.scale
    (first, last), (top, bottom, left, right) = span, region
    window = value_window(image, bundle)
    limits = unit.stored_limits(image, window)
    pixels = np.empty((last - first, scale * (bottom - top), scale * (right - left)), dtype=image.pixels.dtype)
    half_width = np.empty(pixels.shape, dtype=np.float32) if promised else None
    # Error bars look a little beyond the region, to be those of the whole.
    beyond = HALO if promised else 0
    wide = (max(0, top - beyond), min(rows, bottom + beyond), max(0, left - beyond), min(columns, right + beyond))
    inner = (
        slice(scale * (top - wide[0]), scale * (bottom - wide[0])),
        slice(scale * (left - wide[2]), scale * (right - wide[2])),
    )
    of_region = (slice(top - wide[0], bottom - wide[0]), slice(left - wide[2], right - wide[2]))
    for index in range(first, last):

        def slice_progress(fraction: float, index: int = index) -> None:
            if progress is not None:
                progress((index - first + fraction) / (last - first))

        def found(probable: np.ndarray, followed: np.ndarray) -> None:
            finding.probable.append(probable[of_region])
            finding.followed.append(followed[of_region])

        near = neighbours(index, count, bundle.slices)
        stack = np.stack([unit.to_unit(image, each, window) for each in near])
        low_res = middle(stack)
        high_res, tile = enlarge(
            stack,
            bundle,
            backend,
            draw=draw.of_stream(index),
            tile=tile,
            region=wide,
            limits=limits,
            missing=residuals.add,
            found=found,
            progress=slice_progress,
        )
        if promised and half_width is not None:
            seen = low_res[wide[0] : wide[1], wide[2] : wide[3]]
            # Of the numbers that are stored, as the calibration was made.
            made = unit.from_stored(image, unit.to_stored(image, high_res, window), window)
            factor = promised[1].factor * (window[1] - window[0])
            half_width[index - first] = factor * error_scale(made, seen, bundle, backend)[inner]
        high_res = high_res[inner]
        for row in range(0, len(high_res), STRIP):
            pixels[index - first, row : row + STRIP] = unit.to_stored(image, high_res[row : row + STRIP], window)
    return pixels, half_width


def _thin_slices(
    image: Image,
    bundle: Bundle,
    backend: Backend,
    span: Slices,
    region: tuple[int, int, int, int],
    tile: int | None,
    progress: Callable[[float], None] | None,
    residuals: ResidualStats,
) -> np.ndarray:
    """As `_enlarged`, along the slices; in strips of rows, which bounds the memory and changes no pixel."""
    slices, scale = span[1] - span[0], bundle.scale
    top, bottom, left, right = region
    window = value_window(image, bundle)
    limits = unit.stored_limits(image, window)
    pixels = np.empty((scale * slices, bottom - top, right - left), dtype=image.pixels.dtype)
    tile = tile or fitting_tile(backend.free_bytes(), bundle.memory_per_pixel, bundle.halo)

    def to_unit(stored: np.ndarray) -> np.ndarray:
        return unit.from_stored(image, stored, window)

    for first, last, _, _ in strips(region, slices, scale):

        def strip_progress(fraction: float, first: int = first, last: int = last) -> None:
            if progress is not None:
                progress((first - top + fraction * (last - first)) / (bottom - top))

        thin, tile = enlarge_slices(
            image.pixels,
            backend,
            scale=scale,
            halo=bundle.halo,
            tile=tile,
            region=(first, last, left, right),
            span=span,
            to_unit=to_unit,
            progress=strip_progress,
        )
        if bundle.is_consistent:
            thick = np.stack([to_unit(one[first:last, left:right]) for one in image.pixels[slice(*span)]])
            residuals.add(missing_in_means(thin if limits is None else thin.clip(*limits), thick))
            consistent_slices(thin, thick, limits)
        for index, one in enumerate(thin):
            pixels[index, first - top : last - top] = unit.to_stored(image, one, window)
    return pixels
