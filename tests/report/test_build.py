import hashlib
import json
import math
from copy import deepcopy
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.geometry import UNKNOWN, Grid
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.input_checks import InputComparison
from monai_sr_bundle.images.provenance import Sampling
from monai_sr_bundle.report.build import (
    FILES_LISTED,
    Consistency,
    build_report,
    describe_error_bars,
    describe_findings,
    measure_consistency,
    write_html,
    write_json,
)
from monai_sr_bundle.report.error_pictures import ErrorBarPictures
from monai_sr_bundle.report.grain import Grain
from monai_sr_bundle.report.preview import slice_values
from monai_sr_bundle.uncertainty.calibration import Calibration, CalibrationEntry
from monai_sr_bundle.uncertainty.error_bars import ErrorBars
from PIL import Image as Picture
from pydicom.dataset import Dataset

from tests.images.dicom_files import provenance

PROVENANCE = provenance(bundle="chest_xray_edsr_x4", version="0.2.0")


def area_x4(high):
    return high.reshape(high.shape[0] // 4, 4, high.shape[1] // 4, 4).mean(axis=(1, 3))


def images(folder, slices=1, spacing=0.8, **changes):
    """Source and result that fit each other exactly; the source exists as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    low = np.arange(slices * 16 * 24, dtype=np.uint16).reshape(slices, 16, 24) % 200
    affine = np.diag([spacing or 1.0, spacing or 1.0, 2.5, 1.0])
    grid = Grid(low.shape, affine, "PixelSpacing" if spacing else UNKNOWN)
    path = folder / "chest.png"
    path.write_bytes(b"stands for the picture")
    source = replace(Image(low, grid, "CXR", "png", path, stored_range=(0, 255), bits=8), **changes)
    high = source.pixels.repeat(4, axis=1).repeat(4, axis=2)
    return source, replace(source, pixels=high, grid=source.grid.scaled((1, 4, 4)))


def report_of(source, result, **changes):
    arguments = {
        "source": source,
        "result": result,
        "provenance": PROVENANCE,
        "input_files": [source.path],
        "output": None,
        "seconds": 0.5,
        "consistency": Consistency(0.3, 1.0, "grey levels"),
        "bicubic_consistency": Consistency(3.0, 30.0, "grey levels"),
        "warnings": [],
    }
    return build_report(**{**arguments, **changes})


class Page(HTMLParser):
    """Tags, attributes and words of a page, as a browser reads them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_data(self, data):
        self.words += data


def page_of(report, tmp_path, preview=None, error_pictures=None):
    return write_html(report, preview, tmp_path / "report.html", error_pictures).read_text(encoding="utf-8")


def words_of(page):
    """The words of a page, with single spaces."""
    return " ".join(Page(page).words.split())


def section(page, identity, end=None):
    """The part of a page from one heading to another, or to its end."""
    return page[page.index(f'id="{identity}"') : page.index(f'id="{end}"') if end else None]


@pytest.fixture
def preview(tmp_path):
    Picture.new("RGB", (8, 8)).save(tmp_path / "preview.png")
    return tmp_path / "preview.png"


def error_bars(half_width, tolerance=4.0, **changes):
    """Describe error bars of an invented calibration, as a report holds them."""
    facts = {
        "bundle": "chest_xray_edsr_x4", "version": "0.2.0", "weights_sha256": "ab" * 32,
        "operator": "bicubic_antialias_x4", "alpha": 0.1, "images": 80, "patients": 71, "data": "cxr_nih",
        "split": "val", "manifest_sha256": "cd" * 32, "created": "2025-01-02",
        "entries": (CalibrationEntry(None, 2.0, 0.915, 0.01),),
    }  # fmt: skip
    calibration = Calibration(**{**facts, **changes})
    bars = ErrorBars(np.asarray(half_width, dtype=np.float32), calibration, calibration.entries[0])
    return describe_error_bars(bars, tolerance, "grey levels", (0.0, 255.0))


def reduced(result):
    return lambda index: area_x4(slice_values(result, index))


def test_consistency_is_measured_in_modality_values_over_all_slices(tmp_path):
    source, result = images(tmp_path, slices=2, modality="CT", slope=2.0, intercept=-1000.0)
    result.pixels[1] += 3
    measured = measure_consistency(source, reduced(result))
    assert measured.unit == "HU"
    assert measured.maximum == pytest.approx(6.0)
    assert measured.rms == pytest.approx(6.0 / math.sqrt(2.0))


def test_only_the_pixels_that_are_named_are_compared_and_a_not_a_number_goes_through(tmp_path):
    source, result = images(tmp_path, slices=2)
    result.pixels[1, :4] += 3
    compared = np.ones(source.pixels.shape, dtype=bool)
    compared[1, 0] = False
    assert measure_consistency(source, reduced(result)).maximum == 3.0
    assert measure_consistency(source, reduced(result), compared.__getitem__) == Consistency(0.0, 0.0, "grey levels")
    nothing = measure_consistency(source, reduced(result), np.zeros_like(compared).__getitem__)
    assert (math.isnan(nothing.rms), nothing.maximum) == (True, 0.0)
    not_numbers = measure_consistency(source, lambda index: np.full(source.pixels.shape[1:], np.nan))
    assert math.isnan(not_numbers.rms)
    assert math.isnan(not_numbers.maximum)


def test_the_report_tells_how_to_find_and_repeat_the_run(tmp_path):
    source, result = images(tmp_path / "folder")
    output = tmp_path / "folder" / "x4.png"
    output.write_bytes(b"result")
    report = report_of(source, result, output=output)
    sha256 = hashlib.sha256(b"stands for the picture").hexdigest()
    assert report["source"]["files"] == [{"name": "chest.png", "sha256": sha256}]
    assert report["output"]["files"][0]["sha256"] == hashlib.sha256(b"result").hexdigest()
    assert report["source"]["spacing_mm"] == {"between_rows": 0.8, "between_columns": 0.8, "between_slices": None}
    assert report["output"]["spacing_mm"] == {"between_rows": 0.2, "between_columns": 0.2, "between_slices": None}
    assert report["output"]["shape_zyx"] == [1, 64, 96]
    assert report["created"] == "2026-11-20T10:11:12+01:00"
    assert report["run"]["libraries"]["numpy"] == np.__version__
    command = (
        "monai-sr enhance chest.png x4.png --bundle chest_xray_edsr_x4 --seed 7 --scale 4 --backend onnx --device cpu"
    )
    assert report["run"]["command"] == command


REGION = replace(PROVENANCE, roi_xyxy=(1, 2, 25, 18))


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        ({}, ["not a medical device", "What this does not mean."]),
        ({}, ["Here it was reduced by area_x4: each coarse pixel"]),
        ({"warnings": ["Larger than any image seen in training."]}, ["Larger than any image seen in training."]),
        (
            {"provenance": REGION},
            [
                "columns 1 to 24 and rows 2 to 17 (24 × 16 pixels) were enlarged",
                "Size of the region",
                "--roi 1 2 25 18",
            ],
        ),
        (
            {"input_comparison": {"slice_spacing_mm": InputComparison(4.0, 3.0, 5.0)}},
            [
                "Yes, as far as this was measured: its new slice spacing lies within the known range.",
                "thin slices which the model has learnt from; nothing else was judged.",
            ],
        ),
    ],
)
def test_the_page_says_how_the_result_came_about_and_what_it_is_not(tmp_path, changes, sentences):
    report = report_of(*images(tmp_path), **changes)
    words = words_of(page_of(report, tmp_path))
    assert [sentence for sentence in sentences if sentence not in words] == []
    assert "Sharpness is how much" not in words or "input_comparison" not in changes


