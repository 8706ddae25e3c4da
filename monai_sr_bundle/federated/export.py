"""A global model as a bundle that says where its weights come from."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from monai_sr_bundle.bundles import Bundle, sha256_of
from monai_sr_bundle.errors import BundleError, InputError, OutputError
from monai_sr_bundle.federated.messages import IMAGES, ITERATIONS, ROUNDS_FILE, SECONDS
from monai_sr_bundle.federated.start_weights import SHIPPED
from monai_sr_bundle.federated.study import Study, read_study
from monai_sr_bundle.images.staging import write_file
from monai_sr_bundle.packing.release import release
from monai_sr_bundle.training.weights import read_weights, recorded_stages

PROVENANCE = "federated"
"""Key of the metadata with the provenance."""


def export(study_name: str, model: Path, out: Path) -> list[str]:
    """Write a bundle with the weights of a global model, ONNX files included.

    Its metadata name the study, its rounds and the number of its sites, and none of the sites. Figures and error bars
    of the shipped weights are left out: they are not those of these.

    Args:
        study_name: name or file of the study.
        model: `FL_global_model.pt` of its job, with `rounds.json` beside it.
        out: new folder for the bundle.

    Returns:
        One line per weights file.

    Raises:
        InputError: the model or the record of its rounds cannot be read.
        BundleError: the bundle is packed or a variant, or has other weights than these.
        OutputError: `out` exists, or a file is above 25 MB.
    """
    study = read_study(study_name)
    bundle = study.task.require_bundle()
    if bundle.is_packed or bundle.is_variant:
        raise BundleError(
            f"{bundle.name} is packed or a variant; a global model goes into a copy of a bundle's source."
        )
    if out.exists():
        raise OutputError(f"{out} exists. Choose another --out.")
    rounds = _read_rounds(model.with_name(ROUNDS_FILE))
    state = read_weights(model)
    copied = [text.name for text in bundle.texts] + ["metadata.json", "card.md", "data_license.txt", "example.jpg"]
    try:
        out.mkdir(parents=True)
        for name in copied:
            if (bundle.folder / name).is_file():
                shutil.copyfile(bundle.folder / name, out / name)
        _write_texts(study, bundle, rounds, model, out)
        with TemporaryDirectory() as temporary:
            weights = Path(temporary) / "model.pt"
            torch.save(state, weights)
            _write_training(study, bundle, rounds, Path(temporary))
            return release(str(out), weights)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _read_rounds(path: Path) -> list[dict[str, Any]]:
    """Return the records of the rounds that trained, with that of the last measurement at the end."""
    try:
        rounds = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rounds, list) or not rounds:
            raise ValueError("it is no list of rounds")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as the record of a job's rounds. Name the model in the folder that the job's "
            "results were downloaded to."
        ) from error
    return rounds


def _write_texts(study: Study, bundle: Bundle, rounds: Sequence[Mapping[str, Any]], model: Path, out: Path) -> None:
    start = model.with_name("start.pt")
    trained = [each for each in rounds if "asked" in each]
    metadata = json.loads((out / "metadata.json").read_text(encoding="utf-8"))
    for key in ("error_bars_training", "input_range", "input_limits", "weights_url"):
        metadata.pop(key, None)
    metadata["weights_sha256"] = {}
    # A round measures the model that it begins with; of these weights, the last measurement alone says something.
    measured = {} if "asked" in rounds[-1] else _means(rounds[-1])
    metadata["eval_metrics"] = {f"federated_{name}_mean_of_sites": round(value, 4) for name, value in measured.items()}
    metadata[PROVENANCE] = {
        "study": study.name,
        "algorithm": study.task.algorithm,
        "rounds": len(trained),
        "sites": max(each["answered"] for each in trained),
        "training_images": sum(site[IMAGES] for site in trained[-1]["sites"].values()),
        "start": study.start if study.start in (SHIPPED, "random") else "a file",
        "start_sha256": sha256_of(start) if start.is_file() else "",
        "bundle_sha256": study.task.bundle_sha256,
        "global_model_sha256": sha256_of(model),
    }
    write_file(out / "metadata.json", f"{json.dumps(metadata, indent=4)}\n".encode())
    card = (out / "card.md").read_text(encoding="utf-8")
    title, _, text = card.partition("\n")
    facts = metadata[PROVENANCE]
    remark = (
        f"These weights are the global model of the federated study {study.name}: {facts['rounds']} rounds at "
        f"{facts['sites']} sites. Tables and figures of this card are those of the weights that {bundle.name} is "
        "shipped with; the study did not measure them again."
    )
    write_file(out / "card.md", f"{title}\n\n{remark}\n{text}".encode())


def _write_training(study: Study, bundle: Bundle, rounds: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write the records that `monai-sr train` would have left beside the weights."""
    trained = [each for each in rounds if "asked" in each]
    steps = [max(site[ITERATIONS] for site in each["sites"].values()) for each in trained]
    seconds = [max(site[SECONDS] for site in each["sites"].values()) for each in trained]
    stage = {
        "bundle": bundle.name,
        "stage": study.task.stage or "regression",
        "federated_study": study.name,
        "rounds": len(trained),
        "minutes": round(sum(seconds) / 60, 1),
        "iterations": sum(steps),
        "seed": study.task.seed,
        "finished": time.strftime("%Y-%m-%d"),
    }
    earlier = recorded_stages(bundle.weights("model.pt")[0]) if study.start == SHIPPED else []
    stages = [*earlier, stage]
    content = {"minutes": round(sum(each["minutes"] for each in stages), 1), "stages": stages}
    write_file(folder / "training.json", f"{json.dumps(content, indent=2)}\n".encode())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("minutes", "iteration", "metric", "value"))
    for number, each in enumerate(rounds):  # what a round measures first is the model of the rounds before it
        for name, value in _means(each).items():
            minutes = f"{sum(seconds[:number]) / 60:.2f}"
            writer.writerow((minutes, sum(steps[:number]), name.removeprefix("val_"), f"{value:.5f}"))
    write_file(folder / "training_curve.csv", text.getvalue().encode())


def _means(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean of each metric over the sites that have it."""
    metrics = [site["metrics"] for site in record["sites"].values()]
    names = sorted({name for each in metrics for name in each})
    return {
        name: sum(each[name] for each in metrics if name in each) / sum(name in each for each in metrics)
        for name in names
    }
