"""Training with differential privacy: the gradient of every patient is clipped, and noise is added to their sum.

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, https://arxiv.org/abs/1607.00133 (Algorithm 1).
Clipping, noise and epsilon are Opacus'.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from monai.data.utils import list_data_collate
from monai.engines.trainer import SupervisedTrainer
from monai.utils.enums import CommonKeys
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.training.step import Objective, RegressionObjective, TrainingStep, as_numbers
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch.utils.data import IterableDataset, Sampler


def private_training(noise_multiplier: float, clip: float) -> dict[str, Any]:
    """Return the keys of a regression's workflow, for `open_training`, with which it is trained with DP-SGD.

    Args:
        noise_multiplier: standard deviation of the noise in units of `clip`.
        clip: largest L2 norm of the gradient of one patient.

    Raises:
        InputError: one of them is not above 0.
    """
    if not (0 < noise_multiplier < math.inf and 0 < clip < math.inf):
        raise InputError(f"noise_multiplier is {noise_multiplier:g} and clip {clip:g}, expected numbers above 0.")
    return {
        "step": {
            "_target_": f"{__name__}.PrivateStep",
            "objective": "@objective",
            "noise_multiplier": noise_multiplier,
            "clip": clip,
            "patients_per_step": "@batch_size",
        },
        "train#dataloader": {
            "_target_": "DataLoader",
            "dataset": "@train#dataset",
            "batch_sampler": {
                "_target_": f"{__name__}.PatientSampler",
                "dataset": "@train#dataset",
                "patients_per_step": "@batch_size",
            },
            "collate_fn": {"_target_": f"{__name__}.collate_patients", "_mode_": "callable"},
            "num_workers": 0,
        },
    }


class PatientSampler(Sampler[list[int]]):
    """Draws the images of each step: every patient takes part with the same probability, with one random image.

    So the number of patients differs from step to step and may be 0, as the analysis of DP-SGD asks. The draws are
    secret: nobody who knows the seed of the study knows them.

    Args:
        dataset: images, whose `data` state the patient of each.
        patients_per_step: expected number of patients in a step.

    Attributes:
        sample_rate: probability with which a patient takes part in a step.

    Raises:
        InputError: patches that are drawn without end, where no patient has a probability.
    """

    def __init__(self, dataset: Any, patients_per_step: int) -> None:
        if isinstance(dataset, IterableDataset):
            raise InputError(
                "differential privacy draws patients, but this stage draws patches of images without end. Choose a "
                "bundle that is trained on pairs, or train without."
            )
        self._images: dict[str, list[int]] = {}
        for index, item in enumerate(dataset.data):
            self._images.setdefault(str(item["patient"]), []).append(index)
        self.sample_rate = min(1.0, patients_per_step / len(self._images))
        self._random = secrets.SystemRandom()

    def __len__(self) -> int:
        return math.ceil(1 / self.sample_rate)

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(len(self)):
            yield [
                self._random.choice(images)
                for images in self._images.values()
                if self._random.random() < self.sample_rate
            ]


def collate_patients(items: list[Any]) -> Any:
    """Return a batch; None of a step without patients."""
    return list_data_collate(items) if items else None


class PrivateStep(TrainingStep):
    """One step of DP-SGD on the objective of a regression.

    Args:
        objective: holds the trainer's network.
        noise_multiplier, clip: see `private_training`.
        patients_per_step: expected number of patients in a step, which the sum of their gradients is divided by.

    Raises:
        InputError: another objective than that of a regression, or a network whose layers mix the images of a batch.
    """

    def __init__(self, objective: Objective, noise_multiplier: float, clip: float, patients_per_step: int) -> None:
        if not isinstance(objective, RegressionObjective):
            raise InputError(
                f"differential privacy is for the regression stage alone, and this stage's objective is "
                f"{type(objective).__name__}. Choose another stage, or train without."
            )
        if not ModuleValidator.is_valid(objective.network.train()):
            raise InputError(
                f"{type(objective.network).__name__} has layers that mix the images of a batch, as batch normalisation "
                "does, so that no patient's gradient can be clipped. Choose another network, or train without "
                "differential privacy."
            )
        super().__init__(objective)
        self._noise_multiplier, self._clip, self._patients_per_step = noise_multiplier, clip, patients_per_step
        self._optimizer: DPOptimizer | None = None

    def __call__(self, engine: SupervisedTrainer, batch: Any) -> dict[str, Any]:
        """Take the step.

        Args:
            engine: trainer.
            batch: images of patients, one each; None where the step has none and is noise alone.

        Returns:
            see `TrainingStep`; without patients, a loss that is no number.
        """
        parameters = [value for value in self.objective.parameters() if value.requires_grad]
        if self._optimizer is None:
            device = parameters[0].device
            self._optimizer = DPOptimizer(
                engine.optimizer,
                noise_multiplier=self._noise_multiplier,
                max_grad_norm=self._clip,
                expected_batch_size=self._patients_per_step,
                # A study's seed is known to others, and noise that can be computed protects nobody.
                generator=torch.Generator(device).manual_seed(secrets.randbits(63)),
            )
        optimizer = self._optimizer
        optimizer.zero_grad(set_to_none=True)
        losses, gradients = [], []
        output: dict[str, Any] = {}
        if batch is not None:
            image, high = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
            for index in range(len(image)):
                one = slice(index, index + 1)
                with torch.autocast(image.device.type, enabled=engine.amp, **engine.amp_kwargs):
                    parts = self.objective(image[one], high[one], _part(batch, one))
                gradients.append(torch.autograd.grad(parts[CommonKeys.LOSS], parameters, allow_unused=True))
                losses.append(parts[CommonKeys.LOSS].detach())
            output = {CommonKeys.IMAGE: image, CommonKeys.LABEL: high}
        for number, parameter in enumerate(parameters):
            unused = torch.zeros_like(parameter)
            patient_gradients = [unused if each[number] is None else each[number] for each in gradients]
            # Where Opacus's optimizer looks for them.
            setattr(parameter, "grad_sample", torch.stack(patient_gradients) if patient_gradients else unused[None][:0])  # noqa: B010
        optimizer.step()
        loss = torch.stack(losses).mean() if losses else torch.tensor(math.nan)
        return {**output, **as_numbers({CommonKeys.LOSS: loss})}


def _part(batch: Mapping[str, Any], one: slice) -> dict[str, Any]:
    return {key: value[one] for key, value in batch.items() if isinstance(value, torch.Tensor | list)}