def test_unknown_spacing_is_null_and_said_on_the_page(tmp_path):
    report = report_of(*images(tmp_path, spacing=None))
    assert report["source"]["spacing_mm"] is None
    assert report["output"]["spacing_mm"] is None
    page = page_of(report, tmp_path)
    assert "distance between the pixels is unknown" in page
    assert " mm<" not in page


def test_a_series_gets_the_hash_that_sha256sum_prints(tmp_path):
    files = [tmp_path / f"{index:03}.dcm" for index in range(FILES_LISTED + 1)]
    for file in files:
        file.write_bytes(file.name.encode())
    report = report_of(*images(tmp_path), input_files=files[::-1])
    listing = "".join(f"{hashlib.sha256(file.name.encode()).hexdigest()}  {file.name}\n" for file in files)
    assert report["source"]["files"] is None
    assert report["source"]["file_count"] == FILES_LISTED + 1
    assert report["source"]["combined_sha256"] == hashlib.sha256(listing.encode()).hexdigest()
    assert f"{FILES_LISTED + 1} files together" in page_of(report, tmp_path)


def test_a_result_folder_is_hashed_without_the_report_in_it(tmp_path):
    source, result = images(tmp_path)
    output = tmp_path / "series"
    output.mkdir()
    for name in ("1.dcm", "2.dcm", "report.json", "preview.png"):
        (output / name).write_bytes(name.encode())
    entry = report_of(source, result, output=output)["output"]
    assert [file["name"] for file in entry["files"]] == ["1.dcm", "2.dcm"]


