"""The comparison as a page for people: one HTML file with its pictures and plots inside, no script, no network.

Everything from outside passes through `_text` on its way into the page, and the page's own policy forbids it scripts
and connections, should a string ever slip through. It bears no date: the same comparison gives the same bytes.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image as Picture

from monai_sr_bundle.benchmark import plots
from monai_sr_bundle.benchmark.comparison import FIGURES, LOWER_IS_BETTER, Comparison, MethodResult, Sample
from monai_sr_bundle.benchmark.plots import Look, amount, measured, signed
from monai_sr_bundle.benchmark.protocol import INTERPOLATIONS
from monai_sr_bundle.benchmark.statistics import Mean, Paired
from monai_sr_bundle.benchmark.tables import DIGITS, shown_p
from monai_sr_bundle.preview import most_detailed_region, number, write_whole

BEST_AT_ONE = {"high_frequency_ratio"}

SAMPLES = 4
"""Most images of a protocol's sample sheet."""
SHEET_BYTES = 13_000_000
"""Of all sample sheets together; each protocol shows one image even beyond it."""
WHOLE, DETAIL, HEAT = 256, 64, 128
"""Longest side of a whole image, shortest of the magnified square, longest of an error map, in pixels."""
HEAT_STEPS = 64

MEANING = {
    "psnr": "How small the errors are, on average over all pixels: every 6 dB more halves the typical error.",
    "ssim": "How alike the local patterns are, 1 for the same image.",
    "ms_ssim": "SSIM at several sizes of detail, 1 for the same image.",
    "uqi": "An older relative of SSIM, stricter in flat regions, 1 for the same image.",
    "lpips": "How different a network trained on photographs and on people's judgement finds the two images.",
    "feature_distance": "How different a network trained on photographs finds the two images; its numbers were never "
    "fitted to people's judgement and are not LPIPS.",
    "box_psnr": "PSNR inside the findings that radiologists outlined, in the images that have any.",
    "box_ssim": "SSIM inside the findings that radiologists outlined, in the images that have any.",
    "high_frequency_ratio": "How much fine texture the result has: below 1 it is too smooth, above 1 too rough. The "
    "right amount of texture need not be the right texture.",
    "log_spectral_distance": "How far the amount of detail of each size is from the original's. It is blind to where "
    "the detail lies, so that invented texture scores as well as true texture.",
    "artifact_energy_removed": "How much of the drawn marks is gone: 1 no trace of them, 0 as much as bicubic leaves.",
}
"""What each figure tells, for readers who are not used to it."""


def write_page(comparisons: list[Comparison], out: Path, command: str) -> Path:
    """Write `index.html`, with everything it shows inside.

    Args:
        comparisons: one per protocol, in the order of the page.
        out: folder that exists.
        command: that made the comparisons, as it was typed.

    Returns:
        The file.

    Raises:
        OutputError: the folder does not exist, is not writable, or the disk is full.
    """
    return write_whole(out / "index.html", page(comparisons, command).encode("utf-8"))


def page(comparisons: Sequence[Comparison], command: str) -> str:
    """The whole page, as `write_page` writes it."""
    look = plots.looks(comparisons)
    sheets = _sheets(comparisons, look)
    sections, links = "", ""
    with plots.style():
        for index, (comparison, sheet) in enumerate(zip(comparisons, sheets, strict=True)):
            sections += _section(comparison, sheet, look, f"p{index + 1}")
            links += f'<li><a href="#p{index + 1}">{_text(comparison.protocol.title)}</a></li>'
    contents = f'<nav aria-label="Protocols"><ol>{links}</ol></nav>' if len(comparisons) > 1 else ""
    css = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Super-resolution methods compared</title>
