"""Error bars of an enlarged image: the scale of its errors times the factor that a calibration found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from monai_sr_bundle.backends.backend import ERROR_BARS_PART, Backend
from monai_sr_bundle.bundles import ERROR_BARS, ERROR_BARS_DEF, Bundle, open_bundle
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.input_checks import (
    LEAST_SIDE,
    MIDDLE_BAND,
    band_ratio,
    crop_measured,
    measure_sharpness_and_noise,
)
from monai_sr_bundle.inferers.sampler import unshuffle
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.inferers.tiling import fitting_tile, infer_tiled
from monai_sr_bundle.uncertainty.calibration import (
    FILE,
    Calibration,
    CalibrationEntry,
    calibrated_scale,
    read_calibration,
)

HALO = 4
"""Receptive radius of `networks.error_scale.ErrorScale` in low-resolution pixels."""
COARSE_BAND = (0.02, 0.1)
"""Band of spatial frequency, in cycles per pixel: the detail is the energy of the middle band over its, in dB."""
BANDS = np.array([0.02, 0.05, 0.08, 0.11, 0.15, 0.19, 0.23, 0.27, 0.31, 0.35, 0.4, 0.45, 0.5])
"""Ends of the bands of spatial frequency, in cycles per pixel, in which the energy of a whole input is measured."""
LEAST_ENERGY = 1e-7
"""Energy that is added to each band: about half of what rounding to 8 bits leaves there."""
MEMORY_PER_PIXEL = 2000
BLOCK = 8
"""Side of a block of JPEG in pixels."""
TOLERATED = 0.05
"""Default half-width, as a share of the window, above which a pixel is marked."""

SHARP_KERNEL = re.compile(r"BONE\w*|B[a-z]?[6-9]\d\w?|L$", re.IGNORECASE | re.ASCII)
"""Convolution Kernel (0018,1210) of a sharp CT slice: BONE of GE, B60 and sharper of Siemens, L of Philips.

Once a slice is reduced, its noise, sharpness and detail no longer tell these from soft kernels: no measure does.
"""


def describe_undercoverage(bundle: Bundle, image: Image) -> str:
    """Return a sentence where the bundle's own error bars are known to be too narrow for an image, else nothing.

    Args:
        bundle: a bundle with error bars of its own calibration.
        image: image to enlarge.
    """
    kernel = SHARP_KERNEL.match(image.kernel) if bundle.modality == "CT" else None
    if kernel is None:
        return ""
    # The least and the largest share of a patient with B60f or BONE in docs/figures.md, "CT slices as they are".
    return f"Its error bars are too narrow: on sharp kernels as {kernel[0]} they held 57 to 91 % of pixels in tests."


def sees_whole_image(bundle: Bundle) -> bool:
    """Return whether the network of a bundle's error bars sees measures of the whole input."""
    return ERROR_BARS_DEF in bundle.facts


def sees_spectrum(bundle: Bundle) -> bool:
    """Return whether the network of a bundle's error bars sees the spectrum of the whole input.

    That of CT does not: learnt from few patients, it made the error bars of sharp kernels narrower still.

    Raises:
        BundleError: it sees another number of bands than are measured.
    """
    bands = bundle.facts[ERROR_BARS_DEF].get("bands", 0)
    if bands not in (0, len(BANDS) - 1):
        raise BundleError(
            f"bundle {bundle.name}: {ERROR_BARS_DEF} has {bands} bands, expected {len(BANDS) - 1}, which are measured, "
            "or 0. Correct model.yaml, and train its error bars again."
        )
    return bool(bands)


def can_be_measured(bundle: Bundle, shape: tuple[int, int]) -> bool:
    """Return whether an image of these rows and columns is large enough for a bundle's error bars."""
    return not sees_whole_image(bundle) or min(shape) >= LEAST_SIDE


def error_bar_halo(bundle: Bundle) -> int:
    """Return the receptive radius of the network of a bundle's error bars, in input pixels."""
    return int(bundle.facts["error_bars_halo"]) if sees_whole_image(bundle) else HALO


