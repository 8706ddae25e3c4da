"""Error bars of an enlarged image: the scale of its errors times the factor that a calibration found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_sr_bundle.backends.backend import Backend
from monai_sr_bundle.bundles import ERROR_BARS, Bundle
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.inferers.flow import process_of
from monai_sr_bundle.inferers.process import Draw
from monai_sr_bundle.inferers.sampling import unshuffled
from monai_sr_bundle.inferers.tiled import fitting_tile, infer_tiled
from monai_sr_bundle.provenance import Sampling
from monai_sr_bundle.trust.calibration import FILE, Calibration, Entry, read_calibration

HALO = 4
"""Low-resolution pixels that the network looks far; `networks.error_scale.ErrorScale.receptive_radius`."""
MEMORY_PER_PIXEL = 2000
TOLERATED = 0.05
"""Width of an error bar, as a share of the window, above which a pixel is marked where the reader names none."""


def error_scale(made: np.ndarray, low: np.ndarray, bundle: Bundle, backend: Backend) -> np.ndarray:
    """How large errors are around each pixel of a result, before calibration.

    Args:
        made: ``[scale * rows, scale * columns]`` float32, the result in units of the window.
        low: ``[rows, columns]`` float32, what it was made from.
        bundle, backend: that made it.

    Returns:
        Of the shape of `made`, above 0, in units of the window.

    Raises:
        BundleError: the bundle has no error bars.
        OutOfMemoryError: even the smallest tile does not fit.
    """
    network = require_error_bars(bundle, backend)
    cells = np.concatenate((unshuffled(made[None, None], bundle.scale)[0], low[None]))
    tile = fitting_tile(backend.free_bytes(), MEMORY_PER_PIXEL, HALO)
    return infer_tiled(cells, network, scale=bundle.scale, halo=HALO, tile=tile, channels=1)[0][0]


def require_error_bars(bundle: Bundle, backend: Backend) -> Callable[[np.ndarray], np.ndarray]:
    """The network behind the error bars of a bundle.

    Raises:
        BundleError: it has none.
    """
    network: Callable[[np.ndarray], np.ndarray] | None = backend.error_scale
    if network is None:
        raise _without_error_bars(bundle)
    return network


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


def own_promise(bundle: Bundle, draw: Draw) -> tuple[Calibration, Entry] | None:
    """The calibration that a bundle brings and its factor for a draw; None where it promises nothing for it.

    Raises:
        InputError, BundleError: as `read_calibration`.
    """
    path = own_calibration(bundle)
    if path is None or not bundle.has_file(ERROR_BARS):
        return None
    calibration = read_calibration(path, bundle)
    entry = calibration.find(_sampling(bundle, draw))
    return (calibration, entry) if entry else None


def promise(bundle: Bundle, draw: Draw, path: Path | None = None) -> tuple[Calibration, Entry]:
    """A calibration of a bundle and its factor for a draw.

    Args:
        bundle: with error bars.
        draw: that makes the result.
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
    return calibration, calibration.entry(_sampling(bundle, draw))


def _sampling(bundle: Bundle, draw: Draw) -> Sampling | None:
    return process_of(bundle.diffusion).sampling(draw) if bundle.diffusion else None