<style>
{css}</style>
</head>
<body>
<header>
<p class="badge">Not for diagnosis</p>
<h1>Super-resolution methods compared</h1>
<p class="quiet">Every row of a table saw the same images, reduced by the same operator, and was measured by the same
code on the pixels a user would have stored.</p>
{contents}
</header>
<main>
{sections}
{_glossary(comparisons)}
<section aria-labelledby="again"><h2 id="again">The same again</h2>
<pre tabindex="0"><code>{_text(command)}</code></pre></section>
</main>
</body>
</html>
"""


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _name(value: Any) -> str:
    # bdi keeps a right-to-left character in a name from turning round the words beside it.
    return f"<bdi>{_text(value)}</bdi>"


def _breakable(value: Any) -> str:
    """A long name of a bundle, which may go on in the next line after an underscore or a colon."""
    return _text(value).replace("_", "_<wbr>").replace(":", ":<wbr>")


def _counted(number_of: int, word: str) -> str:
    return f"{number_of} {word}{'s' * (number_of != 1)}"


def _section(comparison: Comparison, sheet: str, look: Mapping[str, Look], anchor: str) -> str:
    protocol = comparison.protocol
    warnings = "".join(f"<li>{_text(warning)}</li>" for warning in _warnings(comparison))
    if warnings:
        warnings = f'<div class="warnings"><h3>Please note</h3><ul>{warnings}</ul></div>'
    return f"""<section class="protocol" aria-labelledby="{anchor}">
<h2 id="{anchor}">{_text(protocol.title)}</h2>
<p>{_text(protocol.about)}</p>
{_measured(comparison)}
{warnings}
{_in_short(comparison)}
{_table(comparison, look)}
<h3>Plots</h3>
{_plots(comparison, dict(look), anchor)}
<h3>Sample images</h3>
{sheet}
</section>
"""


def _measured(comparison: Comparison) -> str:
    """What was measured, in one line, and with what, in another."""
    protocol = comparison.protocol
    kind = {"CXR": "chest radiographs", "CT": "chest CT slices"}.get(protocol.modality, protocol.modality)
    low, high = protocol.window
    shown = f"window {number(low)} to {number(high)} HU, " if protocol.modality == "CT" else ""
    what = [
        f"{protocol.split} split of {', '.join(protocol.sets)}",
        f"{_counted(len(comparison.images), 'image')} of {_counted(len(set(comparison.patients)), 'patient')} ({kind})",
        f"{comparison.low_res_size} pixels enlarged ×{protocol.scale}",
        f"reduced by {protocol.operator}",
        f"{shown}rounded to {protocol.levels + 1} levels",
    ]
    backends = ", ".join(dict.fromkeys(result.backend for result in comparison.results))
    how = [
        f"{backends}, {_counted(comparison.threads, 'thread')}",
        ", ".join(f"{name} {version}" for name, version in comparison.versions.items()),
        f"took {number(comparison.minutes)} minutes",
    ]
    manifest = f"<code>{_text(comparison.manifest_sha256[:12])}</code>"
    protocol_name = f"protocol <code>{_text(protocol.name)}</code>"
    return (
        f'<p class="facts">{" · ".join(map(_text, what))}</p>'
        f'<p class="quiet">{" · ".join([protocol_name, *map(_text, filter(None, how))])} · manifest SHA-256 {manifest}'
        f'<span aria-hidden="true">…</span></p>'
    )


def _warnings(comparison: Comparison) -> list[str]:
    protocol, found = comparison.protocol, []
    patients = len(set(comparison.patients))
    if patients == 1:
        found.append(
            "One patient only: the intervals and p-values are over slices of the same chest, which are not "
            "independent. They say nothing about other patients."
        )
    elif patients < len(comparison.images):
        found.append(
            f"{len(comparison.images)} images come from {patients} patients; intervals and p-values treat the images "
            "as independent, so they are somewhat too narrow."
        )
    if protocol.artifacts:
        found.append(
            "Artifacts drawn in: the inputs hold letters, digits, circles and lines that the originals, with which the "
            "results are compared, do not have."
        )
    if "external" in f"{protocol.name} {protocol.title}".lower():
        found.append("External test: the images come from another hospital than those the methods were trained on.")
    if protocol.split != "test":
        found.append(f"These are {protocol.split} images, which the methods saw in training: not a test of accuracy.")
    return found


def _in_short(comparison: Comparison) -> str:
    """The table's main finding in words."""
    reference = comparison.result(comparison.protocol.reference)
    results = [result for result in comparison.results if measured(result, "psnr")]
    if len(results) < 2 or reference not in results:
        return ""
    best = max(results, key=lambda result: Mean.of(result.figures["psnr"]).mean)
    words = f"Highest PSNR: <strong>{_name(best.label)}</strong> with {Mean.of(best.figures['psnr']).mean:.2f} dB"
    if best is not reference:
        paired = _paired(best, reference)
        gain = paired.difference
        words += (
            f", {gain.mean:.2f} dB [{signed(gain.low)}, {signed(gain.high)}] above {_name(reference.label)} and better "
            f"in {paired.better} of {_counted(paired.count, 'image')}"
        )
    trained = [result for result in results if result.method not in INTERPOLATIONS and result is not reference]
    below = [_name(result.label) for result in trained if _paired(result, reference).difference.low <= 0]
    if below:
        words += f". Not clearly above {_name(reference.label)} in PSNR: {', '.join(below)}"
    return f"<p>{words}.</p>"


