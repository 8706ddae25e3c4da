"""Objectives of networks that draw images, and measures of how well they do: diffusion, its autoencoder, and flow.

Diffusion: the network predicts what its process asks for. Flow: the velocity between noise and the residual that the
expected image leaves (Liu et al., "Flow Straight and Fast", ICLR 2023, equation 1); the coupling is that of Ohayon et
al., "Posterior-Mean Rectified Flow", ICLR 2025, in residuals.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.engines.evaluator import SupervisedEvaluator
from monai.utils.enums import CommonKeys
from monai_sr_bundle.inferers.processes import DiffusionProcess, RectifiedFlow
from monai_sr_bundle.training.step import Objective, full_precision
from torch import nn

LEVELS = 8
"""Noise levels at which a validation measures the loss, evenly spread over the steps."""


class Noising:
    """Adds the noise of a process, and says what the network is to predict.

    Args:
        process: process of the bundle.
    """

    def __init__(self, process: DiffusionProcess) -> None:
        self.prediction = process.prediction
        # From no noise to the last step: the level of step t lies between entries t - 1 and t.
        levels = np.sqrt(np.concatenate(([1.0], process.alphas())))
        self.levels = torch.from_numpy(levels).float()

    def draw_levels(self, count: int) -> torch.Tensor:
        """Square roots of cumulative alpha, uniform between those of two neighbouring steps (SR3, section 2.4)."""
        step = torch.randint(1, len(self.levels), (count,))
        part = torch.rand(count)
        return torch.lerp(self.levels[step], self.levels[step - 1], part)

    def even_levels(self) -> torch.Tensor:
        """`LEVELS` levels in the middle of as many equal parts of the process."""
        middle = ((torch.arange(LEVELS) + 0.5) / LEVELS * (len(self.levels) - 1)).long() + 1
        return self.levels[middle]

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """Cells ``[B, C, rows, columns]`` with as much noise as ``levels`` ``[B]`` say."""
        signal_level, noise_level = _split_levels(levels)
        return signal_level * clean + noise_level * noise

    def target(self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """Return the target of the network's prediction, in the shape of `clean`.

        The squared error of this equals that of the clean cells, weighted by the signal-to-noise ratio ``a / (1 - a)``
        for epsilon, by ``1 / (1 - a)`` for v and by 1 for the sample itself, with ``a`` the squared level.
        """
        signal_level, noise_level = _split_levels(levels)
        if self.prediction == "epsilon":
            return noise
        return clean if self.prediction == "sample" else signal_level * noise - noise_level * clean

    def predict_clean(self, noisy: torch.Tensor, predicted: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """The clean cells that a prediction stands for; as `noisy`. Of the noise, only where a signal is left."""
        signal_level, noise_level = _split_levels(levels)
        if self.prediction == "epsilon":
            return (noisy - noise_level * predicted) / signal_level
        return predicted if self.prediction == "sample" else signal_level * noisy - noise_level * predicted


def _split_levels(levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of signal and noise, for ``[B, C, rows, columns]``."""
    signal_level = levels[:, None, None, None]
    return signal_level, (1 - signal_level.square()).clamp_min(0).sqrt()


