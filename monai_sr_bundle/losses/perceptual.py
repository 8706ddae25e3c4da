"""Losses beyond grey levels: a distance in the features of a network that recognises objects, and adversarial losses.

Johnson et al., "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016. The user
provides the weights file; nothing is downloaded.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from monai_sr_bundle.errors import InputError
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy


class PerceptualLoss(nn.Module):
    """The mean absolute difference plus a distance in features.

    Johnson et al., "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016; the grey levels
    are included because features alone carry little brightness.

    Args:
        features: module of `pred` and `target`, such as `losses.perceptual.FeatureLoss`.
        feature_weight: weight of the distance in features.

    Shape:
        pred, target: ``[B, 1, rows, columns]`` in ``[0, 1]``; returns a scalar.
    """

    def __init__(self, features: nn.Module, feature_weight: float) -> None:
        super().__init__()
        self.features, self.feature_weight = features, feature_weight

    def forward(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (pred - target).abs().mean() + self.feature_weight * self.features(pred, target)


# The mean and deviation of ImageNet, on which both networks were trained.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYERS = {
    # The last features of three sizes of grid: a half, a quarter and an eighth of the image.
    "squeezenet1_0": (1, 5, 10),
    # phi_5,4 of SRGAN, before the activation as in ESRGAN.
    "vgg19": (34,),
}
WHERE = (
    "Expected the weights of torchvision's squeezenet1_0 (.npz or .pth) or vgg19 (.pth), which torchvision's model "
    "pages offer for download."
)


class Fire(nn.Module):
    """Squeeze, then expand by two sizes of kernel (Iandola et al., SqueezeNet, https://arxiv.org/abs/1602.07360)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        squeezed = torch.relu(self.squeeze(features))
        return torch.relu(torch.cat((self.expand1x1(squeezed), self.expand3x3(squeezed)), dim=1))


def _squeezenet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 96, 7, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(96, 16, 64),
        Fire(128, 16, 64),
        Fire(128, 32, 128),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(256, 32, 128),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(512, 64, 256),
    )


def _vgg() -> nn.Sequential:
    """Build the convolutions of VGG-19 (Simonyan and Zisserman, https://arxiv.org/abs/1409.1556, Table 1, E)."""
    layers: list[nn.Module] = []
    inputs = 3
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def load_backbone(weights: Path) -> tuple[str, nn.Sequential]:
    """Load the frozen convolutions of the network that a weights file belongs to, and return its name too.

    Both networks are defined here, with torchvision's names, because torchvision cannot be imported with a PyTorch of
    another build.

    Args:
        weights: `.npz` or `.pth` file of arrays with torchvision's names; a `.pth` is read as tensors only.

    Raises:
        InputError: no such file, or weights of another network.
    """
    state = _read_weights(weights)
    if "features.3.squeeze.weight" in state:
        name, network = "squeezenet1_0", _squeezenet()
    elif "features.34.weight" in state:
        name, network = "vgg19", _vgg()
    else:
        raise InputError(f"{weights}: holds the weights of another network. {WHERE}")
    convolutions = {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
    try:
        network.load_state_dict(convolutions)
    except RuntimeError as error:
        raise InputError(
            f"{weights}: does not belong to {name} ({str(error).splitlines()[-1].strip()}). {WHERE}"
        ) from error
    return name, network.eval().requires_grad_(False)


def _read_weights(weights: Path) -> dict[str, torch.Tensor]:
    try:
        if weights.suffix == ".npz":
            with np.load(weights, allow_pickle=False) as arrays:
                return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise InputError(f"{weights}: cannot be read as weights ({str(error).splitlines()[0]}). {WHERE}") from error
    if not isinstance(state, dict):
        raise InputError(f"{weights}: holds no network's weights. {WHERE}")
    return state


class Features(nn.Module):
    """The features of grey images at a few depths of a recognition network.

    Args:
        weights: weights file for `load_backbone`; empty if the user named none.

    Shape:
        image: ``[B, 1, rows, columns]`` in ``[0, 1]``; returns one ``[B, channels, rows / n, columns / n]`` per depth.

    Raises:
        InputError: no file is named, or `load_backbone` refuses it.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, weights: Path | str) -> None:
        super().__init__()
        if weights == "":
            raise InputError(
                f"a loss or distance in features needs a recognition network: pass its weights with --backbone. {WHERE}"
            )
        self.backbone, self.layers = load_backbone(Path(weights))
        self.depths = LAYERS[self.backbone]
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        features = (image.expand(-1, 3, -1, -1) - self.mean) / self.deviation
        selected = []
        for depth, layer in enumerate(self.layers):
            # Not in place: an activation must not change the features already selected.
            features = torch.relu(features) if isinstance(layer, nn.ReLU) else layer(features)
            if depth in self.depths:
                selected.append(features)
            if depth == self.depths[-1]:
                break
        return selected


class FeatureLoss(nn.Module):
    """The mean square difference of features, relative to their energy in the target.

    Relative, so that one weight in a sum of losses fits any network and depth; the published losses divide VGG's
    features by a constant for the same reason (SRGAN, Section 2.2.1).

    Args:
        weights: weights file for `load_backbone`.

    Shape:
        pred, target: ``[B, 1, rows, columns]`` in ``[0, 1]``; returns a scalar.

    Raises:
        InputError: `load_backbone` refuses the file.
    """

    def __init__(self, weights: Path | str) -> None:
        super().__init__()
        self.features = Features(weights)

    def forward(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target_features = self.features(target)
        pred_features = self.features(pred)
        parts = [
            (predicted - expected).square().mean() / expected.square().mean()
            for predicted, expected in zip(pred_features, target_features, strict=True)
        ]
        return torch.stack(parts).mean()


Kind = Literal["standard", "relativistic"]


class AdversarialLoss(nn.Module):
    """The losses of generator and discriminator, from the discriminator's logits.

    "standard": is the image real? Ledig et al., SRGAN, equation 6, in the form that does not saturate.
    "relativistic": is it more real than the average opposite? Wang et al., ESRGAN, equations 1 and 2.

    Args:
        kind: "standard" or "relativistic".

    Shape:
        real, fake: ``[B, 1]`` logits; the methods return scalars.

    Raises:
        ValueError: another kind.
    """

    def __init__(self, kind: Kind = "standard") -> None:
        super().__init__()
        if kind not in ("standard", "relativistic"):
            raise ValueError(f"adversarial loss is {kind!r}, expected 'standard' or 'relativistic'.")
        self.kind = kind

    def generator_loss(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """Return the generator's loss, which is low if the discriminator takes fakes for real."""
        if self.kind == "standard":
            return cross_entropy(fake, torch.ones_like(fake))
        return 0.5 * (
            cross_entropy(real - fake.mean(), torch.zeros_like(real))
            + cross_entropy(fake - real.mean(), torch.ones_like(fake))
        )

    def discriminator_loss(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """Return the discriminator's loss, which is low if it distinguishes real from fake."""
        against_real, against_fake = (fake.mean(), real.mean()) if self.kind == "relativistic" else (0.0, 0.0)
        return 0.5 * (
            cross_entropy(real - against_real, torch.ones_like(real))
            + cross_entropy(fake - against_fake, torch.zeros_like(fake))
        )
