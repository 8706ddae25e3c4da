import math

import numpy as np
import pytest
from monai_sr_bundle.benchmark.paired import Paired
from monai_sr_bundle.metrics.mean import Mean
from scipy import stats


def test_the_interval_covers_the_mean_of_a_known_distribution():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        interval = Mean.of(generator.normal(3.0, 1.0, 50).tolist())
        covered += interval.low <= 3.0 <= interval.high
    assert 50 <= covered <= 60


def test_mean_and_standard_deviation_of_three_numbers():
    mean = Mean.of([1.0, 2.0, 3.0])
    assert (mean.mean, mean.standard_deviation, mean.count) == (2.0, 1.0, 3)
    assert (mean.low, mean.high) == (1.0, 3.0)


def test_an_interval_over_patients_takes_all_images_of_a_patient_together():
    values = [1.0, 1.0, 1.0, 5.0]
    assert Mean.of(values, ["a", "a", "a", "a"]) == Mean(2.0, 2.0, 2.0, 2.0, 4)
    # Of two patients, a quarter of the samples holds a alone, a quarter b alone.
    mean = Mean.of(values, ["a", "a", "a", "b"])
    assert (mean.mean, mean.low, mean.high, mean.count) == (2.0, 1.0, 5.0, 4)
    assert Mean.of(values, ["a", "b", "c", "d"]) == Mean.of(values)


def test_images_without_the_figure_are_left_out():
    assert Mean.of([1.0, math.nan, 3.0]) == Mean.of([1.0, 3.0])
    with pytest.raises(ValueError, match="no image has this figure"):
        Mean.of([math.nan])


def test_one_image_has_no_spread_and_no_test():
    assert Mean.of([2.0]) == Mean(2.0, 0.0, 2.0, 2.0, 1)
    assert math.isnan(Paired.of([2.0], [1.0]).p_value)


def test_the_test_is_the_paired_one():
    generator = np.random.default_rng(0)
    reference = generator.normal(30.0, 3.0, 20)
    ours = reference + generator.normal(0.2, 0.3, 20)
    paired = Paired.of(ours.tolist(), reference.tolist())
    difference = ours - reference
    t = difference.mean() / (difference.std(ddof=1) / math.sqrt(20))
    assert paired.p_value == pytest.approx(2 * stats.t.sf(abs(t), 19))
    assert paired.difference == Mean.of(difference.tolist())
    assert paired.better == (difference > 0).sum()


def test_the_images_of_a_patient_count_as_one_in_the_test():
    ours, patients = [31.0, 31.2, 31.1, 30.5, 30.1, 30.4], ["a", "a", "a", "b", "c", "c"]
    paired = Paired.of(ours, [30.0] * 6, patients)
    assert paired.p_value == pytest.approx(stats.ttest_1samp([1.1, 0.5, 0.25], 0.0).pvalue)
    assert paired.difference == Mean.of(np.subtract(ours, 30.0).tolist(), patients)
    assert paired.p_value > 10 * Paired.of(ours, [30.0] * 6).p_value


def test_only_images_with_both_figures_are_compared():
    paired = Paired.of([1.0, math.nan, 3.0, 5.0], [0.0, 1.0, math.nan, 3.0])
    assert (paired.count, paired.difference.mean, paired.better) == (2, 1.5, 2)


def test_lower_may_be_better():
    assert Paired.of([1.0, 2.0, 5.0], [2.0, 3.0, 4.0], lower_is_better=True).better == 2


def test_equal_differences_leave_nothing_to_test():
    paired = Paired.of([1.1, 2.1, 3.1], [1.0, 2.0, 3.0])
    assert math.isnan(paired.p_value)
    assert paired.difference.mean == pytest.approx(0.1)
