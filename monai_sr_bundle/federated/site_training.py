"""The training of one site in a study: it gets global weights, and gives their change in a round."""

from __future__ import annotations

import hashlib
import math
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.datasets.manifest import set_folders
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.federated.ledger import Release, require_ledger
from monai_sr_bundle.federated.messages import DELTA, EPSILON, PROCESS_OF, SAMPLE_RATE
from monai_sr_bundle.federated.site_settings import SiteSettings
from monai_sr_bundle.federated.training_task import TrainingTask
from monai_sr_bundle.images.staging import staged
from monai_sr_bundle.metrics.box_fidelity import box_psnr
from monai_sr_bundle.training.stages import training_stages
from monai_sr_bundle.training.training import Training, open_training
from monai_sr_bundle.training.weights import read_weights
from monai_sr_bundle.transforms.augmentation import BOXES
from monai_sr_bundle.transforms.pairs import pair_items
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class RoundResult:
    """The result of a round at a site, which is its answer to the server.

    Attributes:
        difference: change of each weight in the round, on the CPU; empty if nothing was trained.
        metrics: figures of exactly the weights that arrived, on the site's validation images.
        images, boxed_images: number of training images, and of those among them with boxes.
        iterations, seconds: length of the round.
        process: fingerprint of the process of a diffusion model or flow; empty for others.
        privacy: after a round of DP-SGD, the `EPSILON` that the site has spent in all at a `DELTA`, and the
            `SAMPLE_RATE`; else empty.
    """

    difference: dict[str, torch.Tensor]
    metrics: dict[str, float]
    images: int
    boxed_images: int
    iterations: int
    seconds: float
    process: list[float]
    privacy: dict[str, float]


