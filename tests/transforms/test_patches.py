import numpy as np
import pytest
import torch
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.transforms.patches import RandPairedPatchd


@pytest.fixture
def pair():
    low = torch.arange(12 * 10, dtype=torch.float32).reshape(1, 12, 10)
    return {"image": low, "label": low.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2), "name": "kept"}


def test_both_patches_show_the_same_place(pair):
    crop = RandPairedPatchd("image", "label", size=5, scale=4).set_random_state(seed=3)
    corners = set()
    for _ in range(50):
        patch = crop(pair)
        assert patch["image"].shape == (1, 5, 5)
        np.testing.assert_array_equal(patch["label"][:, ::4, ::4], patch["image"])
        assert patch["name"] == "kept"
        corners.add(float(patch["image"][0, 0, 0]))
    assert len(corners) > 20


def test_what_lies_beside_is_cut_at_the_same_place_as_the_target(pair):
    pair |= {"mask": pair["label"] + 1000, "other": -pair["label"], "left": pair["label"]}
    crop = RandPairedPatchd("image", "label", size=5, scale=4, other_keys=["mask", "other"]).set_random_state(seed=3)
    for _ in range(10):
        patch = crop(pair)
        torch.testing.assert_close(patch["mask"] - 1000, patch["label"])
        torch.testing.assert_close(-patch["other"], patch["label"])
        assert patch["left"].shape == (1, 48, 40)


def test_what_lies_beside_changes_no_place(pair):
    pair["mask"] = pair["label"]
    corners = [
        RandPairedPatchd("image", "label", 5, 4, keys).set_random_state(seed=3)(pair)["image"][0, 0, 0]
        for keys in ((), ("mask",))
    ]
    assert corners[0] == corners[1]


def test_a_patch_as_large_as_the_image_is_the_image(pair):
    crop = RandPairedPatchd("image", "label", size=10, scale=4)
    assert crop(pair)["image"].shape == (1, 10, 10)


def test_an_image_smaller_than_the_patch_is_refused(pair):
    with pytest.raises(InputError, match=r"^small\.png: 12x10 .* the patch of 11\. Lower patch_size"):
        RandPairedPatchd("image", "label", size=11, scale=4)(pair | {"path": "/data/ward/small.png"})


def test_a_pair_of_another_factor_is_refused(pair):
    with pytest.raises(ValueError, match="sizes are 12x10 and 48x40, expected a factor of 2"):
        RandPairedPatchd("image", "label", size=5, scale=2)(pair)
