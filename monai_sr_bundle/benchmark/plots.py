"""The plots of a comparison as SVG to stand inside a page: text stays text, and the same data give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox
from monai_sr_bundle.benchmark.comparison import Comparison, MethodResult
from monai_sr_bundle.benchmark.detection import BLOBS, describe_blobs
from monai_sr_bundle.metrics.mean import Mean
from monai_sr_bundle.report.preview import format_number
from monai_sr_bundle.uncertainty.blobs import FALSE_PER_IMAGE, froc

INK, QUIET, LINE, CARD = "#1d2126", "#59626d", "#dcdfe3", "#ffffff"
GREYS = {"nearest": "#8a9097", "bilinear": "#666d75", "bicubic": "#2b2f34"}
PALETTE = (
    "#0072b2", "#d55e00", "#00855f", "#aa4499", "#a67c00", "#882255", "#3e9ccb", "#6b6b00", "#332288", "#8a4b2a",
)  # fmt: skip
"""After Okabe and Ito, 2008, and Tol, 2021, darkened until each stands out from white by 3 to 1."""
VARIABLES = {INK: "ink", QUIET: "quiet", LINE: "line", CARD: "card"}
VARIABLES |= {colour: name for name, colour in GREYS.items()}
VARIABLES |= {colour: f"method{index}" for index, colour in enumerate(PALETTE)}
"""Colours of the plots that the page's style sheet has a name for, and another value in the dark."""

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h")
DASHES = ("-", "--", "-.", (0, (1, 1.2)))
WIDTH = 7.2
"""Width of a plot in inches."""


@dataclass(frozen=True)
class Look:
    """Colour, marker and line of a method in every plot; marker and line tell methods of one colour apart."""

    colour: str
    marker: str
    line: str | tuple[float, tuple[float, ...]]

    @property
    def variable(self) -> str:
        """Return the style sheet's name for the colour."""
        return VARIABLES[self.colour]


def assign_looks(comparisons: Sequence[Comparison]) -> dict[str, Look]:
    """Assign a look to each method, the same in every comparison; interpolations are grey."""
    methods = dict.fromkeys(result.method for comparison in comparisons for result in comparison.results)
    looks = {
        method: Look(GREYS[method], MARKERS[index], DASHES[index])
        for index, method in enumerate(GREYS)
        if method in methods
    }
    for index, method in enumerate(method for method in methods if method not in looks):
        rounds = index // len(PALETTE)
        marker, line = MARKERS[(index + rounds) % len(MARKERS)], DASHES[(index + rounds) % len(DASHES)]
        looks[method] = Look(PALETTE[index % len(PALETTE)], marker, line)
    return looks


def time_plot(comparison: Comparison, look: dict[str, Look]) -> Figure | None:
    """Draw box plots of the milliseconds per image; None if nothing was timed."""
    results = [result for result in comparison.results if result.seconds]
    if not results:
        return None
    figure, axes = _axes(rows=len(results))
    boxes = axes.boxplot(
        [1000 * np.asarray(result.seconds) for result in results],
        orientation="horizontal",
        patch_artist=True,
        widths=0.55,
        whis=(5, 95),
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": QUIET},
        medianprops={"color": INK, "linewidth": 1.6},
        whiskerprops={"color": QUIET},
        capprops={"color": QUIET},
    )
    for box, result in zip(boxes["boxes"], results, strict=True):
        box.set(facecolor=look[result.method].colour, edgecolor=look[result.method].colour, alpha=0.55)
    _name_rows(axes, results)
    axes.set_xscale("log")
    _round_ticks(axes)
    backends = ", ".join(dict.fromkeys(result.backend for result in comparison.results))
    axes.set_xlabel(
        f"milliseconds per image of {comparison.low_res_size} pixels\n({backends}, {comparison.processors})"
    )
    return figure


