"""The trainer of a site in a job of NVFlare's recipe for homomorphic encryption: a round, and what it changed."""

import sys
from pathlib import Path

import nvflare.client as flare
import torch
from monai_sr_bundle.federated.site_settings import read_site_settings
from monai_sr_bundle.federated.site_training import SiteTraining
from monai_sr_bundle.federated.training_task import TrainingTask
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

root = Path(sys.argv[sys.argv.index("--root") + 1])
flare.init()
site = flare.get_site_name()
task = TrainingTask.from_text((root / "task.json").read_text())
training = SiteTraining(
    task, task.require_bundle(), read_site_settings(root / f"{site}.yaml"), site, root / "work" / site
)
while flare.is_running():
    arrived = flare.receive()
    if arrived is None:
        break
    training.load(arrived.params)
    result = training.run_round(0)
    torch.save({"difference": result.difference, "images": result.images}, root / f"{site}.pt")  # stays at the site
    meta = {"NUM_STEPS_CURRENT_ROUND": result.images}
    flare.send(FLModel(params_type=ParamsType.DIFF, params=result.difference, metrics=result.metrics, meta=meta))
