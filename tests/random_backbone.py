"""A recognition network's weights file with random numbers in it, for the tests of losses and distances in features."""

from pathlib import Path

import numpy as np
import torch
from monai_sr_bundle.losses.perceptual import _squeezenet


def write_squeezenet(path: Path) -> Path:
    """A file as of a trained SqueezeNet 1.0, classifier and all; returns `path`."""
    torch.manual_seed(0)
    arrays = {f"features.{key}": value.numpy() for key, value in _squeezenet().state_dict().items()}
    np.savez(path, **arrays, **{"classifier.1.bias": np.zeros(1000, np.float32)})
    return path
