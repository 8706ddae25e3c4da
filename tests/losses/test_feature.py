"""Distances in the features of a recognition network, whose weights the user brings."""

import numpy as np
import pytest
import torch
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.losses.perceptual import FeatureLoss, Features, PerceptualLoss, _squeezenet, _vgg, load_backbone

from tests.random_backbone import write_squeezenet


@pytest.fixture
def squeezenet(tmp_path):
    return write_squeezenet(tmp_path / "squeezenet.npz")


def test_the_backbone_is_recognised_by_its_arrays(squeezenet, tmp_path):
    assert load_backbone(squeezenet)[0] == "squeezenet1_0"
    torch.save({f"features.{key}": value for key, value in _vgg().state_dict().items()}, tmp_path / "vgg.pth")
    assert load_backbone(tmp_path / "vgg.pth")[0] == "vgg19"


def test_the_networks_have_the_published_numbers_of_weights():
    # 1,248,424 and 143,667,240 with the classifiers, which have 513,000 and 123,642,856 of them.
    assert sum(value.numel() for value in _squeezenet().parameters()) == 1_248_424 - 513_000
    assert sum(value.numel() for value in _vgg().parameters()) == 143_667_240 - 123_642_856


def test_features_come_from_three_sizes_of_grid(squeezenet):
    features = Features(squeezenet)(torch.rand(2, 1, 64, 64))
    assert [tuple(each.shape) for each in features] == [(2, 96, 29, 29), (2, 256, 14, 14), (2, 512, 7, 7)]


def test_equal_images_have_no_distance_and_others_have_one_that_can_be_lowered(squeezenet):
    loss = FeatureLoss(str(squeezenet))
    target = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    assert float(loss(target, target)) == 0.0
    pred = (target.flip(3)).requires_grad_(True)
    first = loss(pred, target)
    (gradient,) = torch.autograd.grad(first, pred)
    assert loss(pred - 0.1 * gradient / gradient.norm(), target).item() < first.item()


def test_the_backbone_is_never_trained(squeezenet):
    assert not any(value.requires_grad for value in FeatureLoss(str(squeezenet)).parameters())


def test_grey_levels_and_features_are_added_with_the_weight(squeezenet):
    features = FeatureLoss(str(squeezenet))
    pred, target = torch.rand(1, 1, 48, 48), torch.rand(1, 1, 48, 48)
    expected = (pred - target).abs().mean() + 0.5 * features(pred, target)
    torch.testing.assert_close(PerceptualLoss(features, 0.5)(pred, target), expected)


def test_without_a_backbone_the_advice_is_to_pass_one():
    with pytest.raises(InputError, match="in features needs a recognition network: pass its weights with --backbone"):
        FeatureLoss("")


def test_a_file_that_is_no_weights_is_refused(tmp_path):
    for name in ("broken.npz", "broken.pth"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(InputError, match=f"{name}: cannot be read as weights .*squeezenet1_0"):
            load_backbone(tmp_path / name)
    with pytest.raises(InputError, match=r"missing.npz: cannot be read as weights"):
        load_backbone(tmp_path / "missing.npz")


def test_weights_of_another_network_are_refused(tmp_path, squeezenet):
    np.savez(tmp_path / "other.npz", weight=np.zeros(3))
    with pytest.raises(InputError, match="other.npz: holds the weights of another network"):
        load_backbone(tmp_path / "other.npz")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="list.pth: holds no network's weights"):
        load_backbone(tmp_path / "list.pth")
    with np.load(squeezenet) as arrays:
        part = {key: arrays[key] for key in arrays.files if not key.startswith("features.12")}
    np.savez(tmp_path / "part.npz", **part)
    with pytest.raises(InputError, match="part.npz: does not belong to squeezenet1_0"):
        load_backbone(tmp_path / "part.npz")
