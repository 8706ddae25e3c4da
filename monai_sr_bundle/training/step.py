"""One step of an optimizer on a module whose `forward` is the loss, on one device or many: regression, adversarial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from monai.data.samplers import DistributedSampler as UnpaddedSampler
from monai.engines.trainer import SupervisedTrainer
from monai.utils.enums import CommonKeys
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.losses.fidelity import FidelityLoss
from monai_sr_bundle.losses.perceptual import AdversarialLoss
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, max_pool2d
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler, IterableDataset


class Objective(nn.Module):
    """A network and the loss that it is trained by, as one module.

    The whole of it is what `DistributedDataParallel` gets, so that a loss may use every method of the network. A
    subclass's `forward` takes ``image``, ``[B, C, rows, columns]``, ``high``, the original in the high resolution, and
    the rest of the batch; it returns ``loss``, its parts, scalars, and ``pred`` if it makes one. It runs in the
    precision of the trainer.

    Args:
        network: network to train; it stays the caller's.
        is_trained: whether the parameter of this name is changed; the others get no gradients. Default: all are.
    """

    def __init__(self, network: nn.Module, is_trained: Callable[[str], bool] = lambda name: True) -> None:
        super().__init__()
        self.network: Any = network
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(is_trained(name))

    @property
    def has_scales(self) -> bool:
        """True if the network serves several scales, of which a batch has one."""
        return hasattr(self.network, "scales")

    def begin(self, image: torch.Tensor, high: torch.Tensor) -> None:
        """Prepare for the first batch, after a checkpoint may have been loaded."""


class TrainingStep:
    """The `iteration_update` of a `SupervisedTrainer`: one step of its optimizer on an objective.

    Args:
        objective: holds the trainer's network; in several processes they share its gradients.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self._shared: nn.Module | None = None

    def __call__(self, engine: SupervisedTrainer, batch: Any) -> dict[str, Any]:
        """Take the step.

        Args:
            engine: trainer.
            batch: `image` and `label`, and what the objective asks for.

        Returns:
            `image`, `label`, `pred` if the objective makes one; `loss` and its parts, numbers.
        """
        image, high = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        if self._shared is None:
            self.objective.begin(image, high)
            self._shared = share_gradients(self.objective)
        with torch.autocast(image.device.type, enabled=engine.amp, **engine.amp_kwargs):
            parts = self._shared(image, high, batch)
        minimise(engine.optimizer, parts[CommonKeys.LOSS])
        return {CommonKeys.IMAGE: image, CommonKeys.LABEL: high, **as_numbers(parts)}

    def close(self) -> None:
        """Leave the other processes, whose group cannot end while a module shares gradients through it."""
        self._shared = None


def share_gradients(objective: Objective) -> nn.Module:
    """Return the module for all processes of a run, whose gradients are the mean over them; as it is in a single one.

    All processes go on from the weights of the first, and from what it has measured on its first batch.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return objective
    for value in objective.network.buffers():
        dist.broadcast(value, src=0)
    # What batch normalisation measures later is measured anew before every validation; other buffers are constants.
    buffers = [name for name, _ in objective.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(objective, buffers)
    device = next(objective.parameters()).device
    return DistributedDataParallel(
        objective,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=objective.has_scales,  # a batch has one scale
    )


def share_images(dataset: Any) -> DistributedSampler | None:
    """Return the sampler of each process's part of the training images; None for patches that are drawn without end."""
    if isinstance(dataset, IterableDataset):
        return None
    return DistributedSampler(dataset, shuffle=True)  # every process takes as many steps as the others


def share_validation(dataset: Any) -> DistributedSampler:
    """Return the sampler of each process's part of the validation images, none twice, which would change the mean.

    Raises:
        InputError: a process would have no image, and the others would wait for its figures for ever.
    """
    if len(dataset) < dist.get_world_size():
        raise InputError(
            f"the number of validation images is {len(dataset)}, expected at least one for each of "
            f"{dist.get_world_size()} processes. Start fewer processes, or take more images."
        )
    return UnpaddedSampler(dataset, even_divisible=False, shuffle=False)