def _paired(result: MethodResult, reference: MethodResult) -> Paired:
    return Paired.of(result.figures["psnr"], reference.figures["psnr"])


def _table(comparison: Comparison, look: Mapping[str, Look]) -> str:
    results = comparison.results
    columns = [column for figure in FIGURES for column in _figure_columns(figure, comparison)]
    columns += [
        ("Parameters", "trained", [_amount(result.parameters) for result in results]),
        ("Multiply-adds", "per image", [_amount(result.multiply_adds) for result in results]),
        ("Time (ms)", "median per image", [_median_ms(result) for result in results]),
        ("Training (min)", "given", [_minutes(result.minutes) for result in results]),
        ("Training (min)", "stopped gaining", [_minutes(result.gained_until) for result in results]),
    ]
    head = "".join(f'<th scope="col">{_text(title)}<small>{_text(below)}</small></th>' for title, below, _ in columns)
    body = ""
    for row, result in enumerate(results):
        dot = f'<span class="dot" style="background: var(--{look[result.method].variable})"></span>'
        method = f"<small>{_breakable(result.method)}</small>" if result.method != result.label.lower() else ""
        cells = "".join(f"<td>{cells[row]}</td>" for _, _, cells in columns)
        body += f'<tr><th scope="row">{dot}{_name(result.label)}{method}</th>{cells}</tr>\n'
    missing = "".join(
        f"<li>{_text(FIGURES.get(figure, figure))} is not shown: {_text(reason)}</li>"
        for figure, reason in _missing(comparison).items()
    )
    return f"""<div class="scroll table" role="region" aria-label="Table, may be scrolled sideways" tabindex="0">
<table><thead><tr><th scope="col">Method</th>{head}</tr></thead>
<tbody>
{body}</tbody></table></div>
<p class="quiet">Mean ± standard deviation over images; the best of a column is <strong>bold</strong>, the second best
<u>underlined</u>. Differences are paired, image by image, with the 95 % bootstrap interval of their mean and the
p-value of a paired t-test, not corrected for the number of methods. Stopped gaining: the minute after which the PSNR
of the validation images rose by less than 0.05 dB.</p>
{f'<ul class="quiet">{missing}</ul>' if missing else ""}"""


def _missing(comparison: Comparison) -> dict[str, str]:
    """Figures without a column, with the reason, where somebody tried or says why not."""
    shown = {figure for figure in FIGURES if any(measured(result, figure) for result in comparison.results)}
    tried = {figure for result in comparison.results for figure in result.figures}
    return {
        figure: comparison.unavailable.get(figure, "no image has it.")
        for figure in [*FIGURES, *comparison.unavailable]
        if figure not in shown and (figure in tried or figure in comparison.unavailable)
    }


