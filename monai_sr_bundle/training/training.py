"""A training as an object: opened once, run as often and for as long as its caller says."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data.dataloader import DataLoader
from monai.data.dataset import Dataset
from monai.handlers.checkpoint_loader import CheckpointLoader
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.datasets.make_manifest import manifest_sha256
from monai_sr_bundle.errors import BundleError, InputError, OutputError, SuperResolutionError, quote
from monai_sr_bundle.images.staging import as_output_error, require_free, write_file
from monai_sr_bundle.shipped_bundles import configs_dir, find_bundle
from monai_sr_bundle.training.budget import Budget, Duration
from monai_sr_bundle.training.image_sets import SOURCES, with_image_sets
from monai_sr_bundle.training.stages import training_stages
from monai_sr_bundle.training.step import Objective
from monai_sr_bundle.training.weights import (
    BEST_WEIGHTS,
    checked_weights,
    latest_checkpoint,
    load_state,
    recorded_stages,
)

logger = logging.getLogger(__name__)

_START = "start.txt"
"""File beside the checkpoints with the path of the weights that a training began with, and its stage."""
_EXACT_EVALUATOR = "validate#exact_evaluator"


def open_training(
    bundle: str | Bundle,
    data: Path,
    output: Path,
    *,
    stage: str | None = None,
    start: Path | None = None,
    backbone: Path | None = None,
    sets: Sequence[str] | None = None,
    resume: bool = False,
    iterations: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    callback: Callable[[Record], None] | None = None,
    **overrides: Any,
) -> Training:
    """Prepare the training of a bundle; nothing is trained yet.

    Args:
        bundle: shipped bundle, a variant as `NAME:VARIANT`, or a bundle's folder.
        data: folder with a manifest, or of such folders.
        output: folder for `model.pt` (the best average), `last.pt` and `start.txt` (to resume), `validation.csv`, and,
            of this and the earlier stages, `training_curve.csv` and `training.json`.
        stage: stage of the bundle's training, as "regression" or "gan". Default: the first, or that which is resumed.
        start: weights of an earlier training to begin with; a later stage needs them. Default: none, or, of a resumed
            training, those that it began with.
        backbone: weights of the recognition network behind a feature loss.
        sets: image sets in `data`. Default: the bundle's own, or those that are there (see `with_image_sets`).
        resume: go on from the newest checkpoint in `output`. Default False.
        iterations, epochs, minutes: length of the whole training, over all runs and over an interruption: the learning
            rate rises and falls over it. Default: every run has a schedule of its own.
        callback: called with a `Record` of every training step and every validation of a run.
        overrides: other keys of the workflow, as `batch_size`, `seed` or `progress` (a bar; default False).

    Raises:
        BundleError: unknown bundle, or one that has nothing to train; no such stage; weights of another network.
        InputError: a length not above 0; a key that the workflow does not have, or a value that it cannot be set to; a
            manifest that cannot be used; nothing to resume from or to start from.
        OutputError: `output` holds another training and `resume` is not set.
    """
    bundle = find_bundle(bundle) if isinstance(bundle, str) else bundle
    if resume and any(output.glob("*.pt")):
        first_weights, resumed = "", next(iter(training_stages(bundle)), None)
        if (output / _START).is_file():
            first_weights, _, recorded = (output / _START).read_text(encoding="utf-8").partition("\n")
            resumed = recorded or stage  # version 0.1.0 wrote no stage
        if stage not in (None, resumed):
            raise InputError(
                f"{output} holds a training of the stage {resumed}, not of {stage}. Resume it without --stage, or pass "
                "another --out."
            )
        start, stage = start or (Path(first_weights) if first_weights else None), resumed
    workflows = stage_workflows(bundle, stage)
    if workflows != stage_workflows(bundle) and start is None:
        raise InputError(
            f"stage {stage} of {bundle.name} goes on with trained weights: pass the model.pt of the stage before it "
            "with --start."
        )
    has_length = any(value is not None for value in (iterations, epochs, minutes))
    schedule = Duration(iterations, epochs, minutes) if has_length else None
    if not resume and any(output.glob("*.pt")):
        raise OutputError(
            f"{output} holds checkpoints of another run. Pass --resume to go on with it, or another --out."
        )
    if overrides.get("tensorboard") and importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "tensorboard=true needs the package tensorboard, not installed here. Install with "
            "`pip install -c constraints.txt '.[tensorboard]'` in this package's folder, or leave the key out."
        )
    texts = [*map(str, bundle.texts), *map(str, workflows)]
    workflow = ConfigParser.load_config_files(texts)
    if unknown := [key for key in overrides if key.partition("#")[0] not in workflow]:
        raise InputError(
            f"{unknown[0]}: not a key of this training, expected one of those in model.yaml and "
            f"{', '.join(path.name for path in workflows)}."
        )
    bundle = with_image_sets(bundle, data, sets)
    manifest = manifest_sha256(data, sets=bundle.facts["sets"])
    stage = stage or next(iter(training_stages(bundle)))
    with as_output_error(output, None):
        require_free(output / BEST_WEIGHTS, overwrite=True)
        output.mkdir(parents=True, exist_ok=True)
    if start is not None:
        write_file(output / _START, f"{start.resolve()}\n{stage}".encode())
    elif not resume:
        (output / _START).unlink(missing_ok=True)
    keys: dict[str, Any] = (
        {key: value for key, value in vars(schedule).items() if value is not None} if schedule else {}
    )
    keys |= {
        **{key: bundle.facts[key] for key in ("sets", *SOURCES) if key in bundle.facts},
        "initial_weights": str(start or ""),
        "resume": resume,
        "progress": False,
        **overrides,
    }
    # MONAI's loader acts at the start of every run, and would undo the runs before it.
    keys["load_checkpoint"] = False
    if backbone:
        keys["backbone"] = str(backbone)
    with _quiet_workflow():
        config = ConfigWorkflow(
            config_file=texts,
            workflow_type="train",
            bundle_root=str(bundle.folder),
            dataset_dir=str(data),
            output_dir=str(output),
            **keys,
        )
    evaluator = config.parser["validate#evaluator"]
    config.parser[_EXACT_EVALUATOR] = {**evaluator, "val_handlers": []}
    facts = {
        "bundle": bundle.name,
        "stage": stage,
        "sets": bundle.facts["sets"],
        "manifest_sha256": manifest,
        "overrides": {key: value for key, value in overrides.items() if key not in ("seed", "progress")},
    }
    with _own_errors(facts["overrides"]), _quiet_workflow():
        config.initialize()
        training = Training(bundle, config, output, start, schedule, facts, callback)
        if resume:
            training.load_checkpoint(Path(latest_checkpoint(str(output))))
    return training


def train(
    bundle: str | Bundle,
    data: Path,
    out: Path,
    *,
    iterations: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Train a bundle from beginning to end, and keep the weights that were best on the validation images.

    Args:
        bundle, data: see `open_training`.
        out: folder for the weights and records.
        iterations, epochs, minutes: length of the whole training, of a resumed one too; one of them.
        progress: show a bar. Default True.
        options: others of `open_training`, as `stage`, `start`, `resume` and `seed`, and keys of the workflow.

    Returns:
        The best weights.

    Raises:
        BundleError, InputError, OutputError: see `open_training`.
    """
    training = open_training(
        bundle, data, out, iterations=iterations, epochs=epochs, minutes=minutes, progress=progress, **options
    )
    training.run()
    return training.save()


