import re
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from monai_sr_bundle.benchmark import plots
from monai_sr_bundle.benchmark.comparison import Comparison, MethodResult
from monai_sr_bundle.benchmark.protocol import Row

from tests.benchmark.drawn_protocol import drawn_protocol

METHODS = ("nearest", "bicubic", "edsr", "gan")


def result(method, psnr, **facts):
    return MethodResult(method, method.upper(), "torch on cpu", figures={"psnr": psnr}, **facts)


@pytest.fixture
def comparison():
    """Four methods on three images; two of them are networks."""
    protocol = drawn_protocol(*(Row(method, method.upper()) for method in METHODS))
    curve = [(1.0, 30.0), (10.0, 33.0), (60.0, 34.0)]
    network = {"multiply_adds": 1.5e9, "seconds": [0.05, 0.06, 0.04], "curve": curve, "gained_until": 10.0}
    results = [
        result("nearest", [29.0, 30.0, 31.0], seconds=[0.001, 0.002, 0.001]),
        result("bicubic", [31.0, 32.0, 33.0], seconds=[0.002, 0.002, 0.003]),
        result("edsr", [34.0, 34.5, 36.0], **network),
        result("gan", [32.0, 32.5, 34.0], **{**network, "multiply_adds": 6e9}),
    ]
    for index, each in enumerate(results):
        each.figures["log_spectral_distance"] = [4.0 - index, 3.5 - index, 3.9 - index]
    return Comparison(protocol, ["a", "b", "c"], ["1", "2", "3"], results, low_res_size="64x64")


def draw(plot, comparison):
    with plots.style():
        return plot(comparison, plots.assign_looks([comparison]))


def words(figure):
    axes = figure.axes[0]
    labels = [text.get_text() for text in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels())]
    return [*labels, axes.get_xlabel(), axes.get_ylabel()]


def test_every_method_has_a_box_of_its_times(comparison):
    figure = draw(plots.time_plot, comparison)
    assert len(figure.axes[0].patches) == 4
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["NEAREST", "BICUBIC", "EDSR", "GAN"]
    assert figure.axes[0].get_xscale() == "log"
    assert "milliseconds per image of 64x64 pixels\n(torch on cpu, 1 CPU thread)" in words(figure)


def test_the_forest_plot_has_every_method_but_the_reference_with_its_interval(comparison):
    figure = draw(plots.gain_plot, comparison)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["NEAREST", "EDSR", "GAN"]
    assert len(figure.axes[0].lines) == 1 + 3 * 3  # zero; spread, interval and mean of each method
    assert "−2.00 [−2.00, −2.00]" in words(figure)
    assert "PSNR (dB) above BICUBIC, same images" in words(figure)


def test_better_texture_lies_to_the_right(comparison):
    figure = draw(plots.texture_plot, comparison)
    left, right = figure.axes[0].get_xlim()
    assert left > right
    assert len(figure.axes[0].lines) == 4
    assert {"NEAREST", "BICUBIC", "EDSR", "GAN"} <= set(words(figure))


def test_interpolations_stand_in_a_strip_of_no_cost(comparison):
    figure = draw(plots.cost_plot, comparison)
    costs = {line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() not in ("", "None", None)}
    assert {1.5e9, 6e9} < costs
    assert len(costs) == 3
    assert min(costs) < 1.5e9
    assert {"none", "2 G", "5 G"} <= set(words(figure))


def test_labels_of_points_close_together_do_not_cover_each_other(comparison):
    for each in comparison.results:
        each.figures["psnr"], each.figures["log_spectral_distance"] = [30.0, 31.0], [2.0, 2.0]
    figure = draw(plots.texture_plot, comparison)
    figure.draw_without_rendering()
    extents = [Text.get_window_extent(label) for label in figure.axes[0].texts]  # without the line to the point
    assert len(extents) == 4
    for first, second in combinations(extents, 2):
        both = Bbox.intersection(first, second)
        assert both is None or both.width * both.height < 1