def _figure_columns(figure: str, comparison: Comparison) -> list[tuple[str, str, list[str]]]:
    """Title, what stands below it, and a cell per method; for PSNR, a second column with the difference."""
    results = comparison.results
    means = [Mean.of(result.figures[figure]) if measured(result, figure) else None for result in results]
    there = [mean for mean in means if mean is not None]
    if not there:
        return []
    sense = "higher is better"
    if figure in BEST_AT_ONE:
        sense = "best near 1"
    elif figure in LOWER_IS_BETTER:
        sense = "lower is better"
    counts = sorted({mean.count for mean in there})
    if counts != [len(comparison.images)]:
        sense += f"; {' to '.join(map(str, counts[:: max(1, len(counts) - 1)]))} of {len(comparison.images)} images"
    digits = DIGITS.get(figure, 4)
    written = ["" if mean is None else f"{mean.mean:.{digits}f}" for mean in means]
    ranks = _ranks(written, figure)
    cells = []
    for mean, words, rank in zip(means, written, ranks, strict=True):
        marked = {1: f"<strong>{words}</strong>", 2: f"<u>{words}</u>"}.get(rank, words)
        spread = "" if mean is None else f"<small>± {mean.standard_deviation:.{digits}f}</small>"
        cells.append(f"{marked}{spread}" if words else _NOTHING)
    title = FIGURES[figure]
    columns = [(title[0].upper() + title[1:], sense, cells)]
    reference = comparison.result(comparison.protocol.reference)
    if figure == "psnr" and len(results) > 1 and measured(reference, "psnr"):
        differences = [_difference(result, reference) for result in results]
        columns.append((f"Difference to {reference.label} (dB)", "95 % interval; p", differences))
    return columns


_NOTHING = '<span aria-label="none">–</span>'


def _ranks(written: Sequence[str], figure: str) -> list[int]:
    """1 for the best, 2 for the second best, 0 for the others; what reads alike ranks alike."""

    def badness(words: str) -> float:
        value = float(words)
        return abs(value - 1) if figure in BEST_AT_ONE else value if figure in LOWER_IS_BETTER else -value

    # Rounded, as |0.9 - 1| and |1.1 - 1| differ in the last bit.
    bad = [round(badness(words), 9) if words else math.inf for words in written]
    order = sorted(set(bad) - {math.inf})
    if len(order) < 2:
        return [0] * len(bad)
    return [order.index(each) + 1 if each in order[:2] else 0 for each in bad]


def _difference(result: MethodResult, reference: MethodResult) -> str:
    if result is reference:
        return "reference"
    if not measured(result, "psnr"):
        return _NOTHING
    paired = _paired(result, reference)
    gain, p = paired.difference, shown_p(paired.p_value)
    return f"{signed(gain.mean)}<small>[{signed(gain.low)}, {signed(gain.high)}]</small><small>{_text(p)}</small>"


def _median_ms(result: MethodResult) -> str:
    return number(1000 * float(np.median(result.seconds))) if result.seconds else _NOTHING


def _amount(value: float) -> str:
    return amount(value) if value else "none"


def _minutes(minutes: float | None) -> str:
    return _NOTHING if minutes is None else number(minutes)


_CAPTIONS = {
    "gain": "Who gains, and how surely: the difference in PSNR to the reference on the same images. Thick: 95 % "
    "interval of the mean. Thin: the middle 90 % of the images.",
    "time": "How long one image takes. Box: the middle half of the runs, with the median; whiskers: the middle 90 %.",
    "texture": "Fidelity against texture. Upwards the pixels are closer to the original, to the right the amount of "
    "detail of each size is. Adversarial methods trade the one for the other.",
    "cost": "What the gain costs: PSNR against the work of the network. Interpolations have none.",
    "curves": "Training: PSNR of the validation images, which are not those of the table. The hollow mark is where "
    "a method stopped gaining.",
}


def _plots(comparison: Comparison, look: dict[str, Look], anchor: str) -> str:
    found = ""
    for name, draw in plots.PLOTS.items():
        figure = draw(comparison, look)
        if figure is not None:
            drawing = plots.svg(figure, f"{anchor}-{name}", f"{_CAPTIONS[name]} The table holds the numbers.")
            found += (
                '<figure><div class="scroll" role="region" aria-label="Plot, may be scrolled sideways" tabindex="0">'
                f"{drawing}</div><figcaption>{_text(_CAPTIONS[name])}</figcaption></figure>\n"
            )
    return f'<div class="plots">{found}</div>'


