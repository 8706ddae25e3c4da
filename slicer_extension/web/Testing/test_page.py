"""The page, by real clicks in Chromium: what a person does, and what the views then show, pixel by pixel."""

import json
import subprocess
import sys
from contextlib import contextmanager

import nibabel
import numpy as np
import pydicom
import pytest
from browser import changed, same
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from monai_sr_bundle.datasets.phantom import draw_phantom, write_phantom_png

SIDE = 128
"""Pixels of the box at the start."""


def boxOn(picture):
    """Left, top, right and bottom of the region's outline, which has a colour of its own."""
    red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
    rows, columns = np.nonzero((red > 200) & (abs(green - 128) < 25) & (abs(blue - 128) < 25))
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def inner(picture, box, margin=14):
    left, top, right, bottom = box
    return picture[top + margin : bottom - margin, left + margin : right - margin]


def edges(grey):
    """Return the mean change of a picture from pixel to pixel."""
    return float(np.abs(np.diff(grey.astype(int), axis=1)).mean())


def enhanced(page):
    """Run, wait for the result, and let the view come to rest."""
    before = page.settled()
    page.click("run")
    page.until(lambda: page.isShown("resultText"), "a result")
    return page.settled(unlike=before)


def test_all_that_the_page_loads_comes_from_this_machine(page, server):
    page.driver.get(server.address)
    page.until(lambda: page.isEnabled("run"), "the page is ready")
    addresses = page.requests()
    assert any(address.startswith("ws") for address in addresses)
    assert {address.split("/")[2] for address in addresses} == {f"127.0.0.1:{server.port}"}


def test_who_lacks_the_token_sees_nothing(page, server, film):
    page.driver.get(server.address.split("secret=")[0] + "secret=guessed")
    page.until(lambda: b"Authentication failed" in page.received(), "the server's refusal")
    assert page.there("run") is None
    assert film.name not in page.driver.page_source
    page.driver.get(server.address)
    page.until(lambda: page.isEnabled("run"), "the page is ready")