class SiteTraining:
    """A site's own training, which every round begins with the weights that arrived.

    Args:
        task: training of the study.
        bundle: the bundle, from `TrainingTask.require_bundle`.
        settings: settings with the folder of the site's images.
        site: name of the site; with the study's seed it decides which patches are drawn.
        output: new folder of this training.
        rounds_before: rounds of the whole study before the first of this training. Default 0.

    Raises:
        InputError, BundleError: see `open_training`.
    """

    def __init__(
        self,
        task: TrainingTask,
        bundle: Bundle,
        settings: SiteSettings,
        site: str,
        output: Path,
        rounds_before: int = 0,
    ) -> None:
        self.task, self.settings, self.output = task, settings, output
        seed = site_seed(task.seed, site, rounds_before)
        self.training = open_site_training(task, bundle, settings, output, seed=seed)
        self._normalisation = normalisation_keys(self.training.network) if task.local_normalisation else set()
        # The next job of the study has another process; a job of the same study has the same task.
        digest = hashlib.sha256(task.as_text().encode()).hexdigest()[:16]
        self._normalisation_files = f"normalisation_{digest}_*.pt"  # * is the round that it was trained in
        train_items = site_items(self.training, settings, "train")
        self._validation_items = site_items(self.training, settings, "val")
        self.images = len(train_items)
        self.boxed_images = sum(bool(len(item[BOXES])) for item in train_items)
        self._objective: Any = self.training.objective
        self._box_weight = getattr(self._objective, "box_weight", 0.0)
        self._global: dict[str, torch.Tensor] = {}
        self._iterations_a_round = _round_iterations(task, self.training)
        if task.mu:
            self._stay_near_global(task.mu)
        self._ledger = require_ledger(settings) if task.private_noise else None

    def load(self, weights: Mapping[str, Any], rounds_before: int = 0) -> None:
        """Take the weights that arrived, in the network and in its average; what the site keeps for itself stays.

        Args:
            weights: arrays by the names of the network's state dict, all of them.
            rounds_before: rounds before this one in the whole study. At 0, the site begins with all that arrived.

        Raises:
            BundleError: weights of another network or process.
        """
        current = self.training.weights()
        if set(weights) != set(current):
            odd = sorted(set(weights) ^ set(current))[0]
            raise BundleError(
                f"the global model does not belong to {self.task.bundle}: {odd} is in one of them alone. "
                "Use the same version at the server and at the sites."
            )
        global_weights = {key: torch.as_tensor(value).to(current[key].dtype) for key, value in weights.items()}
        self.training.load_weights(global_weights | self._kept_normalisation(rounds_before))
        self._global = {key: value.clone() for key, value in self.training.network.state_dict().items()}

    def validate(self) -> dict[str, float]:
        """Return the figures of the weights that arrived; those inside boxes only where the site has some."""
        metrics = {f"val_{name}": value for name, value in self.training.validate().items()}
        boxed = [item for item in self._validation_items if len(item[BOXES])]
        facts = self.training.bundle.facts
        levels, reduce = int(facts["levels"]), int(self.settings.reduce or facts.get("reduce", 1))
        values = [
            box_psnr(output["pred"][None], output["label"][None], item[BOXES] / reduce, levels)
            for item, output in zip(boxed, self.training.enlarge(boxed), strict=True)
        ]
        measured = [value for value in values if math.isfinite(value)]
        return metrics | ({"val_psnr_box": sum(measured) / len(measured)} if measured else {})

    def run_round(self, number: int, box_factor: float = 1.0) -> RoundResult:
        """Validate what arrived, then train a round.

        Args:
            number: rounds before this one in the whole study; the learning rate follows it.
            box_factor: the loss inside boxes counts so many times: sites without boxes have none, and the mean over
                all sites would thin it out. Default 1.
        """
        metrics = self.validate()
        start = time.monotonic()
        self.training.budget.iterations = number * self._iterations_a_round
        if self._box_weight:
            self._objective.box_weight = self._box_weight * box_factor
        privacy = self._spend()
        iterations = self.training.run(iterations=self._iterations_a_round)
        state = self.training.network.state_dict()
        if self._normalisation:
            self._keep_normalisation({key: state[key] for key in self._normalisation}, number)
        difference = {
            key: (state[key] - self._global[key]).detach().cpu() for key in self._trained_keys() if key in state
        }
        return RoundResult(
            difference=difference,
            metrics=metrics,
            images=self.images,
            boxed_images=self.boxed_images,
            iterations=iterations,
            seconds=time.monotonic() - start,
            process=state[PROCESS_OF].tolist() if PROCESS_OF in state else [],
            privacy=privacy,
        )

    def _keep_normalisation(self, state: dict[str, torch.Tensor], number: int) -> None:
        older = set(self.settings.work.glob(self._normalisation_files))
        file = self.settings.work / self._normalisation_files.replace("*", str(number))
        with staged(file, overwrite=True) as temporary:
            torch.save(state, temporary)
        for other in older - {file}:
            other.unlink()

    def _kept_normalisation(self, rounds_before: int) -> dict[str, torch.Tensor]:
        """Return the normalisation that the site kept in this study, and not in an earlier one with the same task."""
        for file in self.settings.work.glob(self._normalisation_files):
            # A round of which the server lost the result is done again.
            if 0 < rounds_before >= int(file.stem.rpartition("_")[2]):
                return read_weights(file)
            file.unlink()
        return {}

    def _spend(self) -> dict[str, float]:
        if self._ledger is None or self.task.private_noise is None:
            return {}
        rate = self.training.sample_rate
        release = Release(self.task.private_noise, rate, self._iterations_a_round, self.output.name)
        return {EPSILON: self._ledger.spend(release), DELTA: self._ledger.delta, SAMPLE_RATE: rate}

    def _trained_keys(self) -> list[str]:
        """Return the keys that a round may change and the site does not keep: parameters and measured statistics."""
        network = self.training.network
        frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        return [
            key
            for key, value in network.state_dict().items()
            if value.is_floating_point() and key not in frozen | self._normalisation | {PROCESS_OF}
        ]

    def _stay_near_global(self, mu: float) -> None:
        """Add the gradient of ``mu / 2 * |w - w_global|^2`` to that of the loss (Li et al., "Federated optimization in
        heterogeneous networks", MLSys 2020, equation 2)."""
        parameters = dict(self.training.network.named_parameters())

        def pull(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - self._global[name], alpha=mu)

        self.training.optimizer.register_step_pre_hook(pull)