def _sheets(comparisons: Sequence[Comparison], look: Mapping[str, Look]) -> list[str]:
    """The sample sheet of each comparison: the first image of each, then the second, while there is room."""
    sheets: list[list[str]] = [[] for _ in comparisons]
    room = SHEET_BYTES
    for index in range(SAMPLES):
        for comparison, sheet in zip(comparisons, sheets, strict=True):
            if index < len(comparison.samples) and (index == 0 or room > 0):
                sample = _sample(comparison, index, look)
                if index == 0 or len(sample) <= room:
                    sheet.append(sample)
                    room -= len(sample)
    return [
        _SHEET_WORDS + "".join(sheet) if sheet else "<p>No images were kept for the sample sheet.</p>"
        for sheet in sheets
    ]


_SHEET_WORDS = (
    '<p class="quiet">Each column from the top: the whole image; the square that is dashed in the original, pixel by '
    "pixel; the size of the error, |method − original|, on one scale for all methods. Thin solid frames: outlined "
    "findings.</p>"
)


def _sample(comparison: Comparison, index: int, look: Mapping[str, Look]) -> str:
    """One image of the sample sheet: input, every method, original."""
    sample = comparison.samples[index]
    unit = "HU" if comparison.protocol.modality == "CT" else "grey levels"
    span = comparison.protocol.window[1] - comparison.protocol.window[0]
    errors = [span * np.abs(result.pictures[index] - sample.high) for result in comparison.results]
    limit = _heat_limit(errors, comparison)
    region = region_of_interest(sample, comparison.protocol.scale)
    cut = (slice(region[0], region[0] + region[2]), slice(region[1], region[1] + region[2]))
    rows, columns = sample.high.shape
    row, column = (np.arange(n) * m // n for n, m in zip(sample.high.shape, sample.low.shape, strict=True))
    blocks = sample.low[np.ix_(row, column)]

    size = f"{sample.low.shape[1]} × {sample.low.shape[0]} pixels"
    panels = _panel("Input", size, sample.low, blocks[cut], _colour_bar(limit, unit), shape=(rows, columns))
    place = comparison.images.index(sample.name)
    for result, error in zip(comparison.results, errors, strict=True):
        psnr = result.figures.get("psnr", [math.nan] * len(comparison.images))[place]
        below = "" if math.isnan(psnr) else f"PSNR {psnr:.2f} dB"
        mean, largest = (number(float(each)) for each in (error.mean(), error.max()))
        alt = f"{result.label}, error: mean {mean} {unit}, largest {largest} {unit}"
        heat = f"{_image(_heat(_fitting(error, HEAT), limit), alt)}<small>mean {mean} {unit}</small>"
        panels += _panel(result.label, below, result.pictures[index], result.pictures[index][cut], heat)
    size = f"{columns} × {rows} pixels"
    panels += _panel("Original", size, sample.high, sample.high[cut], "", frames=_frames(sample, region))
    return (
        f'<figure class="sample"><figcaption>{_name(sample.name)}</figcaption>\n<div class="panels" role="region" '
        f'aria-label="Pictures, may be scrolled sideways" tabindex="0">{panels}</div></figure>\n'
    )


def _heat_limit(errors: Sequence[np.ndarray], comparison: Comparison) -> float:
    """The error shown lightest: what 1 % of the reference's pixels exceed, in two digits."""
    methods = [result.method for result in comparison.results]
    typical = float(np.percentile(errors[methods.index(comparison.protocol.reference)], 99.0))
    limit = float(f"{typical:.2g}")
    return limit if limit > 0 else 1.0


def region_of_interest(sample: Sample, scale: int) -> tuple[int, int, int]:
    """The square to magnify, `(top, left, side)` in pixels of the original.

    It holds the first finding if there is one, else the finest detail; it is at most half the image.
    """
    rows, columns = sample.high.shape
    if not len(sample.boxes_xyxy):
        return most_detailed_region(sample.high, (scale, scale))
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
    shape: tuple[int, int] | None = None,
) -> str:
    """A column of the sample sheet; `shape` is the one to be shown in, where it is not the picture's own."""
    rows, columns = shape or whole.shape
    picture = _image(_grey(_fitting(whole, WHOLE)), f"{label}, whole image")
    return f"""<div class="panel"><p><strong>{_name(label)}</strong><small>{_text(below)}</small></p>
<div class="whole" style="aspect-ratio: {columns} / {rows}">{picture}{frames}</div>
<div class="detail">{_image(_grey(detail), f"{label}, detail")}</div>
<div class="error">{error}</div></div>
"""


