import numpy as np
import pytest
import torch

from monai_sr_bundle.transforms.augmentation import RandGeometryd, resample

BOX = (40, 30, 70, 50)


def draw_rectangle(rows=96, columns=128, box=BOX):
    """A black image with a bright rectangle, and the rectangle as its box."""
    image = torch.zeros(1, rows, columns)
    x_min, y_min, x_max, y_max = box
    image[:, y_min:y_max, x_min:x_max] = 1.0
    return {"label": image, "boxes_xyxy": np.array([box], dtype=np.float32), "findings": ("Mass",)}


def bright_box(image, above=0.5):
    """The rectangle around what is bright."""
    rows, columns = (np.flatnonzero((image[0] > above).any(dim=1 - axis).numpy()) for axis in (0, 1))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


KINDS = {
    "flips": {"flip": 0.5},
    "turns": {"turns": True},
    "flips and turns": {"flip": 0.5, "turns": True},
    "crop": {"window": (0.8, 1.0)},
    "zoom": {"zoom": (0.8, 1.25)},
    "rotation": {"degrees": (0.0, 25.0)},
    "all": {"flip": 0.5, "turns": True, "window": (0.85, 1.0), "zoom": (0.9, 1.1), "degrees": (0.0, 15.0)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_box_stays_around_what_it_was_drawn_around(kind):
    move = RandGeometryd("label", **KINDS[kind]).set_random_state(seed=1)
    positions = set()
    for _ in range(40):
        moved = move(draw_rectangle())
        expected = bright_box(moved["label"], above=0.2)  # a corner that points up covers little of its last pixel
        np.testing.assert_allclose(moved["boxes_xyxy"][0], expected, atol=1.0)
        positions.add(tuple(expected))
    assert len(positions) > 2


@pytest.mark.parametrize("kind", ["flips", "turns", "flips and turns"])
def test_flips_and_turns_move_whole_pixels(kind):
    item = draw_rectangle()
    item["label"] = torch.rand(1, 96, 128, generator=torch.Generator().manual_seed(0))
    move = RandGeometryd("label", **KINDS[kind]).set_random_state(seed=2)
    x_min, y_min, x_max, y_max = BOX
    inside = np.sort(item["label"][0, y_min:y_max, x_min:x_max].flatten())
    for _ in range(20):
        moved = move(item)
        left, top, right, bottom = moved["boxes_xyxy"][0].astype(int)
        np.testing.assert_array_equal(np.sort(moved["label"][0, top:bottom, left:right].flatten()), inside)


def test_flipping_twice_gives_the_image_again():
    item = draw_rectangle()
    flip = RandGeometryd("label", flip=1.0)
    once = flip(item)
    assert bright_box(once["label"]) == [128 - 70, 96 - 50, 128 - 40, 96 - 30]
    twice = flip(once)
    torch.testing.assert_close(twice["label"], item["label"], rtol=0, atol=0)
    np.testing.assert_array_equal(twice["boxes_xyxy"], item["boxes_xyxy"])


def test_a_turned_image_changes_rows_with_columns():
    shapes = {
        tuple(RandGeometryd("label", turns=True).set_random_state(seed=s)(draw_rectangle())["label"].shape)
        for s in range(8)
    }
    assert shapes == {(1, 96, 128), (1, 128, 96)}


def test_a_rotation_by_twenty_degrees_turns_by_twenty_degrees_to_either_side():
    bar = draw_rectangle(128, 128, (30, 62, 98, 66))
    signs = []
    move = RandGeometryd("label", degrees=(20.0, 20.0)).set_random_state(seed=0)
    for _ in range(20):
        y, x = np.nonzero(move(bar)["label"][0].numpy() > 0.5)
        angle = np.rad2deg(np.arctan(np.polyfit(x, y, 1)[0]))
        assert abs(angle) == pytest.approx(20, abs=0.5)
        signs.append(np.sign(angle))
    assert set(signs) == {-1.0, 1.0}


def test_a_crop_shows_a_part_of_the_image_larger():
    ramp = torch.linspace(0, 1, 101)[:100].expand(1, 100, 100).clone()
    crop = RandGeometryd("label", window=(0.5, 0.5)).set_random_state(seed=0)
    for _ in range(10):
        moved = crop({"label": ramp})["label"]
        assert float(moved[0, 0, -1] - moved[0, 0, 0]) == pytest.approx(0.5, abs=0.02)
        assert 0 <= float(moved.min()) <= float(moved.max()) <= 0.99


def test_values_stay_in_the_range_of_the_image():
    image = torch.zeros(1, 40, 40)
    image[:, 10:30, 10:30] = 1.4  # bone in a CT lies beyond the window
    turn = np.array([[0.9, -0.2, 3], [0.2, 0.9, 1], [0, 0, 1]])
    moved = resample(image, turn)
    assert (float(moved.min()), float(moved.max())) == (0.0, pytest.approx(1.4))


def test_an_identity_and_a_shift_by_whole_pixels_are_exact():
    image = torch.rand(1, 24, 40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(resample(image, np.eye(3)), image, rtol=0, atol=1e-4)
    shift = np.array([[1, 0, 5], [0, 1, -2], [0, 0, 1]], dtype=float)
    torch.testing.assert_close(resample(image, shift)[:, :-2, 5:], image[:, 2:, :-5], rtol=0, atol=1e-4)


def test_a_box_out_of_sight_is_dropped_with_its_finding():
    item = draw_rectangle(box=(0, 0, 40, 40))
    crop = RandGeometryd("label", window=(0.6, 0.6)).set_random_state(seed=0)
    counts = {len(crop(item)["findings"]) for _ in range(30)}
    assert counts == {0, 1}
    assert all(len(moved["boxes_xyxy"]) == len(moved["findings"]) for moved in (crop(item) for _ in range(30)))


def test_the_item_given_is_not_changed():
    item = draw_rectangle()
    before = item["label"].clone()
    RandGeometryd("label", **KINDS["all"]).set_random_state(seed=5)(item)
    torch.testing.assert_close(item["label"], before, rtol=0, atol=0)
    np.testing.assert_array_equal(item["boxes_xyxy"], [BOX])
