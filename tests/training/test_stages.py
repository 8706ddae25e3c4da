"""Training in stages: starting weights, additions of later stages, and the record of the whole."""

import csv
import json
import subprocess
import sys

import pytest
import torch
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.networks.vdsr import VDSR
from monai_sr_bundle.packing.pack import pack
from monai_sr_bundle.shipped_bundles import configs_dir, find_bundle
from monai_sr_bundle.training.training import stage_workflows, train

from tests.tiny_bundle import tiny_bundle
from tests.tiny_diffusion import LATENT_BUNDLE
from tests.tiny_flow import FLOW_BUNDLE

QUICK = {"batch_size": 2, "patch_size": 8, "validations": 2, "save_interval": 1, "progress": False, "val_limit": 1}
SRGAN, ESRGAN = "chest_xray_srgan_x4", "chest_xray_esrgan_x4"


@pytest.fixture(scope="module")
def srgan(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), SRGAN)


@pytest.fixture(scope="module")
def regression(srgan, data, tmp_path_factory):
    """Weights of the first stage."""
    return train(srgan, data, tmp_path_factory.mktemp("regression"), iterations=3, **QUICK)


@pytest.mark.parametrize("name", [SRGAN, ESRGAN])
def test_a_gan_goes_on_from_the_regression(data, tmp_path, backbone, name):
    bundle = tiny_bundle(tmp_path, name)
    start = train(bundle, data, tmp_path / "first", iterations=3, **QUICK)
    best = train(bundle, data, tmp_path / "gan", iterations=4, stage="gan", start=start, backbone=backbone, **QUICK)
    before, after = (torch.load(path, weights_only=True) for path in (start, best))
    assert any(not torch.equal(after[key], before[key]) for key in before)
    assert all(torch.isfinite(value.float()).all() for value in after.values())
    last = torch.load(tmp_path / "gan" / "last.pt", weights_only=True)
    assert {"discriminator", "discriminator_optimizer"} <= set(last)
    record = json.loads((tmp_path / "gan" / "training.json").read_text())
    assert [(stage["stage"], stage["iterations"]) for stage in record["stages"]] == [("regression", 3), ("gan", 4)]
    assert record["minutes"] == pytest.approx(sum(stage["minutes"] for stage in record["stages"]))
    curve = list(csv.DictReader((tmp_path / "gan" / "training_curve.csv").open()))
    assert [row["iteration"] for row in curve if row["metric"] == "psnr"] == ["2", "3", "2", "4"]
    assert {"psnr", "feature_distance", "log_spectral_distance"} <= {row["metric"] for row in curve}


def test_a_gan_is_resumed_with_its_discriminator(srgan, data, tmp_path, backbone, regression):
    options = {"stage": "gan", "start": regression, "backbone": backbone, **QUICK}
    train(srgan, data, tmp_path, iterations=2, **options)
    first = torch.load(tmp_path / "last.pt", weights_only=True)
    train(srgan, data, tmp_path, iterations=4, resume=True, **options)
    second = torch.load(tmp_path / "last.pt", weights_only=True)
    assert (first["budget"]["iterations"], second["budget"]["iterations"]) == (2, 4)
    steps = [state["discriminator_optimizer"]["state"][0]["step"] for state in (first, second)]
    assert steps == [2, 4]


def test_a_stage_is_resumed_without_naming_it_and_not_as_another(srgan, data, tmp_path, backbone, regression):
    train(srgan, data, tmp_path, iterations=2, stage="gan", start=regression, backbone=backbone, **QUICK)
    with pytest.raises(InputError, match="holds a training of the stage gan, not of regression. Resume it without"):
        train(srgan, data, tmp_path, iterations=3, stage="regression", resume=True, **QUICK)
    options = {"stage": "gan", "start": regression, "backbone": backbone}
    with pytest.raises(InputError, match="holds a training of the stage regression, not of gan"):
        train(srgan, data, regression.parent, iterations=4, resume=True, **options, **QUICK)
    train(srgan, data, tmp_path, iterations=3, resume=True, backbone=backbone, **QUICK)
    record = json.loads((tmp_path / "training.json").read_text())
    assert [(stage["stage"], stage["iterations"]) for stage in record["stages"]] == [("regression", 3), ("gan", 3)]


def test_a_training_of_another_network_is_not_resumed(srgan, data, tmp_path):
    train(srgan, data, tmp_path, iterations=1, **QUICK)
    with pytest.raises(BundleError, match=r"last\.pt: does not belong to chest_xray_edsr_x4 \(Missing key head.weight"):
        train(tiny_bundle(tmp_path / "other", "chest_xray_edsr_x4"), data, tmp_path, iterations=2, resume=True, **QUICK)


