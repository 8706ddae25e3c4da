"""A training as an object: weights in and out, runs of any length, validation of exactly the weights it holds."""

import csv

import pytest
import torch
from monai_sr_bundle.errors import BundleError, InputError, OutputError
from monai_sr_bundle.metrics.fidelity import PSNR
from monai_sr_bundle.training.training import open_training, train
from monai_sr_bundle.transforms.pairs import pair_items

from tests.tiny_bundle import tiny_bundle

QUICK = {"batch_size": 2, "patch_size": 4, "validations": 1, "val_limit": 1}


@pytest.fixture(scope="module")
def edsr(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), "chest_xray_edsr_x4")


@pytest.fixture(scope="module")
def srgan(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), "chest_xray_srgan_x4")


@pytest.fixture
def training(edsr, data, tmp_path):
    """A training without a length of its own."""
    return open_training(edsr, data, tmp_path / "out", **QUICK)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def change(state, by=0.01):
    return {key: value + by if value.is_floating_point() else value for key, value in state.items()}


def rates_of(training, **length):
    """Learning rates in the iterations of one run."""
    rates = []
    optimizer = training.budget.optimizer
    hook = optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
    training.run(**length)
    hook.remove()
    return rates


def test_nothing_is_trained_when_it_is_opened(training, tmp_path):
    assert training.budget.iterations == 0
    assert list((tmp_path / "out").iterdir()) == []
    assert equal(training.weights(), training.weights(average=True))


def test_weights_are_copies(training):
    weights = training.weights()
    weights["head.weight"].zero_()
    assert training.weights()["head.weight"].any()


def test_runs_of_any_length_follow_each_other(training):
    assert training.run(iterations=3) == 3
    assert training.run(epochs=2) == 2  # of one batch each
    assert training.run(minutes=1e-6) == 1
    assert training.budget.iterations == 6
    with pytest.raises(InputError, match="the length of a training is not given, expected exactly one of"):
        training.run()


def test_two_runs_of_one_schedule_are_one_run(edsr, data, tmp_path):
    """But for the patches: the second run begins a pass over the images anew, which one epoch a run makes the same."""
    whole = open_training(edsr, data, tmp_path / "whole", iterations=4, **QUICK)
    rates = rates_of(whole)
    parts = open_training(edsr, data, tmp_path / "parts", iterations=4, **QUICK)
    assert rates_of(parts, iterations=1) == rates[:1]
    parts.run()
    assert equal(whole.weights(), parts.weights())
    assert equal(whole.weights(average=True), parts.weights(average=True))


def test_after_its_whole_length_a_training_goes_on_only_when_told_how_long(edsr, data, tmp_path, caplog):
    training = open_training(edsr, data, tmp_path / "out", iterations=2, **QUICK)
    assert training.run() == 2
    assert training.run() == 0
    assert "all 2 iterations of this training are over, so nothing was trained" in caplog.text
    assert rates_of(training, iterations=3) == pytest.approx([0.02 * 0.0008] * 3)


def test_without_a_length_every_run_has_a_schedule_of_its_own(training):
    first = rates_of(training, iterations=4)
    assert first[1] > first[3] > 0
    assert rates_of(training, iterations=4) == first


def test_validation_is_of_exactly_the_weights_it_was_given(training, tmp_path):
    training.run(iterations=4)
    given = change(training.weights())
    training.load_weights(given)
    assert equal(training.weights(), given)
    assert equal(training.weights(average=True), given)
    measured = training.validate()
    assert measured == training.validate(average=True)
    training.load_weights(change(given, 0.2))
    assert training.validate()["psnr"] < measured["psnr"] - 1
    training.load_weights(given)
    assert training.validate() == measured
    assert not (tmp_path / "out" / "model.pt").exists()


def test_images_are_enlarged_as_in_a_validation(training, data):
    training.load_weights(change(training.weights()))
    facts = training.bundle.facts
    items = pair_items(str(data), "CXR", "val", sets=facts["sets"], limit=1)
    (output,) = training.enlarge(items)
    psnr = float(PSNR()(output["pred"][None], output["label"][None]))
    assert psnr == pytest.approx(training.validate()["psnr"], abs=1e-4)
    assert output["image"].shape[-1] * facts["scale"] == output["label"].shape[-1]


def test_the_average_knows_nothing_of_what_was_trained_before_other_weights_came(training):
    start = change(training.weights())
    training.run(iterations=5)
    training.load_weights(start)
    training.run(iterations=2)
    average = training.weights(average=True)
    assert all((average[key] - start[key]).abs().max() < 5e-3 for key in start)


