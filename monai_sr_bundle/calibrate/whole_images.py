"""Whole images, degraded at random as the patches that a bundle for images as they are was trained on."""

from __future__ import annotations

import numpy as np
from monai_sr_bundle.inferers.tiling import neighbours
from monai_sr_bundle.transforms.native_patches import FilmPatches, ScanPatches, degrade_slices, to_unit


def draw_image(patches: FilmPatches | ScanPatches) -> tuple[int, np.ndarray, np.ndarray]:
    """Draw a whole film, or a slice with its neighbours, and a scale, and degrade it.

    Returns:
        The scale; low resolution ``[slices, rows, columns]`` and the image ``[scale * rows, scale * columns]``,
        float32 in units of the window.
    """
    scale = int(patches.R.choice(patches.scales, p=patches.scale_shares))
    images = patches.images[patches.R.choice(len(patches.images), p=patches.shares)]
    image = images[patches.R.randint(len(images))]
    rows, columns = (slice(side - side % scale) for side in image.shape[-2:])
    if isinstance(patches, FilmPatches):
        high_res = image[rows, columns] / np.float32(255)
        if patches.R.random_sample() < 0.5:
            high_res = high_res[:, ::-1]
        return scale, patches.degrade(high_res, scale)[None], high_res
    index = int(patches.R.randint(len(image.hu)))
    indices = neighbours(index, len(image.hu), patches.slices)
    low_res = degrade_slices(image, indices, lambda hu, padding: patches.degrade(hu, scale, padding), rows, columns)
    return scale, to_unit(low_res, patches.window), to_unit(image.hu[index, rows, columns], patches.window)