@dataclass(frozen=True)
class Record:
    """The measurements of one training step or one validation.

    Args:
        kind: "training" for one step, "validation" for all validation images.
        iteration: iteration of the training, counted from 1.
        minutes: minutes of training so far.
        values: the loss and its parts, or the metrics of the validation, by name.
    """

    kind: Literal["training", "validation"]
    iteration: int
    minutes: float
    values: dict[str, float]


class Training:
    """A bundle's training, which can be run any number of times for any length. Made by `open_training`.

    It has two sets of weights: those that the optimizer changes, and their average over the last iterations, which is
    what a finished training keeps.

    Attributes:
        bundle: bundle to train; its `sets` are the image sets of this training.
        output: folder of the checkpoints and records.
        network: network that the optimizer changes.
        budget: iterations and seconds so far, and the schedule of the learning rate.
        optimizer: optimizer of the network.
        objective: network and loss as one module.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: ConfigWorkflow,
        output: Path,
        start: Path | None,
        schedule: Duration | None,
        facts: dict[str, Any],
        callback: Callable[[Record], None] | None = None,
    ) -> None:
        self.bundle, self.output = bundle, output
        self._config, self._start, self._facts = config, start, facts
        self._earlier_stages = recorded_stages(start) if start else []
        self._trainer = self._content("train#trainer")
        self._evaluator = self._content("validate#evaluator")
        self.network: torch.nn.Module = self._trainer.network
        self.optimizer: torch.optim.Optimizer = self._content("optimizer")
        self.objective: Objective = self._content("objective")
        self._average = self._content("ema")
        self._has_schedule = schedule is not None
        self.budget: Budget = self._content("budget")
        self.budget.epoch_length = self._trainer.state.epoch_length
        if callback is not None:
            self._tell_records(callback)
        self._average_was_trained = False

    def weights(self, *, average: bool = False) -> dict[str, torch.Tensor]:
        """Return a copy of the weights as a state dict on the CPU.

        Args:
            average: return the average instead of the weights that the optimizer changes. Default False.
        """
        if average:
            self._measure_statistics()
        network = self._average.network if average else self.network
        return {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}

    def load_weights(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on with other weights, as of a federated round; the average begins anew with them.

        Args:
            state: all weights of the network, by the names of its own state dict.

        Raises:
            BundleError: weights of another network, or trained for another diffusion process; nothing was changed.
        """
        process = self.network.state_dict().get("process")
        if process is not None and "process" in state:
            given = state["process"].to(process)
            # Processors round the numbers of a process in different ways.
            if process.any() and given.any() and not torch.allclose(process, given, rtol=1e-4, atol=1e-7):
                raise BundleError(
                    f"the weights for {self.bundle.name} were trained for another diffusion process than its "
                    "model.yaml states. Use the same `diffusion` everywhere."
                )
            state = {**state, "process": given if given.any() else process}
        load_state(self.network, state, "the given state dict:", f"the network of {self.bundle.name}")
        self._average_was_trained = False

    def run(self, *, iterations: int | None = None, epochs: float | None = None, minutes: float | None = None) -> int:
        """Train, and write `last.pt`.

        In a training of a stated length the learning rate goes on where the run before left it; after that length it
        stays at its lowest. In any other the rate rises and falls within each run.

        Args:
            iterations, epochs, minutes: how long, one of them. Default: what is left of the whole training.

        Returns:
            The iterations done.

        Raises:
            InputError: see `Duration`; no length, for a training without one; an image smaller than a patch; a value of
                a key with which no step can be taken.
        """
        before = self.budget.iterations
        if self._has_schedule and iterations is None and epochs is None and minutes is None:
            if self.budget.progress >= 1:
                logger.warning(
                    "all %s of this training are over, so nothing was trained. Ask for more to go on.",
                    self.budget.schedule,
                )
                return 0
            self.budget.limit_next_run(None)
        else:
            duration = Duration(iterations, epochs, minutes)
            if not self._has_schedule:
                self.budget.restart_schedule(duration)
            self.budget.limit_next_run(duration)
        # A value of a key may be refused no earlier than by the first step, as that of `workers`.
        overrides = dict(self._facts["overrides"])
        first_step = self._trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: overrides.clear())
        try:
            with _own_errors(overrides), _quiet_workflow():  # here too, MONAI makes a scaler
                self._trainer.run()
        finally:
            first_step.remove()
            self.budget.limit_next_run(None)
            if not self.budget.iterations:  # what MONAI saved at an error would have to be resumed or removed by hand
                (self.output / "last.pt").unlink(missing_ok=True)
        self._average_was_trained = True
        return self.budget.iterations - before

    def validate(self, *, average: bool = False) -> dict[str, float]:
        """Measure the metrics of exactly the weights that `weights` returns, and write nothing.

        Args:
            average: measure the average instead of the weights that the optimizer changes. Default False.
        """
        if average:
            self._measure_statistics()
        evaluator = self._content(_EXACT_EVALUATOR)
        evaluator.network = self._average.network if average else self.network
        evaluator.run()
        return {name: float(value) for name, value in evaluator.state.metrics.items()}

    @property
    def sample_rate(self) -> float:
        """Probability with which a patient takes part in a step; of a training with differential privacy alone."""
        return float(self._content("train#dataloader").batch_sampler.sample_rate)

    def enlarge(self, items: Sequence[Mapping[Hashable, Any]]) -> Iterator[dict[str, torch.Tensor]]:
        """Yield `image`, `pred` and `label` of images, ``[C, rows, columns]``, as a validation of `weights` has them.

        Args:
            items: images as `pair_items` lists them, which may be others than the training's own.
        """
        evaluator = self._content(_EXACT_EVALUATOR)
        evaluator.network = self.network
        loader, length = evaluator.data_loader, evaluator.state.epoch_length
        transform = self._content("validate#preprocessing")
        outputs: list[Any] = []
        handle = evaluator.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output)
        )
        try:
            for item in items:  # one by one: a test set of whole images need not fit into memory
                evaluator.data_loader = DataLoader(Dataset([item], transform), batch_size=1)
                evaluator.state.epoch_length = 1
                evaluator.run()
                output = outputs.pop()  # a list of images, or a batch where a stage has a validation of its own
                yield {
                    key: torch.as_tensor(output[0][key] if isinstance(output, list) else output[key][0]).detach()
                    for key in ("image", "pred", "label")
                }
        finally:
            handle.remove()
            evaluator.data_loader, evaluator.state.epoch_length = loader, length

    def save(self) -> Path:
        """Validate the average, keep it if none before it was better, and write `training.json` and the curve.

        Returns:
            The best weights on the validation images, `model.pt`.
        """
        self._evaluator.run()
        stage = {
            **self._facts,
            "minutes": round(self.budget.spent_seconds / 60, 1),
            "iterations": self.budget.iterations,
            "seed": self._content("seed"),
            "threads": torch.get_num_threads(),
            "precision": "bfloat16" if self._content("bfloat16") else "float32",
            "device": _device_name(self._content("device")),
            "torch": torch.__version__,
            "cpus": os.cpu_count(),
            "finished": time.strftime("%Y-%m-%d"),
        }
        stages = [*self._earlier_stages, stage]
        whole = {"minutes": round(sum(each["minutes"] for each in stages), 1), "stages": stages}
        write_file(self.output / "training.json", f"{json.dumps(whole, indent=2)}\n".encode())
        # Another bundle or variant was validated on other inputs: its figures stand on another curve.
        same_inputs = bool(self._earlier_stages) and self._earlier_stages[-1]["bundle"] == self.bundle.name
        minutes_before = sum(each["minutes"] for each in self._earlier_stages)
        _write_curve(self.output, self._start if same_inputs else None, minutes_before)
        return self.output / BEST_WEIGHTS

    def load_checkpoint(self, path: Path) -> None:
        """Go on with all that a run has written into `last.pt`: weights, average, optimizer, iterations and time.

        Raises:
            InputError, BundleError: see `checked_weights`.
        """
        checked_weights(str(path), self.network, str(self.bundle.folder))
        CheckpointLoader(str(path), self._content("checkpointed"), map_location=self._content("device"))(self._trainer)
        self._average_was_trained = True

    def _tell_records(self, callback: Callable[[Record], None]) -> None:
        def tell(kind: Literal["training", "validation"], values: dict[str, float]) -> None:
            callback(Record(kind, self.budget.iterations, self.budget.spent_seconds / 60, values))

        def tell_step(engine: Engine) -> None:
            assert isinstance(engine.state.output, dict)
            tell("training", {key: value for key, value in engine.state.output.items() if isinstance(value, float)})

        def tell_validation(engine: Engine) -> None:
            tell("validation", {name: float(value) for name, value in engine.state.metrics.items()})

        self._trainer.add_event_handler(Events.ITERATION_COMPLETED, tell_step)
        self._evaluator.add_event_handler(Events.COMPLETED, tell_validation)

    def _measure_statistics(self) -> None:
        # Batch normalisation of an average: of given weights, the statistics are given with them.
        if self._average_was_trained and "validate#statistics" in self._config.parser:
            self._content("validate#statistics").measure()

    def _content(self, key: str) -> Any:
        return self._config.parser.get_parsed_content(key)


