"""The comparison as a page for people: one HTML file with its pictures and plots inside, no script, no network.

Everything from outside passes through `html_document.escape` on its way into the page. It bears no date: the same
comparison gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from monai_sr_bundle.benchmark import plots
from monai_sr_bundle.benchmark.comparison import FIGURES, LOWER_IS_BETTER, Comparison, MethodResult
from monai_sr_bundle.benchmark.detection import DETECTION_FIGURES
from monai_sr_bundle.benchmark.detection_tables import DETECTION_NOTE, detection_cells, difference_cells
from monai_sr_bundle.benchmark.film_comparison import FilmComparison
from monai_sr_bundle.benchmark.film_page import film_section
from monai_sr_bundle.benchmark.plots import Look, format_amount, format_signed
from monai_sr_bundle.benchmark.protocol import INTERPOLATIONS
from monai_sr_bundle.benchmark.sheet import process_sheet, sample_sheets
from monai_sr_bundle.benchmark.tables import DIGITS, format_p_value, seed_lines
from monai_sr_bundle.metrics.mean import Mean
from monai_sr_bundle.report.html_document import count_words, escape, escape_name, html_document
from monai_sr_bundle.report.preview import format_number

BEST_AT = {
    "high_frequency_ratio": 1.0, "coverage": 0.9, "box_coverage": 0.9,
    "structure_coverage": 0.9, "nodule_1": 1.0, "nodule_1.5": 1.0, "nodule_2": 1.0,
}  # fmt: skip
"""Best values of figures that are neither better when higher nor when lower; calibrations aim at 90 %."""

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
    "consistency": "How far the result, reduced again, is from the input; rounding alone leaves up to half a step. It "
    "does not prove the added detail.",
    "coverage": "The share of the pixels whose true value lies within the error bar; 0.9 is the aim.",
    "structure_coverage": "The same at the bright and dark blobs of at least 4 grey levels that the result shows.",
    "box_coverage": "The same inside the findings that radiologists outlined, in the images that have any.",
    "error_bar": "How wide the error bars are: narrow ones that hold are worth more.",
    "cut_off": "Up to which fineness the result's detail is the original's: the frequency up to which patches of 48 "
    "pixels correlate with it, median.",
    "disagreeing_patches": "The share of patches that differ from the original even where the input still tells.",
    "nodule_1": "A blob of 12 grey levels, about 3 pixels wide, is drawn into the original: the share of its contrast "
    "in the result, 1 for all. It says nothing about whether anyone would detect it: see Detection.",
    "nodule_1.5": "The same for a blob about 5 pixels wide.",
    "nodule_2": "The same for a blob about 6 pixels wide.",
}
"""Meaning of each figure, for readers who are not used to it."""


_METHOD_COLOURS = """:root {
  --nearest: #8a9097; --bilinear: #666d75; --bicubic: #2b2f34;
  --method0: #0072b2; --method1: #d55e00; --method2: #00855f; --method3: #aa4499; --method4: #a67c00;
  --method5: #882255; --method6: #3e9ccb; --method7: #6b6b00; --method8: #332288; --method9: #8a4b2a; }
@media (prefers-color-scheme: dark) { :root {
  --nearest: #7b828a; --bilinear: #a0a8b2; --bicubic: #f2f3f5;
  --method0: #5ab4f0; --method1: #ff8a4c; --method2: #3ccb9f; --method3: #e08fd3; --method4: #f0c040;
  --method5: #d8709f; --method6: #a5d8f3; --method7: #c9c95a; --method8: #9d8ff0; --method9: #c99070; } }
"""
"""Colours of the methods in light (those of `plots`) and dark, for the style sheet."""


def page(comparisons: Sequence[Comparison | FilmComparison], command: str) -> str:
    """Return the page as HTML."""
    with_sheets = [comparison for comparison in comparisons if isinstance(comparison, Comparison)]
    look = plots.assign_looks(with_sheets)
    sheets = iter(sample_sheets(with_sheets))
    sections, links = "", ""
    with plots.style():
        for index, comparison in enumerate(comparisons):
            if isinstance(comparison, FilmComparison):
                sections += film_section(comparison, f"p{index + 1}")
            else:
                sections += _section(comparison, next(sheets), look, f"p{index + 1}")
            links += f'<li><a href="#p{index + 1}">{escape(comparison.protocol.title)}</a></li>'
    contents = f'<nav aria-label="Protocols"><ol>{links}</ol></nav>' if len(comparisons) > 1 else ""
    header = f"""<h1>Super-resolution methods compared</h1>
<p class="quiet">All methods of a table used the same images, reduced in the same way, and were measured by the same
code on the pixels that would be stored.</p>
{contents}"""
    main = f"""{sections}
{_glossary(with_sheets) if with_sheets else ""}
<section aria-labelledby="again"><h2 id="again">The same again</h2>
<pre tabindex="0"><code>{escape(command)}</code></pre></section>"""
    return html_document("comparison", "Super-resolution methods compared", header, main, style=_METHOD_COLOURS)


def escape_bundle_name(value: str) -> str:
    """Return a bundle's name as HTML that may break after an underscore or a colon."""
    return escape(value).replace("_", "_<wbr>").replace(":", ":<wbr>")


def _section(comparison: Comparison, sheet: str, look: Mapping[str, Look], anchor: str) -> str:
    protocol = comparison.protocol
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in _warnings(comparison))
    if warnings:
        warnings = f'<div class="warnings"><h3>Please note</h3><ul>{warnings}</ul></div>'
    return f"""<section class="protocol" aria-labelledby="{anchor}">
<h2 id="{anchor}">{escape(protocol.title)}</h2>
<p>{escape(protocol.about)}</p>
{_conditions(comparison)}
{warnings}
{_main_finding(comparison)}
{_table(comparison, look)}
{_detection(comparison)}
<h3>Plots</h3>
{_plots(comparison, dict(look), anchor)}
<h3>Sample images</h3>
{sheet}
{process_sheet(comparison.strips)}
</section>
"""


def _conditions(comparison: Comparison) -> str:
    """Describe the data in one line and the run in another."""
    protocol = comparison.protocol
    image_kind = {"CXR": "chest radiographs", "CT": "chest CT slices"}.get(protocol.modality, protocol.modality)
    low, high = protocol.window
    shown_window = f"window {format_number(low)} to {format_number(high)} HU, " if protocol.modality == "CT" else ""
    patients = count_words(len(set(comparison.patients)), "patient")
    data_facts = [
        f"{protocol.split} split of {', '.join(protocol.sets)}",
        f"{count_words(len(comparison.images), 'image')} of {patients} ({image_kind})",
        f"{comparison.low_res_size} pixels enlarged ×{protocol.scale}",
        f"reduced by {protocol.operator}",
        f"{shown_window}rounded to {protocol.levels + 1} levels",
    ]
    backends = ", ".join(dict.fromkeys(result.backend for result in comparison.results))
    run_facts = [
        f"{backends}, {comparison.processors}",
        ", ".join(f"{name} {version}" for name, version in comparison.versions.items()),
        f"took {format_number(comparison.minutes)} minutes",
    ]
    manifest = f"<code>{escape(comparison.manifest_sha256[:12])}</code>"
    protocol_name = f"protocol <code>{escape(protocol.name)}</code>"
    return (
        f'<p class="facts">{" · ".join(map(escape, data_facts))}</p>'
        f'<p class="quiet">{" · ".join([protocol_name, *map(escape, filter(None, run_facts))])} · '
        f'manifest SHA-256 {manifest}<span aria-hidden="true">…</span></p>'
    )


def _warnings(comparison: Comparison) -> list[str]:
    protocol, messages = comparison.protocol, []
    if len(set(comparison.patients)) == 1:
        messages.append(
            "One patient only: the intervals and p-values are over slices of the same chest, which are not "
            "independent. They say nothing about other patients."
        )
    if protocol.artifacts:
        messages.append(
            "Artifacts drawn in: the inputs hold letters, digits, circles and lines that the originals, with which the "
            "results are compared, do not have."
        )
    if "external" in f"{protocol.name} {protocol.title}".lower():
        messages.append("External test: the images come from another hospital than those the methods were trained on.")
    if protocol.split != "test":
        messages.append(
            f"These are {protocol.split} images, which the methods saw in training: not a test of accuracy."
        )
    return messages


def _main_finding(comparison: Comparison) -> str:
    """Write the table's main finding in words."""
    reference = comparison.result(comparison.protocol.reference)
    results = [result for result in comparison.results if result.has("psnr")]
    if len(results) < 2 or reference not in results:
        return ""
    results = [result for result in results if not result.saw_original]
    above = {result.method: comparison.compare(result, "psnr") for result in results}
    best = max(results, key=lambda result: Mean.of(result.figures["psnr"]).mean)
    words = f"Highest PSNR: <strong>{escape_name(best.label)}</strong> with {Mean.of(best.figures['psnr']).mean:.2f} dB"
    if best is not reference:
        gain = above[best.method].difference
        words += (
            f", {gain.mean:.2f} dB [{format_signed(gain.low)}, {format_signed(gain.high)}] above "
            f"{escape_name(reference.label)} and better in {above[best.method].better} of "
            f"{count_words(gain.count, 'image')}"
        )
    if best is reference and reference.method not in INTERPOLATIONS:
        others = [result for result in results if result is not reference]
        close = [escape_name(result.label) for result in others if above[result.method].difference.high >= 0]
        words += f". Not clearly below it: {', '.join(close)}" if close else ". All are below it"
        return f"<p>{words}.</p>"
    trained = [result for result in results if result.method not in INTERPOLATIONS and result is not reference]
    below = [escape_name(result.label) for result in trained if above[result.method].difference.low <= 0]
    if below:
        words += f". Not clearly above {escape_name(reference.label)} in PSNR: {', '.join(below)}"
    return f"<p>{words}.</p>"


def _table(comparison: Comparison, look: Mapping[str, Look]) -> str:
    results = comparison.results
    columns = [column for figure in FIGURES for column in _figure_columns(figure, comparison)]
    columns += [
        ("Parameters", "trained", [_amount_or_none(result.parameters) for result in results]),
        ("Multiply-adds", "per image", [_amount_or_none(result.multiply_adds) for result in results]),
        ("Time (ms)", "median per image", [_median_ms(result) for result in results]),
        ("Training (min)", "given", [str(result.training or _NOTHING) for result in results]),
        ("Training (min)", "stopped gaining", [_minutes(result.gained_until) for result in results]),
    ]
    head = "".join(f'<th scope="col">{escape(title)}<small>{escape(below)}</small></th>' for title, below, _ in columns)
    body = ""
    for row, result in enumerate(results):
        dot = f'<span class="dot" style="background: var(--{look[result.method].variable})"></span>'
        method = f"<small>{escape_bundle_name(result.method)}</small>" if result.method != result.label.lower() else ""
        cells = "".join(f"<td>{cells[row]}</td>" for _, _, cells in columns)
        body += f'<tr><th scope="row">{dot}{escape_name(result.label)}{method}</th>{cells}</tr>\n'
    missing = "".join(
        f"<li>{escape(FIGURES[figure])} is not shown: {escape(reason)}</li>"
        for figure, reason in comparison.unavailable.items()
    )
    return f"""<div class="scroll table" role="region" aria-label="Table, may be scrolled sideways" tabindex="0">
<table><thead><tr><th scope="col">Method</th>{head}</tr></thead>
<tbody>
{body}</tbody></table></div>
<p class="quiet">Mean ± standard deviation over images; the best of a column is <strong>bold</strong>, the second best
<u>underlined</u>. Differences are paired, image by image, with the 95 % bootstrap interval of their mean and the
p-value of a paired t-test, both over patients, not corrected for the number of methods. What was given the original
itself is not ranked. Stopped gaining: the minute after which the PSNR of the validation images rose by less than
0.05 dB.</p>
{f'<ul class="quiet">{missing}</ul>' if missing else ""}
{_over_seeds(comparison)}"""


def _detection(comparison: Comparison) -> str:
    """Return the tables of detection; nothing without the protocol's `trust`."""
    if not comparison.detection:
        return ""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in DETECTION_FIGURES.values())
    tables = ""
    reference = comparison.result(comparison.protocol.reference).label
    for caption, rows in (
        ("Mean [95 % interval]", detection_cells(comparison)),
        (f"Difference to {reference} [95 % interval]", difference_cells(comparison)),
    ):
        body = "".join(
            f'<tr><th scope="row">{escape_name(label)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
            for label, cells in rows
        )
        tables += f"""<div class="scroll table" role="region" aria-label="Table, may be scrolled sideways" tabindex="0">
<table><caption>{escape(caption)}</caption><thead><tr><th scope="col">Method</th>{head}</tr></thead>
<tbody>
{body}</tbody></table></div>"""
    return f'<h3>Detection</h3>{tables}<p class="quiet">{escape(DETECTION_NOTE)}</p>'


def _over_seeds(comparison: Comparison) -> str:
    """List the differences over the seeds, for methods that drew with several."""
    lines = "".join(f"<li>{escape(line)}</li>" for line in seed_lines(comparison))
    return f'<h3>Over the seeds of sampling</h3><ul class="quiet">{lines}</ul>' if lines else ""


def _figure_columns(figure: str, comparison: Comparison) -> list[tuple[str, str, list[str]]]:
    """Return title, subtitle and a cell per method; for PSNR, a second column holds the difference."""
    results = comparison.results
    means = [Mean.of(result.figures[figure]) if result.has(figure) else None for result in results]
    measured_means = [mean for mean in means if mean is not None]
    if not measured_means:
        return []
    sense = "higher is better"
    if figure in BEST_AT:
        sense = f"best near {BEST_AT[figure]:g}"
    elif figure in LOWER_IS_BETTER:
        sense = "lower is better"
    counts = sorted({mean.count for mean in measured_means})
    if counts != [len(comparison.images)]:
        sense += f"; {' to '.join(map(str, counts[:: max(1, len(counts) - 1)]))} of {len(comparison.images)} images"
    digits = DIGITS.get(figure, 4)
    cells_text = ["" if mean is None else f"{mean.mean:.{digits}f}" for mean in means]
    ranks = _ranks(
        ["" if result.saw_original else words for words, result in zip(cells_text, results, strict=True)], figure
    )
    cells = []
    for mean, words, rank in zip(means, cells_text, ranks, strict=True):
        marked = {1: f"<strong>{words}</strong>", 2: f"<u>{words}</u>"}.get(rank, words)
        spread = "" if mean is None else f"<small>± {mean.standard_deviation:.{digits}f}</small>"
        cells.append(f"{marked}{spread}" if words else _NOTHING)
    title = FIGURES[figure]
    columns = [(title[0].upper() + title[1:], sense, cells)]
    reference = comparison.result(comparison.protocol.reference)
    if figure == "psnr" and len(results) > 1 and reference.has("psnr"):
        differences = [_difference(comparison, result) for result in results]
        columns.append((f"Difference to {reference.label} (dB)", "95 % interval; p", differences))
    return columns


_NOTHING = '<span aria-label="none">–</span>'


def _ranks(cells_text: Sequence[str], figure: str) -> list[int]:
    """Rank cells: 1 for the best, 2 for the second best, 0 for the others; cells of one text have one rank."""

    def badness(words: str) -> float:
        value = float(words)
        if figure in BEST_AT:
            return abs(value - BEST_AT[figure])
        return value if figure in LOWER_IS_BETTER else -value

    # Rounded, as |0.9 - 1| and |1.1 - 1| differ in the last bit.
    bad = [round(badness(words), 9) if words else math.inf for words in cells_text]
    order = sorted(set(bad) - {math.inf})
    if len(order) < 2:
        return [0] * len(bad)
    return [order.index(rank_value) + 1 if rank_value in order[:2] else 0 for rank_value in bad]


def _difference(comparison: Comparison, result: MethodResult) -> str:
    if result.method == comparison.protocol.reference:
        return "reference"
    if not result.has("psnr"):
        return _NOTHING
    above = comparison.compare(result, "psnr")
    gain, p = above.difference, format_p_value(above.p_value)
    interval = f"<small>[{format_signed(gain.low)}, {format_signed(gain.high)}]</small>"
    return f"{format_signed(gain.mean)}{interval}<small>{escape(p)}</small>"


def _median_ms(result: MethodResult) -> str:
    return format_number(1000 * float(np.median(result.seconds))) if result.seconds else _NOTHING


def _amount_or_none(value: float) -> str:
    return format_amount(value) if value else "none"


def _minutes(minutes: float | None) -> str:
    return _NOTHING if minutes is None else format_number(minutes)


_CAPTIONS = {
    "gain": "Who gains, and how surely: the difference in PSNR to the reference on the same images. Thick: 95 % "
    "interval of the mean. Thin: the middle 90 % of the images.",
    "time": "How long one image takes. Box: the middle half of the runs, with the median; whiskers: the middle 90 %.",
    "texture": "Fidelity against texture. Upwards the pixels are closer to the original, to the right the amount of "
    "detail of each size is. Adversarial methods trade the one for the other.",
    "cost": "What the gain costs: PSNR against the work of the network. Interpolations have none.",
    "froc": "Blobs of the original that the result shows, against false ones, at every threshold. To the upper left is "
    "better.",
    "curves": "Training: PSNR of the validation images, which are not those of the table. The hollow mark is where "
    "a method stopped gaining.",
}


def _plots(comparison: Comparison, look: dict[str, Look], anchor: str) -> str:
    figures_html = ""
    for name, draw in plots.PLOTS.items():
        figure = draw(comparison, look)
        if figure is not None:
            drawing = plots.svg(figure, f"{anchor}-{name}", f"{_CAPTIONS[name]} The table holds the numbers.")
            figures_html += (
                '<figure><div class="scroll" role="region" aria-label="Plot, may be scrolled sideways" tabindex="0">'
                f"{drawing}</div><figcaption>{escape(_CAPTIONS[name])}</figcaption></figure>\n"
            )
    return f'<div class="plots">{figures_html}</div>'


def _glossary(comparisons: Sequence[Comparison]) -> str:
    """Explain the figures of the page."""
    results = [result for comparison in comparisons for result in comparison.results]
    terms = "".join(
        f"<dt>{escape(FIGURES[figure][0].upper() + FIGURES[figure][1:])}</dt><dd>{escape(meaning)}</dd>"
        for figure, meaning in MEANING.items()
        if any(result.has(figure) for result in results)
    )
    return f"""<section aria-labelledby="figures"><h2 id="figures">How to read the figures</h2>
<p>All of them compare the result with the original that the input was made from. None of them asks whether a
radiologist would have read the result as the original.</p>
<dl>{terms}</dl></section>"""
