"""Every stage of every bundle is trained in two processes, as on two GPUs, with the network that is shipped."""

import json
import os
import subprocess
import sys

import pytest

from monai_sr_bundle.bundles import all_bundles, configs_dir, find_bundle
from monai_sr_bundle.datasets.phantom_set import write_phantom_set
from monai_sr_bundle.training.training import stage_workflows

TEXTURE = "chest_xray_blind:texture"
"""A variant with the one kind of stage that no bundle has: a flow of several scales."""
QUICK = {
    "iterations": 10, "batch_size": 2, "patch_size": 16, "validations": 1, "val_limit": 2, "statistics_from": 2,
    "limit": 4, "progress": False, "reduce": 1, "sets": ["drawn"],
}  # fmt: skip
SOURCES = {"films": [["drawn", 1, 1.0]], "validation_films": [["drawn", 1]]}
SOURCES |= {key.replace("films", "scans"): value for key, value in SOURCES.items()}


def stages_of(bundle):
    """Names of the stages of a bundle's training, from first to last."""
    names = [stage[-1].removeprefix("train_") for stage in bundle.training_stages]
    pretraining = bundle.facts.get("pretraining")
    return [*([pretraining.removeprefix("train_")] if pretraining else []), *names]


STAGES = [
    (name, stage)
    for name in [*(bundle.name for bundle in all_bundles()), TEXTURE]
    for stage in stages_of(find_bundle(name))
    if name != TEXTURE or stage == "flow"
]


def job(name, stage, out, data, backbone):
    """Texts and arguments of a stage that begins with the weights of the one before it."""
    bundle = find_bundle(name)
    files = [*bundle.texts, *stage_workflows(bundle, stage), configs_dir() / "workflows" / "multi_gpu_train.yaml"]
    stages = stages_of(bundle)
    number = stages.index(stage)
    earlier = out / f"{name}-{stages[number - 1]}" / "model.pt" if number else ""
    if name == TEXTURE:
        earlier = find_bundle(name.partition(":")[0]).folder / "model.pt"
    options = {**QUICK, **{key: value for key, value in SOURCES.items() if key in bundle.facts}}
    options |= {"val_steps": 1} if bundle.facts["diffusion"] else {}
    options |= {"backbone": str(backbone)} if stage in ("gan", "perceptual", "decoded") else {}
    options |= {"initial_weights": str(earlier), "dataset_dir": str(data / bundle.modality)}
    options |= {"bundle_root": str(bundle.folder), "output_dir": str(out / f"{name}-{stage}")}
    return {"files": [*map(str, files)], "arguments": options}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, backbone):
    """What each stage gave, all of them in one launch."""
    out, data = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("data")
    for modality in ("CXR", "CT"):
        write_phantom_set(data / modality / "drawn", modality, size=128)
    jobs = {f"{name} {stage}": job(name, stage, out, data, backbone) for name, stage in STAGES}
    (out / "jobs.json").write_text(json.dumps(jobs))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "tests.training.run_jobs"]
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", *launch, str(out / "jobs.json"), str(out / "results.json")],
        cwd=configs_dir().parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads((out / "results.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_every_stage_takes_ten_steps_in_two_processes_that_hold_the_same_weights(outcomes, name, stage):
    assert outcomes[f"{name} {stage}"] == {"iterations": 10, "equal": True, "finite": True}