def test_the_view_shows_the_image(page):
    picture = page.settled().mean(axis=2)
    rows, columns = picture.shape
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    film = Image.fromarray((draw_phantom(256) * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
    filmPicture = picture[top : top + side, left : left + side]
    assert np.corrcoef(filmPicture.ravel(), np.asarray(film, float).ravel())[0, 1] > 0.98


def test_the_page_says_what_is_chosen_and_what_it_takes(page):
    assert page.text("name") == "film.dcm"
    assert page.text("subjectText").startswith("128 x 128 pixels → 512 x 512 pixels. Pixels of 1.6 x 1.6 mm")
    assert "detector plane" in page.text("subjectText")
    assert page.text("estimateText").startswith("About ")
    assert "of memory" in page.text("estimateText")


def test_the_box_follows_the_mouse_and_its_handles_change_its_size(page):
    picture = page.settled()
    left, top, right, bottom = boxOn(picture)
    middle = ((left + right) / 2, (top + bottom) / 2)
    page.drag(middle, (middle[0] - 120, middle[1] - 60))
    moved = boxOn(page.settled(unlike=picture))
    assert np.allclose(np.subtract(moved, (left, top, right, bottom)), (-120, -60, -120, -60), atol=4)
    before = page.text("subjectText")
    page.drag((moved[2], (moved[1] + moved[3]) / 2), (moved[2] - 80, (moved[1] + moved[3]) / 2))
    page.until(lambda: page.text("subjectText") != before, "another size")
    smaller = boxOn(page.settled())
    assert smaller[2] - smaller[0] < moved[2] - moved[0] - 60
    columns = int(page.text("subjectText").split(" x ")[0])
    assert columns < SIDE - 10


def test_the_slider_sets_what_is_black_and_white(page):
    before = page.settled()
    page.slide("window", 1, -80)
    brighter = page.settled(unlike=before)
    assert brighter.mean() > before.mean() + 10
    page.slide("window", 0, 40)
    assert page.settled(unlike=brighter).mean() < brighter.mean() - 5


def test_fit_shows_the_whole_image_again(page):
    before = page.settled()
    page.drag((200, 300), (200, 420), button=2)  # the right button zooms
    page.settled(unlike=before)
    page.click("fit")
    page.until(lambda: changed(before, page.settled()).mean() < 0.001, "the view as it was")


def test_run_changes_the_box_and_nothing_else(page):
    before = page.settled()
    page.click("run")
    page.until(lambda: page.isShown("resultText"), "a result")
    after = page.settled(unlike=before)
    box = boxOn(before)
    difference = changed(before, after)
    assert inner(difference, box).mean() > 0.05
    left, top, right, bottom = box
    difference[top - 2 : bottom + 3, left - 2 : right + 3] = False
    assert not difference.any()
    assert edges(inner(after, box)) > edges(inner(before, box))
    text = page.text("resultText")
    assert text.startswith("4 times finer in plane by chest_xray_blind")
    assert "Reduced to the input's size again it differs by" in text
    assert "Error bars hold the truth of 90% of the pixels" in text


@contextmanager
def texture(page, steps):
    """All the texture that a model can generate, in so many steps; afterwards none again."""
    page.choose("bundle", "Chest X-ray super-resolution x4 (residual flow)")
    page.slideToEnd("texture")
    page.until(lambda: page.isEnabled("steps") and page.isEnabled("seed"), "steps and seed can be chosen")
    page.type("steps", str(steps))
    yield
    page.slideToEnd("texture", Keys.HOME)
    page.until(lambda: not page.isEnabled("steps"), "no texture")
    page.choose("bundle", "Automatic")


def test_progress_and_time_left_are_told_and_cancel_ends_the_work(page):
    with texture(page, steps=32):
        page.click("run")
        page.until(lambda: " left" in page.text("progress"), "time left")
        early = page.text("progress")
        page.until(lambda: page.text("progress") not in ("", early), "progress")
        page.click("cancel")
        page.until(lambda: page.text("message") == "Canceled. The scene was not changed.", "the cancellation is told")
        assert not page.isShown("progress")
        assert not page.isShown("result-section")


def test_another_seed_gives_another_texture_and_the_same_seed_the_same(page):
    box = boxOn(page.settled())
    assert not page.isEnabled("seed")
    pictures = []
    with texture(page, steps=2):
        for seed in ("7", "8", "7"):
            page.type("seed", seed)
            pictures.append(inner(enhanced(page), box))
    assert same(pictures[0], pictures[2])
    assert changed(pictures[0], pictures[1], by=0).mean() > 0.1
    assert "Its texture is generated" in page.text("resultText")


def test_live_follows_the_box_in_one_result(page):
    page.choose("bundle", "Bicubic interpolation x4")  # Live follows it on the slowest machine
    plain = page.settled()
    left, top, right, bottom = boxOn(plain)
    page.click("live")
    page.until(lambda: page.isShown("resultText"), "a result without Run")
    middle = ((left + right) / 2, (top + bottom) / 2)
    page.drag(middle, (middle[0] - 120, middle[1]))
    new = np.s_[top + 14 : bottom - 14, left - 106 : left - 14]
    page.until(lambda: changed(plain, page.settled(), by=0)[new].mean() > 0.05, "a result where the box is now")
    page.click("live")
    page.click("removeResult")
    page.until(lambda: not page.isShown("result-section"), "no second result")
    page.choose("bundle", "Automatic")


def test_side_by_side_shows_before_and_after_and_what_moves_one_moves_the_other(page):
    enhanced(page)
    page.click("kind-sideBySide")
    page.until(lambda: page.isShown("view-SuperResolutionAfter"), "two views")
    before, after = (page.settled(f"SuperResolution{name}") for name in ("Before", "After"))
    middle = np.s_[before.shape[0] // 2 - 150 : before.shape[0] // 2 + 150, 60:-60]
    assert edges(after[middle]) > 1.02 * edges(before[middle])
    page.drag((200, 300), (200, 420), "SuperResolutionBefore", button=2)  # the right button zooms
    zoomed = page.settled("SuperResolutionAfter", unlike=after)
    assert changed(after, zoomed).mean() > 0.05
    page.click("kind-sideBySide")
    page.until(lambda: page.isShown("view-Red"), "one view")


def test_the_reveal_line_follows_the_mouse(page):
    enhanced(page)
    picture = page.settled()
    page.click("kind-reveal")
    page.settled(unlike=picture)
    left, top, right, bottom = boxOn(picture)
    for column in (left + 40, right - 40):
        page.hover((column, (top + bottom) / 2 - 30))
        red, green, blue = (page.settled()[..., channel].astype(int) for channel in range(3))
        yellow = (red > 240) & (abs(green - 217) < 15) & (abs(blue - 51) < 15)
        assert abs(int(yellow.sum(axis=0).argmax()) - column) <= 3


def test_flicker_shows_both_in_turn(page):
    box = boxOn(page.settled())
    enhanced(page)
    page.click("kind-flicker")
    one = page.picture()
    page.until(lambda: inner(changed(one, page.picture()), box).mean() > 0.05, "the other")
    page.until(lambda: inner(changed(one, page.picture()), box).mean() < 0.01, "the first again")
    page.click("kind-flicker")


def test_the_difference_has_colours_and_a_legend(page):
    box = boxOn(page.settled())
    enhanced(page)
    before = page.settled()
    page.click("kind-difference")
    picture = page.settled(unlike=before)
    colourful = np.ptp(inner(picture, box).astype(int), axis=2) > 30
    assert colourful.mean() > 0.01
    assert changed(before, picture)[:, int(0.8 * picture.shape[1]) :].any()  # the legend
    page.click("kind-difference")
    assert changed(before, page.settled(unlike=picture))[:, int(0.9 * picture.shape[1]) :].sum() == 0


def warm(picture, box):
    """The share of a box that has the colours of error bars."""
    red, _green, blue = (inner(picture, box)[..., channel].astype(int) for channel in range(3))
    return float((red - blue > 50).mean())


def pink(picture, box):
    """The share of a box that has the colour of the trust mask."""
    red, green, blue = (inner(picture, box)[..., channel].astype(int) for channel in range(3))
    return float(((red - green > 50) & (blue - green > 15)).mean())


def test_error_bars_lie_over_the_result_above_the_tolerance(page):
    box = boxOn(page.settled())
    plain = enhanced(page)
    assert warm(plain, box) == 0
    page.click("showBars")
    tinted = page.settled(unlike=plain)
    assert 0.15 < warm(tinted, box) < 0.3
    page.type("tolerance", "300")
    few = page.settled(unlike=tinted)
    assert warm(few, box) < warm(tinted, box)
    page.click("showBars")
    assert warm(page.settled(unlike=few), box) == 0


def test_the_trust_mask_marks_what_is_wider_than_the_tolerance(page):
    box = boxOn(page.settled())
    plain = enhanced(page)
    page.type("tolerance", "0")
    page.click("showMask")
    page.until(lambda: page.text("resultMessage").startswith("The tolerance is 0. Enter"), "what is missing is told")
    page.type("tolerance", "60")
    page.until(lambda: "of the pixels have an error bar wider than 60" in page.text("toleranceText"), "the share")
    share = float(page.text("toleranceText").split("%")[0]) / 100
    assert not page.text("resultMessage")
    assert 0.01 < share < 0.9
    assert pink(page.settled(unlike=plain), box) == pytest.approx(share, abs=0.08)


def test_the_result_is_downloaded_as_dicom_with_the_pixels_of_the_command_line(page, film, tmp_path):
    enhanced(page)
    page.click("downloadResult")
    path = page.downloaded("film_sr.dcm")
    dataset = pydicom.dcmread(path)
    assert (dataset.Rows, dataset.Columns) == (4 * SIDE, 4 * SIDE)
    assert dataset.StudyInstanceUID == pydicom.dcmread(film).StudyInstanceUID
    assert "chest_xray_blind" in dataset.DerivationDescription
    subprocess.run(
        [sys.executable, "-m", "monai_sr_bundle", "enhance", film, tmp_path / "line.dcm", "--backend", "onnx",
         "--roi", "64", "64", "192", "192", "--report", "--progress", "none"],  # with error bars, as the page asks
        check=True, capture_output=True,
    )  # fmt: skip
    assert same(dataset.pixel_array[..., None], pydicom.dcmread(tmp_path / "line.dcm").pixel_array[..., None])


def test_removing_the_result_shows_the_image_again(page):
    before = page.settled()
    enhanced(page)
    page.click("removeResult")
    page.until(lambda: not page.isShown("result-section"), "no result")
    assert changed(before, page.settled()).mean() < 0.001


def listed(page):
    return [entry.text for entry in page.driver.find_elements(By.CSS_SELECTOR, ".sr-box")]


def test_a_box_needs_a_reader(page):
    page.type("boxReader", " ")
    page.click("addBox")
    page.until(lambda: page.text("boxMessage").startswith("The reader is"), "what is missing is told")
    assert listed(page) == []


def test_boxes_are_placed_moved_described_saved_removed_and_loaded(page):
    height, width, _ = page.settled().shape
    page.drag((width / 2, height / 2), (width / 2 - 150, height / 2))  # the region, whose middle handle lies there too
    before = page.settled()
    page.type("boxLabel", "Nodule")
    page.type("boxReader", "A. Reader")
    page.click("addBox")
    page.until(lambda: listed(page) == ["Nodule\nA. Reader, 50 %"], "a box in the list")
    picture = page.settled(unlike=before)
    page.drag((picture.shape[1] / 2, picture.shape[0] / 2), (picture.shape[1] / 2 - 90, picture.shape[0] / 2 - 50))
    moved = page.settled(unlike=picture)
    columns = np.nonzero(changed(before, moved))[1]
    assert columns.mean() < picture.shape[1] / 2 - 50
    page.slideToEnd("boxCertainty")
    page.until(lambda: listed(page) == ["Nodule\nA. Reader, 100 %"], "another certainty")
    enhanced(page)
    page.until(lambda: "interpolated → enhanced" in page.text("boxText"), "figures inside the box")
    page.click("saveBoxes")
    path = page.downloaded("boxes.mrk.json")
    written = json.loads(path.read_text())["markups"]
    assert [(one["type"], one["controlPoints"][0]["label"]) for one in written] == [("ROI", "Nodule")]
    page.click("removeBox")
    page.until(lambda: listed(page) == [], "no box")
    page.there("loadBoxes").send_keys(str(path))
    page.until(lambda: listed(page) == ["Nodule\nA. Reader, 100 %"], "the box again")


def test_a_file_that_holds_no_boxes_is_told(page, tmp_path):
    (tmp_path / "other.json").write_text("{}")
    page.there("loadBoxes").send_keys(str(tmp_path / "other.json"))
    page.until(lambda: "is no markups file of Slicer" in page.text("boxMessage"), "what is wrong")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "Enter the path of an image"),
        ("/nowhere/film.dcm", "does not exist"),
        (__file__, "not an image that can be read"),
    ],
)
def test_a_path_without_an_image_is_told_and_the_image_stays(page, path, message):
    page.type("path", path or Keys.DELETE)
    page.click("load")
    page.until(lambda: message in page.text("loadMessage"), "what is wrong")
    assert page.text("name") == "film.dcm"


