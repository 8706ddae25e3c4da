"""Pairs of thick and thin slices: a volume's slices are averaged to thick ones, which the methods enlarge again.

The volume is degraded and enlarged once; its slices then have figures of their own, one for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai_sr_bundle.benchmark.protocol import BICUBIC_MEANS
from monai_sr_bundle.engine.comparison import cubic_slice
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.inferers.postprocessing import consistent_slices

Item = Mapping[Hashable, Any]


def keep_whole_groups(items: list[dict[Hashable, Any]], scale: int) -> list[dict[Hashable, Any]]:
    """Keep the items whose thick slice, counted from the volume's first slice, has all its thin slices.

    Args:
        items: items of `transforms.pairs.pair_items`, all slices of a volume or those of a split.
        scale: thin slices per thick one.

    Raises:
        InputError: no item is left.
    """
    groups = [(item["path"], item["slice_index"] // scale) for item in items]
    counts = Counter(groups)
    kept_items = [item for item, group in zip(items, groups, strict=True) if counts[group] == scale]
    if not kept_items:
        names = sorted({Path(item["path"]).name for item in items})
        raise InputError(
            f"{', '.join(names[:3]) or 'no volume'}{', ...' if len(names) > 3 else ''}: of the {len(items)} slices in "
            f"this split, no {scale} make a whole thick slice as counted from the first of a volume. Choose another "
            "split, or volumes of more slices."
        )
    return kept_items


def interpolate_slices(name: str, thick: np.ndarray, scale: int) -> np.ndarray:
    """Interpolate thin slices along the slices alone.

    Args:
        name: "nearest" (repetition), "bilinear" (then linear), "bicubic" (then cubic), or `BICUBIC_MEANS`.
        thick: ``[slices, rows, columns]`` float32.
        scale: thin slices per thick one.
    """
    if name == "nearest":
        return np.repeat(thick, scale, axis=0)
    if name == "bilinear":
        along = torch.from_numpy(thick)[None, None]
        size = (scale * len(thick), *thick.shape[1:])
        # Rows and columns have the size they had: trilinear leaves them alone.
        return np.asarray(torch.nn.functional.interpolate(along, size, mode="trilinear", align_corners=False)[0, 0])
    slices = [cubic_slice(lambda index: thick[index], len(thick), part, scale) for part in range(scale * len(thick))]
    thin = np.stack(slices)
    return consistent_slices(thin, thick) if name == BICUBIC_MEANS else thin
