"""Train the error scale of a method from its inputs and results alone, so it works for every method."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.backends.torch_backend import build_error_scale
from monai_sr_bundle.bundles import ERROR_BARS, Bundle
from monai_sr_bundle.calibrate.calibration_cases import enlarge_cases, require_in_plane
from monai_sr_bundle.calibrate.degraded_errors import DegradedErrors
from monai_sr_bundle.calibrate.training_inputs import measure_training_range
from monai_sr_bundle.datasets.make_manifest import manifest_sha256
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.staging import staged, write_file
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.training.budget import Duration, learning_rate_factor
from monai_sr_bundle.training.image_sets import with_image_sets
from monai_sr_bundle.uncertainty.error_bars import sees_whole_image
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

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
        iterations, minutes: length of the training, one of the two. The time of the method counts only where images are
            drawn and enlarged all the time, as for films and scans.
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
    require_in_plane(bundle, "error bars")
    bundle = with_image_sets(bundle, data)
    sets = bundle.facts["sets"]
    torch.manual_seed(seed)
    network = build_error_scale(bundle).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    measured: dict[str, Any]
    batches: Iterator[tuple[tuple[Any, ...], torch.Tensor]]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    if sees_whole_image(bundle):
        degraded = DegradedErrors(bundle, data, limit=limit, seed=seed)
        batches, loss = iter(degraded), relative_pinball(int(bundle.facts["levels"]))
        measured = {"images": degraded.count}
    else:
        errors = ImageErrors(bundle, data, sets, limit, seed, progress)
        batches, loss = iter(errors), lambda error, scale: pinball(error - scale)
        measured = {
            "images": errors.count,
            **measure_training_range(bundle, data, limit=limit),
        }
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    start, steps = time.monotonic(), 0
    while (share := duration.share(steps, time.monotonic() - start, None)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * learning_rate_factor(share)
        inputs, error = next(batches)
        value = loss(error, network(*inputs))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        steps += 1
    facts = {
        "bundle": bundle.name,
        "stage": "error_bars",
        "minutes": round((time.monotonic() - start) / 60, 1),
        "iterations": steps,
        "seed": seed,
        "sets": sets,
        **measured,
        "manifest_sha256": manifest_sha256(data, sets=sets),
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


def relative_pinball(levels: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the pinball loss of the logarithms, to which an error ten times as large is worth no more.

    A quantile of the logarithm is the logarithm of the quantile, so the estimate is the same; but on films the errors
    of one are a tenth of those of another, and their sum would be learnt from the worst alone.

    Args:
        levels: steps of the storage between 0 and 1; half a step is added to error and scale, as errors may be 0.

    Returns:
        A function of errors and scales in units of the window.
    """
    least = 0.5 / levels
    return lambda error, scale: pinball(torch.log(error + least) - torch.log(scale + least))


class ImageErrors:
    """Endless batches of patches of images that were reduced by a bundle's operator, and its errors on them.

    Args:
        bundle: the bundle.
        data: folder with a manifest, or a folder of such folders.
        sets: its folders.
        limit: number of training images, evenly spread; None for all.
        seed: seed of the patches.
        progress: called with the number of enlarged images and of all.

    Attributes:
        count: number of images.

    Yields:
        The input of `ErrorScale` as a tuple, and absolute errors in units of the window.

    Raises:
        InputError: the images are too small, or see `pair_items`.
    """

    def __init__(
        self,
        bundle: Bundle,
        data: Path,
        sets: list[str],
        limit: int | None,
        seed: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.scale, self.rng = bundle.scale, np.random.default_rng(seed)
        self.channels: list[torch.Tensor] = []
        self.errors: list[torch.Tensor] = []
        backend = open_backend(bundle)
        for case in enlarge_cases(bundle, backend, data, "train", sets=sets, limit=limit, progress=progress):
            if min(case.low_res.shape) < PATCH:
                continue
            super_res = torch.from_numpy(case.super_res)[None]
            cells = (pixel_unshuffle(super_res, bundle.scale), torch.from_numpy(case.low_res)[None])
            self.channels.append(torch.cat(cells))
            self.errors.append((torch.from_numpy(case.high_res)[None] - super_res).abs())
        self.count = len(self.channels)
        if not self.count:
            raise InputError(
                f"{data}: no training image has {PATCH}x{PATCH} low-resolution pixels, expected larger ones."
            )

    def __iter__(self) -> Iterator[tuple[tuple[torch.Tensor], torch.Tensor]]:
        while True:
            batch = [_patch(self.channels, self.errors, self.scale, self.rng) for _ in range(BATCH)]
            yield (torch.stack([patch for patch, _ in batch]),), torch.stack([error for _, error in batch])


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
