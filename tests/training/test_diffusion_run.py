"""A diffusion bundle is trained from data to weights: in one stage, resumed, or with an autoencoder first."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.inferers.processes import DiffusionProcess
from monai_sr_bundle.training import generative_step
from monai_sr_bundle.training.generative_step import box_error
from monai_sr_bundle.training.training import train

from tests.tiny_bundle import tiny_bundle

QUICK = {"batch_size": 2, "validations": 2, "val_steps": 2, "save_interval": 1, "progress": False, "patch_size": 8}


def rows_of(folder):
    return list(csv.DictReader((folder / "validation.csv").open()))


def state_of(path):
    return torch.load(path, weights_only=True)


def test_training_writes_weights_and_a_resumed_run_goes_on(data, tmp_path):
    name, out = tiny_bundle(tmp_path, "chest_xray_sr3_x4"), tmp_path / "out"
    best = train(name, data, out, iterations=4, **QUICK)
    first = state_of(out / "last.pt")
    assert set(first) == {"model", "ema", "optimizer", "budget"}
    state = state_of(best)
    assert all(torch.isfinite(value).all() for value in state.values())
    process = DiffusionProcess.of(open_bundle(tmp_path / "chest_xray_sr3_x4").facts["diffusion"])
    np.testing.assert_array_equal(state["process"], process.fingerprint())
    rows = rows_of(out)
    assert {row["metric"] for row in rows} == {"loss", "psnr"}
    losses = [float(row["value"]) for row in rows if row["metric"] == "loss"]
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)  # in units of the residual

    train(name, data, out, iterations=6, resume=True, **QUICK)
    second = state_of(out / "last.pt")
    assert (first["budget"]["iterations"], second["budget"]["iterations"]) == (4, 6)
    assert second["budget"]["spent_seconds"] > first["budget"]["spent_seconds"]
    moments = [state["optimizer"]["state"][0]["step"] for state in (first, second)]
    assert moments == [state["budget"]["iterations"] for state in (first, second)]
    record = json.loads((out / "training.json").read_text())
    assert [(stage["stage"], stage["iterations"]) for stage in record["stages"]] == [
        ("diffusion", second["budget"]["iterations"])
    ]


def test_the_weights_kept_are_those_of_the_lowest_loss(data, tmp_path):
    """A run that is ruined at its end keeps what was there before: the rate is far too high to learn by."""
    name, out = tiny_bundle(tmp_path, "chest_xray_sr3_x4", learning_rate=0.5), tmp_path / "out"
    best = train(name, data, out, iterations=15, **QUICK | {"validations": 3})
    losses = [float(row["value"]) for row in rows_of(out) if row["metric"] == "loss"]
    last = state_of(out / "last.pt")["ema"]["module.unet.head.weight"]
    best_weight = state_of(best)["unet.head.weight"]
    assert torch.equal(best_weight, last) == (np.argmin(losses) == len(losses) - 1)


def test_boxes_and_a_bottleneck_are_options_of_the_bundle(data, tmp_path, monkeypatch):
    options = {"box_weight": 0.5, "bottleneck_weight": 0.1, "divergence_weight": 0.01}
    name = tiny_bundle(tmp_path, "chest_xray_sr3_x4", {"bottleneck": 4}, **options)
    shutil.copytree(data / "drawn", tmp_path / "data" / "drawn")
    boxes = "image,finding,x_min,y_min,x_max,y_max\n000.png,Mass,0,0,64,60\n"
    (tmp_path / "data" / "drawn" / "boxes.csv").write_text(boxes)
    masks = []
    monkeypatch.setattr(generative_step, "box_error", lambda error, mask: masks.append(mask) or box_error(error, mask))
    train(name, tmp_path / "data", tmp_path / "out", iterations=24, **QUICK)
    assert {mask.shape for mask in masks} == {(2, 16, 8, 8)}
    of_images = torch.cat(masks).mean(dim=(1, 2, 3))
    assert 0 < (of_images > 0.4).float().mean() < 0.7  # the one in three images that has a box
    assert ((of_images > 0.4) | (of_images == 0)).all()
    last = state_of(tmp_path / "out" / "last.pt")
    assert last["budget"]["iterations"] == len(masks)


def test_latent_diffusion_is_trained_in_two_stages_and_a_third_if_wanted(data, tmp_path, backbone):
    name = tiny_bundle(tmp_path, "chest_xray_latent_diffusion_x4")
    first = train(name, data, tmp_path / "first", iterations=30, stage="autoencoder", **QUICK)
    encoder = state_of(first)
    assert not encoder["process"].any()
    assert not encoder["latent_std"]
    assert {row["metric"] for row in rows_of(tmp_path / "first")} == {"psnr"}
    values = [float(row["value"]) for row in rows_of(tmp_path / "first")]
    assert max(values[1:]) > values[0] > 5

    best = train(name, data, tmp_path / "second", iterations=6, start=first, stage="diffusion", **QUICK)
    whole = state_of(best)
    assert whole["latent_std"] > 0
    process = DiffusionProcess.of(open_bundle(tmp_path / "chest_xray_latent_diffusion_x4").facts["diffusion"])
    np.testing.assert_array_equal(whole["process"], process.fingerprint())
    for key, value in encoder.items():
        if key.startswith("autoencoder"):
            torch.testing.assert_close(whole[key], value, rtol=0, atol=1e-6)  # an average of what stands still
    assert any(not torch.equal(whole[key], value) for key, value in encoder.items() if key.startswith("unet"))
    record = json.loads((tmp_path / "second" / "training.json").read_text())
    assert [stage["stage"] for stage in record["stages"]] == ["autoencoder", "diffusion"]
    curve = list(csv.DictReader((tmp_path / "second" / "training_curve.csv").open()))
    assert {row["metric"] for row in curve} == {"psnr", "loss"}

    # An optional third, with the distance in features of decoded images.
    with pytest.raises(InputError, match="pass the model.pt of the stage before it"):
        train(name, data, tmp_path / "third", iterations=6, stage="decoded", **QUICK)
    last = train(name, data, tmp_path / "third", iterations=6, start=best, stage="decoded", backbone=backbone, **QUICK)
    for key, value in state_of(last).items():
        if key.startswith("autoencoder"):
            torch.testing.assert_close(value, whole[key], rtol=0, atol=1e-6)
    assert any(not torch.equal(state_of(last)[key], value) for key, value in whole.items() if key.startswith("unet"))
    assert {row["metric"] for row in rows_of(tmp_path / "third")} == {"psnr", "feature_distance"}