def dicom_headers():
    headers = []
    for index in range(2):
        header = Dataset()
        header.PatientName, header.PatientID, header.PatientBirthDate = "Doe^Jane", "MRN-4711", "19600102"
        header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        header.SOPInstanceUID = f"1.2.3.4.{index}"
        headers.append(header)
    return headers


def test_uids_are_in_the_report_and_the_patient_is_not(tmp_path):
    source, result = images(tmp_path, slices=2, format="dicom", header=dicom_headers())
    report = report_of(source, result)
    assert report["source"]["dicom"] == {
        "study_uids": ["1.2.3"],
        "series_uids": ["1.2.3.4"],
        "sop_instance_uids": ["1.2.3.4.0", "1.2.3.4.1"],
    }
    for text in (json.dumps(report), page_of(report, tmp_path)):
        assert not any(secret in text for secret in ("Doe", "Jane", "MRN-4711", "19600102"))


def test_no_folder_of_this_computer_is_in_the_report(tmp_path):
    folder = tmp_path / "DOE JANE 4711"
    source, result = images(folder)
    source = replace(source, notes=(f"{source.path}: 8 bits.", f"Read from {folder}."))
    output = folder / "result" / "x4.png"
    output.parent.mkdir()
    output.write_bytes(b"result")
    warnings = f"{source.path} is small.", "See /opt/hospital/a.txt.", r"See C:\Users\jane\x.txt.", "1/2 mm, and/or"
    command = ["/usr/bin/monai-sr", "enhance", str(source.path), f"--out={output}", f"{folder}/"]
    report = report_of(source, result, output=output, warnings=list(warnings), command=command)
    for text in (json.dumps(report), page_of(report, tmp_path)):
        assert not any(part in text for part in ("JANE 4711/", str(tmp_path), "hospital", "Users"))
    assert report["notes"] == ["chest.png: 8 bits.", "Read from the folder."]
    assert report["warnings"] == ["chest.png is small.", "See a.txt.", "See x.txt.", "1/2 mm, and/or"]
    assert report["run"]["command"] == "monai-sr enhance chest.png --out=x4.png 'DOE JANE 4711'"


def test_numbers_that_are_not_numbers_become_null(tmp_path):
    broken = Consistency(float("nan"), np.float32("inf"), "grey levels")
    report = report_of(*images(tmp_path), consistency=broken, seconds=np.float64("inf"))
    assert report["consistency"]["result"] == {"rms": None, "maximum": None}
    assert report["run"]["seconds"] is None
    before = deepcopy(report)
    assert "nothing can be said" in page_of(report, tmp_path)
    read_back = json.loads(write_json(report, tmp_path / "report.json").read_text(encoding="utf-8"))
    assert read_back == report == before


@pytest.mark.parametrize(
    ("result", "bicubic", "words"),
    [
        ((0.3, 1.0), (3.0, 30.0), "agrees with the input to within what a screen can show.<"),
        ((0.3, 9.0), (3.0, 30.0), "At its worst pixel it is 9 grey levels off."),
        ((1.0, 3.0), (3.0, 30.0), "3 times better than bicubic"),
        ((3.0, 3.0), (3.0, 30.0), "about as well as bicubic"),
        ((6.0, 3.0), (3.0, 30.0), "departs from the input more than bicubic"),
    ],
)
def test_the_verdict_follows_the_numbers(tmp_path, result, bicubic, words):
    measured, of_bicubic = (Consistency(*figures, "grey levels") for figures in (result, bicubic))
    report = report_of(*images(tmp_path), consistency=measured, bicubic_consistency=of_bicubic)
    assert words in page_of(report, tmp_path)


