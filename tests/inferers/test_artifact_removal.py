"""The report of removed artifacts covers the pixels where the input is not followed, and no others."""

import numpy as np
import pytest
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.inferers.data_consistency import (
    CERTAIN,
    NOTICED,
    ArtifactReport,
    DataConsistency,
    count_areas,
    percent,
)
from scipy.ndimage import label

PROJECT = DataConsistency(Degradation.parse("bicubic_antialias_x4"))


def removed_of(probable):
    return ArtifactReport.from_probability(probable, np.stack([PROJECT.input_weight(one) for one in probable]))


@pytest.fixture
def nothing():
    return np.zeros((2, 20, 30), dtype=np.float32)


def test_what_is_only_likely_is_told_as_it_is_not_wholly_followed(nothing):
    assert NOTICED < 0.4 < CERTAIN
    nothing[0, 4:6, 5] = nothing[1, 15, 20] = 0.4
    removed = removed_of(nothing)
    np.testing.assert_array_equal(removed.artifact_mask, nothing > 0)
    assert (removed.count, removed.share) == (2, pytest.approx(3 / 1200))
    assert removed.agreement_share == pytest.approx(1 - (5 * 6 + 5 * 5) / 1200)
    assert removed.sentence.startswith("2 burned-in marks (letters or lines) were detected and removed (0.25 % of the ")
    assert removed.sentence.endswith("Agreement with the input is stated for 95.4 % of its pixels.")


def test_what_is_wholly_followed_is_not_told(nothing):
    nothing[:] = NOTICED
    removed = removed_of(nothing)
    assert (removed.count, removed.share, removed.agreement_share, removed.sentence) == (0, 0.0, 1.0, "")


def test_the_edge_of_a_region_beside_a_mark_is_told(nothing):
    nothing[0, 4:6, 5] = nothing[0, 12, 7] = 1.0
    followed = np.stack([PROJECT.input_weight(one) for one in nothing])
    region = np.s_[:, :, 8:]
    removed = ArtifactReport.from_probability(nothing[region], followed[region])
    assert not removed.artifact_mask.any()
    assert removed.count == 1
    assert removed.share == pytest.approx(1 - removed.agreement_share) == pytest.approx(2 * 5 / 880)
    assert "1 burned-in mark (a letter or a line) was detected and removed (1.14 % of the image)" in removed.sentence
    beyond = np.s_[:, :, 10:]
    assert ArtifactReport.from_probability(nothing[beyond], followed[beyond]).count == 0


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0 %"), (1e-6, "under 0.1 %"), (0.0234, "2.34 %"), (0.9997, "over 99.9 %"), (1, "100 %")],
)
def test_a_share_in_words_is_never_rounded_to_nothing_or_everything(share, words):
    assert percent(share) == words


def test_areas_that_touch_at_a_corner_are_one():
    mask = np.zeros((6, 7), dtype=bool)
    assert count_areas(mask) == 0
    mask[0, 0] = mask[1, 1] = mask[1, 2] = mask[4, 0] = mask[3, 6] = True
    assert count_areas(mask) == 3


@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.3, 0.4, 0.6, 0.98, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 300), (120, 70)])
def test_areas_are_those_of_scipy(shape, share):
    mask = np.random.default_rng(0).random(shape) < share
    assert count_areas(mask) == label(mask, np.ones((3, 3)))[1]
    # A comb, whose teeth meet only in its last row.
    mask[:, ::2], mask[-1] = True, True
    assert count_areas(mask) == 1
    mask[1::2, 1:] = False
    assert count_areas(mask) == label(mask, np.ones((3, 3)))[1]


def test_areas_of_a_large_mask_of_noise_are_those_of_scipy():
    mask = np.random.default_rng(0).random((3000, 3000)) < 0.3
    assert count_areas(mask) == label(mask, np.ones((3, 3)))[1]