def test_batch_statistics_of_given_weights_are_given_too(srgan, data, tmp_path):
    training = open_training(srgan, data, tmp_path / "out", **QUICK)
    given = change(training.weights())
    training.load_weights(given)
    training.validate(average=True)
    assert equal(training.weights(average=True), given)
    training.run(iterations=3)
    statistics = [key for key in given if key.endswith("running_mean")]
    assert statistics
    # Of the average, measured on whole images; those that the optimizer changes have the statistics of patches.
    average, weights = training.weights(average=True), training.weights()
    assert any(not torch.equal(average[key], weights[key]) for key in statistics)


def test_weights_of_another_network_change_nothing(training):
    training.run(iterations=3)
    before, average = training.weights(), training.weights(average=True)
    wrong = {**change(before), "head.weight": torch.zeros(3)}
    for state in (wrong, {}, {**before, "other": torch.zeros(1)}):
        with pytest.raises(
            BundleError, match=r"the given state dict: does not belong to the network of chest_xray_edsr"
        ):
            training.load_weights(state)
    assert equal(training.weights(), before)
    assert equal(training.weights(average=True), average)


def test_weights_of_another_diffusion_process_are_refused(data, tmp_path):
    training = open_training(
        tiny_bundle(tmp_path, "chest_xray_sr3_x4"), data, tmp_path / "out", **{**QUICK, "val_steps": 1}
    )
    before = training.weights()
    assert before["process"].any()
    with pytest.raises(BundleError, match="were trained for another diffusion process than its model.yaml states"):
        training.load_weights({**change(before), "process": before["process"] + 1})
    assert equal(training.weights(), before)
    training.load_weights({**before, "process": torch.zeros_like(before["process"])})  # an untrained network
    assert equal(training.weights(), before)
    assert training.run(iterations=1) == 1


def test_every_step_and_validation_is_told(edsr, data, tmp_path):
    records = []
    training = open_training(
        edsr, data, tmp_path / "out", iterations=4, callback=records.append, **{**QUICK, "validations": 2}
    )
    training.run()
    training.save()
    steps = [record for record in records if record.kind == "training"]
    assert [record.iteration for record in steps] == [1, 2, 3, 4]
    assert all(set(record.values) == {"loss"} and record.minutes > 0 for record in steps)
    validations = [record for record in records if record.kind == "validation"]
    rows = list(csv.DictReader((tmp_path / "out" / "validation.csv").open()))
    assert [(str(each.iteration), f"{each.values['psnr']:.5f}") for each in validations] == [
        (row["iteration"], row["value"]) for row in rows
    ]


def test_a_resumed_training_has_the_weights_of_the_checkpoint_at_once_and_loads_them_once(edsr, data, tmp_path):
    first = open_training(edsr, data, tmp_path / "out", iterations=4, **QUICK)
    first.run(iterations=2)
    with pytest.raises(OutputError, match="holds checkpoints of another run. Pass --resume"):
        open_training(edsr, data, tmp_path / "out", iterations=4, **QUICK)
    second = open_training(edsr, data, tmp_path / "out", iterations=4, resume=True, **QUICK)
    assert (first._content("process_seed"), second._content("process_seed")) == (0, 2)  # other patches than before
    assert equal(second.weights(), first.weights())
    assert equal(second.weights(average=True), first.weights(average=True))
    given = change(second.weights())
    second.load_weights(given)
    assert second.run() == 2
    assert all((value - given[key]).abs().max() < 0.005 for key, value in second.weights().items())


def test_the_command_and_the_object_train_the_same(edsr, data, tmp_path):
    best = train(edsr, data, tmp_path / "command", iterations=3, progress=False, **QUICK)
    training = open_training(edsr, data, tmp_path / "object", **QUICK)
    training.run(iterations=3)
    assert equal(torch.load(best, weights_only=True), torch.load(training.save(), weights_only=True))


def test_a_resumed_training_whose_length_is_over_is_validated_and_not_trained(edsr, data, tmp_path):
    for resume in (False, True):
        train(edsr, data, tmp_path / "out", iterations=2, resume=resume, progress=False, **QUICK)
        assert torch.load(tmp_path / "out" / "last.pt", weights_only=True)["budget"]["iterations"] == 2


def test_a_training_lowers_the_loss(data, tmp_path):
    bundle = tiny_bundle(tmp_path, "chest_xray_edsr_x4", {"channels": 16, "blocks": 2}, learning_rate=0.002)
    options = {**QUICK, "validations": 2, "val_limit": 2}
    train(bundle, data, tmp_path / "out", iterations=60, progress=False, **options)
    values = [float(row["value"]) for row in csv.DictReader((tmp_path / "out" / "validation.csv").open())]
    assert values[-1] > values[0]