def test_a_model_that_takes_noise_away_is_not_judged_by_its_distance_from_the_input(tmp_path):
    measured = {"consistency": Consistency(6.0, 9.0, "grey levels"), "bicubic_consistency": Consistency(3.0, 30.0, "x")}
    report = report_of(*images(tmp_path), **measured, blind=True)
    words = section(page_of(report, tmp_path), "f")
    assert 'caution">The result differs from the input by 6 grey levels in the root mean square; up to 0.5 ' in words
    assert "would not show on a screen. The model takes noise," in words
    assert "Do not rely on it" not in words


@pytest.mark.parametrize(
    ("rms", "words"),
    [
        (1.0, "3 times better than cubic interpolation along the slices does"),
        (3.0, "about as well as cubic interpolation along the slices does"),
        (6.0, "departs from the input more than cubic interpolation along the slices does"),
    ],
)
def test_the_page_of_thin_slices_tells_of_slices(tmp_path, preview, rms, words):
    source, _ = images(tmp_path, slices=6)
    result = replace(source, pixels=source.pixels.repeat(4, axis=0), grid=source.grid.scaled((4, 1, 1)))
    along = replace(PROVENANCE, scale_zyx=(4, 1, 1), operator="slab_area_x4")
    consistency = Consistency(rms, 3.0, "grey levels")
    page = page_of(report_of(source, result, provenance=along, consistency=consistency), tmp_path, preview)
    for sentence in (
        words,
        "Before: cubic along the slices",
        "detail between the measured slices",
        "distance between slices went from 2.5 mm to 0.625 mm",
        "compared with cubic interpolation along the slices",
    ):
        assert sentence in page
    assert "bicubic" not in page.lower()


def test_the_page_tells_both_distances_of_pixels_that_are_not_square(tmp_path):
    source, _ = images(tmp_path)
    source = replace(source, grid=replace(source.grid, affine=np.diag([0.2, 0.15, 1.0, 1.0])))
    result = replace(source, pixels=source.pixels.repeat(4, 1).repeat(4, 2), grid=source.grid.scaled((1, 4, 4)))
    page = page_of(report_of(source, result), tmp_path)
    assert "between pixels went from 0.2 x 0.15 mm (columns x rows) to 0.05 x 0.0375 mm (columns x rows);" in page


ATTACK = "\"><script>alert('1')</script><img src=x onerror=alert(2)>&amp;\u202egnp"


def test_no_string_from_outside_becomes_markup(tmp_path):
    report = report_of(*images(tmp_path), error_bars=error_bars(np.ones((1, 8, 8))), input_comparison=INSIDE)
    harmless = Page(page_of(report, tmp_path))

    def attacked(value):
        if isinstance(value, dict):
            return {key: attacked(item) for key, item in value.items()}
        if isinstance(value, list):
            return [attacked(item) for item in value]
        return value + ATTACK if isinstance(value, str) else value

    # Not only the file name: every string in the report carries the attack.
    poisoned = Page(page_of(attacked(report), tmp_path))
    assert poisoned.tags == harmless.tags
    assert [attribute[:2] for attribute in poisoned.attributes] == [attribute[:2] for attribute in harmless.attributes]
    assert poisoned.words.count(ATTACK) > 20


def test_a_file_name_of_broken_bytes_can_be_written(tmp_path):
    source, result = images(tmp_path)
    report = report_of(replace(source, path=Path("chest\udcff.png")), result, input_files=[])
    assert report["source"]["name"] == "chest?.png"
    write_json(report, tmp_path / "report.json")
    write_html(report, None, tmp_path / "report.html")


def test_the_page_needs_no_network_no_script_and_no_second_file(tmp_path, preview):
    page = Page(page_of(report_of(*images(tmp_path)), tmp_path, preview))
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    (source,) = [value for _, name, value in page.attributes if name in ("src", "href")]
    assert source.startswith("data:image/png;base64,")
    assert not any(name.startswith("on") for _, name, _ in page.attributes)


def test_the_page_can_be_read_aloud(tmp_path, preview):
    page = Page(page_of(report_of(*images(tmp_path)), tmp_path, preview))
    assert ("html", "lang", "en") in page.attributes
    alt = next(value for tag, name, value in page.attributes if (tag, name) == ("img", "alt"))
    assert alt.startswith("Side by side: the input (24 × 16 pixels)")
    assert page.tags.count("th") == sum(1 for tag, name, _ in page.attributes if (tag, name) == ("th", "scope"))
    assert page.tags.count("h1") == 1