def _frames(sample: Sample, region: tuple[int, int, int]) -> str:
    """Findings and the magnified square, as lines over the original."""
    rows, columns = sample.high.shape
    top, left, side = region
    lines = f'<rect class="region" x="{left}" y="{top}" width="{side}" height="{side}"/>'
    for x0, y0, x1, y1 in np.asarray(sample.boxes_xyxy, dtype=float).reshape(-1, 4):
        lines += f'<rect class="box" x="{x0:g}" y="{y0:g}" width="{x1 - x0:g}" height="{y1 - y0:g}"/>'
    boxes = _counted(len(sample.boxes_xyxy), "finding")
    return (
        f'<svg viewBox="0 0 {columns} {rows}" role="img" aria-label="{boxes} and the magnified square, outlined">'
        f"{lines}</svg>"
    )


def _colour_bar(limit: float, unit: str) -> str:
    bar = _image(_heat(np.linspace(0.0, limit, 256)[None], limit), f"colours from 0 to {number(limit)} {unit}")
    return (
        f'<div class="bar"><p>Error</p>{bar}<div><span>0</span><span>{number(limit)} {unit} or more</span></div></div>'
    )


def _fitting(picture: np.ndarray, side: int) -> np.ndarray:
    """The picture, averaged down if it is too large for a page."""
    ratio = side / max(picture.shape)
    if ratio >= 1:
        return picture
    rows, columns = (max(1, round(ratio * length)) for length in picture.shape)
    return np.asarray(Picture.fromarray(picture.astype(np.float32)).resize((columns, rows), Picture.Resampling.BOX))


def _grey(picture: np.ndarray) -> Picture.Image:
    return Picture.fromarray(np.rint(255 * np.clip(picture, 0.0, 1.0)).astype(np.uint8))


def _heat(error: np.ndarray, limit: float) -> Picture.Image:
    """Black for no error to light for `limit`, evenly to the eye and to the colour-blind (matplotlib's inferno)."""
    steps = np.rint(np.clip(error / limit, 0.0, 1.0) * (HEAT_STEPS - 1)).astype(np.uint8)
    colours = matplotlib.colormaps["inferno"](np.linspace(0.0, 1.0, HEAT_STEPS), bytes=True)[:, :3]
    picture = Picture.fromarray(steps)
    picture.putpalette(colours.tobytes())
    return picture


def _image(picture: Picture.Image, alt: str) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=6)  # 1 % larger than the utmost, in a quarter of the time
    encoded = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{encoded}" alt="{_text(alt)}">'


def _glossary(comparisons: Sequence[Comparison]) -> str:
    """What the figures of the page mean."""
    results = [result for comparison in comparisons for result in comparison.results]
    terms = "".join(
        f"<dt>{_text(FIGURES[figure][0].upper() + FIGURES[figure][1:])}</dt><dd>{_text(meaning)}</dd>"
        for figure, meaning in MEANING.items()
        if any(measured(result, figure) for result in results)
    )
    return f"""<section aria-labelledby="figures"><h2 id="figures">How to read the figures</h2>
<p>All of them compare the result with the original that the input was made from. None of them asks whether a
radiologist would have read the result as the original.</p>
<dl>{terms}</dl></section>"""