def test_a_first_stage_that_began_with_weights_is_resumed_without_naming_them(srgan, data, tmp_path, regression):
    train(srgan, data, tmp_path, iterations=1, start=regression, **QUICK)
    train(srgan, data, tmp_path, iterations=2, resume=True, **QUICK)
    record = json.loads((tmp_path / "training.json").read_text())
    assert [stage["iterations"] for stage in record["stages"]] == [3, 2]
    curve = list(csv.DictReader((tmp_path / "training_curve.csv").open()))
    assert [row["iteration"] for row in curve if row["metric"] == "psnr"][:3] == ["2", "3", "1"]


REGRESSION, DIFFUSION = "train_regression.yaml", "train_diffusion.yaml"
SLABS = [REGRESSION, "train_slabs.yaml"]
AUTOENCODER = [DIFFUSION, "train_autoencoder.yaml"]


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        (SRGAN, {None: [REGRESSION], "gan": [REGRESSION, "train_gan.yaml"]}),
        (FLOW_BUNDLE, {None: [REGRESSION], "regression": [REGRESSION], "flow": [REGRESSION, "train_flow.yaml"]}),
        ("chest_ct_throughplane", {None: SLABS, "slabs": SLABS}),
        ("chest_xray_sr3_x4", {None: [DIFFUSION], "diffusion": [DIFFUSION]}),
        (LATENT_BUNDLE, {None: AUTOENCODER, "autoencoder": AUTOENCODER, "diffusion": [DIFFUSION]}),
    ],
)
def test_each_stage_is_laid_over_the_one_before(name, stages):
    for stage, files in stages.items():
        paths = stage_workflows(find_bundle(name)) if stage is None else stage_workflows(find_bundle(name), stage)
        assert paths == [configs_dir() / "workflows" / file for file in files]


@pytest.mark.parametrize(
    ("name", "stage", "message"),
    [
        (SRGAN, "diffusion", f"{SRGAN} has no stage 'diffusion'; it is trained in regression, gan"),
        (LATENT_BUNDLE, "gan", f"{LATENT_BUNDLE} has no stage 'gan'; it is trained in autoencoder, diffusion"),
        ("chest_xray_sr3_x4", "autoencoder", "has no stage 'autoencoder'; it is trained in diffusion"),
        ("bicubic", None, "bicubic has nothing to train"),
        *(
            (name, stage, f"stage {stage} of {name} goes on with trained weights.*--start")
            for name, stage in ((SRGAN, "gan"), (FLOW_BUNDLE, "flow"), (LATENT_BUNDLE, "diffusion"))
        ),
    ],
)
def test_a_stage_without_a_workflow_or_weights_to_start_from_is_refused(data, tmp_path, name, stage, message):
    with pytest.raises((BundleError, InputError), match=message):
        train(name, data, tmp_path, iterations=1, stage=stage)


def test_a_pretraining_that_is_no_workflow_is_refused(tmp_path):
    name = tiny_bundle(tmp_path, LATENT_BUNDLE, pretraining="train_nothing")
    with pytest.raises(BundleError, match="has nothing to train: its model.yaml names no `training` workflow"):
        stage_workflows(find_bundle(name))


def test_a_gan_without_a_backbone_asks_for_one(srgan, data, tmp_path, regression):
    with pytest.raises(InputError, match="needs a recognition network: pass its weights with --backbone"):
        train(srgan, data, tmp_path, iterations=1, stage="gan", start=regression, **QUICK)


def test_weights_of_another_network_stop_the_run_before_it_trains(srgan, data, tmp_path):
    torch.save(VDSR().state_dict(), tmp_path / "vdsr.pt")
    with pytest.raises(BundleError, match="vdsr.pt: does not belong to the network SRResNet"):
        train(srgan, data, tmp_path / "out", iterations=1, start=tmp_path / "vdsr.pt", **QUICK)
    assert list((tmp_path / "out").glob("*.pt")) == []


