import pytest
import torch
from monai_sr_bundle.losses.fidelity import FidelityLoss


def test_the_first_part_is_l1():
    pred, target = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(FidelityLoss()(pred, target), (pred - target).abs().mean())


def test_the_second_part_falls_by_the_same_for_every_halving_of_an_error():
    loss = FidelityLoss(switch_at=0.5, floor=0.0)
    loss.progress = 0.5
    target = torch.zeros(1, 1, 8, 8)
    large, middle, small = (loss(target + error, target).item() for error in (0.4, 0.2, 0.1))
    assert large - middle == pytest.approx(middle - small, rel=1e-4)
    assert large > middle


def test_a_solved_patch_does_not_pull():
    loss = FidelityLoss(switch_at=0.0)
    perfect = torch.zeros(1, 1, 8, 8, requires_grad=True)
    loss(perfect, torch.zeros(1, 1, 8, 8)).backward()
    assert perfect.grad.abs().max() == 0


def test_a_patch_worse_than_the_baseline_counts_more_by_how_much_it_is_worse():
    loss = FidelityLoss(switch_at=0.0, floor=0.0, harm=3.0)
    target = torch.zeros(2, 1, 8, 8)
    baseline = target + 0.2
    pred = target + torch.tensor([0.1, 0.4]).reshape(2, 1, 1, 1)  # the first better than the baseline, by half
    plain = FidelityLoss(switch_at=0.0, floor=0.0)(pred, target)
    excess = 0.01 * 3.0 * torch.tensor(4.0).log() / 2
    torch.testing.assert_close(loss(pred, target, baseline=baseline), plain + excess)
    torch.testing.assert_close(loss(pred, target), plain)


def test_weighted_pixels_count_as_often_in_both_parts():
    pred, target = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    weight = torch.ones(2, 1, 8, 8)
    weight[..., :3] = 4.0
    loss = FidelityLoss(switch_at=0.5)
    torch.testing.assert_close(loss(pred, target, weight), (weight * (pred - target).abs()).mean())
    loss.progress = 0.5
    squares = (weight * (pred - target).square()).mean(dim=(1, 2, 3))
    torch.testing.assert_close(loss(pred, target, weight), 0.01 * (squares + 2e-5).log().mean())
    torch.testing.assert_close(loss(pred, target, torch.ones_like(weight)), loss(pred, target), rtol=0, atol=0)
