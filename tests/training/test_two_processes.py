"""Every stage of every bundle is trained in two processes, as on two GPUs, with the network that is shipped."""

import json
import os
import subprocess
import sys

import pytest
import torch
from monai_sr_bundle.datasets.phantom_set import write_phantom_set
from monai_sr_bundle.shipped_bundles import all_bundles, configs_dir, find_bundle
from monai_sr_bundle.training.stages import training_stages
from monai_sr_bundle.training.training import stage_workflows, train

from tests.tiny_bundle import tiny_bundle

OVERLAY = configs_dir() / "workflows" / "multi_gpu_train.yaml"
VARIANTS = (("chest_xray_residual_flow_x4:artifacts", "regression"),)
"""A kind of stage that no bundle has: a mask of what is drawn into the input."""
QUICK = {
    "iterations": 10, "batch_size": 2, "patch_size": 16, "validations": 1, "val_limit": 2, "statistics_from": 2,
    "limit": 4, "progress": False, "reduce": 1, "sets": ["drawn"],
}  # fmt: skip
SOURCES = {"films": [["drawn", 1, 1.0]], "validation_films": [["drawn", 1]]}
SOURCES |= {key.replace("films", "scans"): value for key, value in SOURCES.items()}


STAGES = [*((bundle.name, stage) for bundle in all_bundles() for stage in training_stages(bundle)), *VARIANTS]
WHOLE = {
    "iterations": 4, "patch_size": 16, "validations": 1, "progress": False, "bfloat16": False, "limit": 2,
    "train#patch": [],
}  # fmt: skip
"""Two whole images in every step."""


def job(name, stage, out, data, backbone):
    """Texts and arguments of a stage that begins with the weights of the one before it."""
    bundle = find_bundle(name)
    files = [*bundle.texts, *stage_workflows(bundle, stage), OVERLAY]
    stages = [*training_stages(bundle)]
    number = stages.index(stage)
    earlier = out / f"{name}-{stages[number - 1]}" / "model.pt" if number else ""
    if bundle.is_variant and number:
        earlier = find_bundle(name.partition(":")[0]).folder / "model.pt"
    options = {**QUICK, **{key: value for key, value in SOURCES.items() if key in bundle.facts}}
    options |= {"val_steps": 1} if bundle.facts["diffusion"] else {}
    options |= {"backbone": str(backbone)} if stage in ("gan", "perceptual", "decoded") else {}
    options |= {"initial_weights": str(earlier), "dataset_dir": str(data / bundle.modality)}
    options |= {"bundle_root": str(bundle.folder), "output_dir": str(out / f"{name}-{stage}")}
    return {"files": [*map(str, files)], "arguments": options}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), "chest_xray_edsr_x4")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, backbone, tiny, data):
    """The outcome of each stage, all of them in one launch."""
    out, phantoms = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("phantoms")
    for modality in ("CXR", "CT"):
        write_phantom_set(phantoms / modality / "drawn", modality, size=128)
    jobs = {f"{name} {stage}": job(name, stage, out, phantoms, backbone) for name, stage in STAGES}
    jobs["whole images"] = {
        "files": [f"{tiny}/model.yaml", *map(str, [*stage_workflows(find_bundle(tiny)), OVERLAY])],
        "arguments": {**WHOLE, "batch_size": 1, "dataset_dir": str(data), "output_dir": str(out / "whole")},
    }
    (out / "jobs.json").write_text(json.dumps(jobs))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "tests.training.run_jobs"]
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", *launch, str(out / "jobs.json"), str(out / "results.json")],
        cwd=configs_dir().parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads((out / "results.json").read_text()) | {"last.pt": out / "whole" / "last.pt"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_every_stage_takes_ten_steps_in_two_processes_that_hold_the_same_weights(outcomes, name, stage):
    assert outcomes[f"{name} {stage}"] == {"iterations": 10, "equal": True, "finite": True}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names of threads are read from /proc")
def test_threads_of_gloo_end_before_python_does(outcomes):
    """One that frees a tensor while Python ends aborts the process, after all its work is done."""
    assert outcomes["threads"]
    assert not [name for name in outcomes["threads"] if "gloo" in name]


@pytest.mark.slow
def test_two_processes_take_the_steps_that_one_takes_with_the_images_of_both(outcomes, tiny, data, tmp_path):
    train(tiny, data, tmp_path / "out", batch_size=2, **WHOLE)
    one, two = (
        torch.load(path, weights_only=True)["model"] for path in (tmp_path / "out/last.pt", outcomes["last.pt"])
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6)