def gain_plot(comparison: Comparison, look: dict[str, Look]) -> Figure | None:
    """Draw a forest plot of the paired difference in PSNR to the reference; None if nothing can be compared."""
    reference = comparison.result(comparison.protocol.reference)
    results = [result for result in comparison.results if result is not reference and result.has("psnr")]
    if not results or not reference.has("psnr"):
        return None
    figure, axes = _axes(rows=len(results))
    axes.axvline(0.0, color=INK, linewidth=1.0)
    for row, result in enumerate(results, start=1):
        paired = comparison.compare(result, "psnr").difference
        difference = np.subtract(result.figures["psnr"], reference.figures["psnr"])
        spread = np.percentile(difference[np.isfinite(difference)], [5, 95])
        colour = look[result.method].colour
        axes.plot(spread, [row, row], color=colour, linewidth=1.0, alpha=0.6, gid="images")
        axes.plot([paired.low, paired.high], [row, row], color=colour, linewidth=5.0, solid_capstyle="butt")
        axes.plot([paired.mean], [row], marker=look[result.method].marker, color=colour, markeredgecolor=INK)
        words = f"{format_signed(paired.mean)} [{format_signed(paired.low)}, {format_signed(paired.high)}]"
        axes.text(1.02, row, words, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    _name_rows(axes, results)
    axes.set_xlabel(f"PSNR (dB) above {reference.label}, same images")
    return figure


def texture_plot(comparison: Comparison, look: dict[str, Look]) -> Figure | None:
    """Draw fidelity against texture: PSNR over log-spectral distance, which grows to the left; None if unmeasured."""
    points = [
        (result, Mean.of(result.figures["log_spectral_distance"]).mean, Mean.of(result.figures["psnr"]).mean)
        for result in comparison.results
        if result.has("psnr") and result.has("log_spectral_distance")
    ]
    if not points:
        return None
    figure, axes = _axes()
    _scatter(axes, points, look)
    axes.invert_xaxis()
    axes.set_xlabel("log-spectral distance (dB); to the right, the texture is more like the original's")
    axes.set_ylabel("PSNR (dB)")
    _label_points(figure, axes, points)
    return figure


def cost_plot(comparison: Comparison, look: dict[str, Look]) -> Figure | None:
    """Draw PSNR over multiply-adds on a log axis, interpolations in a separate strip; None if nothing was counted."""
    counted = [result for result in comparison.results if result.has("psnr")]
    costs = [result.multiply_adds for result in counted if result.multiply_adds > 0]
    if not costs:
        return None
    figure, axes = _axes()
    axes.set_xscale("log")
    strip, left, right = min(costs) / 6, min(costs) / 2.5, max(costs) * 2.5
    points = [(result, result.multiply_adds or strip, Mean.of(result.figures["psnr"]).mean) for result in counted]
    _scatter(axes, points, look)
    if len(costs) < len(points):
        axes.axvline(left, color=LINE, linewidth=1.0)
        axes.text(strip, -0.025, "none", transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=9)
        axes.set_xlim(strip / 2.2, right)
    else:
        axes.set_xlim(left, right)
    _round_ticks(axes, at_least=left, write=format_amount)
    axes.set_xlabel(f"multiply-adds of the network for one image of {comparison.low_res_size} pixels")
    axes.set_ylabel("PSNR (dB)")
    _label_points(figure, axes, points)
    return figure


def curve_plot(comparison: Comparison, look: dict[str, Look]) -> Figure | None:
    """Draw validation PSNR over the minutes of training; None if no curve was recorded."""
    results = [result for result in comparison.results if result.curve]
    if not results:
        return None
    figure, axes = _axes()
    minutes = [minute for result in results for minute, _ in result.curve if minute > 0]
    if max(minutes, default=1) > 30 * min(minutes, default=1):
        axes.set_xscale("log")
    for result in sorted(results, key=lambda result: -result.curve[-1][1]):
        curve = np.asarray(result.curve, dtype=np.float64)
        curve = curve[curve[:, 0] > 0] if axes.get_xscale() == "log" else curve
        style = look[result.method]
        axes.plot(curve[:, 0], curve[:, 1], color=style.colour, linestyle=style.line, label=result.label, linewidth=1.6)
        if result.gained_until is not None:
            height = float(np.interp(result.gained_until, curve[:, 0], curve[:, 1]))
            marker_position = [result.gained_until], [height]
            axes.plot(
                *marker_position, marker=style.marker, color=CARD, markeredgecolor=style.colour, markeredgewidth=1.5
            )
    if axes.get_xscale() == "log":
        _round_ticks(axes)
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("PSNR (dB) of the validation images")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9, handlelength=2.6)
    return figure