def test_error_bars_are_described_by_numbers():
    bars = error_bars([[[1.0] * 90 + [5.0] * 10]])
    assert bars["mean"] == pytest.approx(1.4)
    assert (bars["largest_twentieth"], bars["tolerance"], bars["share_above_tolerance"]) == (5.0, 4.0, 0.1)
    assert (bars["unit"], bars["percent"], bars["window"]) == ("grey levels", 90.0, [0.0, 255.0])
    assert bars["calibrated_on"] == {
        "data": "cxr_nih", "split": "val", "images": 80, "patients": 71, "operator": "bicubic_antialias_x4",
        "created": "2025-01-02", "coverage": 0.915, "guaranteed_percent": None, "drawn": None,
    }  # fmt: skip


def test_padding_which_has_no_error_bar_makes_none_narrower():
    bars = error_bars([[[0.0] * 100 + [1.0] * 90 + [5.0] * 10]])
    assert bars["mean"] == pytest.approx(1.4)
    assert bars["largest_twentieth"] == 5.0
    assert error_bars(np.zeros((1, 4, 4)))["largest_twentieth"] == 0.0  # a region of nothing but padding


def test_the_widest_error_bars_of_a_long_volume_are_measured_on_some_of_its_slices():
    half_width = np.broadcast_to(np.arange(1.0, 101.0, dtype=np.float32)[None, None], (200, 1, 100))
    assert error_bars(half_width)["largest_twentieth"] == pytest.approx(95.05)
    assert error_bars(half_width)["mean"] == pytest.approx(50.5)


def test_the_page_says_beside_the_error_bars_that_they_are_too_narrow(tmp_path):
    bars = error_bars(np.ones((1, 8, 8))) | {"undercoverage": "Its error bars are too narrow: <b>."}
    report = report_of(*images(tmp_path), error_bars=bars, input_comparison=INSIDE)
    verdict = section(page_of(report, tmp_path), "s", "a")
    assert '<p class="verdict caution">' in verdict
    assert "Its error bars are too narrow: &lt;b&gt;.</p>" in verdict


def test_the_page_says_what_few_patients_guarantee(tmp_path):
    entries = (CalibrationEntry(None, 2.0, 0.915, 0.01, guaranteed=0.7625),)
    bars = error_bars(np.ones((1, 4, 4)), entries=entries, patients=5)
    words = words_of(page_of(report_of(*images(tmp_path), error_bars=bars), tmp_path))
    assert "There they held 91.5 %. So few guarantee only 76.2 %, on average over further patients;" in words


def test_the_page_says_how_sure_each_pixel_is_and_on_what_that_rests(tmp_path):
    bars = error_bars([[[1.0] * 90 + [5.0] * 10]], data="our <b>hospital</b>", alpha=0.05)
    text = page_of(report_of(*images(tmp_path), error_bars=bars), tmp_path)
    words = words_of(text)
    for sentence in (
        "How sure is each pixel?",
        "The 95 % error bars reach ±1.4 grey levels on average, and more than ±4 grey levels for 10 % of the pixels.",
        "hold the true value of 95 % of the pixels",
        "80 images of 71 patients (set “our <b>hospital</b>”, validation split",
        "measured on 2025-01-02), made coarse by bicubic_antialias_x4.",
        "with --tolerance. Here it is ±4 grey levels, 1.57 % of the span of values that the model works in (0 to 255",
        "the default is 5 % of that span",
        "they held 91.5 %",
        "One pixel in 20 may lie outside, and of a single image or patient more.",
    ):
        assert sentence in words
    assert "<b>" not in text


@pytest.mark.parametrize(
    ("count", "words", "kind"),
    [(0, "for no pixel.", "good"), (1, "for under 0.1 % of them.", "good"), (20, "for 1 % of the pixels.", "caution")],
)
def test_the_share_of_wide_error_bars_decides_the_verdict(tmp_path, count, words, kind):
    half_width = np.ones(2000)
    half_width[:count] = 9.0
    report = report_of(*images(tmp_path), error_bars=error_bars(half_width[None, None]), input_comparison=INSIDE)
    page = page_of(report, tmp_path)
    assert words in words_of(page)
    verdict = section(page, "s")
    assert verdict.index(f'class="verdict {kind}"') < verdict.index("</p>")


