"""One picture to look at: input, bicubic, result and what the model added, with a magnified detail.

Drawn with Pillow and its built-in font alone, so that the same result gives the same bytes on every machine with the
same Pillow. The font holds few characters beyond ASCII; words from outside are reduced to what it can draw.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai_sr_bundle.images.geometry import UNKNOWN
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.provenance import Provenance
from monai_sr_bundle.images.staging import write_file
from monai_sr_bundle.report.detail_region import find_detail_region
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

PANEL = 512
"""Side in picture pixels that a panel may have: 256, 512, 1024 and 2048 pixels are then shown at a whole ratio."""

LEAST_COLOURED = 0.01
"""Difference in full colour, at least, in parts of the window."""
NARROWEST = 340
"""Width in picture pixels that the words above a panel need, however narrow the image."""

MARGIN, GAP = 44, 28
TITLE, LABEL, SMALL = 34, 26, 21

BACKGROUND, FRAME = (18, 19, 22), (52, 54, 60)
BRIGHT, DIM, AMBER = (236, 238, 242), (160, 164, 172), (255, 196, 84)
BAR = (255, 255, 255)
"""Colour of the scale bar; no word is drawn in it."""

LOWER, EQUAL, HIGHER = (74, 158, 255), (46, 48, 53), (255, 104, 72)

Shape = tuple[int, int]
Region = tuple[int, int, int]


def value_unit(image: Image) -> str:
    """Return the unit of slope * stored + intercept: "HU" for CT, "grey levels" for everything else."""
    return "HU" if image.modality == "CT" else "grey levels"


def slice_values(image: Image, index: int) -> np.ndarray:
    """Return the modality values of one slice, ``[rows, columns]`` float32: slope * stored + intercept."""
    values = image.pixels[index].astype(np.float32)
    values *= np.float32(image.slope)
    values += np.float32(image.intercept)
    return values


def viewing_steps(image: Image) -> tuple[int, int]:
    """Return the steps, 1 or -1, along rows and columns that show a CT slice as it is read.

    The front is up and the patient's left is on the right. A NIfTI often begins at the back.
    """
    if image.modality != "CT":
        return 1, 1
    steps = []
    for axis in (image.grid.affine[:3, 1], image.grid.affine[:3, 0]):
        longest = int(np.argmax(np.abs(axis)))
        # In LPS a picture goes on towards the left and the back, and down from the head.
        steps.append(-1 if (axis[longest] < 0) != (longest == 2) else 1)
    return steps[0], steps[1]


def nice_above(value: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, 50, ... (and 0.5, 0.2, ...) that is at least `value` > 0."""
    decade = 10.0 ** math.floor(math.log10(value))
    # A little slack, so that 0.2 stays 0.2 although 0.2 / 0.1 is a hair above 2.
    step = next(step for step in (1, 2, 5, 10) if value <= step * decade * (1 + 1e-9))
    return float(f"{step * decade:.6g}")


