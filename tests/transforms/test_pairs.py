import numpy as np
import pytest
import torch
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import InputError, UsageError
from monai_sr_bundle.transforms.pairs import (
    MIXTURE,
    Degraded,
    LoadHighResd,
    MiddleSliced,
    RandDegradedd,
    RandSliceOrderd,
    boxes_repeated,
    pair_items,
)
from PIL import Image

from tests.drawn_data import write_radiographs, write_volumes


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    return write_radiographs(tmp_path_factory.mktemp("radiographs"))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return write_volumes(tmp_path_factory.mktemp("volumes"))


def test_a_radiograph_is_reduced_before_it_becomes_the_target(radiographs):
    item = pair_items(str(radiographs), "CXR", "train")[0]
    pair = LoadHighResd("label", window=(0, 255), reduce=2, multiple=4)(item)
    stored = np.asarray(Image.open(item["path"])) / 255.0
    np.testing.assert_allclose(pair["label"][0], Degradation("bicubic_antialias", 2)(stored), atol=1e-6)


def test_the_input_is_the_degraded_target(radiographs):
    item = pair_items(str(radiographs), "CXR", "train")[0]
    pair = LoadHighResd("label", window=(0, 255))(item)
    pair = Degraded("label", "image", operator="area_x4")(pair)
    np.testing.assert_array_equal(pair["image"][0], Degradation("area", 4)(pair["label"][0].numpy()))


def test_hounsfield_values_become_the_windows_units(volumes):
    item = pair_items(str(volumes), "CT", "test")[3]
    pair = LoadHighResd("label", window=(-1000, 400), levels=1400)(item)
    assert item["name"] == "test_003"
    # Slice 3 of the drawn volume is 15 HU below the first.
    first = LoadHighResd("label", window=(-1000, 400), levels=1400)(pair_items(str(volumes), "CT", "test")[0])
    # To one HU: each slice was rounded to whole HU on its own.
    np.testing.assert_allclose((pair["label"] - first["label"]) * 1400, 15, atol=1.001)


WINDOW = {"window": (-1000, 400), "levels": 1400}


@pytest.mark.parametrize(("index", "neighbours"), [(0, [0, 0, 1]), (4, [3, 4, 5]), (9, [8, 9, 9])])
def test_a_slice_brings_its_neighbours_which_lose_their_resolution_like_itself(volumes, index, neighbours):
    items = pair_items(str(volumes), "CT", "test")
    stack = LoadHighResd("label", **WINDOW, slices=3)(items[index])
    single = [LoadHighResd("label", **WINDOW)(items[each])["label"] for each in neighbours]
    np.testing.assert_array_equal(stack["label"], np.concatenate(single))
    low = Degraded("label", "image", operator="area_x4", levels=1400)(stack)["image"]
    expected = [Degradation("area", 4)(each[0].numpy(), levels=1400) for each in single]
    np.testing.assert_array_equal(low, np.stack(expected))
    assert not np.array_equal(low[0], low[2])


def test_a_radiograph_is_its_own_neighbour(radiographs):
    item = pair_items(str(radiographs), "CXR", "train")[0]
    image = LoadHighResd("label", window=(0, 255))(item)["label"]
    np.testing.assert_array_equal(
        LoadHighResd("label", window=(0, 255), slices=3)(item)["label"], image.repeat(3, 1, 1)
    )


@pytest.mark.parametrize("degrade", [Degraded, RandDegradedd])
def test_the_noise_of_a_slice_does_not_depend_on_how_many_neighbours_are_seen(degrade):
    high = np.random.default_rng(0).random((5, 48, 48), dtype=np.float32)

    def low(stack):
        noisy = degrade("label", "image", operator="area_x4+noise8")
        if degrade is RandDegradedd:
            noisy.set_random_state(seed=1)
        return noisy({"label": stack})["image"]

    np.testing.assert_array_equal(low(high)[2], low(high[2:3])[0])
    np.testing.assert_array_equal(low(high)[1:4], low(high[1:4]))
    still = low(np.repeat(high[:1], 3, axis=0))
    assert not np.array_equal(still[0], still[1])  # each slice has noise of its own


def test_the_target_is_the_middle_slice_alone_and_holds_no_other():
    label = torch.arange(12.0).reshape(3, 2, 2)
    middle = MiddleSliced("label")({"label": label, "name": "it"})
    np.testing.assert_array_equal(middle["label"], label[1:2])
    assert middle["label"].untyped_storage().nbytes() == 16
    assert middle["name"] == "it"