def test_every_recorded_curve_is_a_line_with_the_minute_it_stopped_gaining(comparison):
    figure = draw(plots.curve_plot, comparison)
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines if len(line.get_xdata()) > 1] == ["EDSR", "GAN"]
    assert [float(line.get_xdata()[0]) for line in lines if len(line.get_xdata()) == 1] == [10.0, 10.0]
    assert figure.axes[0].get_xscale() == "log"


@pytest.mark.parametrize("name", sorted(plots.PLOTS))
def test_what_was_not_measured_is_not_drawn(comparison, name):
    bare = replace(comparison, results=[MethodResult("bicubic", "Bicubic", "numpy on cpu")])
    assert draw(plots.PLOTS[name], bare) is None


def test_a_method_looks_the_same_in_every_comparison_and_interpolations_are_grey(comparison):
    other = replace(comparison, results=comparison.results[::-1])
    look = plots.assign_looks([comparison, other])
    assert list(look) == ["nearest", "bicubic", "edsr", "gan"]
    assert look["bicubic"].variable == "bicubic"
    assert look == {**plots.assign_looks([comparison]), **look}
    assert len({each.colour for each in look.values()}) == 4


def test_more_methods_than_colours_differ_by_marker(comparison):
    results = [result(f"method{index}", [30.0]) for index in range(20)]
    look = plots.assign_looks([replace(comparison, results=results)])
    assert len({(each.colour, each.marker, each.line) for each in look.values()}) == 20


@pytest.mark.parametrize("colour", [*plots.PALETTE, *plots.GREYS.values()])
def test_every_colour_stands_out_from_white(colour):
    parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 3.0  # WCAG 2.2, success criterion 1.4.11


@pytest.fixture
def figure():
    with plots.style():
        figure = Figure(figsize=(4, 2))
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=plots.PALETTE[0])
        axes.set_title("<b>&$x$")
    return figure


def test_svg_is_searchable_text_without_a_load_a_style_sheet_or_a_namespace(figure):
    text = plots.svg(figure, "one", 'a "line"')
    root = ElementTree.fromstring(text)
    assert root.tag == "svg"
    assert root.attrib == {"viewBox": "0 0 288 144", "role": "img", "aria-label": 'a "line"'}
    assert "<b>&$x$" in [element.text for element in root.iter("text")]
    assert list(root.iter("style")) == list(root.iter("metadata")) == []
    for forbidden in ("http", "xmlns", "font-family", "<!--", "xlink"):
        assert forbidden not in text


def test_svg_takes_its_colours_from_the_page(figure):
    text = plots.svg(figure, "one", "a line")
    assert "stroke: var(--method0)" in text
    assert "var(--ink)" in text
    assert re.findall(r"#[0-9a-f]{6}", text) == []


def test_parts_of_two_plots_on_a_page_have_different_names_and_every_reference_is_met(figure):
    both = [plots.svg(figure, name, "a line") for name in ("one", "two")]
    names = [re.findall(r'\bid="([^"]+)"', text) for text in both]
    assert names[0]
    assert set(names[0]).isdisjoint(names[1])
    for text, ids in zip(both, names, strict=True):
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)) <= {
            pair for name in ids for pair in ((name, ""), ("", name))
        }


def test_the_same_plot_gives_the_same_text_whatever_the_users_settings(comparison):
    def text():
        with plots.style():
            figure = plots.texture_plot(comparison, plots.assign_looks([comparison]))
            return plots.svg(figure, "one", "texture")

    first = text()
    with matplotlib.rc_context({"font.size": 25, "axes.facecolor": "red"}):
        assert text() == first
        assert matplotlib.rcParams["font.size"] == 25


@pytest.mark.parametrize(
    ("value", "words"),
    [(950, "950"), (54_100, "54.1 k"), (999_900, "1 M"), (361_000, "361 k"), (1.48e9, "1.48 G"), (2e12, "2 T")],
)
def test_amounts_are_written_as_people_write_them(value, words):
    assert plots.format_amount(value) == words