def froc_plot(comparison: Comparison, look: dict[str, Look]) -> Figure | None:
    """Draw the sensitivity to blobs over the false blobs per image; None without the protocol's `trust`."""
    results = [result for result in comparison.results if result.detections]
    if not results:
        return None
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    panels = figure.subplots(2, len(BLOBS) // 2, sharex=True, sharey=True)
    for axes, key in zip(panels.flat, BLOBS, strict=True):
        for result in results:
            false, sensitivity = froc([each.blobs[key] for each in result.detections])
            style = look[result.method]
            axes.plot(false, sensitivity, color=style.colour, linestyle=style.line, label=result.label, linewidth=1.4)
        axes.set_xscale("log")
        axes.set_xlim(FALSE_PER_IMAGE[0], 16)
        axes.set_ylim(0, 1)
        axes.grid(linewidth=0.8)
        axes.tick_params(labelsize=9)
        axes.set_title(describe_blobs(*key), fontsize=9)
        axes.xaxis.set_major_locator(FixedLocator([0.125, 1, 8]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: format_number(tick)))
    figure.supxlabel("false blobs per image", fontsize=9, color=QUIET)
    figure.supylabel("sensitivity", fontsize=9, color=QUIET)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9, handlelength=2.6)
    return figure


PLOTS: dict[str, Callable[[Comparison, dict[str, Look]], Figure | None]] = {
    "gain": gain_plot,
    "time": time_plot,
    "texture": texture_plot,
    "cost": cost_plot,
    "froc": froc_plot,
    "curves": curve_plot,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw plots the same whatever a user's own settings of matplotlib are, within the context."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "text.parse_math": False,  # a dollar sign in a name is a dollar sign
                "text.color": INK,
                "axes.labelcolor": QUIET,
                "axes.edgecolor": LINE,
                "axes.facecolor": CARD,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.axisbelow": True,
                "figure.facecolor": CARD,
                "grid.color": LINE,
                "xtick.color": LINE,
                "ytick.color": LINE,
                "xtick.labelcolor": INK,
                "ytick.labelcolor": INK,
                "lines.solid_capstyle": "round",
            }
        )
        yield


def svg(figure: Figure, name: str, description: str) -> str:
    """Return the plot as an element of an HTML page, in the colours of the page's style sheet.

    Args:
        figure: figure made within `style`.
        name: name of the plot, unique on the page; it keeps the parts of two plots apart.
        description: text for a person who cannot see the plot.
    """
    file = BytesIO()
    with style():
        matplotlib.rcParams["svg.hashsalt"] = name
        figure.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        # HTML knows SVG without its namespaces; what is left of the style goes into the page's sheet.
        element.tag = element.tag.rpartition("}")[2]
        attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        if element.tag == "g":
            attributes.pop("id", None)
        for key in attributes.keys() & {"d", "x", "y", "transform"}:
            attributes[key] = re.sub(r"(\.\d\d)\d+", r"\1", " ".join(attributes[key].split()))
        if "style" in attributes:
            attributes["style"] = _page_colours(re.sub(r"font-family:[^;]*;? ?", "", attributes["style"]))
        element.attrib.clear()
        element.attrib.update(attributes)
        element.text = element.text if element.text and element.text.strip() else None
        element.tail = None
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {"metadata", "style"}:
                parent.remove(child)
    root.attrib.clear()
    width, height = (72 * inches for inches in figure.get_size_inches())
    root.attrib.update({"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": description})
    return ElementTree.tostring(root, encoding="unicode")


