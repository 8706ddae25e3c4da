import numpy as np
import pytest

from monai_sr_bundle.benchmark.trust_figures import Subject, trust_figures
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.inferers.interpolate import enlarge_bicubic
from monai_sr_bundle.uncertainty.nodules import (
    AMPLITUDE,
    CHEST,
    FIELDS,
    SIGMAS,
    Nodule,
    contrast,
    exaggerated_blobs,
    false_nodules,
    find_visible_blobs,
    in_chest,
    nodule_positions,
    recovered_contrast,
)

X4 = Degradation.parse("bicubic_antialias_x4")


def lung(side=128, seed=0):
    """Smooth, without anything that looks like a nodule."""
    rows, columns = np.mgrid[:side, :side] / side
    return (0.4 + 0.2 * np.sin(2 * rows) * np.cos(3 * columns + seed)).astype(np.float32)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_contrast_is_the_amplitude_of_a_blob_of_its_size(sigma):
    image = lung() + AMPLITUDE * Nodule(60.0, 70.0, sigma).draw((128, 128))
    difference = contrast(image, sigma) - contrast(lung(), sigma)
    assert np.unravel_index(difference.argmax(), difference.shape) == (60, 70)
    assert difference.max() == pytest.approx(AMPLITUDE, rel=1e-3)


def test_recovered_contrast_is_the_share_that_comes_back():
    blob = AMPLITUDE * Nodule(40.5, 50.0, 2.5).draw((96, 96))
    assert recovered_contrast(lung(96) + 0.7 * blob, lung(96), blob) == pytest.approx(0.7, abs=1e-4)
    assert recovered_contrast(lung(96), lung(96), blob) == 0


def test_a_nodule_that_only_the_result_has_is_false():
    blob = Nodule(60.0, 70.0, 2.5).draw((128, 128))
    np.testing.assert_array_equal(false_nodules(lung() + AMPLITUDE * blob, lung(), 2.5), [[60, 70]])
    assert not len(false_nodules(lung() + AMPLITUDE * blob, lung() + AMPLITUDE * blob, 2.5))
    assert not len(false_nodules(lung(), lung() + AMPLITUDE * blob, 2.5))  # lost, not invented
    assert not len(false_nodules(lung() + AMPLITUDE / 4 * blob, lung(), 2.5))  # too faint for anyone


def test_what_the_original_has_too_is_exaggerated_and_not_false():
    faint, plain = (amplitude / 255 * Nodule(60.0, 70.0, 2.5).draw((128, 128)) for amplitude in (2, 7))
    for added, false in ((5 * faint, 1), (2.5 * plain, 0)):
        there = faint if false else plain
        np.testing.assert_array_equal(exaggerated_blobs(lung() + added, lung() + there, 2.5), [[60, 70]])
        assert len(false_nodules(lung() + added, lung() + there, 2.5)) == false


@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_blob_that_the_border_cuts_is_no_nodule(sigma):
    flat = np.full((128, 128), 0.4, np.float32)
    least = int(np.ceil(1.5 * sigma))
    for row, column in ((least + 2, 64), (64, least + 2), (125 - least, 64), (64, 125 - least)):
        result = flat + AMPLITUDE * Nodule(row, column, sigma).draw((128, 128))
        assert len(false_nodules(result, flat, sigma))
    for row, column in ((least - 3, 64), (64, 130 - least)):
        result = flat + AMPLITUDE * Nodule(row, column, sigma).draw((128, 128))
        assert len(exaggerated_blobs(result, flat, sigma))
        assert not len(false_nodules(result, flat, sigma))


def test_a_blob_is_shown_where_it_has_the_contrast_from_which_it_counts():
    there, gone = (AMPLITUDE * Nodule(row, 70.0, 2.5).draw((128, 128)) for row in (30.0, 90.0))
    np.testing.assert_array_equal(
        find_visible_blobs(lung() + there + 0.3 * gone, lung() + there + gone, 2.5), [True, False]
    )
    assert not len(find_visible_blobs(lung() + there, lung(), 2.5))


def test_the_chest_is_away_from_the_borders():
    top, bottom, left, right = (int(side) for side in np.array(CHEST) * [200, 200, 100, 100])
    centres = [[top, left], [bottom - 1, right - 1], [top - 1, left], [top, left - 1], [bottom, left], [top, right]]
    np.testing.assert_array_equal(in_chest(np.array(centres), 200, 100), [True, True, False, False, False, False])
    for first, last, start, stop in FIELDS:
        assert CHEST[0] <= first < last <= CHEST[1]
        assert CHEST[2] <= start < stop <= CHEST[3]


def test_places_are_the_same_for_a_name_and_lie_in_the_lungs():
    assert nodule_positions("a", (200, 100)) == nodule_positions("a", (200, 100)) != nodule_positions("b", (200, 100))
    for (row, column), (top, bottom, left, right) in zip(nodule_positions("a", (200, 100)), FIELDS, strict=True):
        assert top <= row / 200 <= bottom
        assert left <= column / 100 <= right


def subject(result, high, half_width=None, boxes=None):
    mask = np.zeros(high.shape, bool) if boxes is None else boxes
    return Subject("film", X4(high), result, high, mask, half_width)


def bicubic(low):
    return enlarge_bicubic(low, 4)


def test_the_figures_of_a_result():
    high = lung()
    result = np.rint(255 * bicubic(X4(high))).astype(np.float32) / 255
    boxes = np.zeros(high.shape, bool)
    boxes[10:20, 10:20] = True
    width = np.where(boxes, 1.0, np.abs(high - result) * np.where(np.arange(128) < 64, 1.01, 0.5)).astype(np.float32)
    figures = trust_figures(subject(result, high, width, boxes), bicubic, X4, 255)
    assert 0 < figures["consistency"] < 1
    assert figures["box_coverage"] == 1.0
    assert figures["coverage"] == pytest.approx(0.5, abs=0.02)
    assert figures["error_bar"] == pytest.approx(255 * width.mean())
    assert figures["nodule_1.5"] < figures["nodule_2.5"] < figures["nodule_4"] == pytest.approx(1.0, abs=0.05)
    assert figures["false_nodules"] == figures["false_in_chest"] == 0


def test_false_nodules_are_counted_everywhere_and_in_the_chest():
    blobs = [AMPLITUDE * Nodule(row, column, 1.5).draw((128, 128)) for row, column in ((5, 60), (60, 60), (90, 40))]
    figures = trust_figures(subject(lung() + np.sum(blobs, axis=0), lung() + blobs[2]), bicubic, X4, 255)
    # Each is also a blob of the next size.
    assert [figures[name] for name in ("exaggerated_blobs", "false_nodules", "false_in_chest")] == [4, 4, 2]
    assert figures["seen_blobs"] == 1


def test_without_error_bars_and_without_structure_these_figures_are_missing():
    figures = trust_figures(subject(lung(), lung()), bicubic, X4, 255)
    assert np.isnan([figures[name] for name in ("coverage", "box_coverage", "error_bar")]).all()
    flat = np.full((96, 96), 0.5, np.float32)
    figures = trust_figures(subject(flat, flat, np.ones_like(flat)), bicubic, X4, 255)
    assert np.isnan([figures[name] for name in ("cut_off", "disagreeing_patches", "box_coverage", "seen_blobs")]).all()
    assert figures["coverage"] == 1.0
