"""Bundles with error bars that were made up, and images of a chest that is drawn once, for the tests of both."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai_sr_bundle.bundles import Bundle, open_bundle
from monai_sr_bundle.datasets.make_manifest import write_manifest
from monai_sr_bundle.datasets.manifest import Record
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.networks.error_scale import ErrorScale
from monai_sr_bundle.packing.release import release_error_bars
from monai_sr_bundle.uncertainty.calibration import (
    FILE,
    Calibration,
    CalibrationEntry,
    bundle_sha256,
    calibrated_operator,
    calibrated_scale,
)
from PIL import Image

from tests.changed_bundles import copied, signed, with_facts, with_metadata
from tests.networks.measured import trained_like


@cache
def chest() -> np.ndarray:
    """Return a drawn chest of 512 x 512."""
    return draw_phantom(512)


def write_windows(
    root: Path, name: str, counts: dict[str, int], *, size: int = 64, noise: float = 0.0, seed: int = 0
) -> Path:
    """`root/name/` with windows of the chest, each a patient of its own; returns `root`.

    Args:
        counts: split to images.
        noise: in grey levels where it is black, less where it is brighter; no method can foresee it.
    """
    folder = root / name
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    records = []
    for split in (split for split, count in counts.items() for _ in range(count)):
        top, left = rng.integers(0, 512 - size, 2)
        window = chest()[top : top + size, left : left + size]
        grey = 255 * window + noise * (1 - window) * rng.standard_normal(window.shape)
        file = folder / f"{len(records):03}.png"
        Image.fromarray(np.rint(grey.clip(0, 255)).astype(np.uint8)).save(file)
        records.append(Record(file, "cxr", split, f"{name} {len(records)}", "Apache-2.0", width=size, height=size))
    write_manifest(records, folder)
    return root


def made_up_scale() -> ErrorScale:
    """Return a scale of errors that differs from pixel to pixel, so that a comparison can fail."""
    network = trained_like(ErrorScale(4))
    network.layers[-1].weight.data.mul_(5)
    network.layers[-1].bias.data.add_(2)
    return network


def with_error_bars(parent: Path, folder: Path | None = None, **facts: Any) -> Path:
    """Give a copy of a shipped bundle, or `folder`, a made-up scale of errors and no calibration.

    It is trained on the image set `own`, whose images are not reduced.
    """
    folder = with_facts(folder or without_error_bars(parent), sets=["own"], reduce=1, **facts)
    torch.save(made_up_scale().state_dict(), parent / "error_bars.pt")
    release_error_bars(str(folder), parent / "error_bars.pt")
    return folder


def without_error_bars(parent: Path, name: str = "chest_xray_edsr_x4") -> Path:
    """Copy a shipped bundle without its error bars, if it has any."""
    folder = with_metadata(signed(copied(parent, name)), input_range=None, error_bars_training=None)
    (folder / FILE).unlink(missing_ok=True)
    return folder


def calibration_of(bundle: Bundle | Path, **changes: Any) -> Calibration:
    """Return a made-up calibration that belongs to a bundle."""
    bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    facts = {
        "bundle": bundle.name,
        "version": bundle.version,
        "weights_sha256": bundle_sha256(bundle),
        "operator": calibrated_operator(bundle),
        "alpha": 0.1,
        "images": 80,
        "patients": 70,
        "data": "own",
        "split": "val",
        "manifest_sha256": "ab" * 32,
        "created": "2025-01-02",
        "entries": tuple(
            CalibrationEntry(None, 2.0, coverage=0.915, half_width=0.01, scale=scale, strength=bundle.family.strength)
            for scale in (calibrated_scale(each) for each in map(bundle.at_scale, bundle.scales))
        ),
    }
    return Calibration(**{**facts, **changes})