def test_the_order_of_slices_is_turned_round_in_half_of_the_inputs():
    transform = RandSliceOrderd("image").set_random_state(seed=0)
    first = [float(transform({"image": torch.arange(3.0)[:, None, None]})["image"][0]) for _ in range(400)]
    assert sorted(set(first)) == [0.0, 2.0]
    assert np.mean(first) == pytest.approx(1.0, abs=0.15)


def test_a_target_is_cropped_to_a_multiple_of_the_factor(volumes):
    item = pair_items(str(volumes), "CT", "test")[0]
    assert LoadHighResd("label", window=(-1000, 400), multiple=24)(item)["label"].shape == (1, 48, 48)


def test_the_top_of_the_training_patient_is_set_aside_for_validation(volumes):
    train = {item["name"] for item in pair_items(str(volumes), "CT", "train", validation_share=0.3)}
    val = {item["name"] for item in pair_items(str(volumes), "CT", "val", validation_share=0.3)}
    assert val == {"train_007", "train_008", "train_009"}
    assert train == {f"train_{index:03d}" for index in range(7)}


def test_validation_patients_of_the_manifest_come_before_a_share_of_the_training_patients(tmp_path):
    write_volumes(tmp_path, size=48, slices=4)
    manifest = tmp_path / "ct" / "manifest.csv"
    text = manifest.read_text()
    manifest.write_text(text.replace(",test,", ",val,"))
    val = pair_items(str(tmp_path), "CT", "val", validation_share=0.3)
    assert {item["path"] for item in val} == {str(tmp_path / "ct" / "test.nii.gz")}
    assert len(pair_items(str(tmp_path), "CT", "train", validation_share=0.3)) == 4


def test_volumes_of_one_slice_leave_none_for_validation_and_training_does_not_begin(tmp_path):
    write_volumes(tmp_path, size=48, slices=1)
    with pytest.raises(InputError, match="no validation patient, and the training patients have too few slices"):
        pair_items(str(tmp_path), "CT", "val", validation_share=0.2)


def test_a_limit_takes_images_spread_over_the_split(volumes):
    names = [item["name"] for item in pair_items(str(volumes), "CT", "test", limit=3)]
    assert names == ["test_000", "test_004", "test_009"]
    for limit in (0, -1, 2.5):
        with pytest.raises(UsageError, match=f"limit is {limit}, expected a whole number above 0"):
            pair_items(str(volumes), "CT", "test", limit=limit)


def test_noise_differs_from_image_to_image_but_not_from_call_to_call(radiographs):
    load = LoadHighResd("label", window=(0, 255))
    degraded = Degraded("label", "image", operator="area_x4+noise8")
    first, second = (load(item) for item in pair_items(str(radiographs), "CXR", "train")[:2])
    np.testing.assert_array_equal(degraded(first)["image"], degraded(first)["image"])
    clean = Degraded("label", "image", operator="area_x4")
    noise = [degraded(pair)["image"] - clean(pair)["image"] for pair in (first, second)]
    assert np.corrcoef(noise[0].flatten(), noise[1].flatten())[0, 1] < 0.2


def mixed(mixture, seed, count, operator="area_x4"):
    """Inputs of one image, as a training draws them, and the image."""
    high = np.random.default_rng(0).random((1, 48, 48), dtype=np.float32)
    degrade = RandDegradedd("label", "image", operator=operator, mixture=mixture).set_random_state(seed=seed)
    return [degrade({"label": high})["image"][0].numpy() for _ in range(count)], high[0]


def test_without_a_mixture_the_input_is_that_of_the_stated_operator():
    inputs, high = mixed(0.0, 1, 5)
    for low in inputs:
        np.testing.assert_array_equal(low, Degradation("area", 4)(high))
    noisy, high = mixed(0.0, 1, 2, "area_x4+noise4")
    assert not np.array_equal(*noisy)  # another noise every time


def test_a_mixture_draws_all_its_degradations_and_the_same_ones_for_a_seed():
    inputs, high = mixed(1.0, 1, 300)
    same_seed, other = mixed(1.0, 1, 300)[0], mixed(1.0, 2, 300)[0]
    assert all(np.array_equal(one, same) for one, same in zip(inputs, same_seed, strict=True))
    assert not all(np.array_equal(one, another) for one, another in zip(inputs, other, strict=True))
    # Of those without noise, which can be told by their pixels.
    clean = [Degradation.parse(name.format(scale=4)) for name in MIXTURE if "noise" not in name]
    counts = [sum(np.array_equal(low, degradation(high)) for low in inputs) for degradation in clean]
    assert len(counts) == len(MIXTURE) / 3 == 12
    assert min(counts) >= 2
    assert 80 < sum(counts) < 120


