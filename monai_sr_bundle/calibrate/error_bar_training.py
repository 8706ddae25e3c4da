"""Train the scale of a method's errors: any method, by nothing but what goes in and what comes out."""

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
from monai_sr_bundle.calibrate.cases import seen_by
from monai_sr_bundle.calibrate.training_inputs import training_range
from monai_sr_bundle.datasets.manifest import manifest_sha256
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.staging import staged
from monai_sr_bundle.networks.error_scale import ErrorScale
from monai_sr_bundle.training.budget import Duration, learning_rate_factor
from monai_sr_bundle.training.image_sets import with_image_sets

QUANTILE = 0.9
"""Of the absolute error, that the scale estimates; calibration brings any promise to hold."""
LEARNING_RATE = 2e-3
BATCH = 16
PATCH = 32
"""Low-resolution pixels along each side."""


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
    """Train the scale of a bundle's errors on its training split and write `error_bars.pt`.

    Args:
        bundle: with weights; its name or folder too. It learns from its own image sets or, if `data` holds none of
            them, from all that are there.
        data: folder with a manifest, or of such folders.
        out: for `error_bars.pt` and `error_bars.json`.
        iterations, minutes: of training, one of them; what the method takes for its results does not count.
        limit: training images, evenly spread; all if None.
        seed: of the weights and patches.
        progress: called with images done and all, while the method works.

    Returns:
        The weights.

    Raises:
        BundleError, InputError: as `open_backend` and `pair_items`; a length as for `Duration`; too small images.
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
    cells, errors = [], []
    for seen in seen_by(bundle, backend, data, "train", sets=sets, limit=limit, progress=progress):
        if min(seen.low.shape) < PATCH:
            continue
        made = torch.from_numpy(seen.made)[None]
        cells.append(torch.cat((pixel_unshuffle(made, bundle.scale), torch.from_numpy(seen.low)[None])))
        errors.append((torch.from_numpy(seen.high)[None] - made).abs())
    if not cells:
        raise InputError(f"{data}: no training image has {PATCH}x{PATCH} low-resolution pixels, expected larger ones.")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = ErrorScale(bundle.scale).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    start, steps = time.monotonic(), 0
    while (share := duration.share(steps, time.monotonic() - start, None)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * learning_rate_factor(share)
        batch = [_patch(cells, errors, bundle.scale, rng) for _ in range(BATCH)]
        found = network(torch.stack([patch for patch, _ in batch]))
        loss = pinball(torch.stack([error for _, error in batch]) - found)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        steps += 1
    out.mkdir(parents=True, exist_ok=True)
    facts = {
        "bundle": bundle.name,
        "stage": "error_bars",
        "minutes": round((time.monotonic() - start) / 60, 1),
        "iterations": steps,
        "seed": seed,
        "sets": sets,
        "images": len(cells),
        "manifest_sha256": manifest_sha256(data, sets=sets),
        "input_range": training_range(bundle, data, limit=limit),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "finished": time.strftime("%Y-%m-%d"),
    }
    (out / "error_bars.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    # After what tells of them, and complete: weights that lie there can be released.
    with staged(out / ERROR_BARS, overwrite=False) as unfinished:
        torch.save({key: value.contiguous() for key, value in network.state_dict().items()}, unfinished)
    return out / ERROR_BARS


def pinball(beyond: torch.Tensor, quantile: float = QUANTILE) -> torch.Tensor:
    """The loss whose minimum is a quantile (Koenker and Bassett, Econometrica 1978), mean over all numbers.

    Args:
        beyond: by how much the value is larger than its estimate.
    """
    return torch.maximum(quantile * beyond, (quantile - 1) * beyond).mean()


def _patch(
    cells: list[torch.Tensor], errors: list[torch.Tensor], scale: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    index = int(rng.integers(len(cells)))
    _, rows, columns = cells[index].shape
    top, left = int(rng.integers(rows - PATCH + 1)), int(rng.integers(columns - PATCH + 1))
    fine = errors[index][:, scale * top : scale * (top + PATCH), scale * left : scale * (left + PATCH)]
    patch = cells[index][:, top : top + PATCH, left : left + PATCH]
    if rng.random() < 0.5:  # mirrored: of the fine pixels in a cell, too
        whole = pixel_shuffle(patch[:-1], scale).flip(-1)
        patch = torch.cat((pixel_unshuffle(whole, scale), patch[-1:].flip(-1)))
        fine = fine.flip(-1)
    return patch, fine