def open_site_training(
    task: TrainingTask, bundle: Bundle, settings: SiteSettings, output: Path, *, seed: int, **overrides: Any
) -> Training:
    """Open the training of a study on the images of one site; it writes no weights.

    Args:
        task, bundle, settings, output: see `SiteTraining`.
        seed: seed of patches.
        overrides: other keys of the workflow.

    Raises:
        InputError, BundleError: see `open_training`.
    """
    keys: dict[str, Any] = {
        "seed": seed,
        "writes": False,
        "validations": 1,  # no other than that of the weights that arrive
        "operator": settings.operator,
        "reduce": settings.reduce,
        "batch_size": task.batch_size,
        "patch_size": task.patch_size,
        "learning_rate": task.learning_rate,
        **overrides,
    }
    if task.private_noise is not None and task.private_clip is not None:
        from monai_sr_bundle.training.private_step import private_training

        keys |= private_training(task.private_noise, task.private_clip)
    if task.box_weight is not None or bundle.facts.get("box_weight"):
        weight = task.box_weight if task.box_weight is not None else bundle.facts["box_weight"]
        boxes = [*settings.data.glob("boxes.csv"), *settings.data.glob("*/boxes.csv")]
        keys |= {"box_weight": weight} if boxes else {"box_weight": 0.0, "box_repeats": 1}
    keys |= _own_image_sets(bundle, settings)
    is_first = task.stage is None or task.stage == next(iter(training_stages(bundle)))
    if task.iterations is not None:
        length: dict[str, Any] = {"iterations": task.rounds * task.iterations}
    else:
        assert task.epochs is not None
        length = {"epochs": task.rounds * task.epochs}
    return open_training(
        bundle,
        settings.data,
        output,
        stage=task.stage,
        start=None if is_first else bundle.weights("model.pt")[0],
        backbone=settings.backbone,
        **length,
        **{key: value for key, value in keys.items() if value is not None},
    )


def site_items(training: Training, settings: SiteSettings, split: str) -> list[dict[Any, Any]]:
    """Return the images of a site in a split, as `pair_items` lists them for a training."""
    facts = training.bundle.facts
    share = float(facts.get("validation_share", 0.0))
    return pair_items(str(settings.data), str(facts["modality"]), split, sets=facts["sets"], validation_share=share)


def _own_image_sets(bundle: Bundle, settings: SiteSettings) -> dict[str, Any]:
    """Return the keys of stages that list image sets, with those of the site where it has none of the listed ones."""
    available = [folder.name for folder in set_folders(settings.data)]
    reduce = settings.reduce or 1
    keys: dict[str, Any] = {}
    for name in ("films", "scans"):
        listed = {entry[0] for entry in bundle.facts.get(name) or []}
        if listed and not listed & set(available):
            keys |= {name: [[each, reduce, 1.0] for each in available]}
            keys |= {f"validation_{name}": [[each, reduce] for each in available]}
    return keys


def site_seed(seed: int, site: str, rounds_before: int = 0) -> int:
    """Return a seed of a site's own; a later job of a study has another one, and draws other patches than the first."""
    suffix = f":{rounds_before}" if rounds_before else ""
    return zlib.crc32(f"{seed}:{site}{suffix}".encode()) % 2**31


def normalisation_keys(network: torch.nn.Module) -> set[str]:
    """Return the keys of batch normalisation in a state dict, which a site may keep for itself.

    Li et al., "FedBN: Federated learning on non-IID features via local batch normalization", ICLR 2021.
    """
    layers = [name for name, layer in network.named_modules() if isinstance(layer, _BatchNorm)]
    return {key for key in network.state_dict() if key.rpartition(".")[0] in layers}


def _round_iterations(task: TrainingTask, training: Training) -> int:
    if task.iterations is not None:
        return task.iterations
    epoch_length = training.budget.epoch_length
    if not epoch_length:
        raise InputError(
            f"{task.bundle} draws patches without end in this stage, so a round cannot last epochs. State iterations."
        )
    assert task.epochs is not None
    return max(1, math.ceil(task.epochs * epoch_length))