def test_the_share_of_a_mixture_is_the_one_that_is_stated():
    inputs, high = mixed(0.3, 3, 400, "nearest_x4")  # which no degradation of the mixture is
    count = sum(np.array_equal(low, Degradation("nearest", 4)(high)) for low in inputs)
    assert count == pytest.approx(280, abs=25)


def test_an_empty_split_is_refused(volumes):
    with pytest.raises(InputError, match="val"):
        pair_items(str(volumes), "CT", "val")


def write_boxes(root, folder, *lines):
    text = "image,slice_index,finding,x_min,y_min,x_max,y_max\n" + "".join(f"{line}\n" for line in lines)
    (root / folder / "boxes.csv").write_text(text)


def test_an_item_brings_the_boxes_of_its_image(tmp_path):
    write_radiographs(tmp_path, counts=(("train", 2),))
    write_boxes(
        tmp_path, "drawn", "drawn/images/train1.png,,Mass,10,20.5,30,40", "drawn/images/train1.png,,Nodule,0,0,128,128"
    )
    none, two = pair_items(str(tmp_path), "CXR", "train")
    np.testing.assert_array_equal(two["boxes_xyxy"], [[10, 20.5, 30, 40], [0, 0, 128, 128]])
    assert two["findings"] == ("Mass", "Nodule")
    assert none["boxes_xyxy"].shape == (0, 4)
    assert none["boxes_xyxy"].dtype == np.float32
    assert none["findings"] == ()


def test_a_box_of_a_volume_belongs_to_its_slice(tmp_path):
    write_volumes(tmp_path)
    write_boxes(tmp_path, "ct", "ct/train.nii.gz,3,Adenocarcinoma,10,20,30,40")
    items = pair_items(str(tmp_path), "CT", "train")
    assert {item["slice_index"] for item in items if len(item["boxes_xyxy"])} == {3}
    assert items[3]["findings"] == ("Adenocarcinoma",)


def test_a_box_of_a_volume_without_a_slice_is_refused(tmp_path):
    write_volumes(tmp_path)
    write_boxes(tmp_path, "ct", "ct/train.nii.gz,,Adenocarcinoma,10,20,30,40")
    with pytest.raises(InputError, match="train.nii.gz: the box of Adenocarcinoma in boxes.csv names no slice"):
        pair_items(str(tmp_path), "CT", "train")


def test_a_box_outside_its_image_is_refused_before_anything_is_read(tmp_path):
    write_radiographs(tmp_path, counts=(("train", 1), ("test", 1)))
    write_boxes(tmp_path, "drawn", "drawn/images/test0.png,,Mass,10,20,129,40")
    with pytest.raises(InputError, match="line 2: the box goes from x 10 to 129, outside its image of 128 x 128"):
        pair_items(str(tmp_path), "CXR", "train")


def test_the_boxes_follow_the_reduction_and_the_crop_of_the_target(tmp_path):
    write_radiographs(tmp_path, size=100, counts=(("train", 1),))
    write_boxes(
        tmp_path,
        "drawn",
        "drawn/images/train0.png,,Mass,20,30,60,50",
        "drawn/images/train0.png,,Effusion,80,0,100,100",
        "drawn/images/train0.png,,Nodule,96.5,10,100,20",
    )
    load = LoadHighResd("label", window=(0, 255), reduce=2, multiple=12)
    item = load(pair_items(str(tmp_path), "CXR", "train")[0])
    assert item["label"].shape == (1, 48, 48)  # 96 of 100 pixels, halved
    np.testing.assert_array_equal(item["boxes_xyxy"], [[10, 15, 30, 25], [40, 0, 48, 48]])
    assert item["findings"] == ("Mass", "Effusion")


def test_images_with_boxes_are_repeated_as_often_as_asked():
    plain, boxed = ({"name": name, "boxes_xyxy": np.zeros((count, 4))} for name, count in (("plain", 0), ("boxed", 2)))
    names = [item["name"] for item in boxes_repeated([plain, boxed], 3)]
    assert names == ["plain", "boxed", "boxed", "boxed"]
    assert boxes_repeated([plain], 1) == [plain]


@pytest.mark.parametrize(
    ("times", "needed", "message"),
    [
        (0, False, "box_repeats is 0, expected at least 1"),
        (2, False, r"none of the 1 training images has a box, .* box_repeats \(2\) needs.*box_weight 0"),
        (1, True, "none of the 1 training images has a box, which box_weight"),
    ],
)
def test_boxes_that_cannot_be_repeated_are_told(times, needed, message):
    with pytest.raises(InputError, match=message):
        boxes_repeated([{"boxes_xyxy": np.zeros((0, 4))}], times, needed=needed)
