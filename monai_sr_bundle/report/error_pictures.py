"""Pictures for the report: how large error bars are, where they are larger than the reader accepts, and what a network
has removed."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image as Picture
from PIL import ImageFilter

from monai_sr_bundle.report.preview import PANEL, display_shape, nice_above

DARK, LIGHT = (24, 26, 31), (255, 214, 120)
"""Of error bars of no width, and of those at the limit of the scale and beyond."""
MARK = (255, 72, 56)
"""Over pixels whose error bar is too large; the image shows through."""
OPACITY = 0.55
LINE = 2
"""Width of an outline in pixels of the picture."""


class Pictures(NamedTuple):
    """PNG files as bytes.

    Attributes:
        mask: the result, pixels beyond the tolerance in colour.
        widths: the error bars.
        limit: what the lightest colour of `widths` stands for.
    """

    mask: bytes
    widths: bytes
    limit: float


def draw_error_bars(
    values: np.ndarray,
    half_width: np.ndarray,
    *,
    spacing: tuple[float, float],
    window: tuple[float, float],
    tolerance: float,
    black_is_high: bool,
) -> Pictures:
    """Draw one slice.

    Args:
        values: ``[rows, columns]`` modality values of the result.
        half_width: of the same shape, in the same unit.
        spacing: between rows and columns, in one unit.
        window: values shown black and white (white and black if `black_is_high`).
        tolerance: half-width above which a pixel is marked.
    """
    colours = _grey(values, spacing, window, black_is_high)
    shape = (colours.shape[0], colours.shape[1])
    # As many marked pixels as the image has, however large it is shown.
    share = OPACITY * _resized((half_width > tolerance).astype(np.float32), shape).clip(0, 1)[..., None]
    marked = colours * (1 - share) + share * np.array(MARK)
    typical = float(np.percentile(half_width, 99.0))
    limit = nice_above(typical) if typical > 0 else 1.0
    part = np.clip(_resized(half_width, shape) / limit, 0, 1)[..., None]
    return Pictures(_png(marked), _png(np.array(DARK) + part * (np.array(LIGHT) - np.array(DARK))), limit)


def draw_removed(
    values: np.ndarray,
    where: np.ndarray,
    *,
    spacing: tuple[float, float],
    window: tuple[float, float],
    black_is_high: bool,
) -> bytes:
    """Draw one slice with an outline around every place where something was removed, as a PNG.

    Args:
        values: ``[rows, columns]`` modality values of the result.
        where: bool, on the pixels of the input, of which the result has a whole multiple.
        spacing, window, black_is_high: as above.
    """
    colours = _grey(values, spacing, window, black_is_high)
    # A place that is smaller than a pixel of the picture is outlined, too.
    inside = Picture.fromarray(_resized(where.astype(np.float32), (colours.shape[0], colours.shape[1])) > 0).convert(
        "L"
    )
    around = inside.filter(ImageFilter.MaxFilter(2 * LINE + 1))
    colours[np.asarray(around) > np.asarray(inside)] = MARK
    return _png(colours)


def _grey(
    values: np.ndarray, spacing: tuple[float, float], window: tuple[float, float], black_is_high: bool
) -> np.ndarray:
    shape = display_shape(values.shape, spacing, (PANEL, PANEL))  # type: ignore[arg-type]
    low, high = window
    grey = np.clip((_resized(values, shape) - low) / max(high - low, 1e-12), 0, 1)
    return np.repeat(255 * (1 - grey if black_is_high else grey)[..., None], 3, axis=2)


def _resized(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    larger = shape[0] >= values.shape[0] and shape[1] >= values.shape[1]
    how = Picture.Resampling.NEAREST if larger else Picture.Resampling.BOX
    picture = Picture.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(picture.resize((shape[1], shape[0]), how))


def _png(colours: np.ndarray) -> bytes:
    file = io.BytesIO()
    Picture.fromarray(np.rint(colours).clip(0, 255).astype(np.uint8)).save(file, "PNG", optimize=True)
    return file.getvalue()
