"""The part that training steps share: which parameters are trained, and how images are shared out."""

import pytest
import torch
import torch.distributed as dist
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.networks.residual_flow import ResidualFlow
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.training.generative_step import FlowObjective
from monai_sr_bundle.training.step import RegressionObjective, share_gradients, share_images, share_validation

from tests.tiny_flow import FLOW_BUNDLE, TINY


def trained_parts(network):
    return {name.partition(".")[0] for name, value in network.named_parameters() if value.requires_grad}


def test_only_what_a_stage_trains_has_gradients_whatever_was_trained_before():
    network = ResidualFlow(4, **TINY, mask=True)
    RegressionObjective(network, torch.nn.L1Loss())
    assert trained_parts(network) == {"head", "body", "refine", "tail"}
    FlowObjective(network, find_bundle(FLOW_BUNDLE).facts["diffusion"])
    assert trained_parts(network) == {"flow"}
    RegressionObjective(network, torch.nn.L1Loss(), mask_weight=0.1)
    assert trained_parts(network) == {"head", "body", "refine", "tail", "mask"}


def test_a_single_process_shares_nothing():
    objective = RegressionObjective(ResidualFlow(4, **TINY), torch.nn.L1Loss())
    assert share_gradients(objective) is objective


def test_no_validation_image_is_left_out_or_counted_twice(monkeypatch):
    monkeypatch.setattr(dist, "get_world_size", lambda *_: 3)
    images = range(7)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(dist, "get_rank", lambda *_, rank=rank: rank)
        monkeypatch.setattr(dist, "is_available", lambda: True)
        shares += [images[index] for index in share_validation(images)]
    assert sorted(shares) == list(images)
    with pytest.raises(
        InputError, match="the number of validation images is 2, expected at least one for each of 3 processes"
    ):
        share_validation(range(2))


def test_patches_that_are_drawn_without_end_are_not_shared_out():
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            while True:
                yield torch.zeros(1)

    assert share_images(Endless()) is None
