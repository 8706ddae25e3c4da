"""The guard against blobs that the input does not support: what it damps and leaves; a region is that of the whole."""

import subprocess
import sys

import numpy as np
import pytest

from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.inferers.consistency import DataConsistency
from monai_sr_bundle.inferers.interpolate import enlarge_bicubic
from monai_sr_bundle.inferers.unsupported import LEFT, PLAIN, SIGMA, UnsupportedBlobs, _contrast
from monai_sr_bundle.trust.nodules import Nodule, contrast

X4 = Degradation.parse("bicubic_antialias_x4")
GUARD = UnsupportedBlobs(X4)
GREY_LEVEL = 1 / 255


def lung(rows=128, columns=160):
    """Smooth, without anything that looks like a nodule."""
    y, x = np.mgrid[:rows, :columns] / 128
    return (0.4 + 0.2 * np.sin(2 * y) * np.cos(3 * x)).astype(np.float32)


def blob(row, column, shape=(128, 160)):
    return Nodule(row, column, SIGMA).drawn(shape)


def unseen(row, column, amplitude):
    """A blob that the reduction does not see, of this contrast, as a network may invent it."""
    added = blob(row, column)
    DataConsistency(X4)(added, np.zeros((32, 40), np.float32))
    return (amplitude / contrast(added, SIGMA)[row, column] * added).astype(np.float32)


def shown(image, row, column):
    return float(contrast(image, SIGMA)[row, column])


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("shape", [(70, 50), (5, 9)])
def test_contrast_is_that_of_the_trust_figures_at_the_borders_too(scale, shape):
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    np.testing.assert_allclose(_contrast(image, scale), contrast(enlarge_bicubic(image, scale), SIGMA), atol=1e-5)


@pytest.mark.parametrize("operator", ["bilinear_antialias_x4", "area_x4", "area_x4+blur1", "bicubic_antialias_x8"])
def test_other_reductions_hardly_see_what_it_changes_either(operator):
    degradation = Degradation.parse(operator)
    low = degradation.reduce(lung()).astype(np.float32)
    made = lung() + 10 * GREY_LEVEL * blob(66, 82)
    found = UnsupportedBlobs(degradation).damp(made.copy(), low)
    assert shown(made, 66, 82) - shown(found, 66, 82) > 3 * GREY_LEVEL
    assert np.abs(degradation.reduce(found - made)).max() < 0.2 * np.abs(found - made).max()


@pytest.mark.parametrize(("row", "column"), [(64, 80), (65, 82), (30, 47)])
def test_an_invented_faint_blob_is_damped_to_what_is_left_of_any(row, column):
    low = X4.reduce(lung()).astype(np.float32)
    made = lung() + unseen(row, column, 10 * GREY_LEVEL)
    assert shown(made, row, column) > 9.5 * GREY_LEVEL
    before = made.copy()
    found = GUARD.damp(made, low)
    assert found is made
    assert shown(found, row, column) == pytest.approx(LEFT, abs=0.5 * GREY_LEVEL)
    # The reduction hardly sees it, and further away nothing has changed.
    difference = X4.reduce(found) - X4.reduce(before)
    assert np.abs(difference).max() < 0.15 * np.abs(found - before).max()
    assert np.sqrt(np.square(difference).mean()) < 0.1 * GREY_LEVEL
    changed = np.argwhere(found != before)
    assert (np.abs(changed - [row, column]) <= 16).all()


@pytest.mark.parametrize("phase", range(4))
@pytest.mark.parametrize("sigma", [SIGMA, 2.5, 4.0])
def test_a_nodule_keeps_what_a_faithful_network_shows_of_it_or_more_than_interpolation_does(phase, sigma):
    nodule = 12 * GREY_LEVEL * Nodule(64.0 + phase, 80.0 + phase, sigma).drawn((128, 160))
    low = X4.reduce(lung() + nodule).astype(np.float32)
    faithful = lung() + 0.8 * nodule
    kept = GUARD.damp(faithful.copy(), low) - lung()
    interpolated = enlarge_bicubic(low, 4) - enlarge_bicubic(X4.reduce(lung()).astype(np.float32), 4)
    of_kept, of_interpolated = ((one * nodule).sum() / np.square(nodule).sum() for one in (kept, interpolated))
    assert of_kept > min(0.79, of_interpolated)