def test_the_pictures_of_the_error_bars_are_inside_the_page(tmp_path):
    report = report_of(*images(tmp_path), error_bars=error_bars(np.ones((1, 8, 8))))
    page = Page(page_of(report, tmp_path, error_pictures=ErrorBarPictures(b"mask", b"widths", 20.0)))
    sources = [value for _, name, value in page.attributes if name == "src"]
    assert sources == ["data:image/png;base64,bWFzaw==", "data:image/png;base64,d2lkdGhz"]
    alts = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert all(alts)
    words = " ".join(page.words.split())
    assert "0 to ±20 grey levels and wider" in words
    assert "A regular pattern of small squares, as some models have it, is the method's and no anatomy" in words
    assert "A regular pattern of small red squares is the method's" in words
    assert "The result. Red: error bar wider" in words
    report["output"]["shape_zyx"][0] = 3
    volume = page_of(report, tmp_path, error_pictures=ErrorBarPictures(b"mask", b"widths", 20.0))
    assert "<figcaption>The result, the middle slice." in volume


def test_without_error_bars_the_page_says_so(tmp_path):
    report = report_of(*images(tmp_path))
    assert report["error_bars"] is None
    sentence = '<p class="verdict caution">Not known: this result has no error bars, so nothing says how far'
    assert sentence in section(page_of(report, tmp_path), "s", "i")


@pytest.mark.parametrize(
    ("strength", "removal", "done"),
    [
        (None, "takes noise, blur and JPEG away; whether all that it took was that cannot", ""),
        (
            0.7,
            "reduces noise, here with strength 0.7 of 1; whether all that it took was noise cannot",
            "Noise was reduced with strength 0.7 of 1, and texture that may be real too.",
        ),
        (
            0.0,
            "reduces noise, here with strength 0 of 1; whether all that it took was noise cannot",
            "Noise was not reduced (strength 0).",
        ),
    ],
)
def test_the_page_says_what_a_blind_model_takes_away(tmp_path, strength, removal, done):
    measured = {"consistency": Consistency(30.0, 90.0, "HU"), "blind": True}
    report = report_of(*images(tmp_path), provenance=replace(PROVENANCE, strength=strength), **measured)
    page = page_of(report, tmp_path)
    assert f"The model {removal}" in words_of(section(page, "f", "s"))
    what_was_done = words_of(section(page, "d", "f"))
    assert done in what_was_done
    assert ("Noise was" in what_was_done) == (strength is not None)


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, 'caution">No texture was drawn at random. Whether grain of the input has become structure was not', ""),
        ({"generative": True}, 'caution">Yes: fine texture was generated. It looks like', "<strong>generated</strong>"),
        (
            {"weights_sha256": ""},
            'good">No: a formula drew smooth lines between',
            "Nothing was predicted, and no detail",
        ),
    ],
)
def test_the_page_says_whether_anything_was_invented(tmp_path, changes, verdict, words):
    page = page_of(report_of(*images(tmp_path), provenance=replace(PROVENANCE, **changes)), tmp_path)
    assert f'<p class="verdict {verdict}' in page[page.index("Was anything invented?") :]
    assert words in page


INSIDE = {
    "contrast_percent": InputComparison(80.0, 14.0, 186.0),
    "sharpness_db": InputComparison(-14.0, -17.9, -11.2),
    "noise_percent": InputComparison(0.5, 0.2, 0.7),
}
NOISY = InputComparison(7.0, 0.2, 0.7)
SMALL = {name: each._replace(value=None) for name, each in INSIDE.items()}


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        (
            {},
            "good",
            "Yes, as far as this was measured: its contrast, sharpness and noise lie within the known range",
        ),
        (
            {"slice_spacing_mm": InputComparison(None, 3.0, 5.0)},
            "caution",
            "This cannot be told: its new slice spacing is unknown; its figures and error bars may not hold here.",
        ),
        (
            {"noise_percent": NOISY},
            "caution",
            "No: its noise lies outside the known range; its figures and error bars may not hold here.",
        ),
        (
            {"noise_percent": NOISY, "contrast_percent": InputComparison(3.0, 14.0, 186.0)},
            "caution",
            "No: its contrast and noise lie outside the known range;",
        ),
        (SMALL, "caution", "Not judged, because the image has fewer than 32 pixels along one side."),
    ],
)
def test_the_page_says_whether_the_model_knows_such_images(tmp_path, changes, kind, words):
    bars = error_bars(np.ones((1, 8, 8)))
    report = report_of(*images(tmp_path), input_comparison=INSIDE | changes, error_bars=bars)
    page = page_of(report, tmp_path)
    assert f'<p class="verdict {kind}">' in section(page, "a", "g")
    assert words in section(page, "a", "g")
    of_error_bars = section(page, "s", "a")
    assert f'<p class="verdict {kind}">' in of_error_bars  # error bars are those of images like the training's
    doubt = "This image is not known to be like those they were made for: they may not hold."
    assert (doubt in of_error_bars) == (kind == "caution")


