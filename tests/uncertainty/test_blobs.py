import numpy as np
import pytest
from monai_sr_bundle.uncertainty.blobs import (
    FALSE_PER_IMAGE,
    SIGMAS,
    THRESHOLDS,
    BlobCounts,
    count_blobs,
    find_blobs,
    froc,
    mean_sensitivity,
    measure_contrast,
)
from monai_sr_bundle.uncertainty.nodules import draw_nodules

SHAPE = 128, 128


def lung(seed=0):
    """Smooth, without anything that looks like a nodule."""
    rows, columns = np.mgrid[:128, :128] / 128
    return (0.4 + 0.2 * np.sin(2 * rows) * np.cos(3 * columns + seed)).astype(np.float32)


def blob(row, column, sigma, grey_levels):
    return grey_levels / 255 * draw_nodules([(row, column)], sigma, SHAPE)[0]


def at(grey_levels):
    """Index of the threshold with this many grey levels."""
    return int(np.argmin(np.abs(THRESHOLDS - grey_levels / 255)))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_contrast_is_the_amplitude_of_a_blob_of_its_size(sigma):
    difference = measure_contrast(lung() + blob(60, 70, sigma, 12), sigma) - measure_contrast(lung(), sigma)
    assert np.unravel_index(difference.argmax(), difference.shape) == (60, 70)
    assert difference.max() == pytest.approx(12 / 255, rel=0.03)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_blob_is_found_down_to_its_contrast_in_the_result_and_false_where_the_original_has_none(sigma, dark):
    sign = -1 if dark else 1
    original = lung() + sign * (blob(30, 30, sigma, 10) + blob(90, 30, sigma, 10))
    result = lung() + sign * (blob(30, 30, sigma, 8) + blob(60, 90, sigma, 5))
    counts = count_blobs(result, original, sigma, dark=dark)
    assert counts.true == 2
    assert [counts.detected[at(level)] for level in (6, 7, 9)] == [1, 1, 0]
    assert [counts.false[at(level)] for level in (3, 4, 6)] == [1, 1, 0]
    other_sign = count_blobs(result, original, sigma, dark=not dark)
    assert other_sign.true == 0
    assert not other_sign.false[at(3) :].any()


def test_what_the_original_shows_faintly_is_neither_true_nor_false():
    counts = count_blobs(lung() + blob(60, 70, 1.5, 12), lung() + blob(60, 70, 1.5, 4.5), 1.5)
    assert counts.true == 0
    assert not counts.false[at(3) :].any()


@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_blob_that_the_border_cuts_is_none(sigma):
    inside, outside = int(np.ceil(1.5 * sigma)), int(np.ceil(1.5 * sigma)) - 1
    for row, count in ((inside, 1), (127 - inside, 1), (outside, 0), (127 - outside, 0)):
        contrast = np.zeros(SHAPE)
        contrast[row, 60] = 1
        assert find_blobs(contrast, sigma, 0.5).sum() == count


def test_the_curve_is_over_all_images_and_its_mean_begins_at_nothing():
    steps = len(THRESHOLDS)
    low, high = (np.arange(steps) < steps // 2).astype(int), np.ones(steps, int)
    images = [BlobCounts(3, 3 * low, 20 * low), BlobCounts(1, high, 0 * low)]
    false, sensitivity = froc(images)
    assert (false[0], sensitivity[0]) == (10, 1)
    assert (false[-1], sensitivity[-1]) == (0, 0.25)
    # From 1/4 without a false blob, along a line to 1 with ten an image.
    assert mean_sensitivity(images) == pytest.approx(np.mean([0.25 + 0.075 * each for each in FALSE_PER_IMAGE]))
    # False blobs at every threshold: the curve comes from no blob and no sensitivity.
    always_false = [BlobCounts(1, high, 16 * high)]
    assert mean_sensitivity(always_false) == pytest.approx(np.mean(FALSE_PER_IMAGE) / 16)


def test_nothing_to_find_is_no_sensitivity():
    assert np.isnan(mean_sensitivity([BlobCounts(0, np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS)))]))