def stage_workflows(bundle: Bundle, stage: str | None = None) -> list[Path]:
    """Return the workflow texts of one stage of a bundle's training, a later one laid over an earlier one.

    Args:
        bundle: a bundle.
        stage: name of one of its `training_stages`. Default: the first.

    Raises:
        BundleError: the bundle is not trained, or has no such stage.
    """
    folder = configs_dir() / "workflows"
    stages = {name: [folder / f"{text}.yaml" for text in texts] for name, texts in training_stages(bundle).items()}
    if not stages or not all(file.is_file() for files in stages.values() for file in files):
        raise BundleError(f"bundle {bundle.name} has nothing to train: its model.yaml names no `training` workflow.")
    if stage is None:
        stage = next(iter(stages))
    if stage not in stages:
        raise BundleError(f"bundle {bundle.name} has no stage {stage!r}; it is trained in {', '.join(stages)}.")
    return stages[stage]


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


@contextmanager
def _quiet_workflow() -> Iterator[None]:
    """Silence MONAI's remarks that the texts lie in two folders and bring no logging configuration: both are meant.

    And PyTorch's on the scaler of gradients that MONAI makes whether or not one is used.
    """
    remarks = logging.getLogger("monai.bundle.workflows")
    level = remarks.level
    remarks.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*GradScaler")
            yield
    finally:
        remarks.setLevel(level)


