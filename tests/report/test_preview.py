from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from monai_sr_bundle.images.geometry import RESOLUTION_TAG, UNKNOWN, Grid
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.report.preview import (
    AMBER,
    BAR,
    EQUAL,
    HIGHER,
    LOWER,
    captions,
    display_shape,
    draw_preview,
    format_number,
    nice_above,
    nice_below,
)
from PIL import Image as Picture

from tests.images.dicom_files import provenance

PROVENANCE = provenance(bundle="chest_xray_edsr_x4", version="0.2.0", operator="bicubic_antialias_x4")


def phantom(low_shape, spacing=None, scale=4, **changes):
    """A ramp with a textured disc: source, result and an interpolated slice."""
    rows, columns = (side * scale for side in low_shape)
    y, x = np.mgrid[:rows, :columns]
    high = 40 + 100 * x / columns
    disc = (y - rows / 3) ** 2 + (x - columns / 3) ** 2 < (min(rows, columns) / 4) ** 2
    high = np.rint(high + disc * 40 * ((x + y) % 2)).astype(np.uint8)
    low = high.reshape(low_shape[0], scale, low_shape[1], scale).mean(axis=(1, 3)).round().astype(np.uint8)
    bicubic = low.repeat(scale, axis=0).repeat(scale, axis=1).astype(np.float32)
    row_mm, column_mm = spacing or (1.0, 1.0)
    grid = Grid((1, *low_shape), np.diag([column_mm, row_mm, 1.0, 1.0]), "PixelSpacing" if spacing else UNKNOWN)
    source = Image(low[None], grid, "CXR", "png", Path("phantom.png"), stored_range=(0, 255), bits=8)
    source = replace(source, **changes)
    return source, replace(source, pixels=high[None], grid=source.grid.scaled((1, scale, scale))), bicubic


def draw(tmp_path, source, result, bicubic, *, window=(0.0, 255.0), slice_index=0, name="preview.png"):
    out = draw_preview(source, result, bicubic, PROVENANCE, slice_index=slice_index, window=window, out=tmp_path / name)
    with Picture.open(out) as picture:
        return np.asarray(picture.convert("RGB"))


def words(source, result, largest=7.0, limit=5.0, provenance=PROVENANCE):
    options = {"slice_index": 0, "window": (0.0, 255.0), "region": (8, 4, 16), "limit": limit, "largest": largest}
    return captions(source, result, provenance, **options)


def bars(picture):
    """Lengths in pixels of the scale bars, top to bottom: runs of white, six rows high."""
    white = (picture == BAR).all(axis=2)
    lengths = []
    for y in np.flatnonzero(white[:, 44] & ~np.roll(white[:, 44], 1)):
        height = int(np.argmin(white[y:, 44]))
        length = int(np.argmin(white[y, 44:]))
        if height == 6:
            lengths.append(length)
    return lengths


@pytest.mark.parametrize(
    "low_shape", [(8, 8), (8, 9), (9, 8), (13, 37), (64, 64), (8, 300), (300, 8), (8, 512), (512, 8), (512, 512)]
)
@pytest.mark.parametrize("spacing", [None, (0.7, 0.7), (2.8, 0.7)])
def test_every_size_and_proportion_is_drawn(tmp_path, low_shape, spacing):
    picture = draw(tmp_path, *phantom(low_shape, spacing))
    assert 1000 < picture.shape[1] <= 2220
    assert picture.shape[0] < 2400
    assert (picture == AMBER).all(axis=2).any(), "no outline drawn"


