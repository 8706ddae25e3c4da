"""Data consistency: the reduction of the result is the input, a region is that of the whole, and nothing gets worse."""

import numpy as np
import pytest

from monai_sr_bundle.degradation import KERNELS, Degradation
from monai_sr_bundle.inferers.consistency import BLOCK, REACH, DataConsistency

OPERATORS = [f"{kernel}_x{scale}" for kernel in KERNELS for scale in (2, 4)]
GREY_LEVEL = 1 / 255


def drawn(operator, rows=33, columns=41):
    """A degradation, an original, its exact input, and a poor guess at the original."""
    degradation, random = Degradation.parse(operator), np.random.default_rng(0)
    truth = random.random((degradation.scale * rows, degradation.scale * columns), dtype=np.float32)
    guess = (0.5 + 0.1 * random.standard_normal(truth.shape)).astype(np.float32)
    return degradation, truth, degradation.reduce(truth).astype(np.float32), guess


def squared(first, second):
    return float(np.square(first - second, dtype=np.float64).mean())


@pytest.mark.parametrize("operator", [*OPERATORS, "bicubic_antialias_x5", "bicubic_antialias_x8"])
def test_the_reduction_of_the_result_is_the_input_to_a_quarter_of_a_grey_level(operator):
    degradation, _, low, guess = drawn(operator)
    before = low.copy()
    found = DataConsistency(degradation)(guess.copy(), low)
    assert np.abs(degradation.reduce(guess) - low).max() > 25 * GREY_LEVEL
    np.testing.assert_allclose(degradation.reduce(found), low, rtol=0, atol=GREY_LEVEL / 4)
    np.testing.assert_array_equal(low, before)


@pytest.mark.parametrize("operator", [*OPERATORS, "area_x4+blur1.5"])
@pytest.mark.parametrize("limits", [None, (0.0, 1.0)])
def test_no_image_comes_out_further_from_the_original_of_an_exact_input(operator, limits):
    degradation, truth, low, guess = drawn(operator)
    project = DataConsistency(degradation)
    found = project(guess.copy(), low, limits=limits)
    assert squared(found, truth) < 0.97 * squared(guess, truth)
    # Also where there is nothing to gain: the original stays what it is.
    kept = project(truth.copy(), low, limits=limits)
    np.testing.assert_allclose(kept, truth, rtol=0, atol=1e-5)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("softness", "rounds"), [(0.05, 3), (0.3, 1)])
def test_it_is_the_softened_inverse_of_the_paper_in_every_round(operator, softness, rounds):
    # As large as the inverse reaches, so that nothing of it is cut off.
    degradation, _, low, guess = drawn(operator, REACH + 1, REACH)
    inner = degradation.matrix(degradation.scale * 40)[20]
    softened = softness * float(inner @ inner)

    def ends(size):
        reduction = degradation.matrix(degradation.scale * size)
        return reduction, reduction.T @ np.linalg.inv(reduction @ reduction.T + softened * np.eye(size))

    (rows, of_rows), (columns, of_columns) = ends(REACH + 1), ends(REACH)
    expected = guess.astype(np.float64)
    for _ in range(rounds):
        expected = expected + of_rows @ (low - rows @ expected @ columns.T) @ of_columns.T
    found = DataConsistency(degradation, softness, rounds)(guess.copy(), low)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_what_is_cut_off_beyond_the_reach_is_less_than_a_tenth_of_a_grey_level(monkeypatch):
    degradation, _, low, guess = drawn("bicubic_antialias_x4")
    found = DataConsistency(degradation)(guess.copy(), low)
    monkeypatch.setattr("monai_sr_bundle.inferers.consistency.REACH", 40)
    # Another softness, by next to nothing: the matrices of the shorter reach are kept from call to call.
    whole = DataConsistency(degradation, softness=0.05 + 1e-12)(guess.copy(), low)
    assert 1e-6 < np.abs(found - whole).max() < GREY_LEVEL / 10


def test_an_input_that_is_believed_less_is_followed_less():
    degradation, _, low, guess = drawn("bicubic_antialias_x4")
    missing = [
        squared(degradation.reduce(DataConsistency(degradation, softness, 1)(guess.copy(), low)), low)
        for softness in (0.01, 0.05, 1.0)
    ]
    assert missing[0] < missing[1] < missing[2] < squared(degradation.reduce(guess), low)


ROWS, COLUMNS = 2 * BLOCK + 30, BLOCK + 70
REGIONS = {
    "all": (0, ROWS, 0, COLUMNS),
    "corner": (0, 90, 0, 80),
    "last corner": (ROWS - 81, ROWS, COLUMNS - 97, COLUMNS),
    "border": (33, 33 + 90, 0, COLUMNS),
    "inside": (11, 11 + 130, 7, 7 + 100),
}


@pytest.mark.parametrize("region", REGIONS.values(), ids=[name.replace(" ", "-") for name in REGIONS])
@pytest.mark.parametrize("operator", ["bicubic_antialias_x4", "nearest_x2", "area_x2+blur1"])
def test_a_region_is_the_crop_of_the_whole_but_for_the_margin_where_it_was_cut(operator, region):
    degradation, _, low, guess = drawn(operator, ROWS, COLUMNS)
    project, scale = DataConsistency(degradation), degradation.scale
    top, bottom, left, right = region
    crop = slice(scale * top, scale * bottom), slice(scale * left, scale * right)
    whole = project(guess.copy(), low, limits=(0.2, 0.8))
    part = project(guess[crop].copy(), low, region, limits=(0.2, 0.8))
    edges = ((top, 0, True), (bottom, ROWS, False), (left, 0, True), (right, COLUMNS, False))
    cut = [scale * project.margin * (end != border) * (1 if first else -1) for end, border, first in edges]
    inside = slice(cut[0], cut[1] or None), slice(cut[2], cut[3] or None)
    assert part[inside].size > 0
    np.testing.assert_allclose(part[inside], whole[crop][inside], rtol=0, atol=1e-6)


def test_at_a_cut_a_region_is_another():
    degradation, _, low, guess = drawn("bicubic_antialias_x4", 40, 60)
    project = DataConsistency(degradation)
    whole, part = project(guess.copy(), low), project(guess[:, :160].copy(), low, (0, 40, 0, 40))
    assert np.abs(part - whole[:, :160])[:, -4:].max() > GREY_LEVEL


def test_no_number_lies_beyond_what_the_storage_can_hold():
    degradation, truth, _, guess = drawn("bicubic_antialias_x4")
    low = degradation((truth > 0.5).astype(np.float32))  # with overshoots, stored in 8 bits
    free, held = (DataConsistency(degradation)(guess.copy(), low, limits=limits) for limits in (None, (0.0, 1.0)))
    assert free.min() < -0.02
    assert free.max() > 1.02
    assert (held.min(), held.max()) == (0.0, 1.0)
    np.testing.assert_allclose(degradation.reduce(held), low, rtol=0, atol=GREY_LEVEL)


def test_the_image_is_changed_in_place_and_returned():
    degradation, _, low, guess = drawn("area_x4")
    given = guess.copy()
    assert DataConsistency(degradation)(given, low) is given
    assert not np.array_equal(given, guess)