@contextmanager
def _own_errors(overrides: Mapping[str, Any]) -> Iterator[None]:
    """Show our own messages, which MONAI wraps in those of its configs, and what it says of keys that were set."""
    try:
        yield
    except Exception as error:
        causes: list[BaseException] = [error]
        while further := causes[-1].__cause__ or causes[-1].__context__:
            causes.append(further)
        reason = next((cause for cause in causes if isinstance(cause, SuperResolutionError | KeyboardInterrupt)), None)
        if reason is error or (reason is None and not overrides):
            raise
        if reason is not None:
            raise reason from error
        settings = ", ".join(f"{key} {quote(value)}" for key, value in overrides.items())
        raise InputError(
            f"the training cannot be set up with {settings} ({quote(causes[-1])}). Correct the values, or leave them "
            "out."
        ) from error


def _write_curve(output: Path, start: Path | None, minutes_before: float) -> None:
    """Join the validations of the earlier stages and of this one; the minutes run on."""
    rows: list[list[str]] = []
    earlier = start.with_name("training_curve.csv") if start else None
    if earlier is not None and earlier.is_file():
        with earlier.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
    with (output / "validation.csv").open(newline="", encoding="utf-8") as file:
        header, *validations = list(csv.reader(file))
    rows += [[f"{float(minutes) + minutes_before:.2f}", *cells] for minutes, *cells in validations]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_file(output / "training_curve.csv", text.getvalue().encode())
