"""Rounds of MONAI's federated client: as much is learnt as at one place, and what came is what is validated."""

import logging
import shutil

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType
from monai.fl.utils.exchange_object import ExchangeObject
from monai_sr_bundle.shipped_bundles import configs_dir

from tests.monai_workflow import run_workflow
from tests.tiny_bundle import tiny_bundle

QUICK = {
    "sets": ["drawn"], "reduce": 1, "batch_size": 1, "patch_size": 8, "validations": 1, "val_limit": 1,
    "statistics_from": 2, "progress": False, "train#dataloader#shuffle": False,
}  # fmt: skip
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture
def bundle(packed, tmp_path):
    return shutil.copytree(packed("chest_xray_edsr_x4"), tmp_path / "chest_xray_edsr_x4")


def client(folder, data, train="configs/train.yaml", evaluate=None, **options):
    """A federated client of a bundle that is ready for its first round."""
    texts = options.pop("texts", {})
    algo = MonaiAlgo(
        str(folder),
        config_train_filename=train,
        train_kwargs={**QUICK, "dataset_dir": str(data), **options},
        config_evaluate_filename=evaluate or ["configs/train.yaml", "configs/evaluate.yaml"],
        eval_kwargs={"sets": ["drawn"], "reduce": 1, "dataset_dir": str(data), "statistics_from": 2, "progress": False},
        **texts,
    )
    algo.initialize()
    return algo


def take_round(algo, weights):
    """Send weights, let the client train, and return them with the change that it sends back."""
    algo.train(ExchangeObject(weights=weights))
    change = algo.get_weights().weights
    return {key: value + change[key] if key in change else value for key, value in weights.items()}


def validated(algo, weights):
    """A copy of the metrics: the client returns those of its evaluator, which the next validation changes."""
    return {**algo.evaluate(ExchangeObject(weights=weights)).metrics}


def released(folder):
    weights = torch.load(folder / "models" / "model.pt", weights_only=True)
    return {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}


def largest_difference(first, second):
    return max(float((first[key] - second[key]).abs().max()) for key in first)


def test_two_rounds_of_one_epoch_are_two_epochs_and_are_validated_as_they_came(bundle, data, tmp_path, capsys):
    start = released(bundle)
    whole = run_workflow(
        bundle, "train", epochs=2, dataset_dir=data, output_dir=tmp_path / "whole",
        initial_weights=bundle / "models" / "model.pt", **QUICK,
    )  # fmt: skip
    expected = whole.parser.get_parsed_content("network").state_dict()
    algo, weights = client(bundle, data, epochs=2), start
    for _ in range(2):
        weights = take_round(algo, weights)
    assert largest_difference(weights, expected) < 1e-5
    assert largest_difference(weights, start) > 1e-4
    torch.save(weights, tmp_path / "received.pt")
    capsys.readouterr()
    run_workflow(
        bundle, "evaluate", dataset_dir=data, output_dir=tmp_path, sets=["drawn"], reduce=1,
        checkpoint=tmp_path / "received.pt",
    )  # fmt: skip
    metrics = validated(algo, weights)
    assert f"psnr {metrics['psnr']:.4f} ssim {metrics['ssim']:.4f}" in capsys.readouterr().out
    assert validated(algo, {key: 0.9 * value for key, value in start.items()}) != metrics
    final = MonaiAlgo(str(bundle), final_model_filepath="runs/last.pt")
    sent = final.get_weights({ExtraItems.MODEL_TYPE: ModelType.FINAL_MODEL}).weights
    assert largest_difference(sent, expected) < 1e-5


def test_a_round_after_the_whole_training_says_that_the_schedule_begins_again(bundle, data, caplog):
    """Without a stated length, a round is a whole training: its last steps are small, its first ones not."""
    algo, weights = client(bundle, data), released(bundle)
    assert str(algo.train_workflow.parser.get_parsed_content("budget").schedule) == "1 epoch"
    with caplog.at_level(logging.WARNING):
        weights = take_round(algo, weights)
        assert "begins again" not in caplog.text
        assert largest_difference(take_round(algo, weights), weights) > 1e-4
    assert "this training of 1 epoch is over; its schedule begins again" in caplog.text


def test_the_overlay_spreads_the_schedule_over_all_rounds_and_writes_the_final_model(bundle, data):
    texts = ["configs/train.yaml", "configs/federated.yaml"]
    algo = client(bundle, data, texts, texts, rounds=4, epochs_per_round=1)
    weights = take_round(algo, released(bundle))
    content = algo.train_workflow.parser.get_parsed_content
    assert content("budget").progress == pytest.approx(1 / 4)
    assert content("validate#evaluator").network is algo.trainer.network
    sent = algo.get_weights({ExtraItems.MODEL_TYPE: ModelType.FINAL_MODEL}).weights
    assert largest_difference(sent, weights) < 1e-6
    assert algo.train_workflow.check_properties() == []


def test_the_statistics_of_batch_normalisation_stay_at_their_site(data, tmp_path):
    folder = tiny_bundle(tmp_path, "chest_xray_srgan_x4")
    names = ("train_regression", "federated")
    texts = [f"{folder}/model.yaml", *(str(configs_dir() / "workflows" / f"{name}.yaml") for name in names)]
    filters = str(configs_dir() / "workflows" / "federated_filters.yaml")
    algo = client(folder, data, texts, texts, rounds=2, texts={"config_filters_filename": filters})
    whole = algo.trainer.network.state_dict()
    measured = {key for key in whole if key.endswith(STATISTICS)}
    sent = {key: value.clone() for key, value in whole.items() if key not in measured}
    algo.train(ExchangeObject(weights=sent))
    assert measured
    assert set(algo.get_weights().weights) == set(sent)
    # Those of the site itself are measured before it validates, whatever came.
    metrics = validated(algo, sent)
    others = {key: torch.full_like(whole[key], 7) for key in measured}
    assert validated(algo, {**sent, **others}) == metrics
    assert validated(algo, {key: 0.9 * value for key, value in sent.items()}) != metrics
