"""Data consistency as a step of a workflow: the slices, the limits and the place that it needs."""

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.inferers.data_consistency import DataConsistency
from monai_sr_bundle.transforms.postprocessing import LIMITS, Consistentd

OPERATOR = "bicubic_antialias_x4"
DEGRADATION = Degradation.parse(OPERATOR)


def pair(slices):
    """An input of hard edges, which only a result beyond 0 to 1 is exactly consistent with, and a guess at that."""
    random = np.random.default_rng(0)
    guess = random.random((1, 40, 48, *slices), dtype=np.float32)
    low = random.integers(0, 2, (1, 10, 12, *slices)).astype(np.float32)
    return low, guess


@pytest.mark.parametrize("slices", [(), (1,), (3,)])
def test_every_slice_is_made_consistent_with_its_own(slices):
    low, guess = pair(slices)
    data = {"image": torch.from_numpy(low.copy()), "pred": torch.from_numpy(guess.copy()), "name": "a"}
    result = Consistentd("pred", ref_key="image", operator=OPERATOR, levels=1400)(data)
    assert result["pred"].shape == guess.shape
    assert result["pred"].dtype == torch.float32
    for index in np.ndindex(slices):
        expected = DataConsistency(DEGRADATION)(guess[(0, ..., *index)].copy(), low[(0, ..., *index)])
        np.testing.assert_array_equal(result["pred"][(0, ..., *index)].numpy(), expected)
    assert result["name"] == "a"
    # What came in is still what it was.
    np.testing.assert_array_equal(data["image"], low)
    np.testing.assert_array_equal(data["pred"], guess)


@pytest.mark.parametrize(
    ("limits", "levels", "expected"),
    [
        (None, 255, (0.0, 1.0)),
        (None, 1400, None),
        ([-0.25, 1.5], 255, (-0.25, 1.5)),
        ([-np.inf, np.inf], 255, None),
    ],
)
def test_the_limits_are_those_of_the_storage_else_those_of_the_levels(limits, levels, expected):
    low, guess = pair(())
    image = MetaTensor(torch.from_numpy(low), meta={} if limits is None else {LIMITS: limits})
    data = {"image": image, "pred": torch.from_numpy(guess)}
    result = Consistentd("pred", ref_key="image", operator=OPERATOR, levels=levels)(data)["pred"][0].numpy()
    project = DataConsistency(DEGRADATION)
    np.testing.assert_array_equal(result, project(guess[0].copy(), low[0], limits=expected))
    if expected is not None:
        assert not np.array_equal(result, project(guess[0].copy(), low[0]))


def test_a_key_that_is_not_there_and_an_operator_nobody_knows_are_refused():
    with pytest.raises(KeyError, match="pred"):
        Consistentd("pred", ref_key="image", operator=OPERATOR)({"image": torch.zeros(1, 8, 8)})
    with pytest.raises(ValueError, match="expected KERNEL_xSCALE"):
        Consistentd("pred", ref_key="image", operator="guesswork")
