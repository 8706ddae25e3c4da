"""A bundle with a tiny network, and images of patients on all sides of the split, for the tests of training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from labelling.training_data import split_of
from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.bundles import ERROR_BARS, open_bundle, sha256_of
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.uncertainty.calibration import FILE, bundle_sha256

from tests.changed_bundles import copied, signed, with_facts, with_metadata


def tiny_bundle(parent: Path, name: str = "chest_xray_edsr_x4") -> Path:
    """Write a bundle with an untrained network of a few weights."""
    target = find_bundle(name).facts["network_def"]["_target_"]
    definition = {"_target_": target, "scale": "@scale", "channels": 4, "blocks": 1}
    folder = with_facts(copied(parent, name), network_def=definition, reduce=1)
    (folder / "model.onnx").unlink()
    torch.manual_seed(0)
    torch.save(build_network(open_bundle(folder)).state_dict(), folder / "model.pt")
    return signed(folder)


def with_error_bars(folder: Path) -> Path:
    """Give a tiny bundle the error bars of the one that it was copied from, as if they were calibrated for it."""
    hashes = open_bundle(folder).metadata["weights_sha256"]
    with_metadata(folder, weights_sha256={**hashes, ERROR_BARS: sha256_of(folder / ERROR_BARS)})
    file = folder / FILE
    changed = {**json.loads(file.read_text()), "weights_sha256": bundle_sha256(open_bundle(folder))}
    file.write_text(json.dumps(changed))
    return folder


def write_images(folder: Path, *, size: int = 128, train: int = 2, val: int = 1, test: int = 2) -> dict[str, str]:
    """Write drawn chests, of as many patients on each side of the split; returns the side by name."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = {"train": train, "val": val, "test": test}
    sides: dict[str, str] = {}
    number = 0
    while any(missing.values()):
        name = f"chest{number:02d}.png"
        side = split_of(hashlib.sha256(name.encode()).hexdigest()[:16])
        if missing[side]:
            missing[side] -= 1
            sides[name] = side
            pixels = np.rint(np.roll(draw_phantom(size, seed=number % 5), number, axis=1) * 255).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(folder / name)
        number += 1
    return sides
