import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from monai_sr_bundle.benchmark import plots, sheet
from monai_sr_bundle.benchmark.comparison import FIGURES, Comparison, MethodResult, Sample
from monai_sr_bundle.benchmark.comparison_page import MEANING, page
from monai_sr_bundle.benchmark.protocol import Row
from monai_sr_bundle.benchmark.sheet import region_of_interest
from monai_sr_bundle.benchmark.training_curve import TrainingTime
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.inferers.postprocessing import enlarge_bicubic
from PIL import Image as Picture
from scipy.stats import ttest_rel

from tests.benchmark.drawn_protocol import drawn_protocol

COMMAND = "monai-sr benchmark quality --data data --out <here>"
VOID = {"meta", "img", "wbr", "br"}


class Page(HTMLParser):
    """Tags, attributes, table cells and words of a page, as a browser reads them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words, self.open, self.rows, self.marked = [], [], "", [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag == "tr":
            self.rows.append([])
            self.marked.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.marked[-1].append("")
        elif tag in ("strong", "u") and "tr" in self.open:
            self.marked[-1][-1] = tag
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def column(self, title):
        """Words and marks below the first header that starts with a title."""
        at = next(index for index, words in enumerate(self.rows[0]) if words.startswith(title))
        return [row[at] for row in self.rows[1:]], [row[at] for row in self.marked[1:]]

    def pictures(self):
        for tag, name, value in self.attributes:
            if (tag, name) == ("img", "src"):
                assert value.startswith("data:image/png;base64,")
                yield Picture.open(io.BytesIO(base64.b64decode(value.partition(",")[2])))


def comparison_of(size=96, samples=1, **changes):
    """Nearest, bicubic and a network that knows the original, on drawn chests."""
    rows = Row("nearest", "Nearest"), Row("bicubic", "Bicubic"), Row("net_x4:best", "Net <script> & co")
    protocol = drawn_protocol(*rows, about="What each method makes of a drawing.")
    results = [
        MethodResult("nearest", "Nearest", "numpy on cpu", figures={"psnr": [28.0, 29.0, 30.0, 30.5]}),
        MethodResult("bicubic", "Bicubic", "numpy on cpu", figures={"psnr": [30.0, 31.0, 32.5, 31.5]}),
        MethodResult("net_x4:best", "Net <script> & co", "onnx on cpu", figures={"psnr": [33.0, 33.5, 36.0, 34.5]}),
    ]
    results[2].parameters, results[2].multiply_adds = 361_000, 1.48e9
    results[2].training, results[2].gained_until = TrainingTime(60.0, 4.0), 41.25
    results[2].curve = [(1.0, 30.0), (60.0, 34.0)]
    for each, closeness in zip(results, (0.4, 0.45, 0.95), strict=True):
        each.seconds = [0.0123, 0.0125, 0.0127, 0.0125]
        each.figures |= {
            "high_frequency_ratio": [closeness, closeness + 0.1, closeness, closeness + 0.1],
            "log_spectral_distance": [5 - 4 * closeness] * 4,
            "box_psnr": [math.nan, 30 + closeness, math.nan, math.nan],
        }
    kept_samples = []
    for index in range(samples):
        high = draw_phantom(size, seed=index)
        low = high.reshape(size // 4, 4, size // 4, 4).mean(axis=(1, 3))
        boxes = np.array([[20.0, 30.0, 50.0, 44.5]])[: index == 0]
        kept_samples.append(Sample(f"image{index}", low, high, boxes))
        interpolated = enlarge_bicubic(low, 4)
        for each, picture in zip(results, (low.repeat(4, 0).repeat(4, 1), interpolated, high), strict=True):
            each.pictures.append(picture)
    return Comparison(
        **{
            "protocol": protocol,
            "images": [f"image{index}" for index in range(4)],
            "patients": [f"patient{index}" for index in range(4)],
            "results": results,
            "samples": kept_samples,
            "unavailable": {"lpips": "its backbone <alexnet> is not on this machine."},
            "manifest_sha256": "0123456789abcdef" * 4,
            "low_res_size": "24x24",
            "versions": {"torch": "2.13.0", "numpy": "1.26.4"},
            "minutes": 3.21,
            **changes,
        }
    )


def with_protocol(comparison, **changes):
    return replace(comparison, protocol=replace(comparison.protocol, **changes))


@pytest.fixture(scope="module")
def comparison():
    return comparison_of(samples=2)


@pytest.fixture(scope="module")
def text(comparison):
    return page([comparison], COMMAND)


@pytest.fixture(scope="module")
def html(text):
    return Page(text)


@pytest.fixture
def quick(monkeypatch):
    """Reads a page without its plots, which take most of the time."""
    monkeypatch.setattr(plots, "PLOTS", {})
    return lambda comparisons: Page(page(comparisons, COMMAND))


def test_the_same_comparison_gives_the_same_bytes(text):
    assert page([comparison_of(samples=2)], COMMAND) == text


def test_nothing_is_loaded_and_nothing_runs(html, text):
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in html.attributes
    assert "http:" not in text
    assert "https:" not in text
    assert {"script", "link", "iframe", "object"} & set(html.tags) == set()
    assert [value for _, name, value in html.attributes if name in ("src", "href") and value[0] not in "#d"] == []
    assert not any(name.startswith("on") for _, name, _ in html.attributes)


def test_names_are_escaped(html, text):
    assert "<script>" not in text
    assert "Net <script> & co" in html.words
    assert "--out <here>" in html.words
    assert "LPIPS is not shown: its backbone <alexnet> is not on this machine." in html.words


def test_every_method_has_a_row_and_stands_in_every_plot_and_sample(html, text):
    assert [row[0] for row in html.rows[1:]] == ["Nearest", "Bicubic", "Net <script> & conet_x4:best"]
    # One row, two samples, and five plots: all but the one of differences name the reference.
    assert text.count("Net &lt;script&gt;") >= 1 + 2 + 5
    assert len(re.findall(r">Bicubic</text>", text)) == 3
    assert html.tags.count("svg") == 5 + 2


def test_what_was_measured_stands_in_one_line(html):
    assert (
        "test split of drawn · 4 images of 4 patients (chest radiographs) · 24x24 pixels enlarged ×4 · "
        "reduced by bicubic_antialias_x4 · rounded to 256 levels"
    ) in html.words
    assert (
        "protocol drawn · numpy on cpu, onnx on cpu, 1 CPU thread · torch 2.13.0, numpy 1.26.4 · took 3.21 minutes · "
        "manifest SHA-256 0123456789ab…"
    ) in html.words


def test_a_ct_states_its_window(quick):
    ct = with_protocol(comparison_of(), modality="CT", window=(-1000.0, 400.0), levels=1400)
    words = quick([ct]).words
    assert "(chest CT slices)" in words
    assert "window -1000 to 400 HU, rounded to 1401 levels" in words
    assert re.search(r"mean \d+(\.\d+)? HU", words)


def test_figures_are_written_as_the_table_says(html):
    assert html.column("PSNR (dB)")[0] == ["29.38± 1.11", "31.25± 1.04", "34.25± 1.32"]
    assert html.column("High-frequency energy")[0] == ["0.450± 0.058", "0.500± 0.058", "1.000± 0.058"]
    assert html.column("Parameters")[0] == ["none", "none", "361 k"]
    assert html.column("Multiply-adds")[0] == ["none", "none", "1.48 G"]
    assert html.column("Time (ms)")[0] == ["12.5"] * 3
    assert html.column("Training (min)given")[0] == ["–", "–", "56 + 4 on a GPU"]
    assert html.column("Training (min)stopped")[0] == ["–", "–", "41.2"]


def test_the_difference_to_the_reference_has_an_interval_and_a_p_value(html):
    nearest, bicubic, net = html.column("Difference to Bicubic (dB)")[0]
    before = [30.0, 31.0, 32.5, 31.5]
    p_value = ttest_rel([28.0, 29.0, 30.0, 30.5], before).pvalue
    assert re.fullmatch(rf"−1\.88\[−2\.\d\d, −1\.\d\d\]p = {p_value:.3f}", nearest)
    assert bicubic == "reference"
    assert re.fullmatch(r"\+3\.00\[\+2\.\d\d, \+3\.\d\d\]p < 0\.001", net)


def test_the_best_is_bold_and_the_second_underlined_whichever_way_the_figure_runs(html):
    assert html.column("PSNR (dB)")[1] == ["", "u", "strong"]
    assert html.column("Log-spectral distance")[1] == ["", "u", "strong"]  # lower is better
    assert html.column("High-frequency energy")[1] == ["", "u", "strong"]  # best near 1
    assert "lower is better" in html.rows[0][[word.startswith("Log") for word in html.rows[0]].index(True)]


def test_too_much_texture_is_no_better_than_too_little(quick):
    comparison = comparison_of()
    for each, ratio in zip(comparison.results, (0.9, 1.3, 1.1), strict=True):
        each.figures["high_frequency_ratio"] = [ratio] * 4
    assert quick([comparison]).column("High-frequency")[1] == ["strong", "u", "strong"]


def test_methods_that_read_alike_rank_alike(quick):
    comparison = comparison_of()
    for each, psnr in zip(comparison.results, (30.0, 32.001, 32.002), strict=True):
        each.figures["psnr"] = [psnr] * 4
    assert quick([comparison]).column("PSNR (dB)")[1] == ["u", "strong", "strong"]
    for each in comparison.results:
        each.figures["psnr"] = [30.0] * 4
    assert quick([comparison]).column("PSNR (dB)")[1] == ["", "", ""]


def test_a_figure_that_was_not_measured_has_no_column(html):
    assert not any(words.startswith(("LPIPS", "SSIM", "Artifact")) for words in html.rows[0])
    assert "SSIM in boxes is not shown" not in html.words  # nobody asked for it


def test_a_method_without_a_figure_has_a_dash(quick):
    comparison = comparison_of()
    del comparison.result("nearest").figures["log_spectral_distance"]
    comparison.result("net_x4:best").figures["psnr"] = [math.nan] * 4
    html = quick([comparison])
    assert html.column("Log-spectral")[0][0] == "–"
    assert html.column("PSNR (dB)")[0][2] == html.column("Difference")[0][2] == "–"


def test_a_figure_of_some_images_says_of_how_many(html):
    assert "PSNR in boxes (dB)higher is better; 1 of 4 images" in html.rows[0]


def test_the_finding_is_said_in_words(html):
    assert (
        "Highest PSNR: Net <script> & co with 34.25 dB, 3.00 dB [+2.62, +3.38] above Bicubic and better in 4 of 4"
        in (html.words)
    )


def test_what_is_not_clearly_below_a_reference_that_is_best_is_named(quick):
    comparison = comparison_of()
    comparison.protocol = replace(comparison.protocol, reference="net_x4:best")
    assert "Highest PSNR: Net <script> & co with 34.25 dB. All are below it." in quick([comparison]).words
    comparison.result("nearest").figures["psnr"] = [33.0, 35.0, 34.0, 34.5]
    assert "34.25 dB. Not clearly below it: Nearest." in quick([comparison]).words


def test_a_trained_method_that_gains_nothing_is_named(quick):
    comparison = comparison_of()
    comparison.result("net_x4:best").figures["psnr"] = [29.0, 31.5, 32.0, 31.5]
    words = quick([comparison]).words
    assert "Highest PSNR: Bicubic with 31.25 dB. Not clearly above Bicubic in PSNR: Net <script> & co." in words


def test_images_are_not_taken_for_patients(quick):
    warning = "One patient only: the intervals and p-values are over slices of the same chest"
    assert warning in quick([comparison_of(patients=["one"] * 4)]).words


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"artifacts": True}, "Artifacts drawn in"),
        ({"name": "papers_external"}, "External test: the images come from another hospital"),
        ({"split": "val"}, "These are val images, which the methods saw in training: not a test of accuracy."),
    ],
)
def test_a_warning_stands_above_the_table(changes, warning, quick, text):
    warned = page([with_protocol(comparison_of(), **changes)], COMMAND)
    assert "Please note" in warned
    assert "Please note" not in text
    assert warned.index(warning) < warned.index("<table>")


def test_the_sample_sheet_shows_input_methods_and_original_with_detail_and_error(comparison, quick):
    one = quick([replace(comparison, samples=comparison.samples[:1])])
    alts = [value for tag, name, value in one.attributes if (tag, name) == ("img", "alt")]
    assert alts[:3] == ["Input, whole image", "Input, detail", alts[2]]
    assert alts[2].startswith("colours from 0 to ")
    assert alts[-2:] == ["Original, whole image", "Original, detail"]
    assert len(alts) == 3 + 3 * 3 + 2
    pictures = list(one.pictures())
    assert [picture.size for picture in pictures[:2]] == [(24, 24), (64, 64)]
    assert [(picture.mode, picture.size) for picture in pictures[3:6]] == [
        ("L", (96, 96)),
        ("L", (64, 64)),
        ("P", (96, 96)),
    ]
    high = comparison.samples[0].high_res
    np.testing.assert_array_equal(np.asarray(pictures[-2]), np.rint(255 * high))
    assert "PSNR 33.00 dB" in one.words


def test_errors_share_one_scale_and_no_error_is_black(comparison, quick):
    pictures = list(quick([replace(comparison, samples=comparison.samples[:1])]).pictures())
    nearest, bicubic, net = (np.asarray(pictures[index].convert("L"), dtype=float) for index in (5, 8, 11))
    assert nearest.mean() > bicubic.mean() > net.mean()
    assert net.max() == 0
    bar = np.asarray(pictures[2].convert("L"), dtype=float)[0]
    assert bar[0] == 0
    assert (np.diff(bar) >= 0).all()


def test_a_method_without_any_error_at_all_is_shown_black(quick):
    comparison = comparison_of(samples=1)
    for each in comparison.results:
        each.pictures[0] = comparison.samples[0].high_res
    words = quick([comparison]).words
    assert "1 grey levels or more" in words
    assert "mean 0 grey levels" in words


def test_findings_are_framed_on_the_original_alone(text):
    assert text.count('<rect class="box"') == 1
    assert '<rect class="box" x="20" y="30" width="30" height="14.5"/>' in text
    assert text.count('<rect class="region"') == 2
    assert 'aria-label="1 finding and the magnified square, outlined"' in text


@pytest.mark.parametrize("box", [(0, 0, 6, 6), (240, 100, 256, 130), (10, 10, 250, 250), (40, 40, 110, 70)])
def test_the_magnified_square_lies_inside_the_image_and_is_at_most_half_of_it(box):
    sample = Sample("a", np.zeros((64, 64)), np.zeros((256, 256)), np.array([box], dtype=float))
    top, left, side = region_of_interest(sample, 4)
    assert 0 <= top <= 256 - side
    assert 0 <= left <= 256 - side
    assert 64 <= side <= 128
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    assert left <= middle[0] <= left + side
    assert top <= middle[1] <= top + side


def test_the_magnified_square_shows_the_first_finding_or_a_small_image_as_a_whole(comparison):
    assert region_of_interest(comparison.samples[0], 4) == (5, 3, 64)
    small = Sample("a", np.zeros((10, 12)), np.zeros((40, 48)), np.array([[4.0, 4.0, 9.0, 9.0]]))
    assert region_of_interest(small, 4) == (0, 0, 40)


def test_large_images_are_reduced_but_their_detail_is_not(quick):
    pictures = list(quick([comparison_of(size=512, samples=1)]).pictures())
    assert [picture.size for picture in pictures[3:6]] == [(256, 256), (64, 64), (128, 128)]


def test_at_most_four_images_are_shown_and_fewer_where_the_page_would_grow_too_large(monkeypatch, quick):
    six = comparison_of(samples=4)
    six.images += ["image4", "image5"]
    six.patients += ["patient4", "patient5"]
    for each in six.results:
        each.figures = {"psnr": [*each.figures["psnr"], 30.0, 31.0]}
        each.pictures += each.pictures[:2]
    six.samples += [replace(sample, name=name) for sample, name in zip(six.samples, six.images[4:], strict=False)]
    assert page([six], COMMAND).count('<figure class="sample">') == 4
    monkeypatch.setattr(sheet, "SHEET_BYTES", 1)
    assert page([six, six], COMMAND).count('<figure class="sample">') == 2


def test_several_protocols_have_a_contents_list_and_parts_of_their_own(comparison):
    html = Page(page([comparison, with_protocol(comparison, title="Another")], COMMAND))
    targets = [value for tag, name, value in html.attributes if (tag, name) == ("a", "href")]
    identifiers = [value for _, name, value in html.attributes if name == "id"]
    assert targets == ["#p1", "#p2"]
    assert {"p1", "p2"} < set(identifiers)
    assert len(set(identifiers)) == len(identifiers)


def test_every_figure_has_a_meaning_and_the_page_explains_those_it_shows(html):
    assert set(MEANING) == set(FIGURES)
    assert MEANING["psnr"] in html.words
    assert MEANING["artifact_energy_removed"] not in html.words


def test_pictures_and_plots_have_a_description_and_headers_a_scope(html):
    for tag, name in (("img", "alt"), ("svg", "aria-label")):
        words = [value for other, attribute, value in html.attributes if (other, attribute) == (tag, name)]
        assert len(words) == html.tags.count(tag)
        assert all(words)
    headers = [value for tag, name, value in html.attributes if (tag, name) == ("th", "scope")]
    assert headers == ["col"] * len(html.rows[0]) + ["row"] * 3
