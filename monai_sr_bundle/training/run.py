"""Train a shipped bundle: its model.yaml joined with a training workflow, run by MONAI as `monai.bundle run` would."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from monai_sr_bundle.bundles import Bundle, configs_dir, find_bundle
from monai_sr_bundle.datasets.manifest import manifest_sha256
from monai_sr_bundle.errors import BundleError, InputError, OutputError, SuperResolutionError


def train(
    name: str,
    data: Path,
    out: Path,
    *,
    minutes: float,
    resume: bool = False,
    seed: int = 0,
    progress: bool = True,
    stage: str | None = None,
    start: Path | None = None,
    backbone: Path | None = None,
    **overrides: Any,
) -> Path:
    """Train a bundle for a stated time and keep the weights that were best on the validation split.

    Args:
        name: of a shipped bundle.
        data: folder with a manifest, or of such folders.
        out: for `model.pt` (best), `last.pt` (to resume), `validation.csv`, and, of this and the earlier stages,
            `training_curve.csv` and `training.json`.
        minutes: of training, validation not counted, above 0; the whole budget, also of a resumed run.
        resume: go on from the newest checkpoint in `out`.
        seed: of the weights, patches and flips.
        progress: show a bar.
        stage: of the bundle's training, as "regression", "gan" or "perceptual"; the first if None.
        start: weights of an earlier run to begin with; a later stage needs them.
        backbone: weights of the recognition network behind a feature loss.
        overrides: other keys of the workflow, such as `batch_size`.

    Returns:
        The best weights.

    Raises:
        BundleError: unknown bundle, or one that has nothing to train; no such stage; weights of another network.
        InputError: a budget not above 0; a manifest that cannot be used; nothing to resume from or to start from.
        OutputError: `out` holds another run and `resume` is not set.
    """
    bundle = find_bundle(name)
    workflows = workflows_of(bundle, stage)
    if workflows != workflows_of(bundle) and start is None:
        raise InputError(
            f"stage {stage} of {bundle.name} goes on with trained weights: pass the model.pt of the stage before it "
            "with --start."
        )
    if not minutes > 0:
        raise InputError(f"--minutes {minutes:g}: expected a number above 0.")
    if not resume and any(out.glob("*.pt")):
        raise OutputError(f"{out} holds checkpoints of another run. Pass --resume to go on with it, or another --out.")
    if overrides.get("tensorboard") and importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "--tensorboard needs the package tensorboard, not installed here. "
            "Install with `pip install 'monai-sr-bundle[tensorboard]'`, or leave the option out."
        )
    sets = bundle.facts["sets"]
    manifest = manifest_sha256(data, sets=sets)
    out.mkdir(parents=True, exist_ok=True)
    keys = {"minutes": minutes, "resume": resume, "seed": seed, "progress": progress, **overrides}
    keys |= {"start": str(start or "")} | ({"backbone": str(backbone)} if backbone else {})
    before = _stages_before(start)
    config = ConfigWorkflow(
        config_file=[*map(str, bundle.texts), *map(str, workflows)],
        workflow_type="train",
        bundle_root=str(bundle.folder),
        dataset_dir=str(data),
        output_dir=str(out),
        **keys,
    )
    try:
        config.initialize()
        config.run()
    except Exception as error:
        # MONAI wraps whatever happens inside a config; our own messages are the ones to show.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, SuperResolutionError | KeyboardInterrupt):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise cause from error
    budget = config.parser.get_parsed_content("budget")
    facts = {
        "bundle": bundle.name,
        "stage": _stage_name(workflows[-1].stem),
        "minutes": round(budget.spent_seconds / 60, 1),
        "iterations": budget.iterations,
        "seed": seed,
        "sets": sets,
        "manifest_sha256": manifest,
        "overrides": overrides,
        "threads": torch.get_num_threads(),
        "precision": "bfloat16" if config.parser.get_parsed_content("bfloat16") else "float32",
        "device": str(config.parser.get_parsed_content("device")),
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
        "finished": time.strftime("%Y-%m-%d"),
    }
    stages = [*before, facts]
    whole = {"minutes": round(sum(each["minutes"] for each in stages), 1), "stages": stages}
    (out / "training.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    # Another bundle or variant was validated on other inputs: its figures stand on another curve.
    same = bool(before) and before[-1]["bundle"] == bundle.name
    _write_curve(out, start if same else None, sum(each["minutes"] for each in before))
    return out / "model.pt"


def workflows_of(bundle: Bundle, stage: str | None = None) -> list[Path]:
    """The workflow texts of one stage of a bundle's training, a later one laid over an earlier one.

    Args:
        bundle: whose model.yaml names them under `training`, from the first stage to the last. What it names under
            `pretraining` comes before, laid over the first of them.
        stage: as "gan" for train_gan.yaml; the first if None.

    Raises:
        BundleError: the bundle is not trained, or has no such stage.
    """
    named = bundle.facts.get("training") or []
    last = [named] if isinstance(named, str) else list(named)
    first = bundle.facts.get("pretraining")
    folder = configs_dir() / "workflows"
    if not last or not all((folder / f"{name}.yaml").is_file() for name in (*last, *([first] if first else []))):
        raise BundleError(f"bundle {bundle.name} has nothing to train: its model.yaml names no `training` workflow.")
    stages = {_stage_name(name): last[: number + 1] for number, name in enumerate(last)}
    if first:
        stages = {_stage_name(first): [last[0], first], **stages}
    if stage is None:
        stage = next(iter(stages))
    if stage not in stages:
        raise BundleError(f"bundle {bundle.name} has no stage {stage!r}; it is trained in {', '.join(stages)}.")
    return [folder / f"{name}.yaml" for name in stages[stage]]


def _stage_name(workflow: str) -> str:
    return workflow.removeprefix("train_")


def _stages_before(start: Path | None) -> list[dict[str, Any]]:
    """What is known of the training of the weights a run starts from."""
    for name, key in (("training.json", None), ("metadata.json", "training")):  # of a run, of a released bundle
        record = start.with_name(name) if start else None
        if record is not None and record.is_file():
            content = json.loads(record.read_text(encoding="utf-8"))
            known = content if key is None else content.get(key, {})
            stages: list[dict[str, Any]] = known.get("stages", [])
            return stages
    return []


def _write_curve(out: Path, start: Path | None, minutes_before: float) -> None:
    """Join the validations of the earlier stages and of this one, minutes running on."""
    rows: list[list[str]] = []
    earlier = start.with_name("training_curve.csv") if start else None
    if earlier is not None and earlier.is_file():
        with earlier.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
    with (out / "validation.csv").open(newline="", encoding="utf-8") as file:
        header, *found = list(csv.reader(file))
    rows += [[f"{float(minutes) + minutes_before:.2f}", *rest] for minutes, *rest in found]
    with (out / "training_curve.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
