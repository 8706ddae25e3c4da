"""A distance in features that is nobody's judgement, and says so."""

import pytest
import torch
from monai_sr_bundle.losses.perceptual import Features
from monai_sr_bundle.metrics.texture import FeatureDistance

from tests.random_backbone import write_squeezenet


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return write_squeezenet(tmp_path_factory.mktemp("backbone") / "squeezenet.npz")


@pytest.fixture
def images():
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(3)).round(decimals=2)


def test_it_is_the_square_distance_of_unit_vectors(backbone, images):
    other = images.flip(2)
    features = Features(backbone)
    expected = torch.zeros(2)
    with torch.no_grad():
        for one, two in zip(features(images), features(other), strict=True):
            cosine = torch.nn.functional.cosine_similarity(one, two, dim=1)
            expected += (2 - 2 * cosine).mean(dim=(1, 2))
    distance = FeatureDistance(backbone, levels=10**6)(images, other)[:, 0]
    torch.testing.assert_close(distance, expected, rtol=1e-3, atol=1e-4)


def test_the_order_of_comparisons_changes_nothing(backbone, images):
    metric, other = FeatureDistance(backbone), images.flip(2)
    first = metric(other, images)
    assert not torch.equal(metric(images.flip(3), other), first)
    assert torch.equal(metric(other, images), first)
