"""Error bars of an enlarged image: the scale of its errors times the factor that a calibration found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from monai_sr_bundle.backends.backend import ERROR_BARS_PART, Backend
from monai_sr_bundle.bundles import ERROR_BARS, Bundle, open_bundle
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.inferers.pixel_shuffle import unshuffle
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.inferers.tiling import fitting_tile, infer_tiled
from monai_sr_bundle.uncertainty.calibration import FILE, Calibration, CalibrationEntry, read_calibration

HALO = 4
"""Receptive radius of the network in low-resolution pixels; `networks.error_scale.ErrorScale.receptive_radius`."""
MEMORY_PER_PIXEL = 2000
TOLERATED = 0.05
"""Default half-width, as a share of the window, above which a pixel is marked."""


def error_scale(high_res: np.ndarray, low_res: np.ndarray, bundle: Bundle, backend: Backend) -> np.ndarray:
    """Return how large errors are around each pixel of a result, before calibration.

    Args:
        high_res: ``[scale * rows, scale * columns]`` float32, the result in units of the window.
        low_res: ``[rows, columns]`` float32, the input of this result.
        bundle, backend: the bundle that made the result, and its open backend.

    Returns:
        An array of the shape of `high_res`, above 0, in units of the window.

    Raises:
        BundleError: the bundle has no error bars.
        OutOfMemoryError: even the smallest tile does not fit.
    """
    require_error_bars(bundle, backend)
    channels = np.concatenate((unshuffle(high_res[None, None], bundle.scale)[0], low_res[None]))
    tile = fitting_tile(backend.free_bytes(), MEMORY_PER_PIXEL, HALO)
    predict = partial(backend.run, ERROR_BARS_PART)
    return infer_tiled(channels, predict, scale=bundle.scale, halo=HALO, tile=tile, channels=1)[0][0]


def require_error_bars(bundle: Bundle, backend: Backend) -> None:
    """Refuse a bundle without error bars.

    Raises:
        BundleError: the bundle has none.
    """
    if not backend.has_error_bars:
        raise _without_error_bars(bundle)


def _without_error_bars(bundle: Bundle) -> BundleError:
    main_scale = open_bundle(bundle.folder).scale
    which = "" if bundle.scale == main_scale else f" at scale {bundle.scale}: they are made for --scale {main_scale}"
    return BundleError(
        f"bundle {bundle.name} has no error bars{which}. Train them with `monai-sr train {bundle.name} "
        "--stage error_bars`, or leave the option out."
    )


@dataclass(frozen=True)
class ErrorBars:
    """The error bar of each pixel of a result.

    Attributes:
        half_width: float32 array of the result's shape, in modality values.
        calibration: calibration of the error scale.
        entry: entry of this calibration for the result's sampler settings.
    """

    half_width: np.ndarray
    calibration: Calibration
    entry: CalibrationEntry


def find_calibration_file(bundle: Bundle) -> Path | None:
    """Return the path of the calibration inside a bundle, in its source folder or packed; None without."""
    return next((path for path in (bundle.folder / FILE, bundle.folder / "configs" / FILE) if path.is_file()), None)


def has_error_bars(bundle: Bundle) -> bool:
    """Return whether a bundle brings error bars and a calibration of them."""
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
    entry = calibration.find(bundle.family.sampling(options))
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
    return calibration, calibration.require(bundle.family.sampling(options))
