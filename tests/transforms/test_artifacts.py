import numpy as np
import pytest
import torch
from monai.transforms import Compose
from monai_sr_bundle.transforms.augmentation import DrawArtifactsd, RandArtifactsd, draw_artifacts
from monai_sr_bundle.transforms.pairs import Degraded
from scipy.ndimage import label


@pytest.fixture
def film():
    return np.random.default_rng(0).uniform(0.1, 0.5, (256, 256)).astype(np.float32)


@pytest.fixture
def item(film):
    return {"label": torch.from_numpy(film)[None], "name": "chest"}


def test_marks_cover_some_pixels(film):
    dirty = draw_artifacts(film, np.random.default_rng(1))
    assert dirty.dtype == np.float32
    assert 0.005 < (dirty != film).mean() < 0.1


def test_marks_are_bright_and_make_nothing_darker(film):
    film[100:] = 0.95  # the abdomen, brighter than most marks
    for seed in range(10):
        dirty = draw_artifacts(film, np.random.default_rng(seed))
        assert (dirty >= film).all()
        assert dirty.max() <= 1.0
        inner = dirty[:100][dirty[:100] > 0.69]  # whole pixels of a mark; the others are its soft edge
        assert len(inner) > 50


def test_what_lies_beyond_the_window_is_kept():
    bone = np.full((64, 64), 1.3, dtype=np.float32)
    np.testing.assert_array_equal(draw_artifacts(bone, np.random.default_rng(0)), bone)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_there_are_as_many_marks_as_stated(count):
    blank, touching = np.zeros((512, 512), dtype=np.float32), np.ones((3, 3))
    masks = [draw_artifacts(blank, np.random.default_rng(seed), (count, count)) > 0 for seed in range(25)]
    # Now and then one lies on another, or the border cuts a letter in two.
    assert np.median([label(mask, touching)[1] for mask in masks]) == count


def test_marks_grow_with_the_image():
    shares = [
        np.mean([(draw_artifacts(np.zeros((n, n)), np.random.default_rng(s)) > 0).mean() for s in range(20)])
        for n in (128, 512)
    ]
    # In small images soft edges take a larger share.
    assert 0.6 < shares[1] / shares[0] <= 1.0


def test_the_target_stays_clean_and_the_input_is_dirty(item):
    before = item["label"].clone()
    pair = Compose([DrawArtifactsd(), Degraded("dirty", "image", operator="area_x4")])(item)
    torch.testing.assert_close(pair["label"], before, rtol=0, atol=0)
    clean = Degraded("label", "image", operator="area_x4")(item)["image"]
    cells = (pair["dirty"] != pair["label"]).reshape(1, 64, 4, 64, 4).any(dim=4).any(dim=2)
    torch.testing.assert_close(pair["image"][~cells], clean[~cells], rtol=0, atol=0)
    assert float((pair["image"] - clean).max()) > 0.2


def test_an_image_is_always_marked_alike_and_other_images_otherwise(item):
    first, second = (DrawArtifactsd()(item)["dirty"] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first, DrawArtifactsd()({**item, "name": "another"})["dirty"])


def test_random_marks_differ_every_time_and_follow_the_state(item):
    draw = RandArtifactsd().set_random_state(seed=1)
    first, second = (draw(item)["dirty"] for _ in range(2))
    assert not torch.equal(first, second)
    torch.testing.assert_close(RandArtifactsd().set_random_state(seed=1)(item)["dirty"], first, rtol=0, atol=0)


def test_the_stated_share_of_the_images_is_marked_and_the_others_are_clean_copies(item):
    draw = RandArtifactsd(prob=0.4).set_random_state(seed=2)
    marked = sum(not torch.equal(draw(item)["dirty"], item["label"]) for _ in range(200))
    assert marked / 200 == pytest.approx(0.4, abs=0.09)