class DiffusionObjective(Objective):
    """The error of a prediction at drawn noise levels. An autoencoder stays as it is.

    The loss is ``noise_weight`` times the error of the prediction, plus ``box_weight`` times its mean square inside the
    boxes of anomalies, plus ``bottleneck_weight`` times the reconstruction of the variational bottleneck and
    ``divergence_weight`` times the divergence of its codes. Images without boxes have no box loss. With ``features``,
    the image that the prediction stands for is compared with the original, in the third of the process that has the
    least noise; where there is more, no single image is right.

    Args:
        network: network to train; it keeps the fingerprint of the process.
        diffusion: `diffusion` block of a bundle's model.yaml.
        error: "l1", as SR3's code, or "l2", whose samples have the right mean.
        noise_weight, box_weight, bottleneck_weight, divergence_weight: weights of the parts; for that of the boxes, a
            batch has their `mask`, ``[B, 1, scale * rows, scale * columns]``, 1 inside boxes.
        features: takes ``pred`` and ``target`` images, as `losses.perceptual.FeatureLoss`; none if None.
        feature_weight: weight of the distance that it returns.

    Shape:
        image: ``[B, 1, rows, columns]``, in ``[0, 1]``.
        high: ``[B, 1, scale * rows, scale * columns]``.
        returns: `loss` and its weighted parts.

    Raises:
        ValueError: another error.
        BundleError: see `DiffusionProcess`; a network whose weights belong to another process.
    """

    def __init__(
        self,
        network: Any,
        diffusion: dict[str, Any],
        error: str = "l2",
        noise_weight: float = 1.0,
        box_weight: float = 0.0,
        bottleneck_weight: float = 0.0,
        divergence_weight: float = 0.0,
        features: torch.nn.Module | None = None,
        feature_weight: float = 0.0,
    ) -> None:
        if error not in ("l1", "l2"):
            raise ValueError(f"error is {error!r}, expected 'l1' or 'l2'.")
        # A decoder would learn to please the distance in features.
        super().__init__(network, lambda name: not name.startswith("autoencoder."))
        process = DiffusionProcess.of(diffusion)
        if network.process.any():  # weights to start from
            process.check_fingerprint(network.process.cpu().numpy())
        network.process.copy_(torch.from_numpy(process.fingerprint()))
        self.process = process
        self.noising, self.error = Noising(process), error
        self.noise_weight, self.box_weight = noise_weight, box_weight
        self.bottleneck_weight, self.divergence_weight = bottleneck_weight, divergence_weight
        self.features, self.feature_weight = features, feature_weight

    def begin(self, image: torch.Tensor, high: torch.Tensor) -> None:
        self.process.check_fingerprint(self.network.process.cpu().numpy())
        with torch.no_grad():  # latents are measured before a condition is divided by what was found
            self.network.train().target(high, self.network.encode(image))

    def forward(self, image: torch.Tensor, high: torch.Tensor, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        network = self.network.train()
        # In full precision: of a residual, bfloat16 would leave little.
        with torch.no_grad(), full_precision(image.device):
            condition = network.encode(image)
            clean = network.target(high, condition)
            levels = self.noising.draw_levels(len(image)).to(image.device)
            noise = torch.randn_like(clean)
            noisy = self.noising.add_noise(clean, noise, levels)
            target = self.noising.target(clean, noise, levels)
        predicted = network.predict(noisy, condition, levels)
        with full_precision(image.device):
            difference = predicted.cells.float() - target
            parts = {"noise": self.noise_weight * _mean_error(difference, self.error)}
            if self.box_weight:
                mask = network.cells(batch["mask"].to(image.device))
                parts["box"] = self.box_weight * box_error(difference, mask)
            if self.bottleneck_weight:
                parts["bottleneck"] = self.bottleneck_weight * predicted.reconstruction.float()
            if self.divergence_weight:
                parts["divergence"] = self.divergence_weight * predicted.divergence.float()
            has_signal = levels >= self.noising.levels[len(self.noising.levels) // 3]
            if self.features is not None and has_signal.any():
                cells = self.noising.predict_clean(noisy, predicted.cells.float(), levels)
                pred = network.decode(cells[has_signal], condition[has_signal])
                parts["feature"] = self.feature_weight * self.features(pred, high[has_signal])
            return {CommonKeys.LOSS: torch.stack(list(parts.values())).sum(), **parts}


def _mean_error(difference: torch.Tensor, error: str) -> torch.Tensor:
    return difference.abs().mean() if error == "l1" else difference.square().mean()


def box_error(difference: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error inside the boxes of a batch; 0 where it has none.

    Args:
        difference: difference of predicted cells and their target, ``[B, C, rows, columns]``.
        mask: mask of the same shape, 1 inside boxes.
    """
    return (difference.square() * mask).sum() / mask.sum().clamp_min(1.0)


class DrawnValidation(ABC):
    """One validation step of an ignite evaluator, as its `iteration_update`: the loss at fixed noise, and an image.

    The noise is the same in every validation, so that two of them differ by the weights alone.
    """

    def __call__(self, engine: SupervisedEvaluator, batch: Any) -> dict[str, Any]:
        """Measure the loss and draw an image.

        Args:
            engine: evaluator that holds the network.
            batch: `image`, ``[B, C, rows, columns]`` of C slices, and `label`, ``[B, 1, scale * rows, scale *
                columns]``, in ``[0, 1]``.

        Returns:
            `image`, `label`, `pred` with the shape of `label`, and `loss`, a scalar tensor.
        """
        image, high = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        network: Any = engine.network
        network.eval()
        with torch.inference_mode():
            loss = torch.stack(self.measure_losses(network, image, high, engine.state.iteration)).mean()
        pred = engine.inferer(image, network)
        return {CommonKeys.IMAGE: image, CommonKeys.LABEL: high, CommonKeys.PRED: pred, CommonKeys.LOSS: loss}

    @abstractmethod
    def measure_losses(self, network: Any, image: torch.Tensor, high: torch.Tensor, seed: int) -> list[torch.Tensor]:
        """Return the loss of a batch at each of several levels of noise, with noise of a seed."""


class DiffusionValidation(DrawnValidation):
    """The validation of a diffusion model.

    Args:
        diffusion: `diffusion` block of a bundle's model.yaml.
        error: kind of error, the same as in training.
    """

    def __init__(self, diffusion: dict[str, Any], error: str = "l2") -> None:
        self.noising, self.error = Noising(DiffusionProcess.of(diffusion)), error

    def measure_losses(self, network: Any, image: torch.Tensor, high: torch.Tensor, seed: int) -> list[torch.Tensor]:
        # The largest part that the network takes without padding.
        rows, columns = (side - side % (network.cell * network.grid) for side in image.shape[2:])
        condition = network.encode(image[..., :rows, :columns])
        clean = network.target(high[..., : network.scale * rows, : network.scale * columns], condition)
        generator = np.random.default_rng(seed)
        losses = []
        for level in self.noising.even_levels():
            noise = torch.from_numpy(generator.standard_normal(clean.shape, dtype=np.float32)).to(image.device)
            levels = level.expand(len(clean)).to(image.device)
            predicted = network.denoise(self.noising.add_noise(clean, noise, levels), condition, levels)
            losses.append(_mean_error(predicted - self.noising.target(clean, noise, levels), self.error))
        return losses


class AutoencoderObjective(Objective):
    """The error of an image after encoding and decoding; the denoiser stays as it is.

    The loss is the mean absolute error of the reconstruction, plus its mean square times ``square_weight``, plus the
    divergence of the latents from the standard normal distribution times ``divergence_weight``.

    Args:
        network: a network of `networks.latent_diffusion`.
        square_weight, divergence_weight: weights of the parts.

    Shape:
        image: ``[B, 1, rows, columns]``, in ``[0, 1]``.
        high: ``[B, 1, scale * rows, scale * columns]``.
        returns: `loss` and its parts, and `pred` with the shape of `high`, not clipped.
    """

    def __init__(self, network: nn.Module, square_weight: float = 10.0, divergence_weight: float = 1e-4) -> None:
        super().__init__(network, lambda name: name.startswith("autoencoder."))
        self.square_weight, self.divergence_weight = square_weight, divergence_weight

    def forward(self, image: torch.Tensor, high: torch.Tensor, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        network = self.network.train()
        with torch.no_grad():
            condition = network.encode(image)
        reconstructed, divergence = network.reconstruct(high, condition)
        difference = reconstructed.float() - high
        absolute, square = difference.abs().mean(), difference.square().mean()
        loss = absolute + self.square_weight * square + self.divergence_weight * divergence.float()
        return {CommonKeys.LOSS: loss, CommonKeys.PRED: reconstructed, "absolute": absolute, "divergence": divergence}


class AutoencoderValidation:
    """One validation step of an ignite evaluator, as its `iteration_update`: the reconstruction of the mean latents."""

    def __call__(self, engine: SupervisedEvaluator, batch: Any) -> dict[str, Any]:
        """Reconstruct the label.

        Args:
            engine: evaluator that holds the network.
            batch: `image`, ``[B, 1, rows, columns]``, and `label`, ``[B, 1, scale * rows, scale * columns]``, in
                ``[0, 1]``.

        Returns:
            `image`, `label`, and `pred` with the shape of `label`, not clipped.
        """
        image, high = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        network: Any = engine.network
        network.eval()
        with torch.inference_mode():
            reconstructed, _ = network.reconstruct(high, network.encode(image))
        return {CommonKeys.IMAGE: image, CommonKeys.LABEL: high, CommonKeys.PRED: reconstructed}


TIMES = 8
"""Places along the flow at which a validation measures."""


class FlowObjective(Objective):
    """The error of the velocity at drawn times. The expected image stays as it is.

    Args:
        network: a network of `networks.residual_flow`.
        diffusion: `diffusion` block of its bundle.
        box_weight: weight of the mean square error inside the boxes of anomalies, beside that of all pixels; a batch
            then has their `mask`, ``[B, 1, scale * rows, scale * columns]``, 1 inside boxes.

    Shape:
        image: ``[B, C, rows, columns]`` of C slices, in ``[0, 1]``.
        high: ``[B, 1, scale * rows, scale * columns]``.

    Raises:
        BundleError: see `RectifiedFlow.of`; a network whose flow was trained as another.
    """

    def __init__(self, network: Any, diffusion: dict[str, Any], box_weight: float = 0.0) -> None:
        super().__init__(network, lambda name: name.startswith("flow."))
        self.flow, self.box_weight = RectifiedFlow.of(diffusion), box_weight
        if network.process.any():  # weights to start from
            self.flow.check_fingerprint(network.process.cpu().numpy())
        network.process.copy_(torch.from_numpy(self.flow.fingerprint()))

    def begin(self, image: torch.Tensor, high: torch.Tensor) -> None:
        self.flow.check_fingerprint(self.network.process.cpu().numpy())  # of a checkpoint, or of a federated round

    def forward(self, image: torch.Tensor, high: torch.Tensor, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        network = self.network.eval()  # the expected image as it will be used; what is trained asks for no mode
        scale = high.shape[-1] // image.shape[-1]
        with torch.no_grad():
            # A network of several scales is told which one this batch has.
            condition = network.encode(image, scale) if self.has_scales else network.encode(image)
            residual = network.target(high, condition) / self.flow.residual_std
            noise = self.flow.noise * torch.randn_like(residual)
            time = torch.rand(len(image), device=image.device)
            state = torch.lerp(noise, residual, time[:, None, None, None])
        difference = network.velocity(state, condition, time).float() - (residual - noise)
        loss = difference.square().mean()
        if self.box_weight:
            mask = torch.nn.functional.pixel_unshuffle(batch["mask"].to(image.device), scale)
            loss = loss + self.box_weight * box_error(difference, mask)
        return {CommonKeys.LOSS: loss}


class FlowValidation(DrawnValidation):
    """The validation of a flow: the loss at evenly spread times, and the image with all its texture.

    Args:
        diffusion: `diffusion` block, the same as in training.
    """

    def __init__(self, diffusion: dict[str, Any]) -> None:
        self.flow = RectifiedFlow.of(diffusion)

    def measure_losses(self, network: Any, image: torch.Tensor, high: torch.Tensor, seed: int) -> list[torch.Tensor]:
        condition = network.encode(image)
        residual = network.target(high, condition) / self.flow.residual_std
        generator = torch.Generator().manual_seed(seed)
        losses = []
        for index in range(TIMES):
            time = torch.full((len(image),), (index + 0.5) / TIMES, device=image.device)
            noise = self.flow.noise * torch.randn(residual.shape, generator=generator).to(image.device)
            velocity = network.velocity(torch.lerp(noise, residual, time[:, None, None, None]), condition, time)
            losses.append((velocity - (residual - noise)).square().mean())
        return losses