def full_precision(device: torch.device) -> torch.autocast:
    """Return a context in which nothing is multiplied in half precision."""
    return torch.autocast(device.type, enabled=False)


def minimise(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """Take one step of an optimizer."""
    # bfloat16 has float32's range: nothing underflows, so no loss scaling is needed.
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def as_numbers(parts: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return scalars as numbers, and images without their gradients."""
    return {name: value.item() if value.ndim == 0 else value.detach() for name, value in parts.items()}


VISIBLE = 2 / 255
"""Least change of one high-resolution pixel of a cell by a mark for the cell to belong to the mask."""


class RegressionObjective(Objective):
    """The loss of a regression, each pixel weighted by 1, and by ``1 + box_weight`` inside the boxes of anomalies.

    Of a network with a mask, ``mask_weight`` times the mask's cross-entropy is added. Its truth are the low-resolution
    pixels in which dirty and clean original differ; as they are few, they count `mask_balance` times. A network that
    also has a flow is marked as one whose flow is still to be trained.

    Args:
        network: network to train; with `with_mask` if it has a `mask`.
        loss: takes `pred` and `target`, the weight of each pixel where there are boxes, and bicubic interpolation
            where it counts harm.
        box_weight: the same as above; a batch then has the `mask` of the boxes, ``[B, 1, scale * rows, scale *
            columns]``, 1 inside them.
        mask_weight, mask_balance: the same as above; a batch then has `dirty`, the original with drawn marks.

    Shape:
        image: ``[B, C, rows, columns]`` of C slices, in ``[0, 1]``.
        high: ``[B, 1, scale * rows, scale * columns]`` or ``[B, scale, rows, columns]``.
        returns: `loss`, and `pred` with the shape of `high`, not clipped.

    Raises:
        InputError: a `box_weight` for another loss than `FidelityLoss`.
    """

    def __init__(
        self,
        network: Any,
        loss: nn.Module,
        box_weight: float = 0.0,
        mask_weight: float = 0.0,
        mask_balance: float = 1.0,
    ) -> None:
        if box_weight and not isinstance(loss, FidelityLoss):
            raise InputError(
                f"box_weight is {box_weight:g}, but {type(loss).__name__} weights no pixels. Train this stage with "
                "box_weight 0."
            )
        has_mask = bool(mask_weight) and getattr(network, "mask", None) is not None
        untrained = ("flow.",) if has_mask else ("flow.", "mask.")
        super().__init__(network, lambda name: not name.startswith(untrained))
        if (flow := getattr(network, "process", None)) is not None:
            # It drew what the expected image lacked before this training: its weights may begin another flow, no more.
            flow.zero_()
        self.loss, self.box_weight, self.has_mask = loss, box_weight, has_mask
        self.mask_weight, self.mask_balance = mask_weight, mask_balance

    def forward(self, image: torch.Tensor, high: torch.Tensor, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        network = self.network.train()
        # A network of several factors is told which one this batch has.
        scale = (high.shape[1] * high.shape[-1] // image.shape[-1],) if self.has_scales else ()
        pred, logits = network.with_mask(image) if self.has_mask else (network(image, *scale), None)
        with full_precision(image.device):
            options = {"weight": 1 + self.box_weight * batch["mask"].to(high)} if self.box_weight else {}
            if getattr(self.loss, "harm", 0.0):
                middle = image[:, image.shape[1] // 2].unsqueeze(1).float()
                options["baseline"] = interpolate(middle, high.shape[-2:], mode="bicubic")
            loss = self.loss(pred.float(), high, **options)
            if logits is not None:
                difference = (batch["dirty"].to(high) - high).abs()
                marked = (max_pool2d(difference, network.scale) > VISIBLE).to(high)
                balance = torch.tensor(self.mask_balance, device=image.device)
                entropy = binary_cross_entropy_with_logits(logits.float(), marked, pos_weight=balance)
                loss = loss + self.mask_weight * entropy
        return {CommonKeys.LOSS: loss, CommonKeys.PRED: pred}


class GeneratorObjective(Objective):
    """The loss of a generator: its distance from the original, and how well the discriminator tells the two apart.

    Args:
        network: the generator.
        adversarial: both sides' loss.
        features: distance in features, which keeps structure.
        pixel_weight: weight of the mean absolute difference, which keeps grey levels.
        feature_weight, adversarial_weight: weights of the other two parts.

    Shape:
        image: ``[B, C, rows, columns]`` of C slices, in ``[0, 1]``.
        high: ``[B, 1, scale * rows, scale * columns]``.
        returns: `loss` and its parts, and `pred` with the shape of `high`, not clipped.
    """

    def __init__(
        self,
        network: nn.Module,
        adversarial: AdversarialLoss,
        features: nn.Module,
        pixel_weight: float,
        feature_weight: float,
        adversarial_weight: float,
    ) -> None:
        super().__init__(network)
        self.adversarial, self.features = adversarial, features
        self.pixel_weight, self.feature_weight = pixel_weight, feature_weight
        self.adversarial_weight = adversarial_weight

    def forward(self, image: torch.Tensor, high: torch.Tensor, discriminator: nn.Module) -> dict[str, torch.Tensor]:
        pred = self.network.train()(image)
        fake = discriminator(pred)
        with torch.no_grad():
            real = discriminator(high)
        pixel = (pred - high).abs().mean()
        feature = self.features(pred, high)
        generator = self.adversarial.generator_loss(real, fake)
        loss = self.pixel_weight * pixel + self.feature_weight * feature + self.adversarial_weight * generator
        parts = {"pixel": pixel, "feature": feature, "generator": generator}
        return {CommonKeys.LOSS: loss, CommonKeys.PRED: pred, **parts}


class DiscriminatorObjective(Objective):
    """The loss of a discriminator on originals and on images of the generator, ``[B, 1, rows, columns]``.

    Args:
        network: the discriminator; takes patches, returns logits.
        adversarial: both sides' loss.
    """

    def __init__(self, network: nn.Module, adversarial: AdversarialLoss) -> None:
        super().__init__(network)
        self.adversarial = adversarial

    def forward(self, high: torch.Tensor, pred: torch.Tensor) -> torch.Tensor:
        discriminator = self.network.train()
        return self.adversarial.discriminator_loss(discriminator(high), discriminator(pred))


class AdversarialStep:
    """The `iteration_update` of a `SupervisedTrainer` whose network plays against a discriminator.

    MONAI's own AdversarialTrainer shows the generator's loss only the fakes, which rules out a relativistic loss.

    Args:
        generator, discriminator: the two sides; in several processes they share the gradients of both.
        optimizer: optimizer of the discriminator.
    """

    def __init__(
        self, generator: GeneratorObjective, discriminator: DiscriminatorObjective, optimizer: torch.optim.Optimizer
    ) -> None:
        self.generator, self.discriminator, self.optimizer = generator, discriminator, optimizer
        self._shared: list[nn.Module] = []

    def __call__(self, engine: SupervisedTrainer, batch: Any) -> dict[str, Any]:
        """Take one step of the generator, then one of the discriminator.

        Args:
            engine: trainer that holds the generator.
            batch: `image` and `label`.

        Returns:
            `image`, `label`, `pred` with the shape of `label`, not clipped; `loss` and its parts, numbers.
        """
        image, high = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        if not self._shared:
            self._shared = [share_gradients(side) for side in (self.generator, self.discriminator)]
        generator, discriminator = self._shared
        network = self.discriminator.network.train()
        with torch.autocast(image.device.type, enabled=engine.amp, **engine.amp_kwargs):
            # First the generator, against a discriminator that holds still.
            network.requires_grad_(False)
            parts = generator(image, high, network)
        minimise(engine.optimizer, parts[CommonKeys.LOSS])
        with torch.autocast(image.device.type, enabled=engine.amp, **engine.amp_kwargs):
            network.requires_grad_(True)
            loss = discriminator(high, parts[CommonKeys.PRED].detach())
        minimise(self.optimizer, loss)
        return {CommonKeys.IMAGE: image, CommonKeys.LABEL: high, **as_numbers({**parts, "discriminator": loss})}

    def close(self) -> None:
        """Leave the other processes, whose group cannot end while a module shares gradients through it."""
        self._shared = []
