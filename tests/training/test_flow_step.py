"""Learning the texture: only the flow moves, and a run of both stages makes the weights of a bundle."""

import csv
import json

import numpy as np
import pytest
import torch
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.engine.monai_inferer import TiledInferer
from monai_sr_bundle.inferers.processes import RectifiedFlow
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.edsr import MDSR
from monai_sr_bundle.networks.residual_flow import ResidualFlow
from monai_sr_bundle.packing.release import release
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.training.generative_step import FlowObjective, FlowValidation
from monai_sr_bundle.training.training import open_training, train
from monai_sr_bundle.transforms.pairs import RandDegradedd

from tests.drawn_data import write_radiographs
from tests.networks.measured import trained_like
from tests.tiny_flow import FLOW_BUNDLE, TINY, film_flow, tiny_flow
from tests.training.steps import run_training_steps, run_validation_steps

FACTS = {"noise": 0.5, "residual_std": 0.1, "steps": 2, "samples": 1, "texture": 0.0}
QUICK = {
    "batch_size": 2, "validations": 2, "save_interval": 1, "progress": False, "patch_size": 8, "statistics_from": 1,
}  # fmt: skip


def small():
    torch.manual_seed(0)
    return ResidualFlow(4, **TINY)


def of_flow(network):
    network.process.copy_(torch.from_numpy(RectifiedFlow.of(FACTS).fingerprint()))
    return network


def batch_of(count=2, side=8, seed=1):
    """Pairs whose residual is a pattern that is always the same."""
    image = torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed))
    pattern = torch.ones(1, 1, 4 * side, 4 * side)
    pattern[..., ::2] = -1.0
    return {"image": image, "label": Bicubic(4)(image) + 0.1 * pattern}


def trained(network, batches, step, learning_rate=0.0):
    return run_training_steps(network, batches, step, torch.optim.Adam(network.parameters(), lr=learning_rate))


def validated(network, batches):
    inferer = TiledInferer("flow", 4, network.receptive_radius, 1000, "area_x4", diffusion=FACTS | {"texture": 1.0})
    return run_validation_steps(network, batches, FlowValidation(FACTS), inferer)


def test_a_pattern_is_learned_by_the_flow_alone():
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    losses = [output["loss"] for output in trained(network, [batch_of()] * 60, FlowObjective(network, FACTS), 5e-3)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"process"} | {name for name, _ in network.named_parameters() if name.startswith("flow.")}


def test_the_first_loss_is_that_of_standing_still():
    """An untrained flow has no velocity, so its error is residual minus noise: their variances add."""
    network = small()
    torch.nn.init.zeros_(network.tail.weight)  # the expected image is the interpolation
    (output,) = trained(network, [batch_of(16)], FlowObjective(network, FACTS))
    assert output["loss"] == pytest.approx(1.0 + 0.5**2, rel=0.02)


def test_the_loss_in_boxes_is_added_and_an_empty_mask_costs_nothing():
    def loss(weight, mask):
        batch = batch_of() | {"mask": mask}
        network = trained_like(small())
        return trained(network, [batch], FlowObjective(network, FACTS, box_weight=weight))[0]["loss"]

    everywhere, nowhere = torch.ones(2, 1, 32, 32), torch.zeros(2, 1, 32, 32)
    plain = loss(0.0, everywhere)
    assert loss(0.5, everywhere) == pytest.approx(1.5 * plain, rel=1e-5)
    assert loss(0.5, nowhere) == pytest.approx(plain, rel=1e-6)
    half = everywhere.clone()
    half[..., 16:] = 0.0
    both = (loss(1.0, half) - plain) + (loss(1.0, 1.0 - half) - plain)
    assert both == pytest.approx(2 * plain, rel=1e-4)


def test_a_validation_is_the_same_twice_and_draws_the_whole_texture():
    network = of_flow(trained_like(small()))
    batches = [batch_of(1, seed=1), batch_of(1, seed=1)]
    first = validated(network, batches)
    torch.manual_seed(77)
    second = validated(network, batches)
    for one, other in zip(first, second, strict=True):
        assert one["loss"] == other["loss"] > 0
        torch.testing.assert_close(one["pred"], other["pred"], rtol=0, atol=0)
    assert first[0]["loss"] != first[1]["loss"]  # another noise for every image
    with torch.inference_mode():
        assert (first[0]["pred"] - network(batches[0]["image"])).abs().max() > 1e-2


