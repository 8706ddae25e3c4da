import numpy as np
import torch
from monai_sr_bundle.transforms.augmentation import BoxMaskd


def mask(*boxes, rows=6, columns=8):
    item = {"label": torch.full((1, rows, columns), 0.5), "boxes_xyxy": np.array(boxes, np.float32).reshape(-1, 4)}
    return BoxMaskd("label")(item)["mask"]


def test_pixels_that_a_box_touches_are_in_the_mask():
    expected = torch.zeros(1, 6, 8)
    expected[:, 2:4, 1:5] = 1.0
    torch.testing.assert_close(mask((1, 2, 5, 4)), expected)
    torch.testing.assert_close(mask((1.9, 2.5, 4.1, 3.1)), expected)


def test_boxes_that_overlap_count_once():
    covered = mask((0, 0, 4, 3), (2, 1, 8, 6))
    assert covered.max() == 1.0
    assert covered.sum() == 4 * 3 + 6 * 5 - 2 * 2


def test_a_box_up_to_the_border_reaches_it():
    assert mask((5, 4, 8, 6))[0].sum() == 3 * 2
    assert mask((0, 0, 8, 6)).min() == 1.0


def test_an_image_without_boxes_has_an_empty_mask():
    empty = mask()
    assert empty.shape == (1, 6, 8)
    assert not empty.any()


def test_the_mask_is_of_numbers_whatever_the_image_and_lies_where_it_is_asked_for():
    item = {"film": torch.zeros(1, 4, 4, dtype=torch.uint8), "boxes_xyxy": np.array([[0, 0, 1, 1]]), "name": "kept"}
    item_with_mask = BoxMaskd("film", "boxes")(item)
    assert item_with_mask["boxes"].dtype == torch.float32
    assert item_with_mask["boxes"].sum() == 1
    assert item_with_mask["name"] == "kept"
    assert "boxes" not in item
