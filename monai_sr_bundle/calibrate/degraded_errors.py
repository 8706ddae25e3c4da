"""Errors of a bundle on images as they are that lost their resolution at random, from which error bars are trained."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.calibrate.calibration_cases import LOSS_SHARES, require_in_plane, round_to_storage
from monai_sr_bundle.calibrate.whole_images import draw_image
from monai_sr_bundle.families.family import Inference
from monai_sr_bundle.inferers.sampler import unshuffle
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.inferers.tiling import middle
from monai_sr_bundle.metrics.fidelity import level_limits
from monai_sr_bundle.transforms.native_patches import FilmPatches, ScanPatches
from monai_sr_bundle.uncertainty.error_bars import measure_whole_image, network_input, sees_spectrum
from torch.nn.functional import pixel_shuffle

BATCH = 8
PATCH = 40
"""Side of a training patch in low-resolution pixels."""
WINDOW = 112
"""Largest side in low-resolution pixels of the part of an image that is enlarged; all of it is measured."""
KEPT_IMAGES = 48
"""Images of each scale that patches are taken from; the oldest one leaves when a new one is drawn."""
STEPS_PER_IMAGE = 3
MEASURE_NOISE = 0.1
"""Noise of the spectrum and the blockiness of a whole film, so that they do not tell which film it is."""
SCALE_SHARES = {2: 0.4, 3: 0.2, 4: 0.4}
"""Share of the images that are enlarged by each factor."""


class DegradedErrors:
    """Endless batches of patches of films or CT slices, all of one batch at one scale, and a bundle's errors on them.

    Every image is drawn and degraded anew and measured as a whole; a part of it is enlarged.

    Args:
        bundle: bundle with `error_bars_films` or `error_bars_scans`.
        data: folder of folders with manifests.
        limit: read only this many files of each source. Default: all.
        seed: seed of images, losses and patches.

    Attributes:
        count: number of films or slices.

    Yields:
        The input of `FilmErrorScale` and the scale as a tuple, and absolute errors in units of the window.

    Raises:
        InputError: see `FilmPatches` and `ScanPatches`.
    """

    def __init__(self, bundle: Bundle, data: Path, *, limit: int | None = None, seed: int = 0) -> None:
        self.levels = int(bundle.facts["levels"])
        self.bundles = {scale: bundle.at_scale(scale) for scale in bundle.scales}
        self.backends = {scale: open_backend(scaled) for scale, scaled in self.bundles.items()}
        options: dict[str, Any] = {
            "scales": bundle.scales,
            "scale_shares": [SCALE_SHARES[scale] for scale in bundle.scales],
            "patch_size": PATCH,
            "limit": limit,
            "seed": seed,
        }
        self.images: FilmPatches | ScanPatches
        if bundle.modality == "CT":
            self.images = ScanPatches(
                data,
                sources=bundle.facts["error_bars_scans"],
                window=bundle.window,
                slices=bundle.family.slices,
                **options,
            )
            self.count = sum(len(scan.hu) for scans in self.images.images for scan in scans)
        else:
            sources = bundle.facts["error_bars_films"]
            self.images = FilmPatches(data, sources=sources, loss_shares=LOSS_SHARES, **options)
            self.count = sum(map(len, self.images.images))
        self.recent: dict[int, deque[tuple[np.ndarray, np.ndarray]]] = {
            scale: deque(maxlen=KEPT_IMAGES) for scale in bundle.scales
        }
        self.rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[tuple[tuple[torch.Tensor, int], torch.Tensor]]:
        while True:
            scale, *image = draw_image(self.images)
            self.recent[scale].append(self._measure(scale, *image))
            for _ in range(STEPS_PER_IMAGE):
                patches = [self._draw_patch(scale) for _ in range(BATCH)]
                cells, errors = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*patches, strict=True))
                yield (cells, scale), pixel_shuffle(errors, scale)

    def _measure(self, scale: int, stack: np.ndarray, high_res: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the network's input and the absolute errors on a part of an image."""
        bundle = self.bundles[scale]
        family = require_in_plane(bundle, "error bars")
        low_res = middle(stack)
        measures = measure_whole_image(low_res, bundle)
        if sees_spectrum(bundle):
            measures += self.rng.normal(0, MEASURE_NOISE, len(measures)).astype(np.float32)
        starts = [int(self.rng.integers(max(0, side - WINDOW) + 1)) for side in low_res.shape]
        window = tuple(slice(start, start + WINDOW) for start in starts)
        part_with_neighbours = np.ascontiguousarray(stack[:, *window])
        part = middle(part_with_neighbours)
        inference = Inference(self.backends[scale], family.resolve(SamplerOptions()))
        enlarged = family.enlarge_slice(part_with_neighbours, inference, limits=level_limits(self.levels))
        enlarged = round_to_storage(enlarged, self.levels)
        # Where the window cuts the image, the network has seen less than in the whole image.
        inner = tuple(
            slice(0 if start == 0 else family.halo // 2, size if start + size == side else size - family.halo // 2)
            for start, size, side in zip(starts, part.shape, low_res.shape, strict=True)
        )
        fine = tuple(
            slice(scale * start, scale * (start + size)) for start, size in zip(starts, part.shape, strict=True)
        )
        errors = np.abs(high_res[fine] - enlarged)[None, None]
        rows, columns = inner
        cells = network_input(enlarged, part, scale, measures)[:, rows, columns]
        return cells, unshuffle(errors, scale)[0][:, rows, columns]

    def _draw_patch(self, scale: int) -> tuple[np.ndarray, np.ndarray]:
        recent = self.recent[scale]
        cells, errors = recent[int(self.rng.integers(len(recent)))]
        top, left = (int(self.rng.integers(max(1, side - PATCH + 1))) for side in cells.shape[1:])
        patch = (..., slice(top, top + PATCH), slice(left, left + PATCH))
        return cells[patch], errors[patch]
