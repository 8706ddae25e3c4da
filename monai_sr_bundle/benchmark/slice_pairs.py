"""Thin slices measured: a volume's slices are averaged to thick ones, and every method makes the thin ones again.

The volume is degraded and enlarged once; its slices then have figures of their own, one for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.nifti import read_nifti
from monai_sr_bundle.inferers.interpolate import cubic_slice

Item = Mapping[Hashable, Any]


def whole_groups(items: list[dict[Hashable, Any]], scale: int) -> list[dict[Hashable, Any]]:
    """The items without those whose thick slice, counted from the volume's first slice, is not in them as a whole.

    Args:
        items: of `transforms.pairs.pair_items`; of a volume all slices, or those of a split.
        scale: thin slices per thick one.

    Raises:
        InputError: nothing is left.
    """
    groups = [(item["path"], item["slice_index"] // scale) for item in items]
    counts = Counter(groups)
    whole = [item for item, group in zip(items, groups, strict=True) if counts[group] == scale]
    if not whole:
        names = sorted({Path(item["path"]).name for item in items})
        raise InputError(
            f"{', '.join(names[:3]) or 'no volume'}{', ...' if len(names) > 3 else ''}: of the {len(items)} slices in "
            f"this split, no {scale} make a whole thick slice as counted from the first of a volume. Choose another "
            "split, or volumes of more slices."
        )
    return whole


class ThickVolumes:
    """From an item, a thin slice, to the thin slices of its volume and the thick ones made from them.

    Args:
        operator: of a slab.
        window, levels: as in a bundle's model.yaml.
        turns: right-angle turns counter-clockwise of every slice.
    """

    def __init__(self, operator: str, window: tuple[float, float], levels: int, turns: int) -> None:
        self.degradation = Degradation.parse(operator)
        self.window, self.levels, self.turns = window, levels, turns
        self._path, self._pair = "", (np.empty(0), np.empty(0))

    def __call__(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """``[slices, rows, columns]`` float32 in units of the window: thin, and thick as a scanner would store them."""
        if item["path"] != self._path:
            image = read_nifti(Path(item["path"]))
            low, high = self.window
            stored = np.rot90(image.pixels, self.turns, (1, 2)).astype(np.float64)
            thin = (stored * image.slope + image.intercept - low) / (high - low)
            thin = thin[: len(thin) // self.degradation.scale * self.degradation.scale]
            # The slices are the rows of planes of slices and columns.
            thick = self.degradation(thin.reshape(len(thin), -1), levels=self.levels)
            thick = thick.reshape(-1, *thin.shape[1:])
            self._path, self._pair = item["path"], (thin.astype(np.float32), thick)
        return self._pair


def interpolate_slices(name: str, thick: np.ndarray, scale: int) -> np.ndarray:
    """Thin slices by interpolation along the slices alone.

    Args:
        name: "nearest" (repetition), "bilinear" (then linear) or "bicubic" (then cubic).
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
    thin = [cubic_slice(lambda index: thick[index], len(thick), part, scale) for part in range(scale * len(thick))]
    return np.stack(thin)
