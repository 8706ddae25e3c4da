"""Data consistency: the reduction of the result is the input, a region is that of the whole, and nothing gets worse."""

import os
import subprocess
import sys

import numpy as np
import pytest
from monai_sr_bundle.degradation import KERNELS, Degradation
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.inferers import data_consistency
from monai_sr_bundle.inferers.data_consistency import BLOCK, NOTICED, REACH, ROUNDS, SOFTNESS, DataConsistency

OPERATORS = [f"{kernel}_x{scale}" for kernel in KERNELS for scale in (2, 4)]
GREY_LEVEL = 1 / 255


def make_case(operator, rows=33, columns=41):
    """A degradation, an original, its exact input, and a poor guess at the original."""
    degradation, random = Degradation.parse(operator), np.random.default_rng(0)
    truth = random.random((degradation.scale * rows, degradation.scale * columns), dtype=np.float32)
    guess = (0.5 + 0.1 * random.standard_normal(truth.shape)).astype(np.float32)
    return degradation, truth, degradation.reduce(truth).astype(np.float32), guess


def squared(first, second):
    return float(np.square(first - second, dtype=np.float64).mean())


@pytest.mark.parametrize("operator", [*OPERATORS, "bicubic_antialias_x5", "bicubic_antialias_x8"])
def test_the_reduction_of_the_result_is_the_input_to_a_quarter_of_a_grey_level(operator):
    degradation, _, low, guess = make_case(operator)
    before = low.copy()
    result = DataConsistency(degradation)(guess.copy(), low)
    assert np.abs(degradation.reduce(guess) - low).max() > 25 * GREY_LEVEL
    np.testing.assert_allclose(degradation.reduce(result), low, rtol=0, atol=GREY_LEVEL / 4)
    np.testing.assert_array_equal(low, before)


@pytest.mark.parametrize("operator", [*OPERATORS, "area_x4+blur1.5"])
@pytest.mark.parametrize("limits", [None, (0.0, 1.0)])
def test_no_image_comes_out_further_from_the_original_of_an_exact_input(operator, limits):
    degradation, truth, low, guess = make_case(operator)
    project = DataConsistency(degradation)
    result = project(guess.copy(), low, limits=limits)
    assert squared(result, truth) < 0.97 * squared(guess, truth)
    # Also where there is nothing to gain: the original stays what it is.
    result_of_truth = project(truth.copy(), low, limits=limits)
    np.testing.assert_allclose(result_of_truth, truth, rtol=0, atol=1e-5)


@pytest.mark.parametrize("operator", OPERATORS)
def test_it_is_the_softened_inverse_of_the_paper_in_every_round(operator):
    # As large as the inverse reaches, so that nothing of it is cut off.
    degradation, _, low, guess = make_case(operator, REACH + 1, REACH)
    inner = degradation.matrix(degradation.scale * 40)[20]
    softened = SOFTNESS * float(inner @ inner)

    def ends(size):
        reduction = degradation.matrix(degradation.scale * size)
        return reduction, reduction.T @ np.linalg.inv(reduction @ reduction.T + softened * np.eye(size))

    (rows, of_rows), (columns, of_columns) = ends(REACH + 1), ends(REACH)
    expected = guess.astype(np.float64)
    for _ in range(ROUNDS):
        expected = expected + of_rows @ (low - rows @ expected @ columns.T) @ of_columns.T
    result = DataConsistency(degradation)(guess.copy(), low)
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6)


def test_what_is_cut_off_beyond_the_reach_is_less_than_a_tenth_of_a_grey_level(monkeypatch):
    degradation, _, low, guess = make_case("bicubic_antialias_x4")
    result = DataConsistency(degradation)(guess.copy(), low)
    monkeypatch.setattr(data_consistency, "REACH", 40)
    for name in ("_blocks", "_matrices"):  # the matrices of the shorter reach are kept from call to call
        monkeypatch.setattr(data_consistency, name, getattr(data_consistency, name).__wrapped__)
    whole = DataConsistency(degradation)(guess.copy(), low)
    assert 1e-6 < np.abs(result - whole).max() < GREY_LEVEL / 10