def test_the_page_says_when_the_error_bars_are_those_of_another_texture(tmp_path):
    measured = (CalibrationEntry(Sampling("flow", 8, 1, 0.5), 2.0, 0.915, 0.01),)
    pages = {}
    for texture in (0.3, 0.5):
        report = report_of(*images(tmp_path), error_bars=error_bars(np.ones((1, 8, 8)), entries=measured))
        report["run"]["sampling"] = Sampling("flow", 8, 1, texture).words
        pages[texture] = page_of(report, tmp_path)
    sentence = (
        "drawn as texture 0.5 by flow in 8 steps (this image: texture 0.3 by flow in 8 steps, for which nothing was"
    )
    assert sentence in pages[0.3]
    assert "for which nothing was measured" not in pages[0.5]


@pytest.mark.parametrize("count", [0, 3])
def test_the_page_says_that_what_lies_beneath_a_removed_mark_was_filled_in(tmp_path, count):
    report = report_of(*images(tmp_path)) | {"removed": {"places": count, "share": 0.02 * bool(count)}}
    page = page_of(report, tmp_path)
    assert ("Yes: what lies beneath that which was removed was filled in by the model." in page) == bool(count)
    assert ("Elsewhere: No texture was drawn at random." in page) == bool(count)


@pytest.mark.parametrize(
    ("grain", "verdict"),
    [
        (Grain(5.0, 5.0), 'good">No texture was drawn at random. In the evenest parts the result varies no more than'),
        (
            Grain(5.2, 5.0),
            'good">No texture was drawn at random. In the evenest parts the result varies hardly more than',
        ),
        (
            Grain(9.0, 5.0),
            'caution">No texture was drawn at random. In the evenest parts the result varies 1.8 times as much as',
        ),
    ],
)
def test_the_page_says_whether_grain_has_become_structure(tmp_path, grain, verdict):
    report = report_of(*images(tmp_path), grain=grain)
    page = page_of(report, tmp_path)
    assert f'<p class="verdict {verdict}' in page
    assert f"({grain.result:g} against 5 grey levels)" in page


def test_the_page_shows_what_was_measured_beside_what_is_known(tmp_path):
    page = page_of(report_of(*images(tmp_path), input_comparison=INSIDE), tmp_path)
    assert '<th scope="row">noise</th><td>0.5 % of the window</td><td>0.2 to 0.7 % of the window</td>' in page
    assert '<th scope="row">sharpness</th><td>-14 dB</td><td>-17.9 to -11.2 dB</td>' in page
    assert '<th scope="row">contrast</th><td>80 % of the window</td><td>14 to 186 % of the window</td>' in page


def test_a_model_that_does_not_state_what_it_knows_judges_nothing_and_a_formula_knows_all(tmp_path):
    source, result = images(tmp_path)
    judgement = section(page_of(report_of(source, result), tmp_path), "a")
    reason = "Not judged, because this model does not state what its training images were like."
    assert f'<p class="verdict caution">{reason}' in judgement
    assert "training images</th>" not in judgement
    formula = page_of(report_of(source, result, provenance=replace(PROVENANCE, weights_sha256="")), tmp_path)
    assert '<p class="verdict good">Any image is: nothing was learnt' in formula


def test_dicom_states_the_distance_to_the_input_before_and_after_data_consistency():
    facts = {"operator": "area_x4", "bars": None, "shipped": True, "resembles_training": True}
    after = "Reduced again by area_x4, it differs from the input by 0.3 HU RMS, 2 at most"
    assert describe_findings(Consistency(0.3, 2.0, "HU"), **facts) == f"{after}."
    findings = describe_findings(Consistency(0.3, 2.0, "HU"), **facts, before_consistency=(4.12, 30.0))
    assert findings == f"{after} (before data consistency 4.12 RMS, 30 at most)."


def test_a_missing_input_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"gone.dcm: cannot be read for its hash .*Leave the files in place"):
        report_of(*images(tmp_path), input_files=[tmp_path / "gone.dcm"])
