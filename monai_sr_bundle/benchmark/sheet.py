"""The sample sheets of a comparison page: input, every method and original, each with a detail and its error."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from monai_sr_bundle.benchmark.comparison import Comparison, Sample, Strip
from monai_sr_bundle.report.detail_region import find_detail_region
from monai_sr_bundle.report.html_document import count_words, embed_png, escape, escape_name
from monai_sr_bundle.report.preview import format_number
from PIL import Image as Picture

SAMPLES = 4
"""Most images of a protocol's sample sheet."""
SHEET_BYTES = 13_000_000
"""Limit for all sample sheets together; each protocol shows one image even beyond it."""
WHOLE, DETAIL, HEAT = 256, 64, 128
"""Longest side of a whole image, shortest of the magnified square, longest of an error map, in pixels."""
HEAT_STEPS = 64
_SCROLLABLE = 'role="region" aria-label="Pictures, may be scrolled sideways" tabindex="0"'


def sample_sheets(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the sample sheet of each comparison: the first image of each, then the second, while there is room."""
    sheets: list[list[str]] = [[] for _ in comparisons]
    room = SHEET_BYTES
    for index in range(SAMPLES):
        for comparison, sheet in zip(comparisons, sheets, strict=True):
            if index < len(comparison.samples) and (index == 0 or room > 0):
                sample = _sample_html(comparison, index)
                if index == 0 or len(sample) <= room:
                    sheet.append(sample)
                    room -= len(sample)
    return [_SHEET_WORDS + "".join(sheet) for sheet in sheets]


_SHEET_WORDS = (
    '<p class="quiet">Each column from the top: the whole image; the square that is dashed in the original, pixel by '
    "pixel; the size of the error, |method − original|, on one scale for all methods. Thin solid frames: outlined "
    "findings.</p>"
)


def _sample_html(comparison: Comparison, index: int) -> str:
    """Return one image of the sample sheet: input, every method, original."""
    sample = comparison.samples[index]
    unit = "HU" if comparison.protocol.modality == "CT" else "grey levels"
    span = comparison.protocol.window[1] - comparison.protocol.window[0]
    errors = [span * np.abs(result.pictures[index] - sample.high_res) for result in comparison.results]
    limit, scale = _heat_limit(errors, comparison), comparison.protocol.scale
    region = region_of_interest(sample, scale)
    square = (slice(region[0], region[0] + region[2]), slice(region[1], region[1] + region[2]))
    rows, columns = sample.high_res.shape
    blocks = sample.low_res.repeat(scale, axis=0).repeat(scale, axis=1)

    size = f"{sample.low_res.shape[1]} × {sample.low_res.shape[0]} pixels"
    panels = _panel("Input", size, sample.low_res, blocks[square], _colour_bar(limit, unit))
    image_number = comparison.images.index(sample.name)
    for result, error in zip(comparison.results, errors, strict=True):
        psnr = result.figures.get("psnr", [math.nan] * len(comparison.images))[image_number]
        below = "" if math.isnan(psnr) else f"PSNR {psnr:.2f} dB"
        mean, largest = (format_number(float(value)) for value in (error.mean(), error.max()))
        alt = f"{result.label}, error: mean {mean} {unit}, largest {largest} {unit}"
        heat = f"{_embed(_heat(_shrink(error, HEAT), limit), alt)}<small>mean {mean} {unit}</small>"
        panels += _panel(result.label, below, result.pictures[index], result.pictures[index][square], heat)
    size = f"{columns} × {rows} pixels"
    panels += _panel("Original", size, sample.high_res, sample.high_res[square], "", frames=_frames(sample, region))
    return _figure(sample.name, panels)


def process_sheet(strips: Sequence[Strip]) -> str:
    """Return diffusion processes as pictures; empty without any."""
    if not strips:
        return ""
    return (
        "<h3>Step by step</h3>"
        '<p class="quiet">From left to right the noise grows. Above, noise is added to the original: that is how the '
        "method is trained. In the middle, from right to left, the method removes noise; below is its prediction of "
        "the image without noise at that step. A process that diffuses the detail missing from interpolation shows "
        "the interpolated image under its noise.</p>" + "".join(_process_html(strip) for strip in strips)
    )


def _process_html(strip: Strip) -> str:
    panels, shape = "", f"{strip.high_res.shape[1]} / {strip.high_res.shape[0]}"
    for level, *pictures in zip(strip.levels, strip.forward, strip.backward, strip.guesses, strict=True):
        share = f"{100 * (1 - level**2):.3g} % noise"
        names = ("noise added", "noise being taken away", "the answer at this step")
        pictures_html = "".join(
            f'<div class="whole" style="aspect-ratio: {shape}">'
            f"{_embed(_grey(_shrink(picture, WHOLE)), f'{strip.label}, {share}, {name}')}</div>"
            for picture, name in zip(pictures, names, strict=True)
        )
        panels += f'<div class="panel"><p><small>{share}</small></p>{pictures_html}</div>'
    return _figure(strip.label, panels)


def _figure(caption: str, panels: str) -> str:
    return (
        f'<figure class="sample"><figcaption>{escape_name(caption)}</figcaption>\n'
        f'<div class="panels" {_SCROLLABLE}>{panels}</div></figure>\n'
    )


def _heat_limit(errors: Sequence[np.ndarray], comparison: Comparison) -> float:
    """Return the error of the lightest colour, which 1 % of the reference's pixels exceed, in two digits."""
    methods = [result.method for result in comparison.results]
    typical = float(np.percentile(errors[methods.index(comparison.protocol.reference)], 99.0))
    limit = float(f"{typical:.2g}")
    return limit if limit > 0 else 1.0


def region_of_interest(sample: Sample, scale: int) -> tuple[int, int, int]:
    """Choose the square to magnify, `(top, left, side)` in pixels of the original.

    It holds the first finding if there is one, else a square with much structure; it is at most half the image.
    """
    rows, columns = sample.high_res.shape
    if not len(sample.boxes_xyxy):
        return find_detail_region(sample.low_res, (0.0, 1.0), (scale, scale))
    left, top, right, bottom = (float(edge) for edge in sample.boxes_xyxy[0])
    side = min(max(DETAIL, math.ceil(1.2 * max(right - left, bottom - top))), max(rows, columns) // 2, rows, columns)
    side = max(side, min(DETAIL, rows, columns))
    first_row, first_column = (
        min(max(round(middle - side / 2), 0), length - side)
        for middle, length in (((top + bottom) / 2, rows), ((left + right) / 2, columns))
    )
    return first_row, first_column, side


def _panel(
    label: str,
    below: str,
    whole: np.ndarray,
    detail: np.ndarray,
    error: str,
    *,
    frames: str = "",
) -> str:
    """Return a column of the sample sheet."""
    rows, columns = whole.shape
    picture = _embed(_grey(_shrink(whole, WHOLE)), f"{label}, whole image")
    return f"""<div class="panel"><p><strong>{escape_name(label)}</strong><small>{escape(below)}</small></p>
<div class="whole" style="aspect-ratio: {columns} / {rows}">{picture}{frames}</div>
<div class="detail">{_embed(_grey(detail), f"{label}, detail")}</div>
<div class="error">{error}</div></div>
"""


def _frames(sample: Sample, region: tuple[int, int, int]) -> str:
    """Draw findings and the magnified square as lines over the original."""
    rows, columns = sample.high_res.shape
    top, left, side = region
    lines = f'<rect class="region" x="{left}" y="{top}" width="{side}" height="{side}"/>'
    for x0, y0, x1, y1 in np.asarray(sample.boxes_xyxy, dtype=float).reshape(-1, 4):
        lines += f'<rect class="box" x="{x0:g}" y="{y0:g}" width="{x1 - x0:g}" height="{y1 - y0:g}"/>'
    boxes = count_words(len(sample.boxes_xyxy), "finding")
    return (
        f'<svg viewBox="0 0 {columns} {rows}" role="img" aria-label="{boxes} and the magnified square, outlined">'
        f"{lines}</svg>"
    )


def _colour_bar(limit: float, unit: str) -> str:
    bar = _embed(_heat(np.linspace(0.0, limit, 256)[None], limit), f"colours from 0 to {format_number(limit)} {unit}")
    ends = f"<span>0</span><span>{format_number(limit)} {unit} or more</span>"
    return f'<div class="bar"><p>Error</p>{bar}<div>{ends}</div></div>'


def _shrink(picture: np.ndarray, side: int) -> np.ndarray:
    """Average the picture down if it is too large for a page."""
    ratio = side / max(picture.shape)
    if ratio >= 1:
        return picture
    rows, columns = (max(1, round(ratio * length)) for length in picture.shape)
    return np.asarray(Picture.fromarray(picture.astype(np.float32)).resize((columns, rows), Picture.Resampling.BOX))


def _grey(picture: np.ndarray) -> Picture.Image:
    return Picture.fromarray(np.rint(255 * np.clip(picture, 0.0, 1.0)).astype(np.uint8))


def _heat(error: np.ndarray, limit: float) -> Picture.Image:
    """Colour errors from black for none to light for `limit`, even to the colour-blind (matplotlib's inferno)."""
    steps = np.rint(np.clip(error / limit, 0.0, 1.0) * (HEAT_STEPS - 1)).astype(np.uint8)
    colours = matplotlib.colormaps["inferno"](np.linspace(0.0, 1.0, HEAT_STEPS), bytes=True)[:, :3]
    picture = Picture.fromarray(steps)
    picture.putpalette(colours.tobytes())
    return picture


def _embed(picture: Picture.Image, alt: str) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=6)  # 1 % larger than the utmost, in a quarter of the time
    return embed_png(file.getvalue(), alt)