def test_what_lowers_the_loss_of_training_lowers_that_of_a_validation():
    network, batch = of_flow(small()), batch_of(1, 16)
    before = validated(network, [batch])[0]["loss"]
    trained(network, [batch] * 40, FlowObjective(network, FACTS), 5e-3)
    assert validated(network, [batch])[0]["loss"] < 0.7 * before


def test_both_stages_make_weights_that_are_released(data, tmp_path, monkeypatch):
    degraded = []
    mix = RandDegradedd.__call__
    monkeypatch.setattr(RandDegradedd, "__call__", lambda self, item: degraded.append(self.mixture) or mix(self, item))
    diffusion = {**find_bundle(FLOW_BUNDLE).facts["diffusion"], "residual_std": 0.1}
    folder = tiny_flow(tmp_path, sets=["drawn"], reduce=1, diffusion=diffusion)
    first = train(str(folder), data, tmp_path / "first", iterations=4, **QUICK)
    assert set(degraded) == {0.2}
    degraded.clear()
    options = {**QUICK, "stage": "flow", "start": first, "val_steps": 2, "learning_rate": 0.005}
    best = train(str(folder), data, tmp_path / "second", iterations=6, **options)
    assert degraded == []  # texture is learnt for the stated loss of resolution
    rows_of_first, rows = (
        list(csv.DictReader((tmp_path / stage / "validation.csv").open())) for stage in ("first", "second")
    )
    assert {row["metric"] for row in rows_of_first} == {"psnr"}
    assert {row["metric"] for row in rows} == {"loss", "texture_psnr", "log_spectral_distance"}
    before, after = (torch.load(path, weights_only=True) for path in (first, best))
    for name, value in before.items():
        if name.startswith("flow."):
            assert torch.isfinite(after[name]).all()
        elif name == "process":
            assert (value.any(), after[name].tolist()) == (False, pytest.approx([0.5, 0.1]))
        else:
            torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)  # an average of what stands still
    assert not torch.equal(after["flow.tail.weight"], before["flow.tail.weight"])
    record = json.loads((tmp_path / "second" / "training.json").read_text())
    assert [stage["stage"] for stage in record["stages"]] == ["regression", "flow"]
    losses = [float(row["value"]) for row in rows if row["metric"] == "loss"]
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)  # in units of the residual
    release(str(folder), best)
    assert list(open_bundle(folder).metadata["weights_sha256"]) == ["model.pt", "model.onnx", "velocity.onnx"]
    assert open_bundle(folder).metadata["training"]["stages"][1]["stage"] == "flow"


def test_a_flow_of_several_scales_is_trained_on_films_and_its_expected_image_stays(tmp_path):
    films = write_radiographs(tmp_path / "films", size=96)
    source = ["drawn", 1]
    folder = film_flow(tmp_path, sets=["drawn"], films=[[*source, 1.0]], validation_films=[source])
    torch.manual_seed(0)
    begun = trained_like(MDSR(channels=8, dilations=(1, 2))).state_dict()
    torch.save(begun, tmp_path / "model.pt")
    bundle, start = open_bundle(folder), tmp_path / "model.pt"
    options = {**QUICK, "scale_shares": [0.3, 0.3, 0.4]}  # all scales come in a short run
    training = open_training(bundle, films, tmp_path / "run", stage="flow", start=start, **options)
    before = training.weights()
    training.run(iterations=24)
    trained = training.weights()
    for name, value in begun.items():
        torch.testing.assert_close(trained[name], value, rtol=0, atol=0)
    moved = {name for name, value in trained.items() if not torch.equal(value, before[name])}
    assert moved == {name for name in trained if name.startswith("flow.")}
    np.testing.assert_array_equal(trained["process"], bundle.family.process.fingerprint())
    figures = training.validate()
    assert set(figures) == {"loss", "texture_psnr", "log_spectral_distance"}