def _page_colours(words: str) -> str:
    def replace(colour: re.Match[str]) -> str:
        return f"var(--{VARIABLES[colour[0]]})" if colour[0] in VARIABLES else colour[0]

    return re.sub(r"#[0-9a-f]{6}", replace, words)


def format_amount(value: float) -> str:
    """Format a large number as a person writes it: 361 k, 1.25 M, 2.4 G."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{format_number(value / size)} {letter}"
    return format_number(value)


def format_signed(value: float) -> str:
    """Format a difference with its sign, to two digits after the point."""
    return f"{value:+.2f}".replace("-", "−")


def _axes(rows: int | None = None) -> tuple[Figure, Axes]:
    height = 4.2 if rows is None else 0.75 + 0.3 * rows
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(axis="x" if rows else "both", linewidth=0.8)
    axes.tick_params(labelsize=9)
    return figure, axes


def _name_rows(axes: Axes, results: Sequence[MethodResult]) -> None:
    axes.set_yticks(range(1, len(results) + 1), [result.label for result in results])
    axes.set_ylim(len(results) + 0.6, 0.4)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _round_ticks(axes: Axes, at_least: float = 0.0, write: Callable[[float], str] = format_number) -> None:
    """Set ticks of a log axis at 1, 2 and 5 if there is room, else at powers of ten; no empty part beyond the data."""
    low, high = axes.get_xlim()
    low = max(low, at_least)
    steps = (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)
    ticks = [tick for tick in LogLocator(subs=steps).tick_values(low, high) if low <= tick <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: write(tick)))


def _scatter(axes: Axes, points: Sequence[tuple[MethodResult, float, float]], look: dict[str, Look]) -> None:
    for result, x, y in points:
        marker, colour = look[result.method].marker, look[result.method].colour
        axes.plot([x], [y], marker=marker, color=colour, markeredgecolor=CARD, markersize=9, linestyle="none")
    axes.margins(0.12)


def _label_points(figure: Figure, axes: Axes, points: Sequence[tuple[MethodResult, float, float]]) -> None:
    """Label each point at the position that covers the least of points, labels and border."""
    figure.draw_without_rendering()
    inside, dots = axes.get_window_extent(), figure.dpi / 72
    middles = [axes.transData.transform((x, y)) for _, x, y in points]
    occupied = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in middles]
    for (result, x, y), middle in zip(points, middles, strict=True):
        label = axes.annotate(result.label, (x, y), (0, 0), textcoords="offset points", fontsize=9, va="baseline")
        size = label.get_window_extent()
        label.remove()
        candidates = []
        for order, (distance, across, up) in enumerate(product((8, 18, 32, 50), (1, -1, 0), (0, 1, -1))):
            left = middle[0] + across * distance * dots - (1 - across) / 2 * size.width
            bottom = middle[1] + up * distance * dots - (1 - up) / 2 * size.height
            box = Bbox.from_bounds(left, bottom, size.width, size.height)
            covered = sum(_shared(box, other) for other in occupied)
            outside = size.width * size.height - _shared(box, inside)
            candidates.append((round(covered + 3 * outside), order, distance, box))
        _, _, distance, box = min(candidates, key=lambda candidate: candidate[:2])
        occupied.append(box)
        label = axes.annotate(
            result.label,
            (x, y),
            ((box.x0 - middle[0]) / dots, (box.y0 - middle[1]) / dots),
            textcoords="offset points",
            fontsize=9,
            va="bottom",
            arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "shrinkB": 3} if distance > 8 else None,
        )
        label.set_in_layout(False)  # the axes keep the size for which the positions were chosen


def _shared(first: Bbox, second: Bbox) -> float:
    both = Bbox.intersection(first, second)
    return 0.0 if both is None else float(both.width * both.height)
