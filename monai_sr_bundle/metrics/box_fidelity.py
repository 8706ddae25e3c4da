"""Fidelity inside the boxes of findings: PSNR and SSIM.

A box covers the pixels whose centre lies in it; its upper edges are excluded, so that a box in whole pixels covers
exactly those. Boxes may overlap; a pixel counts once.
"""

import math

import numpy as np
import torch
from monai.metrics.regression import compute_ssim_and_cs
from monai_sr_bundle.metrics.fidelity import as_stored

_MARGIN = 5  # half a window of 11 pixels


def box_mask(boxes_xyxy: np.ndarray, rows: int, columns: int) -> torch.Tensor:
    """Return a mask of the union of the boxes.

    Args:
        boxes_xyxy: ``[N, 4]`` in pixels, fractions allowed, upper edge excluded.
        rows, columns: size of the image.

    Returns:
        ``[rows, columns]`` bool.
    """
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    for box in np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4):
        left, top, right, bottom = (max(0, math.ceil(edge - 0.5)) for edge in box)
        mask[top:bottom, left:right] = True
    return mask


def box_psnr(pred: torch.Tensor, target: torch.Tensor, boxes_xyxy: np.ndarray, levels: int = 255) -> float:
    """Return the PSNR in dB over the pixels of the boxes; equal to `PSNR` if the box is the whole image.

    Args:
        pred, target: ``[1, 1, rows, columns]``; clamped and rounded to the storage first.
        boxes_xyxy: ``[N, 4]`` in pixels.
        levels: steps of the storage between 0 and 1.

    Returns:
        PSNR for a data range of 1, at most that of rounding, ``10 log10(12 levels^2)``; not-a-number without a pixel.
    """
    error = (as_stored(pred, levels) - as_stored(target, levels))[0, 0].double().square()
    inside = error[box_mask(boxes_xyxy, *error.shape)]
    if not len(inside):
        return math.nan
    return -10.0 * math.log10(max(float(inside.mean()), 1.0 / (12.0 * levels**2)))


def box_ssim(pred: torch.Tensor, target: torch.Tensor, boxes_xyxy: np.ndarray, levels: int = 255) -> float:
    """Return the mean SSIM over the pixels of the boxes; equal to `SSIM` if the box is the whole image.

    Each pixel has the SSIM of the Gaussian window of 11 pixels and sigma 1.5 around it, which reaches 5 pixels
    beyond the box. Pixels less than 5 from the image's border have no complete window and are left out.

    Args:
        pred, target: ``[1, 1, rows, columns]``, at least 11 on a side; clamped and rounded to the storage first.
        boxes_xyxy: ``[N, 4]`` in pixels.
        levels: steps of the storage between 0 and 1.

    Returns:
        Mean SSIM; not-a-number without such a pixel.
    """
    mask = box_mask(boxes_xyxy, *target.shape[-2:])[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    if not mask.any():
        return math.nan
    similarity, _ = compute_ssim_and_cs(
        as_stored(pred, levels), as_stored(target, levels), 2, (11, 11), (1.5, 1.5), data_range=1.0
    )
    return float(similarity[0, 0][mask].double().mean())
