"""The training of one site: what arrives is measured, and what a round changed goes out."""

import dataclasses

import pytest
import torch
from monai_sr_bundle.datasets.phantom_set import write_phantom_set
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.federated.site_settings import SiteSettings
from monai_sr_bundle.federated.site_training import SiteTraining, normalisation_keys
from monai_sr_bundle.federated.start_weights import start_state
from monai_sr_bundle.shipped_bundles import all_bundles, find_bundle
from monai_sr_bundle.training.stages import training_stages

from tests.federated.conftest import study


def open_site(task, sites, out, site="north", rounds_before=0):
    return SiteTraining(task, task.require_bundle(), sites[site], site, out, rounds_before)


def changed(state, by):
    return {key: value + by if value.is_floating_point() else value for key, value in state.items()}


def start(bundle="chest_xray_srcnn_x4"):
    return start_state(find_bundle(bundle), "shipped")


def distance(difference):
    return sum(float(value.square().sum()) for value in difference.values()) ** 0.5


def test_exactly_the_weights_that_arrived_are_measured(sites, tmp_path):
    site = open_site(study().task, sites, tmp_path)
    site.load(start())
    good = site.validate()
    site.load(changed(start(), 0.01))
    spoilt = site.validate()
    site.load(start())
    assert good["val_psnr"] > spoilt["val_psnr"]
    assert site.validate() == good


def test_network_and_average_take_what_arrived(sites, tmp_path):
    site = open_site(study().task, sites, tmp_path)
    weights = changed(start(), 0.01)
    site.load(weights)
    for average in (False, True):
        held = site.training.weights(average=average)
        assert all(torch.equal(held[key], weights[key]) for key in weights)


def test_a_round_sends_what_it_changed(sites, tmp_path):
    site = open_site(study().task, sites, tmp_path)
    site.load(start())
    result = site.run_round(1)
    held = site.training.weights()
    for key, value in result.difference.items():
        torch.testing.assert_close(start()[key] + value, held[key])
    assert distance(result.difference) > 0
    assert (result.images, result.boxed_images, result.iterations) == (2, 2, 2)
    assert result.metrics["val_psnr_box"] > 0


def test_a_site_without_boxes_trains_and_reports_none(sites, tmp_path):
    site = open_site(study(box_weight=2.0).task, sites, tmp_path, "south")
    site.load(start())
    result = site.run_round(0, box_factor=3.0)
    assert result.boxed_images == 0
    assert set(result.metrics) == {"val_psnr"}
    assert site.training.objective.box_weight == 0


def test_the_loss_inside_boxes_makes_up_for_sites_without(sites, tmp_path):
    site = open_site(study(box_weight=2.0).task, sites, tmp_path)
    site.load(start())
    site.run_round(0, box_factor=2.5)
    assert site.training.objective.box_weight == 5.0
    site.load(start())
    site.run_round(1, box_factor=1.0)
    assert site.training.objective.box_weight == 2.0


def test_the_learning_rate_follows_the_rounds_of_the_study_and_not_those_of_the_site(sites, tmp_path):
    site = open_site(study(rounds=10).task, sites, tmp_path)
    site.load(start())
    site.run_round(9)  # of ten, and this site has missed all others
    assert site.training.budget.progress == 1.0


def test_every_job_of_a_study_draws_other_patches(sites, tmp_path):
    rounds = []
    for number, rounds_before in enumerate((0, 0, 1)):
        site = open_site(study().task, sites, tmp_path / str(number), rounds_before=rounds_before)
        site.load(start())
        rounds.append(site.run_round(1).difference)
    first, repeated, later = rounds
    assert all(torch.equal(first[key], repeated[key]) for key in first)  # what follows is not chance
    assert not any(torch.equal(first[key], later[key]) for key in first)


def test_an_epoch_is_every_image_once(sites, tmp_path):
    site = open_site(study(iterations=None, epochs=1, batch_size=1).task, sites, tmp_path, "south")
    site.load(start())
    assert site.run_round(0).iterations == 3


