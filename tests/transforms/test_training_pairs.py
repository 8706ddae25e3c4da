"""The transforms in the training workflow: steps that are cached, and batches that reach the network."""

import numpy as np
import pytest
import torch
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.shipped_bundles import configs_dir

from tests.drawn_data import write_radiographs
from tests.monai_workflow import open_workflow

REDUCED = Degradation("bicubic_antialias", 4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_radiographs(tmp_path_factory.mktemp("pairs"), size=96, counts=(("train", 2), ("val", 1)))
    # Boxes that differ in number must not stop a batch.
    boxes = "image,finding,x_min,y_min,x_max,y_max\ndrawn/images/train0.png,Mass,8,8,40,40\n"
    (root / "drawn" / "boxes.csv").write_text(boxes)
    return root


@pytest.fixture
def workflow(data):
    def parsed(**keys):
        facts = {"sets": ["drawn"], "reduce": 1, "batch_size": 2, "patch_size": 24, "progress": False, **keys}
        config_workflow = open_workflow(
            configs_dir() / "chest_xray_edsr_x4", "train_regression", dataset_dir=data, **facts
        )
        return config_workflow.parser.get_parsed_content

    return parsed


def test_without_augmentation_and_artifacts_the_pair_itself_is_cached(workflow):
    content = workflow()
    for split in ("train", "validate"):
        (first, *_) = content(f"{split}#dataset")._cache
        assert {"image", "label"} <= set(first)
        np.testing.assert_array_equal(first["image"][0], REDUCED(first["label"][0].numpy()))


ROTATED = {"_target_": "RandRotated", "keys": ["label"], "range_x": 0.3, "prob": 1.0, "padding_mode": "border"}


@pytest.mark.parametrize("augmentation", [[], [ROTATED]])
def test_a_batch_has_aligned_pairs_and_no_boxes(workflow, augmentation):
    # A patch as large as the image: what the degradation saw is what the network gets, but for a flip.
    (batch,) = workflow(augmentation=augmentation)("train#dataloader")
    assert {"image", "label", "name"} == set(batch)
    assert batch["label"].shape == (2, 1, 96, 96)
    for low, high in zip(batch["image"], batch["label"], strict=True):
        np.testing.assert_allclose(low[0], REDUCED(high[0].numpy()), atol=1.01 / 255)


def test_with_artifacts_the_input_is_dirty_and_the_target_clean(workflow):
    kinds = {"artifacts": False}, {"artifacts": True, "marked": 1.0}
    clean, dirty = (list(workflow(**kind)("train#dataset")) for kind in kinds)
    cached = [item["label"] for item in workflow()("train#dataset")._cache]
    for one, other, stored in zip(clean, dirty, cached, strict=True):
        assert any(torch.equal(other["label"], flipped) for flipped in (stored, stored.flip(2)))
        assert float((other["image"] - torch.from_numpy(REDUCED(other["label"][0].numpy()))).max()) > 0.1
        np.testing.assert_allclose(one["image"][0], REDUCED(one["label"][0].numpy()), atol=1.01 / 255)


def test_training_draws_other_marks_every_time_and_validation_the_same(workflow):
    content = workflow(artifacts=True, marked=1.0)
    train, validate = content("train#dataset"), content("validate#dataset")
    assert not torch.equal(train[0]["image"], train[0]["image"])
    assert torch.equal(validate[0]["image"], validate[0]["image"])
    second = workflow(artifacts=True, seed=7)("validate#dataset")
    assert torch.equal(validate[0]["image"], second[0]["image"])
    assert float((validate[0]["image"] - torch.from_numpy(REDUCED(validate[0]["label"][0].numpy()))).max()) > 0.1


def test_a_share_of_the_images_of_artifact_removal_stays_clean(workflow):
    dataset = workflow(artifacts=True, marked=0.5)("train#dataset")
    differences = [
        float((item["image"] - torch.from_numpy(REDUCED(item["label"][0].numpy()))).max())
        for _ in range(10)
        for item in dataset
    ]
    assert min(differences) <= 1.01 / 255
    assert max(differences) > 0.1


def test_transforms_of_monai_change_the_target_and_the_mask_of_its_boxes_alike(workflow):
    moved = {"_target_": "RandAxisFlipd", "keys": ["label", "mask"], "prob": 1.0}
    content = workflow(augmentation=[moved], box_weight=1.0, turns=0.0)
    cached = {item["name"]: item for item in content("train#dataset")._cache}
    for item in content("train#dataset"):
        label, mask = (cached[item["name"]][key] for key in ("label", "mask"))
        flips = [(), (1,), (2,), (1, 2)]  # the flip of the patch may take that of the augmentation back
        assert any(
            torch.equal(item["label"], label.flip(axes)) and torch.equal(item["mask"], mask.flip(axes))
            for axes in flips
        )
