"""Error bars of an enlarged image: the scale of its errors times the factor that a calibration found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_sr_bundle.backends.backend import ERROR_BARS_PART, Backend
from monai_sr_bundle.bundles import ERROR_BARS, Bundle
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.inferers.sampler import unshuffled
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.inferers.tiling import fitting_tile, infer_tiled
from monai_sr_bundle.uncertainty.calibration import FILE, Calibration, Entry, read_calibration

HALO = 4
"""Low-resolution pixels that the network looks far; `networks.error_scale.ErrorScale.receptive_radius`."""
MEMORY_PER_PIXEL = 2000
TOLERATED = 0.05
"""Width of an error bar, as a share of the window, above which a pixel is marked where the reader names none."""


def error_scale(high_res: np.ndarray, low_res: np.ndarray, bundle: Bundle, backend: Backend) -> np.ndarray:
    """Return how large errors are around each pixel of a result, before calibration.

    Args:
        high_res: ``[scale * rows, scale * columns]`` float32, the result in units of the window.
        low_res: ``[rows, columns]`` float32, what it was made from.
        bundle, backend: that made it.

    Returns:
        An array of the shape of `high_res`, above 0, in units of the window.

    Raises:
        BundleError: the bundle has no error bars.
        OutOfMemoryError: even the smallest tile does not fit.
    """
    require_error_bars(bundle, backend)
    cells = np.concatenate((unshuffled(high_res[None, None], bundle.scale)[0], low_res[None]))
    tile = fitting_tile(backend.free_bytes(), MEMORY_PER_PIXEL, HALO)

    def predict(window: np.ndarray) -> np.ndarray:
        return backend.run(ERROR_BARS_PART, window)

    return infer_tiled(cells, predict, scale=bundle.scale, halo=HALO, tile=tile, channels=1)[0][0]


def require_error_bars(bundle: Bundle, backend: Backend) -> None:
    """Refuse a bundle without error bars.

    Raises:
        BundleError: it has none.
    """
    if not backend.has_error_bars:
        raise _without_error_bars(bundle)


def _without_error_bars(bundle: Bundle) -> BundleError:
    return BundleError(
        f"bundle {bundle.name} has no error bars. Train them with `monai-sr train {bundle.name} --stage error_bars`, "
        "or leave the option out."
    )


@dataclass(frozen=True)
class ErrorBars:
    """How far from the truth each pixel of a result may be.

    Attributes:
        half_width: of the shape of the result, float32, in modality values.
        calibration: what promises it.
        entry: of the calibration, for how the result was drawn.
    """

    half_width: np.ndarray
    calibration: Calibration
    entry: Entry


def own_calibration(bundle: Bundle) -> Path | None:
    """The calibration that a bundle brings, in its source folder or packed; None without."""
    return next((path for path in (bundle.folder / FILE, bundle.folder / "configs" / FILE) if path.is_file()), None)


def has_error_bars(bundle: Bundle) -> bool:
    """Return whether a bundle brings error bars and a calibration of them."""
    return bundle.has_file(ERROR_BARS) and own_calibration(bundle) is not None


def own_promise(bundle: Bundle, options: SamplerOptions) -> tuple[Calibration, Entry] | None:
    """The calibration that a bundle brings and its factor for a draw; None where it promises nothing for it.

    Raises:
        InputError, BundleError: as `read_calibration`.
    """
    path = own_calibration(bundle)
    if path is None or not bundle.has_file(ERROR_BARS):
        return None
    calibration = read_calibration(path, bundle)
    entry = calibration.find(bundle.family.sampling(options))
    return (calibration, entry) if entry else None


def promise(bundle: Bundle, options: SamplerOptions, path: Path | None = None) -> tuple[Calibration, Entry]:
    """A calibration of a bundle and its factor for a draw.

    Args:
        bundle: with error bars.
        options: sampler options, resolved by the bundle's family.
        path: a calibration of the site; the bundle's own if None.

    Raises:
        BundleError: the bundle has no error bars, or the calibration is of another one.
        InputError: a calibration that cannot be read, or not for this draw.
    """
    if not bundle.has_file(ERROR_BARS):
        raise _without_error_bars(bundle)
    path = path or own_calibration(bundle)
    if path is None:
        raise BundleError(
            f"bundle {bundle.name} has no {FILE}, without which its error bars promise nothing. Make one with "
            f"`monai-sr calibrate {bundle.name} --data DIR` and name it with --calibration."
        )
    calibration = read_calibration(path, bundle)
    return calibration, calibration.entry(bundle.family.sampling(options))
