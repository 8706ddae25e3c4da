"""Pictures for the report: the size of the error bars, the pixels beyond the tolerance, and removed artifacts."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from monai_sr_bundle.report.preview import PANEL, display_shape, nice_above, resize
from PIL import Image as Picture
from PIL import ImageFilter

DARK, LIGHT = (24, 26, 31), (255, 214, 120)
"""Colours of error bars of no width, and of those at the limit of the scale and beyond."""
MARK = (255, 72, 56)
"""Colour over pixels whose error bar is too large; the image shows through."""
OPACITY = 0.55
BOX = Picture.Resampling.BOX
LINE = 2
"""Width of an outline in pixels of the picture."""


class ErrorBarPictures(NamedTuple):
    """PNG files as bytes.

    Attributes:
        mask: the result, pixels beyond the tolerance in colour.
        widths: the error bars.
        limit: half-width of the lightest colour of `widths`.
    """

    mask: bytes
    widths: bytes
    limit: float


def draw_slice(
    values: np.ndarray, spacing: tuple[float, float], window: tuple[float, float], black_is_high: bool
) -> np.ndarray:
    """Draw a slice in grey, as what lies under error bars or outlines.

    Args:
        values: ``[rows, columns]`` modality values of the result.
        spacing: distance between rows and between columns, in one unit.
        window: values shown black and white (white and black if `black_is_high`).

    Returns:
        ``[rows, columns, 3]`` of the picture, 0 to 255, not rounded.
    """
    shape = display_shape(values.shape, spacing, (PANEL, PANEL))  # type: ignore[arg-type]
    low, high = window
    grey = np.clip((resize(values, shape, BOX) - low) / max(high - low, 1e-12), 0, 1)
    return np.repeat(255 * (1 - grey if black_is_high else grey)[..., None], 3, axis=2)


def draw_error_bars(colours: np.ndarray, half_width: np.ndarray, tolerance: float) -> ErrorBarPictures:
    """Draw the error bars of one slice.

    Args:
        colours: the slice, by `draw_slice`.
        half_width: half-widths of the error bars, of the shape of its values.
        tolerance: half-width above which a pixel is marked.
    """
    shape = (colours.shape[0], colours.shape[1])
    # The share of marked pixels is that of the image, however large it is shown.
    share = OPACITY * resize((half_width > tolerance).astype(np.float32), shape, BOX).clip(0, 1)[..., None]
    marked = colours * (1 - share) + share * np.array(MARK)
    # A few very wide ones, as of burned-in letters, do not darken all others.
    typical = min(float(np.percentile(half_width, 99.0)), 2 * tolerance)
    limit = nice_above(typical) if typical > 0 else 1.0
    brightness = np.clip(resize(half_width, shape, BOX) / limit, 0, 1)[..., None]
    return ErrorBarPictures(_png(marked), _png(np.array(DARK) + brightness * (np.array(LIGHT) - np.array(DARK))), limit)


def draw_removed_outlines(colours: np.ndarray, artifact_mask: np.ndarray) -> bytes:
    """Draw one slice as a PNG with an outline around every removed artifact.

    Args:
        colours: the slice, by `draw_slice`; changed.
        artifact_mask: bool, ``[rows, columns]`` of the input; the result's size is a whole multiple.
    """
    # An artifact that is smaller than a pixel of the picture is outlined, too.
    mask = resize(artifact_mask.astype(np.float32), (colours.shape[0], colours.shape[1]), BOX) > 0
    inside = Picture.fromarray(mask).convert("L")
    around = inside.filter(ImageFilter.MaxFilter(2 * LINE + 1))
    colours[np.asarray(around) > np.asarray(inside)] = MARK
    return _png(colours)


def _png(colours: np.ndarray) -> bytes:
    file = io.BytesIO()
    Picture.fromarray(np.rint(colours).clip(0, 255).astype(np.uint8)).save(file, "PNG", optimize=True)
    return file.getvalue()
