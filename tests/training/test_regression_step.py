"""A regression with more weight in boxes, and with a mask of what was drawn into its input."""

import shutil

import numpy as np
import pytest
import torch
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.inferers.processes import RectifiedFlow
from monai_sr_bundle.losses.fidelity import FidelityLoss
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.edsr import EDSR, MDSR
from monai_sr_bundle.networks.residual_flow import ResidualFlow
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.training.step import VISIBLE, RegressionObjective
from monai_sr_bundle.training.training import open_training, train
from monai_sr_bundle.training.weights import start_from

from tests.changed_bundles import copied, with_facts
from tests.drawn_data import write_radiographs, write_volumes
from tests.networks.measured import trained_like
from tests.tiny_flow import TINY, tiny_flow
from tests.training.steps import run_training_steps

QUICK = {
    "batch_size": 2, "validations": 1, "save_interval": 1, "progress": False, "patch_size": 8, "statistics_from": 1,
}  # fmt: skip


def small(**options):
    torch.manual_seed(0)
    return trained_like(ResidualFlow(4, **TINY, **options))


def batch_of():
    generator = torch.Generator().manual_seed(1)
    label = torch.rand(2, 1, 32, 32, generator=generator)
    dirty, boxes = label.clone(), torch.zeros(2, 1, 32, 32)
    dirty[0, 0, 5, 7] += 0.5
    dirty[1, 0, 8:20, 8:12] += 0.5
    dirty[0, 0, 20, 20] += 0.5 * VISIBLE
    boxes[0, 0, 4:12, 10:30] = 1.0
    return {"image": torch.rand(2, 1, 8, 8, generator=generator), "label": label, "dirty": dirty, "mask": boxes}


def trained(network, batches, step, learning_rate=0.0):
    """Return the outputs of one training step per batch; the loss of the trainer is L1 at first."""
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    return run_training_steps(network, batches, step, optimizer, FidelityLoss())


def loss_of(network, **weights):
    return trained(network, [batch_of()], RegressionObjective(network, FidelityLoss(), **weights))[0]["loss"]


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_a_pixel_in_a_box_weighs_1_and_the_box_weight(weight):
    network, batch = small(), batch_of()
    with torch.inference_mode():
        error = (network(batch["image"]) - batch["label"]).abs().numpy()
    inside = batch["mask"].numpy() == 1
    by_hand = (error[~inside].sum() + (1 + weight) * error[inside].sum()) / error.size
    assert loss_of(network, box_weight=weight) == pytest.approx(by_hand, rel=1e-5)
    assert by_hand > 1.01 * error.mean()


def test_harm_is_what_is_worse_than_bicubic_interpolation():
    network, batch = small(), batch_of()
    loss = FidelityLoss(switch_at=0.0, harm=3.0)
    objective = RegressionObjective(network, loss)
    returned = objective(batch["image"], batch["label"], batch)
    by_hand = loss(returned["pred"], batch["label"], baseline=Bicubic(4)(batch["image"]))
    torch.testing.assert_close(returned["loss"], by_hand)
    assert by_hand > FidelityLoss(switch_at=0.0)(returned["pred"], batch["label"])


def test_without_weights_the_step_is_that_of_monai():
    losses, states = [], []
    for make_step in (lambda network: RegressionObjective(network, FidelityLoss()), lambda network: None):
        network = small()
        losses.append([output["loss"] for output in trained(network, [batch_of()] * 3, make_step(network), 1e-3)])
        states.append(network.state_dict())
    assert losses[0] == losses[1]
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=0, atol=0)


def test_the_mask_is_asked_for_every_cell_that_a_visible_mark_touches():
    network, batch = small(mask=True), batch_of()
    with torch.inference_mode():
        pred, logits = network.with_mask(batch["image"])
    marked = np.zeros((2, 1, 8, 8), dtype=bool)
    marked[0, 0, 1, 1] = True  # and not the one that is too faint to be seen
    marked[1, 0, 2:5, 2] = True
    probable = 1 / (1 + np.exp(-logits.double().numpy()))
    entropy = np.where(marked, -4 * np.log(probable), -np.log(1 - probable)).mean()
    plain = (pred - batch["label"]).abs().mean().item()
    assert loss_of(network, mask_weight=0.5, mask_balance=4.0) == pytest.approx(plain + 0.5 * entropy, rel=1e-5)
    assert loss_of(network, mask_weight=0.0) == pytest.approx(plain, rel=1e-6)
    assert loss_of(small(), mask_weight=0.5) == loss_of(small())  # there is no mask to be asked


def test_a_flow_does_not_outlive_the_expected_image_it_was_trained_on():
    network = small()
    network.process.copy_(torch.tensor([0.5, 0.0175]))
    trained(network, [batch_of()], RegressionObjective(network, FidelityLoss()), learning_rate=1e-3)
    with pytest.raises(BundleError, match="the weights were trained for no flow yet, but model.yaml states"):
        RectifiedFlow.of(find_bundle("chest_xray_residual_flow_x4").facts["diffusion"]).check_fingerprint(
            network.process.numpy()
        )


