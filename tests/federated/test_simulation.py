"""Studies in NVFlare's simulator: a server and every site as processes of their own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai_sr_bundle.datasets.phantom_set import write_phantom_set
from monai_sr_bundle.errors import InputError, OutputError, SuperResolutionError
from monai_sr_bundle.federated import simulation
from monai_sr_bundle.federated.controller import weighted_mean
from monai_sr_bundle.federated.export import PROVENANCE, export
from monai_sr_bundle.federated.job import write_job
from monai_sr_bundle.federated.measurement import evaluate
from monai_sr_bundle.federated.messages import GLOBAL_MODEL
from monai_sr_bundle.federated.simulator import simulate_job
from monai_sr_bundle.federated.site_settings import SiteSettings, read_site_settings, write_site_settings
from monai_sr_bundle.federated.site_training import SiteTraining
from monai_sr_bundle.federated.start_weights import start_state
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.training.weights import read_weights

from tests.federated.conftest import TASK, draw_sites, study


@pytest.fixture(scope="module")
def result(sites, tmp_path_factory):
    """Folder of the global model after two rounds at two sites."""
    folder = tmp_path_factory.mktemp("simulated")
    job = write_job(study(), folder / "job", kept_rounds=(1,))
    return simulate_job(job, sites, folder / "simulator")


@pytest.fixture(scope="module")
def study_text(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "drawn.yaml"
    path.write_text(json.dumps(TASK))
    return path


def test_the_global_model_is_the_weighted_mean_of_what_the_sites_changed(result, sites, tmp_path):
    """Sites that are trained here, without NVFlare, change the same: all of it follows from the seed."""
    task = study().task
    start = start_state(task.require_bundle(), "shipped")
    rounds = []
    for name, settings in sites.items():
        site = SiteTraining(task, task.require_bundle(), settings, name, tmp_path / name)
        site.load(start)
        rounds.append(site.run_round(0))
    mean = weighted_mean(
        [{key: value.numpy() for key, value in each.difference.items()} for each in rounds],
        [each.images for each in rounds],
    )
    with np.load(result / "global_after_1_rounds.npz") as after:
        assert set(after.files) == set(start)
        for key in mean:
            np.testing.assert_allclose(after[key] - start[key].numpy(), mean[key], rtol=0, atol=1e-6)
            assert np.abs(mean[key]).max() > 1e-5


def test_the_record_says_what_happened(result):
    rounds = json.loads((result / "rounds.json").read_text())
    assert [each["round"] for each in rounds] == [0, 1, 2]
    assert [each["answered"] for each in rounds] == [2, 2, 2]
    assert rounds[0]["sites"]["north"]["images"] == 2
    assert rounds[0]["sites"]["south"]["images"] == 3
    assert "val_psnr_box" in rounds[0]["sites"]["north"]["metrics"]
    assert "val_psnr_box" not in rounds[0]["sites"]["south"]["metrics"]
    assert rounds[2]["sites"]["north"]["metrics"]["val_psnr"] > 0  # of the last global model


def test_a_global_model_becomes_a_bundle(result, study_text, sites, tmp_path):
    lines = export(str(study_text), result / GLOBAL_MODEL, tmp_path / "chest_xray_srcnn_x4")
    assert lines[0].startswith("model.pt")
    bundle = find_bundle(str(tmp_path / "chest_xray_srcnn_x4"))
    weights, released = read_weights(result / GLOBAL_MODEL), read_weights(bundle.weights("model.pt")[0])
    assert all(torch.equal(weights[key], released[key]) for key in weights)
    provenance = bundle.metadata[PROVENANCE]
    assert (provenance["study"], provenance["rounds"], provenance["sites"]) == ("drawn", 2, 2)
    assert len(provenance["start_sha256"]) == 64
    assert set(bundle.metadata["eval_metrics"]) == {
        "federated_val_psnr_mean_of_sites",
        "federated_val_psnr_box_mean_of_sites",
    }
    assert "north" not in (bundle.folder / "metadata.json").read_text()
    assert not bundle.has_file("error_bars.pt")
    assert bundle.metadata["training"]["stages"][-1]["federated_study"] == "drawn"
    assert bundle.has_file("model.onnx")
    with pytest.raises(OutputError, match="exists"):
        export(str(study_text), result / GLOBAL_MODEL, bundle.folder)


def test_a_model_that_was_not_measured_has_no_figures_of_the_one_before(result, study_text, tmp_path):
    """A job that ended early, as below its minimum of sites, leaves its model and no last measurement."""
    job = tmp_path / "job"
    job.mkdir()
    (job / GLOBAL_MODEL).write_bytes((result / GLOBAL_MODEL).read_bytes())
    (job / "rounds.json").write_text(json.dumps(json.loads((result / "rounds.json").read_text())[:-1]))
    export(str(study_text), job / GLOBAL_MODEL, tmp_path / "chest_xray_srcnn_x4")
    metadata = find_bundle(str(tmp_path / "chest_xray_srcnn_x4")).metadata
    assert metadata["eval_metrics"] == {}
    assert metadata[PROVENANCE]["rounds"] == 2


def test_a_model_without_its_record_is_not_exported(result, study_text, tmp_path):
    (tmp_path / GLOBAL_MODEL).write_bytes((result / GLOBAL_MODEL).read_bytes())
    with pytest.raises(InputError, match="cannot be read as the record of a job's rounds"):
        export(str(study_text), tmp_path / GLOBAL_MODEL, tmp_path / "out")


def test_a_global_model_is_measured_at_a_site(result, study_text, sites):
    table = evaluate(str(study_text), result / GLOBAL_MODEL, sites["north"].data)
    assert "test split: 2 images of 2 patients" in table
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["bicubic", "before", "global"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_global_model(result, sites, tmp_path):
    second_result = simulate_job(write_job(study(), tmp_path / "job"), sites, tmp_path / "again")
    first, second = read_weights(result / GLOBAL_MODEL), read_weights(second_result / GLOBAL_MODEL)
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = simulate_job(write_job(study(seed=1), tmp_path / "other"), sites, tmp_path / "another")
    third = read_weights(other / GLOBAL_MODEL)
    assert not any(torch.equal(first[key], third[key]) for key in first)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "stage", "modality"),
    [
        ("chest_ct_edsr_x4", None, "CT"),
        ("chest_xray_residual_flow_x4", "flow", "CXR"),
        ("chest_xray_sr3_x4", None, "CXR"),
    ],
)
def test_other_bundles_and_stages_are_studies_too(bundle, stage, modality, tmp_path):
    sites = draw_sites(tmp_path / "sites", modality)
    of_study = study(bundle=bundle, stage=stage, iterations=1)
    result = simulate_job(write_job(of_study, tmp_path / "job"), sites, tmp_path / "simulator")
    before = start_state(find_bundle(bundle), "shipped")
    after = read_weights(result / GLOBAL_MODEL)
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed
    if stage == "flow":
        assert all(key.startswith("flow.") for key in changed)
    if "process" in before:
        assert torch.equal(after["process"], before["process"])
    assert all(value.isfinite().all() for value in after.values())


@pytest.mark.slow
def test_fedprox_and_local_normalisation_run(sites, tmp_path):
    of_study = study(bundle="chest_xray_srgan_x4", algorithm="fedprox", mu=0.1, local_normalisation=True, iterations=1)
    result = simulate_job(write_job(of_study, tmp_path / "job"), sites, tmp_path / "simulator")
    before, after = start_state(find_bundle(of_study.task.bundle), "shipped"), read_weights(result / GLOBAL_MODEL)
    unchanged = {key for key in after if torch.equal(after[key], before[key])}
    assert {key for key in before if key.endswith("running_mean")} <= unchanged
    assert unchanged != set(before)


@pytest.mark.slow
def test_a_site_with_broken_data_does_not_end_the_study(sites, tmp_path):
    """Its trainer ends, and the others go on: two of three are enough."""
    three = draw_sites(tmp_path / "sites", names=("a", "b", "c"))
    next((tmp_path / "sites" / "c").glob("*.png")).unlink()
    of_study = study(minimum_sites=2, grace_seconds=20)
    result = simulate_job(write_job(of_study, tmp_path / "job"), three, tmp_path / "simulator")
    rounds = json.loads((result / "rounds.json").read_text())
    assert [each["missing"] for each in rounds[:2]] == [["c"], ["c"]]


@pytest.mark.slow
def test_a_simulation_compares_and_goes_on_after_an_interruption(study_text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # trainers run in folders of their own
    data, out = Path("data"), Path("out")
    write_phantom_set(data / "drawn", "CXR", size=64, train=4, val=2, test=2)

    def killed(*_args, **_keys):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(simulation, "ProcessPoolExecutor", killed)
        with pytest.raises(KeyboardInterrupt):
            simulation.simulate(str(study_text), data, out, sites=2)
    model = out / "models" / "global.pt"
    first = model.stat().st_mtime_ns
    table = simulation.simulate(str(study_text), data, out, sites=2)
    assert model.stat().st_mtime_ns == first
    assert "mean over sites" in table
    content = json.loads((out / "comparison.json").read_text())
    assert set(content["sites"]["site-1"]["psnr"]) == {
        "bicubic", "local", "local_elsewhere", "global", "personalised", "personalised_elsewhere", "pooled",
    }  # fmt: skip
    assert len(content["differences"]) == 3
    other_study = tmp_path / "drawn.yaml"
    other_study.write_text(json.dumps(TASK | {"iterations": 3}))
    with pytest.raises(OutputError, match="holds another study"):
        simulation.simulate(str(other_study), data, out, sites=2)


def test_a_trainer_finds_the_folders_of_its_site_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_site_settings(SiteSettings(Path("images"), Path("work"), ledger=Path("ledger.jsonl")), Path("site.yaml"))
    settings = read_site_settings(Path("site.yaml"))
    expected = [tmp_path / name for name in ("images", "work", "ledger.jsonl")]
    assert [settings.data, settings.work, settings.ledger] == expected


def test_a_wrong_data_folder_leaves_the_folder_of_a_simulation_free(study_text, tmp_path):
    (tmp_path / "wrong").mkdir()
    with pytest.raises(InputError, match="holds no manifest.csv"):
        simulation.simulate(str(study_text), tmp_path / "wrong", tmp_path / "out", sites=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_failed_simulation_says_why_its_trainers_ended(tmp_path):
    broken = draw_sites(tmp_path / "sites")
    for settings in broken.values():
        next(settings.data.glob("*.png")).unlink()
    with pytest.raises(SuperResolutionError, match=r"without .*The trainer of north says: .*are missing.* Read .*log"):
        simulate_job(write_job(study(), tmp_path / "job"), broken, tmp_path / "simulator")


def test_a_simulation_without_iterations_or_sites_is_refused(study_text, tmp_path):
    in_epochs = tmp_path / "epochs.yaml"
    in_epochs.write_text(json.dumps(TASK | {"iterations": None, "epochs": 1}))
    with pytest.raises(InputError, match="State the length of a round by iterations"):
        simulation.simulate(str(in_epochs), tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="--sites 1: expected at least 2"):
        simulation.simulate(str(study_text), tmp_path, tmp_path / "out", sites=1)
    with pytest.raises(InputError, match="names its sites. Leave the option out"):
        simulation.simulate("chest_xray_four_sites", tmp_path, tmp_path / "out", sites=3)
