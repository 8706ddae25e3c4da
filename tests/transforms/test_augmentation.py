import numpy as np
import pytest
import torch
from monai.transforms import Compose

from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.transforms.augmentation import NAMES, augmentation
from monai_sr_bundle.transforms.pairs import Degraded

RATES = {
    "none": 0.0,
    "flip_turn_crop_cutout": 0.7,
    "resize_crop_zoom_rotate": 1.0,
    "rotated_copy": 0.5,
}


@pytest.fixture(scope="module")
def item():
    film = torch.from_numpy(draw_phantom(96).astype(np.float32) / 4 + 0.1)[None]
    film[:, 30:50, 40:70] = 1.0
    return {"label": film, "boxes_xyxy": np.array([[40, 30, 70, 50]], dtype=np.float32), "findings": ("Mass",)}


def test_every_set_has_a_stated_rate():
    assert set(RATES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_applied_at_its_rate(item, name):
    change = Compose(augmentation(name)).set_random_state(seed=1)
    changed = sum(not torch.equal(change(item)["label"], item["label"]) for _ in range(300))
    assert changed / 300 == pytest.approx(RATES[name], abs=0.07)


@pytest.mark.parametrize("name", NAMES)
def test_pairs_and_boxes_stay_aligned(item, name):
    steps = [*augmentation(name), Degraded("label", "image", operator="bicubic_antialias_x4")]
    change = Compose(steps).set_random_state(seed=2)
    for _ in range(25):
        pair = change(item)
        target = pair["label"][0].numpy()
        np.testing.assert_array_equal(pair["image"][0], Degradation("bicubic_antialias", 4)(target))
        if not (target == 0).any():  # a cutout may lie on the box
            rows, columns = np.nonzero(target > 0.5)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(pair["boxes_xyxy"][0], edges, atol=1.5)


def test_cutout_comes_with_the_other_changes_or_not_at_all(item):
    change = Compose(augmentation("flip_turn_crop_cutout")).set_random_state(seed=3)
    for _ in range(60):
        target = change(item)["label"]
        assert bool((target == 0).any()) != torch.equal(target, item["label"])


@pytest.mark.parametrize("name", ["flip", "", None])
def test_an_unknown_name_is_refused_with_the_names_there_are(name):
    with pytest.raises(InputError, match=f"augmentation is {name!r}, expected one of none, flip_turn_crop_cutout, "):
        augmentation(name)


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_changes_a_series_of_images_alike(item, name):
    first, second = (Compose(augmentation(name)).set_random_state(seed=4) for _ in range(2))
    for _ in range(10):
        torch.testing.assert_close(first(item)["label"], second(item)["label"], rtol=0, atol=0)