def test_tensorboard_gets_loss_and_validation(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    bundle = tiny_bundle(tmp_path / "bundle", "chest_xray_edsr_x4")
    train(bundle, data, tmp_path, iterations=20, tensorboard=True, **QUICK)
    tags = set()
    for file in (tmp_path / "tensorboard").iterdir():
        tags |= set(EventAccumulator(str(file)).Reload().Tags()["scalars"])
    assert {"loss", "psnr"} <= tags


def test_without_tensorboard_the_option_says_how_to_get_it(data, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"tensorboard=true needs the package tensorboard.*\[tensorboard\]"):
        train("chest_xray_edsr_x4", data, tmp_path, iterations=1, tensorboard=True)


def test_keys_of_the_workflow_are_set_on_the_command_line(data, tmp_path):
    bundle, out = tiny_bundle(tmp_path / "bundle", "chest_xray_edsr_x4"), tmp_path / "run"
    settings = {"batch_size": 2, "patch_size": 8, "learning_rate": 0.002, "train#dataloader#shuffle": False}
    keys = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    words = ["train", bundle, "--data", str(data), "--out", str(out), "--iterations", "2"]
    assert main([*words, "--progress", "none", "--set", *keys]) == 0
    (stage,) = json.loads((out / "training.json").read_text())["stages"]
    assert stage["overrides"] == settings


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch_sise=2", "batch_sise: not a key of this training, expected one of those in model.yaml and train_re"),
        ("batch_size", "--set batch_size: expected KEY=VALUE"),
        ("tensorboard=True", "--set tensorboard=True: expected KEY=VALUE with a value as JSON has it"),
        ("seed=1", "--set seed: `monai-sr train` has an option for it"),
        ("output_dir=1", "--set output_dir: `monai-sr train` has an option for it"),
    ],
)
def test_a_key_that_cannot_be_set_is_refused(data, tmp_path, capsys, setting, message):
    words = ["train", "chest_xray_edsr_x4", "--data", str(data), "--out", str(tmp_path / "run"), "--set", setting]
    assert main(words) == 3
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("workers=-1", "workers -1 (num_workers option should be non-negative; use num_workers=0"),
        ("batch_size=0", "batch_size 0 (batch_size should be a positive integer value"),
        ("workers=1.5", "workers 1.5 ('float' object cannot be interpreted as an integer"),
    ],
)
def test_a_value_that_a_key_cannot_have_is_told_in_one_line(data, tmp_path, capsys, setting, message):
    words = ["train", "chest_xray_edsr_x4", "--data", str(data), "--out", str(tmp_path / "run"), "--progress", "none"]
    assert main([*words, "--set", setting]) == 3
    line = capsys.readouterr().err
    assert line.startswith(f"monai-sr: error: the training cannot be set up with {message}")
    assert line.endswith("). Correct the values, or leave them out.\n")
    assert line.count("\n") == 1


@pytest.mark.parametrize("name", ["chest_xray_edsr_x4", "chest_xray_blind"])
def test_a_patch_without_a_pixel_is_refused(data, tmp_path, capsys, name):
    words = ["train", name, "--data", str(data), "--out", str(tmp_path / "run"), "--progress", "none"]
    assert main([*words, "--set", "patch_size=0", 'films=[["drawn", 1, 1.0]]'][: None if "blind" in name else -1]) == 2
    assert capsys.readouterr().err == (
        "monai-sr: error: patch_size is 0, expected a whole number above 0. Correct it, or leave it out.\n"
    )


def test_an_image_smaller_than_a_patch_is_told_in_one_sentence_and_leaves_nothing_to_resume(data, tmp_path, capsys):
    bundle, out = tiny_bundle(tmp_path / "bundle", "chest_xray_edsr_x4"), tmp_path / "run"
    words = ["train", bundle, "--data", str(data), "--out", str(out), "--iterations", "1", "--progress", "none"]
    assert main([*words, "--set", "patch_size=1000"]) == 3
    assert capsys.readouterr().err.endswith("Lower patch_size, or take the image out of the manifest.\n")
    assert main([*words, "--set", "patch_size=8"]) == 0


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("run", "is not a folder. Choose another folder for the result.\n"),
        (
            "/proc/run",
            "/proc/run could not be written: No such file or directory. Check the folder, or choose another one.\n",
        ),
    ],
)
def test_a_folder_that_cannot_be_made_is_told_in_one_sentence(data, tmp_path, capsys, name, end):
    (tmp_path / "run").touch()
    words = ["train", "chest_xray_edsr_x4", "--data", str(data), "--out", str(tmp_path / name), "--iterations", "1"]
    assert main(words) == 5
    assert capsys.readouterr().err.endswith(end)


def test_only_a_source_folder_is_advised_to_take_the_new_weights(data, tmp_path):
    """Each in a process of its own: the logging of a packed bundle ends that of whoever trains it."""
    source = tiny_bundle(tmp_path / "bundle", "chest_xray_edsr_x4")
    for run, name in enumerate((source, str(pack(source, tmp_path / "packed")))):
        words = ["train", name, "--data", str(data), "--out", str(tmp_path / f"run{run}"), "--iterations", "1"]
        command = [sys.executable, "-m", "monai_sr_bundle", *words, "--progress", "none", "--set", "patch_size=8"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert ("monai-sr export" in printed) == (name == source)


def test_a_variant_that_starts_from_a_released_bundle_counts_its_training(data, tmp_path):
    start = configs_dir() / "chest_xray_edsr_x4" / "model.pt"
    options = {**QUICK, "patch_size": 4, "reduce": 1, "sets": ["drawn"]}
    train("chest_xray_edsr_x4:artifacts", data, tmp_path, iterations=2, start=start, **options)
    first, second = json.loads((tmp_path / "training.json").read_text())["stages"]
    assert first["minutes"] == 92.0
    assert (second["bundle"], second["iterations"]) == ("chest_xray_edsr_x4:artifacts", 2)
    # Its validation has markers in the input, so the curve is its own.
    curve = list(csv.DictReader((tmp_path / "training_curve.csv").open()))
    assert [(row["minutes"] >= "92.0", row["iteration"]) for row in curve] == [(True, "1"), (True, "2")]