def measure_blockiness(image: np.ndarray) -> float:
    """Measure the edges that JPEG leaves between its blocks of 8 x 8 pixels, wherever in the image they begin.

    Args:
        image: ``[rows, columns]`` in units of the window, at least `LEAST_SIDE` along each side.

    Returns:
        How much larger third differences across the blocks' edges are than all others, as the logarithm of their ratio,
        the mean of both axes: 0 to 0.2 without JPEG, 0.4 to 0.9 with a quality of 85 to 75.
    """
    part = crop_measured(image).astype(np.float64)
    ratios = []
    for lines in (part, part.T):
        third = np.abs(np.diff(lines, n=3, axis=0)).mean(axis=1)
        phases = np.arange(len(third)) % BLOCK
        # The median of the lines ignores single edges, as those of an image's frame.
        levels = np.array([np.median(third[phases == phase]) for phase in range(BLOCK)])
        edge = int(levels.argmax())
        ratios.append(np.log((levels[edge] + 1e-6) / (np.delete(levels, edge).mean() + 1e-6)))
    return float(np.mean(ratios))


def measure_spectrum(image: np.ndarray) -> np.ndarray:
    """Measure the energy of an input in each of `BANDS`: what blur has taken, and noise has added.

    Args:
        image: ``[rows, columns]`` in units of the window, at least `LEAST_SIDE` along each side.

    Returns:
        ``[len(BANDS) - 1]``, natural logarithms of the mean energies.
    """
    part = crop_measured(image).astype(np.float64)
    # A window, so that the borders do not count as edges.
    windowed = (part - part.mean()) * np.outer(*(np.hanning(side) for side in part.shape))
    energy = np.abs(np.fft.rfft2(windowed)) ** 2 / part.size
    rows, columns = part.shape
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns))
    band = np.digitize(frequency, BANDS).ravel()
    mean = np.bincount(band, energy.ravel(), len(BANDS) + 1) / np.bincount(band, minlength=len(BANDS) + 1)
    return np.asarray(np.log(mean[1:-1] + LEAST_ENERGY))


def measure_whole_image(image: np.ndarray, bundle: Bundle) -> np.ndarray:
    """Return the measures of an input that the network of a bundle's error bars sees, as float32.

    Args:
        image: ``[rows, columns]`` in units of the window, at least `images.input_checks.LEAST_SIDE` along each side; of
            a large one, `images.input_checks.crop_measured`.
        bundle: a bundle whose error bars see the whole input.

    Returns:
        `measure_spectrum`, then `measure_blockiness`; for a network without bands noise, sharpness, blockiness and
        detail.
    """
    if sees_spectrum(bundle):
        return np.append(measure_spectrum(image), measure_blockiness(image)).astype(np.float32)
    noise_and_sharpness = measure_sharpness_and_noise(image)
    measures = [noise_and_sharpness["noise_percent"], noise_and_sharpness["sharpness_db"], measure_blockiness(image)]
    # How slowly the spectrum falls: how much detail an image has, whatever its sharpness.
    detail = band_ratio(crop_measured(image).astype(np.float64), MIDDLE_BAND, COARSE_BAND)
    return np.array([*measures, detail], dtype=np.float32)


def network_input(high_res: np.ndarray, low_res: np.ndarray, scale: int, measures: np.ndarray | None) -> np.ndarray:
    """Return the input of the network of error bars, ``[channels, rows, columns]`` float32.

    Args:
        high_res, low_res: see `error_scale`.
        scale: high-resolution pixels per low-resolution pixel.
        measures: result of `measure_whole_image`; None for a network that sees none.
    """
    planes = [unshuffle(high_res[None, None], scale)[0], low_res[None]]
    if measures is not None:
        planes.append(np.broadcast_to(measures[:, None, None], (len(measures), *low_res.shape)))
    return np.concatenate(planes)


def error_scale(
    high_res: np.ndarray, low_res: np.ndarray, bundle: Bundle, backend: Backend, whole: np.ndarray | None = None
) -> np.ndarray:
    """Return the likely size of the error of each pixel of a result, before calibration.

    Args:
        high_res: ``[scale * rows, scale * columns]`` float32, the result in units of the window.
        low_res: ``[rows, columns]`` float32, the input of this result.
        bundle, backend: the bundle that made the result, and its open backend.
        whole: the whole input or its `crop_measured`, where `low_res` is a region of it. Default: `low_res`.

    Returns:
        An array of the shape of `high_res`, above 0, in units of the window.

    Raises:
        BundleError: the bundle has no error bars.
        OutOfMemoryError: even the smallest tile does not fit.
    """
    require_error_bars(bundle, backend)
    measures = measure_whole_image(low_res if whole is None else whole, bundle) if sees_whole_image(bundle) else None
    channels = network_input(high_res, low_res, bundle.scale, measures)
    halo = error_bar_halo(bundle)
    tile = fitting_tile(backend.free_bytes(), MEMORY_PER_PIXEL, halo)
    predict = partial(backend.run, ERROR_BARS_PART)
    return infer_tiled(channels, predict, scale=bundle.scale, halo=halo, tile=tile, channels=1)[0][0]


