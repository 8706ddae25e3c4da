import numpy as np
from monai_sr_bundle.transforms.augmentation import move_boxes

BOXES = np.array([[10, 20, 30, 60], [70, 0, 80, 10]], dtype=np.float32)
ITEM = {"boxes_xyxy": BOXES, "findings": ("Mass", "Nodule")}


def shift(x, y):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def test_a_shift_moves_every_box():
    moved = move_boxes(ITEM, shift(5, 2), 200, 100)
    np.testing.assert_array_equal(moved["boxes_xyxy"], BOXES + np.array([5, 2, 5, 2]))
    assert moved["boxes_xyxy"].dtype == np.float32
    assert moved["findings"] == ("Mass", "Nodule")


def test_a_box_that_leaves_the_image_goes_with_its_finding():
    moved = move_boxes(ITEM, shift(-31, 0), 100, 100)
    np.testing.assert_array_equal(moved["boxes_xyxy"], [[39, 0, 49, 10]])
    assert moved["findings"] == ("Nodule",)


def test_a_box_is_clipped_to_the_image():
    half = shift(25, 0)  # half of the second box leaves an image of 100 columns
    np.testing.assert_array_equal(move_boxes(ITEM, half, 100, 100)["boxes_xyxy"][1], [95, 0, 100, 10])


def test_a_turned_box_becomes_the_upright_rectangle_around_it():
    root = np.sqrt(0.5)
    turn = np.array([[root, -root, 50], [root, root, 0], [0, 0, 1]])
    box = {"boxes_xyxy": np.array([[0, 0, 10, 10]]), "findings": ("Mass",)}
    np.testing.assert_allclose(
        move_boxes(box, turn, 100, 100)["boxes_xyxy"], [[50 - 10 * root, 0, 50 + 10 * root, 20 * root]], rtol=1e-6
    )


def test_an_image_without_findings_keeps_an_empty_list():
    moved = move_boxes({"boxes_xyxy": np.zeros((0, 4), np.float32), "findings": ()}, np.eye(3), 10, 10)
    assert moved["boxes_xyxy"].shape == (0, 4)
    assert moved["findings"] == ()


def test_an_item_without_boxes_gets_none():
    assert move_boxes({"label": 1}, np.eye(3), 10, 10) == {}