def nice_below(value: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20, 50, ... (and 0.5, 0.2, ...) that is at most `value` > 0."""
    decade = 10.0 ** math.floor(math.log10(value))
    step = next(step for step in (10, 5, 2, 1, 0.5) if step * decade <= value * (1 + 1e-9))
    return float(f"{step * decade:.6g}")


def format_number(value: float) -> str:
    """Format a number as a person writes it: three significant digits, no exponent from 0.001 to a million."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def display_shape(shape: Shape, spacing: tuple[float, float], box: Shape) -> Shape:
    """Return rows and columns in picture pixels of an image as large as `box` allows, in its true proportions.

    Enlarging is by a whole number along the axis with the finer spacing.

    Args:
        shape: rows and columns of the image.
        spacing: distance between rows and between columns, in one unit.
        box: largest number of rows and columns in picture pixels.
    """
    finest = min(spacing)
    rows, columns = shape[0] * spacing[0] / finest, shape[1] * spacing[1] / finest
    ratio = min(box[0] / rows, box[1] / columns)
    if ratio >= 1:
        ratio = math.floor(ratio)
    return max(1, round(rows * ratio)), max(1, round(columns * ratio))


@dataclass(frozen=True)
class Captions:
    """Every word on the picture.

    Attributes:
        title: headline of the whole picture.
        panels: title and second line of input, bicubic, result and difference.
        detail: heading of the magnified row.
        lower, higher: ends of the colour bar.
        saturation: the largest difference, which may lie beyond the colour bar.
        spacing: the spacing and its source, or "spacing unknown".
        made_by: bundle, version, factor.
        warning: limits of the picture's use.
    """

    title: str
    panels: tuple[tuple[str, str], tuple[str, str], tuple[str, str], tuple[str, str]]
    detail: str
    lower: str
    higher: str
    saturation: str
    spacing: str
    made_by: str
    warning: str


def name_interpolation(scale_zyx: Sequence[int]) -> tuple[str, str]:
    """Return the short and full name of the interpolation that a result is compared with.

    Args:
        scale_zyx: result samples per source sample along slices, rows and columns.
    """
    if scale_zyx[0] > 1:
        return "cubic along the slices", "cubic interpolation along the slices"
    return "bicubic", "bicubic interpolation"


def captions(
    source: Image,
    result: Image,
    provenance: Provenance,
    *,
    slice_index: int,
    window: tuple[float, float],
    region: Region,
    limit: float,
    largest: float,
) -> Captions:
    """Write the words of `draw_preview`, apart from the lengths beside the scale bars.

    `region` is the magnified square in result pixels, `limit` the difference at the ends of the colour bar, above 0,
    and `largest` the largest absolute difference.
    """
    unit = value_unit(result)
    slices, rows, columns = result.pixels.shape
    of_slices = f" · slice {slice_index + 1} of {slices}" if slices > 1 else ""
    size_in = f"{source.pixels.shape[2]} x {source.pixels.shape[1]} pixels"
    size_out = f"{columns} x {rows} pixels"
    polarity = ", high values dark" if result.black_is_high else ""
    window_text = f"shown from {format_number(window[0])} to {format_number(window[1])} {unit}{polarity}"
    top, left, side = region
    is_turned = viewing_steps(result) != (1, 1)
    of_file = " of the file" if is_turned else ""
    short, _ = name_interpolation(provenance.scale_zyx)
    brighter, darker = ("blue", "red") if result.black_is_high else ("red", "blue")
    if largest <= 0:
        saturation = "no difference"
    elif largest > limit:
        saturation = f"largest {format_number(largest)} {unit}, beyond the colours"
    else:
        saturation = f"largest {format_number(largest)} {unit}"
    return Captions(
        title=f"{provenance.process} {provenance.factor}{of_slices}",
        panels=(
            ("Input", f"{size_in}, each drawn as a block"),
            (short.capitalize(), f"{size_out}, interpolation only"),
            ("Result", size_out),
            (f"Result - {short.split()[0]}", f"{brighter}: brighter than {short}, {darker}: darker"),
        ),
        detail=f"Detail: {side} x {side} pixels of the result from column {left}, row {top}{of_file} (outlined above)",
        lower=f"-{format_number(limit)}",
        higher=f"+{format_number(limit)} {unit}",
        saturation=saturation,
        spacing=f"{_spacing_words(source, result, provenance.scale_zyx)} · {window_text}"
        f"{' · turned, so that the front is up' * is_turned}",
        made_by=f"{provenance.bundle} {provenance.version} · {provenance.factor}",
        warning=f"{'no detail added' if provenance.is_interpolated else 'predicted detail'}; not for diagnosis",
    )


def _spacing_words(source: Image, result: Image, scale_zyx: Sequence[int]) -> str:
    if not result.grid.in_millimetres:
        # A resolution tag is a print size: it is a source of numbers, but not of millimetres in the patient.
        reason = f" ({source.grid.spacing_source} only)" if source.grid.spacing_source != UNKNOWN else ""
        return f"spacing unknown{reason}"

    def pixel(image: Image) -> str:
        x, y, _ = image.grid.spacing_xyz
        return format_number(x) if math.isclose(x, y, rel_tol=1e-3) else f"{format_number(x)} x {format_number(y)}"

    if scale_zyx[0] > 1 and source.grid.slice_distance_mm:
        before, after = (format_number(image.grid.spacing_xyz[2]) for image in (source, result))
        return f"slices {before} mm to {after} mm apart, pixel {pixel(result)} mm ({source.grid.spacing_source})"
    return f"pixel {pixel(source)} mm to {pixel(result)} mm ({source.grid.spacing_source})"


def _drawable(text: str) -> str:
    """Replace each character that the built-in font lacks by a question mark."""
    return "".join(letter if " " <= letter <= "~" or letter in "·±" else "?" for letter in text)


def resize(values: np.ndarray, shape: Shape, reduction: Picture.Resampling = Picture.Resampling.BICUBIC) -> np.ndarray:
    """Resize ``[rows, columns]`` to blocks if the picture is larger, by an antialiased reduction if it is smaller."""
    larger = shape[0] >= values.shape[0] and shape[1] >= values.shape[1]
    picture = Picture.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(picture.resize((shape[1], shape[0]), Picture.Resampling.NEAREST if larger else reduction))


def _grey(values: np.ndarray, window: tuple[float, float], black_is_high: bool) -> np.ndarray:
    low, high = window
    grey = np.clip((values - low) / (high - low), 0, 1) if high > low else np.full(values.shape, 0.5)
    if black_is_high:
        grey = 1 - grey
    return np.repeat(np.rint(grey * 255).astype(np.uint8)[..., None], 3, axis=2)


def _coloured(difference: np.ndarray, limit: float) -> np.ndarray:
    """Colour a difference blue below zero, red above, dark grey at zero; full colour from `limit` on."""
    signed = np.clip(difference / limit, -1, 1)[..., None]
    end = np.where(signed < 0, np.array(LOWER), np.array(HIGHER))
    return np.rint(EQUAL + np.abs(signed) * (end - np.array(EQUAL))).astype(np.uint8)


class _Sheet:
    """The canvas of a preview."""

    def __init__(self, width: int, height: int) -> None:
        self.picture = Picture.new("RGB", (width, height), BACKGROUND)
        self.draw = ImageDraw.Draw(self.picture)

    def text(self, x: int, y: int, words: str, size: int, colour: tuple[int, int, int], width: int) -> int:
        """Write words at `(x, y)`, in lines of at most `width` pixels, and return the y below them."""
        for line in _lines(words, size, width):
            self.draw.text((x, y), line, font=ImageFont.load_default(size), fill=colour)
            y += round(size * 1.35)
        return y

    def panel(self, x: int, y: int, colours: np.ndarray) -> None:
        rows, columns = colours.shape[:2]
        self.draw.rectangle((x - 1, y - 1, x + columns, y + rows), outline=FRAME)
        self.picture.paste(Picture.fromarray(colours), (x, y))

    def outline(self, x: int, y: int, region: Region, ratio: tuple[float, float]) -> None:
        top, left, side = region
        x0, x1 = x + left * ratio[1], x + (left + side) * ratio[1]
        y0, y1 = y + top * ratio[0], y + (top + side) * ratio[0]
        self.draw.rectangle((round(x0) - 2, round(y0) - 2, round(x1) + 1, round(y1) + 1), outline=AMBER, width=2)

    def scale_bar(self, x: int, y: int, mm_per_pixel: float, width: int) -> None:
        millimetres = nice_below(0.4 * width * mm_per_pixel)
        pixels = max(1, round(millimetres / mm_per_pixel))
        self.draw.rectangle((x, y + 8, x + pixels - 1, y + 13), fill=BAR)
        self.text(x + pixels + 14, y - 3, f"{format_number(millimetres)} mm", SMALL, DIM, width)

    def colour_bar(self, x: int, y: int, limit: float, words: Captions, width: int) -> None:
        across = min(200, width // 3)
        bar = _coloured(np.tile(np.linspace(-limit, limit, across), (14, 1)), limit)
        label = round(ImageFont.load_default(SMALL).getlength(words.lower)) + 10
        self.text(x, y - 3, words.lower, SMALL, DIM, width)
        self.picture.paste(Picture.fromarray(bar), (x + label, y + 4))
        self.text(x + label + across + 10, y - 3, words.higher, SMALL, DIM, width)
        self.text(x, y + 26, words.saturation, SMALL, DIM, width)


def _lines(words: str, size: int, width: int) -> list[str]:
    font = ImageFont.load_default(size)
    lines: list[str] = []
    for word in _drawable(words).split(" "):
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def draw_preview(
    source: Image,
    result: Image,
    bicubic: np.ndarray,
    provenance: Provenance,
    *,
    slice_index: int,
    window: tuple[float, float],
    out: Path,
) -> Path:
    """Draw input, bicubic, result and their difference, whole and in a square of anatomy, into one PNG.

    Args:
        source: the input, or the part of it that was enlarged.
        result: the enlarged image; its shape is a whole multiple of the source's.
        bicubic: ``[rows, columns]``, the interpolated slice in modality values (slope * stored + intercept).
        provenance: provenance of the result.
        slice_index: the slice of `result` to draw, counted from 0.
        window: modality values shown black and white (white and black for MONOCHROME1).
        out: the PNG to write.

    Returns:
        `out`.

    Raises:
        OutputError: the picture cannot be written.
    """
    scale_z, scale_y, scale_x = provenance.scale_zyx
    _, rows, columns = result.pixels.shape
    result_values = slice_values(result, slice_index)
    source_values = slice_values(source, slice_index // scale_z)
    blocks = source_values.repeat(scale_y, axis=0).repeat(scale_x, axis=1)
    difference: np.ndarray = result_values - bicubic.astype(np.float32)
    limit, largest = _colour_limit(difference, window)
    region = find_detail_region(
        source_values,
        window,
        (scale_y, scale_x),
        hu=source.modality == "CT",
        whole_film=source.modality != "CT" and provenance.roi_xyxy is None,
    )
    words = captions(
        source,
        result,
        provenance,
        slice_index=slice_index,
        window=window,
        region=region,
        limit=limit,
        largest=largest,
    )
    if result.grid.in_millimetres:
        spacing = result.grid.spacing_xyz[1], result.grid.spacing_xyz[0]
    else:
        spacing = 1.0 / scale_y, 1.0 / scale_x

    # A wide image gets two rows of two panels over the same four columns.
    is_wide = columns * spacing[1] > 1.8 * rows * spacing[0]
    box = (PANEL, 2 * PANEL + GAP) if is_wide else (PANEL, PANEL)
    overview = display_shape((rows, columns), spacing, box)
    top, left, side = region
    detail = display_shape((side, side), spacing, (PANEL, PANEL))
    column = max(detail[1], (overview[1] - GAP + 1) // 2 if is_wide else overview[1], NARROWEST)
    width = 2 * MARGIN + 4 * column + 3 * GAP
    slots = [(0, 0), (1, 0), (0, 1), (1, 1)] if is_wide else [(0, 0), (1, 0), (2, 0), (3, 0)]
    slot = 2 * column + GAP if is_wide else column

    inside = width - 2 * MARGIN
    footer = [(f"{words.made_by} · {words.warning}", SMALL, AMBER), (words.spacing, SMALL, DIM)]
    footer_height = sum(len(_lines(line, size, inside)) * round(size * 1.35) for line, size, _ in footer)
    label_height = max(
        round(LABEL * 1.35) + len(_lines(second, SMALL, slot)) * round(SMALL * 1.35) for _, second in words.panels
    )
    bars_height = 40 + len(_lines(words.saturation, SMALL, slot)) * round(SMALL * 1.35)
    overview_y = MARGIN + round(TITLE * 1.35) + 14
    row_height = label_height + 8 + overview[0] + 18
    bars_y = overview_y + row_height * (2 if is_wide else 1)
    heading_y = bars_y + bars_height + 12
    heading_height = len(_lines(words.detail, LABEL, inside)) * round(LABEL * 1.35)
    detail_y = heading_y + heading_height + 6
    detail_bar_y = detail_y + round(SMALL * 1.35) + 6 + detail[0] + 18
    footer_y = detail_bar_y + 46
    sheet = _Sheet(width, footer_y + footer_height + MARGIN - 10)

    down, across = viewing_steps(result)
    overview_panels = _panels(
        [blocks, bicubic, result_values], difference, overview, window, result.black_is_high, limit
    )
    square = (slice(top, top + side), slice(left, left + side))
    square_panels = _panels(
        [blocks[square], bicubic[square], result_values[square]],
        difference[square],
        detail,
        window,
        result.black_is_high,
        limit,
    )
    sheet.text(MARGIN, MARGIN - 8, words.title, TITLE, BRIGHT, inside)
    for (slot_x, slot_y), (title, second), colours in zip(slots, words.panels, overview_panels, strict=True):
        x, y = MARGIN + slot_x * (slot + GAP), overview_y + slot_y * row_height
        below = sheet.text(x, y, title, LABEL, BRIGHT, slot)
        sheet.text(x, below, second, SMALL, DIM, slot)
        sheet.panel(x, y + label_height + 8, colours[::down, ::across])
        display_square = (top if down > 0 else rows - top - side, left if across > 0 else columns - left - side, side)
        sheet.outline(x, y + label_height + 8, display_square, (overview[0] / rows, overview[1] / columns))
    sheet.colour_bar(MARGIN + slots[3][0] * (slot + GAP), bars_y, limit, words, slot)

    sheet.text(MARGIN, heading_y, words.detail, LABEL, BRIGHT, inside)
    for index, ((title, _), colours) in enumerate(zip(words.panels, square_panels, strict=True)):
        x = MARGIN + index * (column + GAP)
        below = sheet.text(x, detail_y, title, SMALL, DIM, column)
        sheet.panel(x, below + 6, colours[::down, ::across])

    if result.grid.in_millimetres:
        sheet.scale_bar(MARGIN, bars_y, columns * spacing[1] / overview[1], slot)
        sheet.scale_bar(MARGIN, detail_bar_y, side * spacing[1] / detail[1], column)
    else:
        sheet.text(MARGIN, bars_y - 3, "spacing unknown", SMALL, DIM, slot)
    for line, size, colour in footer:
        footer_y = sheet.text(MARGIN, footer_y, line, size, colour, inside)

    encoded = io.BytesIO()
    text = PngInfo()
    text.add_text("Description", f"Preview. {provenance.sentence}")  # so that it is never taken for an input
    sheet.picture.save(encoded, "PNG", optimize=False, compress_level=9, pnginfo=text)
    return write_file(out, encoded.getvalue())


def _panels(
    greys: Sequence[np.ndarray],
    difference: np.ndarray,
    shape: Shape,
    window: tuple[float, float],
    black_is_high: bool,
    limit: float,
) -> list[np.ndarray]:
    """Draw the four panels, ``[rows, columns, 3]`` uint8 of the given shape."""
    grey = [_grey(resize(values, shape), window, black_is_high) for values in greys]
    return [*grey, _coloured(resize(difference, shape), limit)]


def _colour_limit(difference: np.ndarray, window: tuple[float, float]) -> tuple[float, float]:
    """Return the difference in full colour and the largest one; rounding errors of float32 count as none."""
    size = np.abs(difference)
    largest = float(size.max())
    if largest <= 1e-6 * max(abs(window[0]), abs(window[1]), window[1] - window[0]):
        return 1.0, 0.0
    # The few strongest edges must not fade everything else to grey, nor full colours show what no screen would.
    typical = max(float(np.percentile(size, 98.0)), LEAST_COLOURED * (window[1] - window[0]))
    return nice_above(typical), largest
