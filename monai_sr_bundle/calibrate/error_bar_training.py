"""Train the error scale of a method from its inputs and results alone, so it works for every method."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.bundles import ERROR_BARS, Bundle, find_bundle
from monai_sr_bundle.calibrate.calibration_cases import enlarge_cases
from monai_sr_bundle.calibrate.training_inputs import measure_training_range
from monai_sr_bundle.datasets.manifest import manifest_sha256
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.staging import staged, write_file
from monai_sr_bundle.networks.error_scale import ErrorScale
from monai_sr_bundle.training.budget import Duration, learning_rate_factor
from monai_sr_bundle.training.image_sets import with_image_sets

QUANTILE = 0.9
"""Quantile of the absolute error that the scale estimates; calibration corrects its coverage."""
LEARNING_RATE = 2e-3
BATCH = 16
PATCH = 32
"""Side of a training patch in low-resolution pixels."""


def train_error_scale(
    bundle: str | Bundle,
    data: Path,
    out: Path,
    *,
    iterations: int | None = None,
    minutes: float | None = None,
    limit: int | None = 400,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Train the error scale of a bundle on its training split and write `error_bars.pt`.

    Args:
        bundle: a bundle with weights, or its name or folder. It learns from its own image sets or, if `data` holds
            none of them, from all of `data`.
        data: folder with a manifest, or a folder of such folders.
        out: folder for `error_bars.pt` and `error_bars.json`.
        iterations, minutes: length of the training, one of the two; the time of the method itself does not count.
        limit: number of training images, evenly spread, default 400; None for all.
        seed: seed of the weights and patches, default 0.
        progress: called with the number of enlarged images and of all.

    Returns:
        The path of the weights.

    Raises:
        BundleError, InputError: see `open_backend`, `pair_items` and `Duration`; or the images are too small.
        OutputError: `out` holds error bars of another run.
    """
    duration = Duration(iterations=iterations, minutes=minutes)
    if (out / ERROR_BARS).exists():
        raise OutputError(f"{out / ERROR_BARS} is there already. Choose another --out.")
    bundle = find_bundle(bundle) if isinstance(bundle, str) else bundle
    bundle.require_in_plane("error bars")
    bundle = with_image_sets(bundle, data)
    sets = bundle.facts["sets"]
    backend = open_backend(bundle)
    channels, errors = [], []
    for case in enlarge_cases(bundle, backend, data, "train", sets=sets, limit=limit, progress=progress):
        if min(case.low_res.shape) < PATCH:
            continue
        super_res = torch.from_numpy(case.super_res)[None]
        channels.append(torch.cat((pixel_unshuffle(super_res, bundle.scale), torch.from_numpy(case.low_res)[None])))
        errors.append((torch.from_numpy(case.high_res)[None] - super_res).abs())
    if not channels:
        raise InputError(f"{data}: no training image has {PATCH}x{PATCH} low-resolution pixels, expected larger ones.")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = ErrorScale(bundle.scale).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    start, steps = time.monotonic(), 0
    while (share := duration.share(steps, time.monotonic() - start, None)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * learning_rate_factor(share)
        batch = [_patch(channels, errors, bundle.scale, rng) for _ in range(BATCH)]
        predicted = network(torch.stack([patch for patch, _ in batch]))
        loss = pinball(torch.stack([error for _, error in batch]) - predicted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        steps += 1
    facts = {
        "bundle": bundle.name,
        "stage": "error_bars",
        "minutes": round((time.monotonic() - start) / 60, 1),
        "iterations": steps,
        "seed": seed,
        "sets": sets,
        "images": len(channels),
        "manifest_sha256": manifest_sha256(data, sets=sets),
        "input_range": measure_training_range(bundle, data, limit=limit),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "finished": time.strftime("%Y-%m-%d"),
    }
    write_file(out / "error_bars.json", f"{json.dumps(facts, indent=2)}\n".encode())
    # The weights come last and complete, so that weights in the folder can always be released.
    with staged(out / ERROR_BARS, overwrite=False) as unfinished:
        torch.save({key: value.contiguous() for key, value in network.state_dict().items()}, unfinished)
    return out / ERROR_BARS


def pinball(residual: torch.Tensor, quantile: float = QUANTILE) -> torch.Tensor:
    """Return the pinball loss, whose minimum is a quantile (Koenker and Bassett, Econometrica 1978), as a mean.

    Args:
        residual: value minus estimate, any shape.
        quantile: quantile to estimate, between 0 and 1.
    """
    return torch.maximum(quantile * residual, (quantile - 1) * residual).mean()


def _patch(
    channels: list[torch.Tensor], errors: list[torch.Tensor], scale: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    index = int(rng.integers(len(channels)))
    _, rows, columns = channels[index].shape
    top, left = int(rng.integers(rows - PATCH + 1)), int(rng.integers(columns - PATCH + 1))
    fine = errors[index][:, scale * top : scale * (top + PATCH), scale * left : scale * (left + PATCH)]
    patch = channels[index][:, top : top + PATCH, left : left + PATCH]
    if rng.random() < 0.5:  # mirror the high-resolution pixels inside the channels, too
        pixels = pixel_shuffle(patch[:-1], scale).flip(-1)
        patch = torch.cat((pixel_unshuffle(pixels, scale), patch[-1:].flip(-1)))
        fine = fine.flip(-1)
    return patch, fine