def test_the_same_result_gives_the_same_bytes_and_is_not_changed(tmp_path):
    source, result, bicubic = phantom((24, 32), (0.7, 0.7))
    before = source.pixels.copy(), result.pixels.copy(), bicubic.copy()
    for name in ("a.png", "b.png"):
        draw(tmp_path, source, result, bicubic, name=name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    for now, then in zip((source.pixels, result.pixels, bicubic), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("low_shape", "spacing"),
    [((64, 64), (0.7, 0.7)), ((32, 64), (1.3, 1.3)), ((16, 16), (0.143, 0.143)), ((100, 70), (0.7, 1.9))],
)
def test_a_scale_bar_is_as_long_as_the_same_distance_in_the_panel(tmp_path, low_shape, spacing):
    # The bar is compared with the frame of the input panel, whose width in millimetres is known from the grid.
    source, result, bicubic = phantom(low_shape, spacing)
    white = replace(source, pixels=np.full_like(source.pixels, 255))
    picture = draw(tmp_path, white, result, bicubic)
    is_white = (picture == (255, 255, 255)).all(axis=2)
    panel_row = next(y for y in range(picture.shape[0]) if is_white[y, 44] and is_white[y + 30, 44])
    panel_pixels = int(np.argmin(is_white[panel_row, 44:]))
    mm_per_pixel = low_shape[1] * spacing[1] / panel_pixels
    overview, detail = bars(picture)
    millimetres = overview * mm_per_pixel
    nice = min((m * 10.0**e for m in (1, 2, 5) for e in range(-2, 4)), key=lambda mm: abs(mm - millimetres))
    assert abs(overview - nice / mm_per_pixel) <= 1
    assert 40 <= detail <= 0.4 * 864


def test_pixels_that_are_not_square_are_drawn_in_their_true_proportions():
    assert display_shape((100, 100), (1.0, 0.5), (512, 512)) == (400, 200)
    assert display_shape((64, 64), (1.0, 1.0), (512, 512)) == (512, 512)
    assert display_shape((100, 100), (1.0, 1.0), (512, 512)) == (500, 500), "enlarged by a whole number"
    assert display_shape((2048, 1024), (1.0, 1.0), (512, 512)) == (512, 256)
    assert display_shape((8, 2048), (1.0, 1.0), (512, 512)) == (2, 512)


@pytest.mark.parametrize(
    ("source_of_spacing", "caption"),
    [(UNKNOWN, "spacing unknown"), (RESOLUTION_TAG, "spacing unknown (resolution tag only)")],
)
def test_an_unknown_spacing_or_a_print_size_is_named_and_has_no_scale_bar(tmp_path, source_of_spacing, caption):
    source, result, bicubic = phantom((32, 32), (0.7, 0.7))
    source = replace(source, grid=replace(source.grid, spacing_source=source_of_spacing))
    result = replace(result, grid=source.grid.scaled((1, 4, 4)))
    assert words(source, result).spacing.startswith(caption)
    assert " mm" not in " ".join(map(str, vars(words(source, result)).values()))
    assert bars(draw(tmp_path, source, result, bicubic)) == []


def test_the_captions_give_sizes_spacing_model_and_warning():
    caption = words(*phantom((32, 48), (0.8, 0.8))[:2])
    assert caption.panels[0][1].startswith("48 x 32 pixels")
    assert caption.panels[2][1] == "192 x 128 pixels"
    assert caption.spacing.startswith("pixel 0.8 mm to 0.2 mm (PixelSpacing)")
    assert caption.made_by == "chest_xray_edsr_x4 0.2.0 · x4"
    assert caption.warning == "predicted detail; not for diagnosis"
    assert (caption.lower, caption.higher) == ("-5", "+5 grey levels")
    assert caption.saturation == "largest 7 grey levels, beyond the colours"


def test_the_words_of_thin_slices_tell_the_distance_between_slices():
    grid = Grid((6, 24, 20), np.diag([0.84, 0.84, 5.0, 1.0]), "PixelSpacing")
    source = replace(phantom((24, 20), modality="CT")[0], pixels=np.zeros((6, 24, 20), np.int16), grid=grid)
    result = replace(source, pixels=np.zeros((24, 24, 20), np.int16), grid=grid.scaled((4, 1, 1)))
    caption = words(source, result, provenance=replace(PROVENANCE, scale_zyx=(4, 1, 1)))
    assert caption.spacing.startswith("slices 5 mm to 1.25 mm apart, pixel 0.84 mm (PixelSpacing)")
    assert caption.panels[1] == ("Cubic along the slices", "20 x 24 pixels, interpolation only")
    assert caption.panels[3] == ("Result - cubic", "red: brighter than cubic along the slices, blue: darker")
    assert "bicubic" not in str(caption.panels).lower()


def test_ct_is_labelled_in_hounsfield_units():
    source, result, _ = phantom((32, 32), modality="CT")
    assert words(source, result).higher == "+5 HU"
    assert words(source, result, largest=3).saturation == "largest 3 HU"


def test_a_ct_that_begins_at_the_back_is_turned_and_a_film_is_not(tmp_path):
    source, result, bicubic = phantom((32, 32), spacing=(1, 1), modality="CT")
    straight = draw(tmp_path, source, result, bicubic)
    from_back = np.diag([-1.0, -1.0, 1.0, 1.0])
    rotated = [
        replace(
            image,
            pixels=image.pixels[:, ::-1, ::-1],
            grid=replace(image.grid, affine=image.grid.affine @ from_back),
        )
        for image in (source, result)
    ]
    rotated_preview = draw(tmp_path, *rotated, bicubic[::-1, ::-1])
    amber = (straight == AMBER).all(axis=2) | (rotated_preview == AMBER).all(axis=2)
    assert ((straight == rotated_preview).all(axis=2) | amber)[160 : 160 + 512].all()
    assert "row 8 of the file (outlined" in words(*rotated).detail
    assert words(*rotated).spacing.endswith("turned, so that the front is up")
    assert "of the file" not in words(source, result).detail
    films = [replace(image, modality="CXR") for image in rotated]
    assert (draw(tmp_path, *films, bicubic[::-1, ::-1]) != straight)[160 : 160 + 512, 44:556].any()

    # What is outlined above is what is magnified below: 32 pixels at 4 and at 16 picture pixels.
    rows, columns = np.nonzero((rotated_preview[:680, :556] == AMBER).all(axis=2))
    outlined = rotated_preview[rows.min() + 2 : rows.max() - 1, columns.min() + 2 : columns.max() - 1]
    assert outlined.shape[:2] == (128, 128)
    below = rotated_preview[rows.max() + 2 :, 44:556]
    assert any((below[y : y + 512 : 16, ::16] == outlined[::4, ::4]).all() for y in range(len(below) - 512))


def test_a_slice_of_a_volume_is_counted_from_one(tmp_path):
    source, result, bicubic = phantom((16, 16))
    volume = replace(source, pixels=source.pixels.repeat(3, axis=0))
    enlarged = replace(result, pixels=result.pixels.repeat(3, axis=0))
    enlarged.pixels[2] = 255 - enlarged.pixels[2]
    assert words(volume, enlarged).title == "Super-resolution x4 · slice 1 of 3"
    first = draw(tmp_path, volume, enlarged, bicubic)
    last = draw(tmp_path, volume, enlarged, bicubic, slice_index=2)
    assert (first != last).any()


def test_monochrome1_looks_like_its_monochrome2_twin(tmp_path):
    source, result, bicubic = phantom((32, 32))
    twin = [replace(image, pixels=255 - image.pixels, black_is_high=True) for image in (source, result)]
    straight, inverted = draw(tmp_path, source, result, bicubic), draw(tmp_path, *twin, 255 - bicubic)
    grey = straight[:, : 3 * straight.shape[1] // 4 - 20]
    # All but the words: the panels of input, bicubic and result.
    same = (grey == inverted[:, : grey.shape[1]]).all(axis=2)
    panel_rows = slice(160, 160 + 512)
    assert same[panel_rows].all()
    assert words(*twin).panels[3][1] == "blue: brighter than bicubic, red: darker"
    assert words(source, result).panels[3][1] == "red: brighter than bicubic, blue: darker"
    assert "high values dark" in words(*twin).spacing


def test_the_window_is_applied_to_modality_values_not_to_stored_ones(tmp_path):
    source, result, bicubic = phantom((16, 16))
    shifted = [replace(image, slope=2.0, intercept=-1000.0) for image in (source, result)]
    plain = draw(tmp_path, source, result, bicubic)
    hounsfield = draw(tmp_path, *shifted, bicubic * 2 - 1000, window=(-1000.0, -490.0))
    np.testing.assert_array_equal(plain[160:600, 44:1600], hounsfield[160:600, 44:1600])


def test_higher_is_red_lower_is_blue_and_no_difference_is_grey(tmp_path):
    source, result, bicubic = phantom((16, 16))
    result.pixels[0, :, :32], result.pixels[0, :, 32:] = 100, 50
    bicubic[:] = 75
    picture = draw(tmp_path, source, result, bicubic)
    panel = picture[200:600, 2220 - 44 - 512 : 2220 - 44]
    np.testing.assert_array_equal(panel[10, 10], blend(HIGHER, 0.5))
    np.testing.assert_array_equal(panel[10, 500], blend(LOWER, 0.5))
    bicubic[:] = result.pixels[0]
    picture = draw(tmp_path, source, result, bicubic)
    np.testing.assert_array_equal(picture[210, 2220 - 44 - 502], EQUAL)


def blend(colour, share):
    return np.rint(np.array(EQUAL) + share * (np.array(colour) - np.array(EQUAL)))


@pytest.mark.parametrize("window", [(0.0, 255.0), (77.0, 77.0)])
def test_a_flat_image_is_drawn_and_has_no_difference(tmp_path, window, recwarn):
    source, result, bicubic = phantom((8, 8))
    flat = [replace(image, pixels=np.full_like(image.pixels, 77)) for image in (source, result)]
    draw(tmp_path, *flat, np.full_like(bicubic, 77), window=window)
    assert not recwarn.list
    assert words(*flat, largest=0.0, limit=1.0).saturation == "no difference"


def test_numbers_are_round():
    assert [nice_above(v) for v in (0.2, 0.21, 1, 1.01, 3, 7, 10, 943)] == [0.2, 0.5, 1, 2, 5, 10, 10, 1000]
    assert [nice_below(v) for v in (0.2, 0.19, 1, 1.99, 3, 7, 10, 943)] == [0.2, 0.1, 1, 1, 2, 5, 10, 500]
    texts = [format_number(v) for v in (0.0123, 7.1956, 184.4, 1234.0, 0.0, -1000.0)]
    assert texts == ["0.0123", "7.2", "184", "1234", "0", "-1000"]