def test_a_box_weight_for_a_loss_without_weights_is_refused():
    with pytest.raises(InputError, match="box_weight is 2, but L1Loss weights no pixels. Train this stage with box_we"):
        RegressionObjective(small(), torch.nn.L1Loss(), box_weight=2.0)


def test_marks_are_learnt_with_their_mask_by_the_workflow(data, tmp_path):
    folder = tiny_flow(tmp_path, sets=["drawn"], reduce=1, artifacts=True)
    with_facts(folder, network_def={**open_bundle(folder).facts["network_def"], "mask": True})
    paths = [
        train(str(folder), data, tmp_path / f"{weight}", iterations=6, mask_weight=weight, **QUICK)
        for weight in (0.0, 1.0)
    ]
    without, learnt = (torch.load(path, weights_only=True) for path in paths)
    assert not torch.equal(learnt["mask.weight"], without["mask.weight"])


def test_boxes_are_weighted_by_the_workflow_and_needed_for_it(data, tmp_path):
    folder = tiny_flow(tmp_path, sets=["drawn"], reduce=1)
    data = shutil.copytree(data, tmp_path / "data")
    with pytest.raises(InputError, match="none of the 3 training images has a box, which box_weight or box_repeats"):
        train(str(folder), data, tmp_path / "none", box_weight=1.0, iterations=6, **QUICK)
    lines = ["image,finding,x_min,y_min,x_max,y_max", *(f"{index:03}.png,Nodule,8,8,60,60" for index in range(3))]
    (data / "drawn" / "boxes.csv").write_text("\n".join(lines))
    paths = [
        train(str(folder), data, tmp_path / f"{weight}", iterations=6, box_weight=weight, **QUICK)
        for weight in (0.0, 3.0)
    ]
    without, weighted = (torch.load(path, weights_only=True) for path in paths)
    assert not torch.equal(weighted["tail.weight"], without["tail.weight"])


def test_films_are_trained_on_at_all_scales_from_the_weights_of_one(tmp_path):
    films = write_radiographs(tmp_path / "films", size=96)
    changes = {
        "network_def": {
            "_target_": "monai_sr_bundle.networks.residual_flow.FilmFlow",
            "channels": 4,
            "dilations": [1, 2],
            "flow_channels": 4,
            "flow_blocks": 1,
        },
        "films": [["drawn", 1, 1.0]],
        "validation_films": [["drawn", 1]],
    }
    bundle = open_bundle(with_facts(copied(tmp_path, "chest_xray_blind"), sets=["drawn"], **changes))
    start = tmp_path / "single.pt"
    torch.save(EDSR(scale=4, channels=4, blocks=1).state_dict(), start)
    options = {**QUICK, "scale_shares": [0.3, 0.3, 0.4]}  # all scales come in a short run
    weights = train(bundle, films, tmp_path / "run", stage="films", start=start, iterations=24, **options)
    trained, begun = torch.load(weights, weights_only=True), start_from(MDSR(channels=4, dilations=(1, 2)), str(start))
    changed = {name for name, value in begun.state_dict().items() if not torch.equal(value, trained[name])}
    assert {"head.weight", "tails.x2.weight", "tails.x3.weight", "tails.x4.weight"} <= changed
    training = open_training(bundle, films, tmp_path / "again", stage="films", start=start, **QUICK)
    training.run(iterations=2)
    assert training.validate(average=True)["psnr"] > 10


def test_scans_are_trained_on_with_neighbours_from_the_weights_of_a_single_slice(tmp_path):
    scans = write_volumes(tmp_path / "scans", size=64, slices=4, splits=("train", "val"))
    network = {"channels": 4, "dilations": [1, 2], "slices": 3}
    changes = {
        "network_def": {"_target_": "monai_sr_bundle.networks.edsr.MDSR", **network},
        "training": ["train_regression", "train_scans"],
        "scans": [["ct", 1, 1.0]],
        "validation_scans": [["ct", 1]],
    }
    bundle = open_bundle(with_facts(copied(tmp_path, "chest_ct_edsr_x4"), slices=3, **changes))
    start = tmp_path / "single.pt"
    torch.save(EDSR(scale=4, channels=4, blocks=1).state_dict(), start)
    weights = train(bundle, scans, tmp_path / "run", stage="scans", start=start, iterations=24, **QUICK)
    trained, begun = torch.load(weights, weights_only=True), start_from(MDSR(**network), str(start))
    changed = {name for name, value in begun.state_dict().items() if not torch.equal(value, trained[name])}
    assert {"head.weight", "tails.x2.weight", "tails.x3.weight", "tails.x4.weight"} <= changed
    assert trained["head.weight"][:, [0, 2]].abs().amax(dim=(0, 2, 3)).min() > 0