@pytest.mark.parametrize("amplitude", [0.9 * LEFT, 1.1 * PLAIN])
def test_what_is_too_faint_for_a_nodule_or_too_plain_is_left(amplitude):
    low = X4.reduce(lung()).astype(np.float32)
    made = lung() + unseen(64, 80, amplitude)
    np.testing.assert_array_equal(GUARD.damp(made.copy(), low), made)


def test_the_strength_is_the_share_that_is_damped():
    low, made = X4.reduce(lung()).astype(np.float32), lung() + unseen(64, 80, 10 * GREY_LEVEL)
    np.testing.assert_array_equal(GUARD.damp(made.copy(), low, strength=0.0), made)
    half, whole = (shown(GUARD.damp(made.copy(), low, strength=share), 64, 80) for share in (0.5, 1.0))
    assert whole < half < shown(made, 64, 80)
    assert half - LEFT == pytest.approx((10 * GREY_LEVEL - LEFT) / 2, abs=0.5 * GREY_LEVEL)


def test_limits_of_the_storage_hold_and_the_input_is_not_changed():
    dark = np.zeros((128, 160), np.float32)
    low = np.zeros((32, 40), np.float32)
    made = dark + unseen(64, 80, 10 * GREY_LEVEL)
    found = GUARD.damp(made.copy(), low, limits=(0.0, 1.0))
    assert found.min() == 0
    assert not low.any()


def test_a_region_with_its_margin_is_that_of_the_whole_to_the_bit():
    random = np.random.default_rng(2)
    low = random.random((60, 90), dtype=np.float32) * np.float32(0.02) + np.float32(0.4)
    made = (enlarge_bicubic(low, 4) + 0.012 * random.standard_normal((240, 360))).astype(np.float32)
    whole = GUARD.damp(made.copy(), low)
    assert np.abs(whole - made).max() > GREY_LEVEL
    margin = GUARD.margin
    for top, bottom, left, right in ((20, 40, 30, 50), (0, 9, 40, 70), (50, 60, 0, 8)):
        wide = max(0, top - margin), min(60, bottom + margin), max(0, left - margin), min(90, right + margin)
        part = made[4 * wide[0] : 4 * wide[1], 4 * wide[2] : 4 * wide[3]].copy()
        GUARD.damp(part, low, wide)
        inner = part[4 * (top - wide[0]) :, 4 * (left - wide[2]) :][: 4 * (bottom - top), : 4 * (right - left)]
        np.testing.assert_array_equal(inner, whole[4 * top : 4 * bottom, 4 * left : 4 * right])


def test_how_many_are_damped_at_a_time_makes_no_difference(monkeypatch):
    random = np.random.default_rng(3)
    low = random.random((30, 40), dtype=np.float32) * np.float32(0.02) + np.float32(0.4)
    made = (enlarge_bicubic(low, 4) + 0.012 * random.standard_normal((120, 160))).astype(np.float32)
    whole = GUARD.damp(made.copy(), low)
    assert np.abs(whole - made).max() > GREY_LEVEL
    monkeypatch.setattr("monai_sr_bundle.inferers.unsupported.MANY", 7)
    np.testing.assert_array_equal(GUARD.damp(made.copy(), low), whole)


def test_a_blob_that_stands_alone_stands_out_as_many_times_as_is_said():
    """What `MOST` says of the support of a blob, by its place among the input's pixels."""
    times = []
    for row in range(64, 68):
        for column in range(80, 84):
            low = X4.reduce(blob(row, column)).astype(np.float32)
            times.append(1 / _contrast(low, 4)[row, column])
    assert (min(times), np.median(times), max(times)) == pytest.approx((2.4, 3.0, 4.0), abs=0.05)


def test_it_needs_neither_pytorch_nor_scipy():
    code = (
        "import sys, monai_sr_bundle.inferers.unsupported\n"
        "assert not {'torch', 'monai', 'scipy'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