def test_a_picture_has_no_millimetres_and_comes_back_as_a_picture(page, tmp_path):
    write_phantom_png(tmp_path / "film.png", size=128)
    page.open(tmp_path / "film.png")
    page.until(lambda: page.text("name") == "film.png", "the picture is open")
    page.click("region-whole")
    page.until(lambda: "nothing can be measured in millimetres" in page.text("subjectText"), "unknown spacing")
    enhanced(page)
    page.click("downloadResult")
    assert Image.open(page.downloaded("film_sr.png")).size == (512, 512)


def test_one_slice_of_a_stack_is_enhanced_with_a_chosen_model(page, tmp_path):
    stack = np.stack([1000 * draw_phantom(96, seed) - 900 for seed in range(3)]).astype(np.int16)
    image = nibabel.Nifti1Image(stack.transpose(2, 1, 0), np.diag([-2.0, -2.0, 5.0, 1.0]))
    nibabel.save(image, tmp_path / "stack.nii.gz")
    page.open(tmp_path / "stack.nii.gz")
    page.until(lambda: page.text("name") == "stack.nii.gz", "the stack is open")
    page.until(lambda: "does not say whether it is CT" in page.text("message"), "a model must be chosen")
    page.choose("bundle", "Chest CT super-resolution x4 in plane (EDSR)")
    page.click("region-slice")
    page.until(lambda: page.text("subjectText").startswith("96 x 96 pixels → 384 x 384 pixels."), "one slice")
    first = page.settled()
    thumb = page.there("view-Red").find_element(By.CSS_SELECTOR, ".sr-slice [role=slider]")
    thumb.send_keys(Keys.END)
    assert changed(first, page.settled(unlike=first)).mean() > 0.01
    enhanced(page)
    page.click("downloadResult")
    nifti = nibabel.load(page.downloaded("stack_sr.nii.gz"))
    assert nifti.shape == (384, 384, 1)
    np.testing.assert_allclose(nifti.affine[:3, 3], [0.75, 0.75, 10.0], atol=1e-6)
    page.choose("bundle", "Automatic")


def test_of_a_folder_each_image_can_be_chosen(page, film, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.dcm").write_bytes(film.read_bytes())
    write_phantom_png(tmp_path / "images" / "two.png", size=96)
    page.open(tmp_path / "images")
    page.until(lambda: page.text("name") == "one.dcm", "the first image")
    page.choose("which", "two.png")
    page.until(lambda: page.text("name") == "two.png", "the second image")