ROWS, COLUMNS = 9 * BLOCK + 14, 8 * BLOCK + 6
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
    degradation, _, low, guess = make_case(operator, ROWS, COLUMNS)
    project, scale = DataConsistency(degradation), degradation.scale
    top, bottom, left, right = region
    crop = slice(scale * top, scale * bottom), slice(scale * left, scale * right)
    whole = project(guess.copy(), low, limits=(0.2, 0.8))
    part = project(guess[crop].copy(), low, region, limits=(0.2, 0.8))
    edges = ((top, 0, True), (bottom, ROWS, False), (left, 0, True), (right, COLUMNS, False))
    margins = [scale * project.margin * (end != border) * (1 if first else -1) for end, border, first in edges]
    inside = slice(margins[0], margins[1] or None), slice(margins[2], margins[3] or None)
    assert part[inside].size > 0
    np.testing.assert_allclose(part[inside], whole[crop][inside], rtol=0, atol=1e-6)


@pytest.mark.parametrize("operator", ["bicubic_antialias_x4", "bicubic_antialias_x2", "bilinear_antialias_x4"])
def test_what_lies_beyond_the_margin_does_not_matter_and_what_lies_within_does(operator):
    degradation, _, low, guess = make_case(operator, 90, 20)
    project, scale = DataConsistency(degradation), degradation.scale
    whole = project(guess.copy(), low)
    for beyond, same in ((project.margin, True), (project.margin // 3, False)):
        other = guess.copy()
        other[scale * (20 + beyond) :] = 0.7
        changed = np.abs(project(other, low) - whole)[: scale * 20].max()
        assert (changed < 1e-6) == same


def test_no_number_lies_beyond_what_the_storage_can_hold():
    degradation, truth, _, guess = make_case("bicubic_antialias_x4")
    low = degradation((truth > 0.5).astype(np.float32))  # with overshoots, stored in 8 bits
    free, held = (DataConsistency(degradation)(guess.copy(), low, limits=limits) for limits in (None, (0.0, 1.0)))
    assert free.min() < -0.02
    assert free.max() > 1.02
    assert (held.min(), held.max()) == (0.0, 1.0)
    np.testing.assert_allclose(degradation.reduce(held), low, rtol=0, atol=GREY_LEVEL)


@pytest.mark.parametrize("name", ["bicubic_antialias_x4", "area_x2", "bicubic_antialias_x3+blur1.5"])
def test_the_reduction_in_blocks_is_that_of_the_whole(name):
    degradation = Degradation.parse(name)
    rows, columns = 53 * degradation.scale, 20 * degradation.scale
    image = np.random.default_rng(0).random((rows, columns), dtype=np.float32)
    reduced = DataConsistency(degradation).reduce(image, (53, 20))
    np.testing.assert_allclose(reduced, degradation.reduce(image), rtol=0, atol=2e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_limited_texture_changes_the_reduced_image_by_no_more_and_keeps_what_cannot_be_seen(scale):
    degradation = Degradation.parse(f"bicubic_antialias_x{scale}")
    consistency, shape = DataConsistency(degradation), (24, 20)
    texture = np.random.default_rng(0).normal(0, 0.1, (24 * scale, 20 * scale)).astype(np.float32)
    before = degradation.reduce(texture)
    for largest in (0.0, 0.5 * before.std(), 10.0):
        limited = consistency.limit(texture.copy(), largest, shape, Region.whole(*shape))
        reduced = degradation.reduce(limited)
        # Three rounds of a softened inverse leave a few percent of what was above.
        np.testing.assert_allclose(reduced, before.clip(-largest, largest), atol=0.03 * np.abs(before).max())
    np.testing.assert_array_equal(limited, texture)
    unseen = texture - consistency.limit(texture.copy(), 0.0, shape, Region.whole(*shape))
    assert 0 < unseen.std() < 0.6 * texture.std()


def test_the_image_is_changed_in_place_and_returned():
    degradation, _, low, guess = make_case("area_x4")
    given = guess.copy()
    assert DataConsistency(degradation)(given, low) is given
    assert not np.array_equal(given, guess)


@pytest.mark.parametrize(
    ("operator", "spread"),
    [("area_x4", 0), ("nearest_x2", 0), ("bilinear_antialias_x4", 1), ("bicubic_antialias_x4", 2)],
)
def test_an_artifact_is_not_followed_as_far_as_it_can_be_seen(operator, spread):
    degradation, truth, low, _ = make_case(operator)
    project = DataConsistency(degradation)
    artifacts = np.zeros(low.shape, dtype=np.float32)
    artifacts[10, 20] = artifacts[0, 40] = 1.0
    followed = project.input_weight(artifacts)
    scale, dirty = degradation.scale, truth.copy()
    for row, column in np.argwhere(artifacts):
        dirty[scale * row : scale * (row + 1), scale * column : scale * (column + 1)] += 1.0
    soiled = np.abs(degradation.reduce(dirty) - low) > 1e-5
    assert project.spread == spread
    assert soiled.any()
    assert not followed[soiled].any()
    assert (followed == 1).sum() == low.size - (2 * spread + 1) ** 2 - (spread + 1) ** 2


def test_a_likely_artifact_is_followed_less_and_less():
    project = DataConsistency(Degradation.parse("area_x4"))
    weights = project.input_weight(np.array([[0.0, 0.3, 0.35, 0.4, 0.5, 1.0]]))
    np.testing.assert_allclose(weights, [[1, 1, 0.75, 0.5, 0, 0]], atol=1e-6)


def test_all_that_is_more_probable_than_noticed_is_followed_less_to_the_last_bit():
    project, end = DataConsistency(Degradation.parse("area_x4")), np.float32(NOTICED)
    around = np.array([[np.nextafter(end, np.float32(0)), end, np.nextafter(end, np.float32(1))]])
    np.testing.assert_array_equal(project.input_weight(around) < 1, around > NOTICED)


@pytest.mark.parametrize("operator", ["bicubic_antialias_x4", "area_x2"])
def test_what_is_not_followed_is_not_put_back_and_the_rest_is_the_input(operator):
    degradation, truth, _, guess = make_case(operator)
    scale, dirty = degradation.scale, truth.copy()
    dirty[scale * 10 : scale * 16, scale * 12 : scale * 20] = 1.0
    project, soiled = DataConsistency(degradation), degradation.reduce(dirty).astype(np.float32)
    artifacts = np.zeros(soiled.shape, dtype=np.float32)
    artifacts[10:16, 12:20] = 1.0
    followed = project.input_weight(artifacts)
    result = project(guess.copy(), soiled, weight=followed)
    off = np.abs(degradation.reduce(result) - soiled)
    assert off[followed == 1].max() < GREY_LEVEL / 4
    # As far from the original as the guess is, and not white as the input is there.
    inside = slice(scale * 11, scale * 15), slice(scale * 13, scale * 19)
    back = project(guess.copy(), soiled)
    assert squared(result[inside], truth[inside]) < 1.05 * squared(guess[inside], truth[inside])
    assert squared(back[inside], truth[inside]) > 2 * squared(guess[inside], truth[inside])


def test_the_stored_result_is_the_same_however_many_threads_multiply(tmp_path):
    """Sums of float32 were not: with another number of threads, a few pixels of a film changed by a grey level."""
    script = (
        "import sys, numpy as np\n"
        "from monai_sr_bundle.inferers.data_consistency import DataConsistency\n"
        "from monai_sr_bundle.degradation import Degradation\n"
        "random = np.random.default_rng(0)\n"
        "low, high = (random.random((side, side), dtype=np.float32) for side in (256, 1024))\n"
        "project = DataConsistency(Degradation.parse('bicubic_antialias_x4'))\n"
        "np.save(sys.argv[1], np.rint(4095 * project(high, low, limits=(0.0, 1.0))))\n"
    )
    results = []
    for threads in ("1", "2"):
        file = tmp_path / f"{threads}.npy"
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", script, str(file)], check=True, timeout=900, env=environment)
        results.append(np.load(file))
    np.testing.assert_array_equal(*results)
