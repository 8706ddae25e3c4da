import numpy as np
import pytest
import torch
from scipy.ndimage import label

from monai_sr_bundle.transforms.augmentation import RandCutoutd


def test_rectangles_are_cut_and_nothing_else_changes():
    image = torch.rand(1, 100, 200, generator=torch.Generator().manual_seed(0)) + 0.1
    item = {"label": image, "boxes_xyxy": np.array([[0, 0, 200, 100]]), "findings": ("Mass",)}
    before = image.clone()
    cutout = RandCutoutd("label", count=(1, 1), side=(0.1, 0.2)).set_random_state(seed=0)
    for _ in range(20):
        changed = cutout(item)
        hole = (changed["label"] == 0)[0].numpy()
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        assert 10 <= len(rows) <= 20
        assert 20 <= len(columns) <= 40
        assert hole.sum() == len(rows) * len(columns)
        torch.testing.assert_close(changed["label"][0][~hole], image[0][~hole], rtol=0, atol=0)
        np.testing.assert_array_equal(changed["boxes_xyxy"], item["boxes_xyxy"])
    torch.testing.assert_close(image, before, rtol=0, atol=0)


def test_there_are_as_many_rectangles_as_stated():
    cutout = RandCutoutd("label", count=(2, 4), side=(0.02, 0.02), value=0.5).set_random_state(seed=3)
    counts = [label((cutout({"label": torch.zeros(1, 200, 200)})["label"][0] == 0.5).numpy())[1] for _ in range(60)]
    assert set(counts) == {2, 3, 4}


def test_the_stated_share_of_the_images_is_cut():
    cutout = RandCutoutd("label", prob=0.25).set_random_state(seed=1)
    hit = sum(bool((cutout({"label": torch.ones(1, 32, 32)})["label"] == 0).any()) for _ in range(400))
    assert hit / 400 == pytest.approx(0.25, abs=0.06)