def test_fedprox_stays_nearer_to_what_arrived(sites, tmp_path):
    distances = []
    for number, changes in enumerate(({}, {"algorithm": "fedprox", "mu": 10.0})):
        task = study(iterations=20, rounds=1, learning_rate=0.001, **changes).task
        site = open_site(task, sites, tmp_path / str(number))
        site.load(start())
        distances.append(distance(site.run_round(0).difference))
    assert distances[1] < 0.9 * distances[0]


def test_local_normalisation_stays_at_the_site_from_round_to_round_and_job_to_job(sites, tmp_path):
    task = study(bundle="chest_xray_srgan_x4", local_normalisation=True).task
    own_work = {"north": dataclasses.replace(sites["north"], work=tmp_path / "work")}
    site = open_site(task, own_work, tmp_path / "first")
    normalisation = normalisation_keys(site.training.network)
    assert {key.rpartition(".")[2] for key in normalisation} >= {"weight", "bias", "running_mean", "running_var"}
    arrived = changed(start(task.bundle), 0.01)
    site.load(arrived, 0)
    assert all(torch.equal(value, arrived[key]) for key, value in site.training.weights().items())
    assert not normalisation & set(site.run_round(0).difference)
    trained = site.training.weights()
    next_job = open_site(task, own_work, tmp_path / "second")
    for training in (site, next_job):
        training.load(arrived, 1)
        for key, value in training.training.weights().items():
            assert torch.equal(value, trained[key] if key in normalisation else arrived[key])
    assert any(not torch.equal(trained[key], arrived[key]) for key in normalisation if key.endswith("running_mean"))
    next_job.load(arrived, 0)  # the study begins again
    assert all(torch.equal(value, arrived[key]) for key, value in next_job.training.weights().items())


def test_local_normalisation_of_an_earlier_study_is_forgotten_by_a_site_that_misses_the_first_round(sites, tmp_path):
    task = study(bundle="chest_xray_srgan_x4", local_normalisation=True, rounds=3).task
    own_work = {"north": dataclasses.replace(sites["north"], work=tmp_path / "work")}
    arrived = changed(start(task.bundle), 0.01)
    site = open_site(task, own_work, tmp_path / "earlier")
    for number in range(3):
        site.load(arrived, number)
        site.run_round(number)
    reopened = open_site(task, own_work, tmp_path / "again")
    reopened.load(arrived, 1)
    assert all(torch.equal(value, arrived[key]) for key, value in reopened.training.weights().items())


def test_shared_normalisation_travels(sites, tmp_path):
    site = open_site(study(bundle="chest_xray_srgan_x4").task, sites, tmp_path)
    site.load(start("chest_xray_srgan_x4"))
    measured = {key for key in normalisation_keys(site.training.network) if "num_batches" not in key}
    assert measured <= set(site.run_round(0).difference)


def test_weights_of_another_network_are_refused(sites, tmp_path):
    site = open_site(study().task, sites, tmp_path)
    with pytest.raises(BundleError, match="the global model does not belong to chest_xray_srcnn_x4"):
        site.load(start("chest_xray_vdsr_x4"))


def test_nothing_is_written_at_the_site(sites, tmp_path):
    site = open_site(study().task, sites, tmp_path)
    site.load(start())
    site.run_round(0)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stage"), [(bundle.name, stage) for bundle in all_bundles() for stage in training_stages(bundle)]
)
def test_every_stage_of_every_bundle_trains_a_round_at_a_site(name, stage, backbone, tmp_path):
    bundle = find_bundle(name)
    write_phantom_set(tmp_path / "site", bundle.modality, size=128, train=2, val=1, test=1)
    settings = SiteSettings(tmp_path / "site", tmp_path / "work", reduce=1, backbone=backbone)
    task = study(bundle=name, stage=stage, iterations=1, patch_size=16).task
    site = SiteTraining(task, task.require_bundle(), settings, "site", tmp_path / "out")
    site.load(start(name))
    result = site.run_round(1)
    assert result.difference
    assert all(value.isfinite().all() for value in result.difference.values())
    assert distance(result.difference) > 0
    assert all(value == value for value in result.metrics.values())
