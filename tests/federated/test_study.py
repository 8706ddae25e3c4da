"""A study's text: what it states, and what is refused with one sentence."""

import pytest
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.federated.study import read_study, studies_dir
from monai_sr_bundle.federated.training_task import TrainingTask

from tests.federated.conftest import study


@pytest.mark.parametrize("text", sorted(studies_dir().glob("*.yaml")), ids=lambda text: text.stem)
def test_every_shipped_study_can_be_read(text):
    assert read_study(text.stem).task.require_bundle().name == read_study(text.stem).task.bundle


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "rounds is 0, expected a whole number from 1 to 200"),
        ({"rounds": True}, "rounds is True, expected a whole number"),
        ({"iterations": 1.5}, "iterations is 1.5, expected a whole number"),
        ({"learning_rate": 1.0}, "learning_rate is 1.0, expected a number from 1e-07 to 0.1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"epochs": 1.0}, "state exactly one of them"),
        ({"iterations": None}, "state exactly one of them"),
        ({"mu": 0.1}, "mu is 0.1 with algorithm fedavg"),
        ({"algorithm": "fedprox"}, "mu is 0 with algorithm fedprox"),
        ({"algorithm": "scaffold"}, "expected fedavg or fedprox"),
        ({"bundle": "../configs/chest_xray_srcnn_x4"}, "is unknown|expected the name"),
        ({"local_normalisation": 1}, "expected true or false"),
        ({"minimum_sites": 0}, "minimum_sites is 0, expected a whole number from 1"),
        ({"round_seconds": "1h"}, "round_seconds is '1h'"),
        ({"personal_rounds": 2}, "personal_rounds is 2, expected a whole number from 0 to 1"),
        ({"round": 3}, "the test: has the unknown round; a study states bundle"),
        ({"sites": [{"name": "a", "operator": "none"}]}, "site 1: degradation is 'none'"),
        ({"sites": [{"name": "a", "view": 1}]}, "site 1: view is 1, expected str"),
        ({"sites": [{"name": "a"}, {"name": "a"}]}, "expected each name once"),
        ({"sites": [{"name": "a/b"}]}, "name is 'a/b', expected letters"),
        ({"bundle_sha256": "abc"}, "expected 64 hexadecimal digits"),
        ({"bundle_sha256": 0}, "expected 64 hexadecimal digits in quotes"),  # as YAML reads digits without quotes
        ({"stage": "-x"}, "stage|-x"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_bounds(changes, message):
    with pytest.raises((InputError, BundleError), match=message):
        study(**changes)


def test_stages_of_a_bundle_have_hashes_of_their_own():
    hashes = {study(bundle="chest_xray_residual_flow_x4", stage=stage).task.bundle_sha256 for stage in (None, "flow")}
    assert len(hashes) == 2


def test_a_task_arrives_at_the_trainer_as_it_was():
    task = study(learning_rate=0.001, local_normalisation=True).task
    assert TrainingTask.from_text(task.as_text()) == task


@pytest.mark.parametrize("text", ["", "[]", '{"bundle": "a"}', '{"command": "id"}'])
def test_no_other_text_is_a_task(text):
    with pytest.raises(InputError, match="cannot be read"):
        TrainingTask.from_text(text)


def test_an_unknown_study_names_those_there_are():
    with pytest.raises(InputError, match="no such file or name. Shipped are .*chest_xray_four_sites"):
        read_study("nobody")


def test_a_text_that_is_no_study_is_refused(tmp_path):
    (tmp_path / "study.yaml").write_text("rounds: [")
    with pytest.raises(InputError, match="is no YAML"):
        read_study(tmp_path / "study.yaml")
    (tmp_path / "study.yaml").write_text("rounds: 3")
    with pytest.raises(InputError, match="lacks bundle"):
        read_study(tmp_path / "study.yaml")