def require_error_bars(bundle: Bundle, backend: Backend) -> None:
    """Refuse a bundle without error bars.

    Raises:
        BundleError: the bundle has none.
    """
    if not backend.has_error_bars:
        raise _without_error_bars(bundle)


def _without_error_bars(bundle: Bundle) -> BundleError:
    main, clause, remedy = open_bundle(bundle.folder), "", "Leave the option out."
    if bundle.scale != main.scale and main.has_file(ERROR_BARS):
        clause = f" at scale {bundle.scale}: they are made for --scale {main.scale}"
    if bundle.family.error_bars and bundle.parameters:
        remedy = f"Train them with `monai-sr train {bundle.name} --stage error_bars`, or leave the option out."
    return BundleError(f"bundle {bundle.name} has no error bars{clause}. {remedy}")


@dataclass(frozen=True)
class ErrorBars:
    """The error bar of each pixel of a result.

    Attributes:
        half_width: float32 array of the result's shape, in modality values; 0 in padding.
        calibration: calibration of the error scale.
        entry: entry of this calibration for the result's sampler settings.
        undercoverage: sentence of `describe_undercoverage`.
    """

    half_width: np.ndarray
    calibration: Calibration
    entry: CalibrationEntry
    undercoverage: str = ""

    @cached_property
    def mean(self) -> float:
        """Mean half-width of the pixels; padding has no error bar."""
        # Slice by slice: a mask of a whole volume would take a quarter of its memory again.
        total = sum(float(one.sum(dtype=np.float64)) for one in self.half_width)
        return total / max(1, self._count)

    def share_above(self, tolerance: float) -> float:
        """Return the share of the pixels with a larger half-width, padding left out."""
        return sum(int((one > tolerance).sum()) for one in self.half_width) / max(1, self._count)

    @cached_property
    def _count(self) -> int:
        return sum(map(np.count_nonzero, self.half_width))


def find_calibration_file(bundle: Bundle) -> Path | None:
    """Return the path of the calibration inside a bundle, in its source folder or packed; None without."""
    return next((path for path in (bundle.folder / FILE, bundle.folder / "configs" / FILE) if path.is_file()), None)


def has_error_bars(bundle: Bundle) -> bool:
    """Return whether a bundle has error bars and their calibration."""
    return bundle.has_file(ERROR_BARS) and find_calibration_file(bundle) is not None


def find_bundle_calibration(bundle: Bundle, options: SamplerOptions) -> tuple[Calibration, CalibrationEntry] | None:
    """Return the bundle's own calibration and its entry for sampler options; None where it has none for them.

    Raises:
        InputError, BundleError: the calibration cannot be used; see `read_calibration`.
    """
    path = find_calibration_file(bundle)
    if path is None or not bundle.has_file(ERROR_BARS):
        return None
    calibration = read_calibration(path, bundle)
    entry = calibration.find(bundle.family.sampling(options), calibrated_scale(bundle), options.strength)
    return (calibration, entry) if entry else None


def find_calibration(
    bundle: Bundle, options: SamplerOptions, path: Path | None = None
) -> tuple[Calibration, CalibrationEntry]:
    """Return a calibration of a bundle and its entry for sampler options.

    Args:
        bundle: a bundle with error bars.
        options: sampler options, resolved by the bundle's family.
        path: a calibration of the site. Default: the bundle's own.

    Raises:
        BundleError: the bundle has no error bars, or the calibration belongs to another one.
        InputError: the calibration cannot be read, or has no entry for these options.
    """
    if not bundle.has_file(ERROR_BARS):
        raise _without_error_bars(bundle)
    path = path or find_calibration_file(bundle)
    if path is None:
        raise BundleError(
            f"bundle {bundle.name} has no {FILE}, without which its error bars mean nothing. Make one with "
            f"`monai-sr calibrate {bundle.name} --data DIR` and name it with --calibration."
        )
    calibration = read_calibration(path, bundle)
    entry = calibration.require(bundle.family.sampling(options), calibrated_scale(bundle), options.strength)
    return calibration, entry
