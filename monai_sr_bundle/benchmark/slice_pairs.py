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
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.nifti import read_nifti
from monai_sr_bundle.inferers.interpolate import cubic_slice
from monai_sr_bundle.inferers.thin_slices import consistent_slices

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


class ThickVolumes:
    """A function of an item, a thin slice, that returns the thin and thick slices of its volume.

    Args:
        operator: name of a through-plane degradation.
        window, levels: window and grey steps, see a bundle's model.yaml.
        quarter_turns: counter-clockwise rotation of every slice by right angles. Default 0.
    """

    def __init__(self, operator: str, window: tuple[float, float], levels: int, quarter_turns: int = 0) -> None:
        self.degradation = Degradation.parse(operator)
        self.window, self.levels, self.quarter_turns = window, levels, quarter_turns
        self._path, self._pair = "", (np.empty(0), np.empty(0))

    def __call__(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """Return thin slices, and thick ones as a scanner would store them, in units of the window.

        Both are ``[slices, rows, columns]`` float32.
        """
        if item["path"] != self._path:
            image = read_nifti(Path(item["path"]))
            low, high = self.window
            stored = np.rot90(image.pixels, self.quarter_turns, (1, 2)).astype(np.float64)
            thin = (stored * image.slope + image.intercept - low) / (high - low)
            thin = thin[: len(thin) // self.degradation.scale * self.degradation.scale]
            # The slices are the rows of planes of slices and columns.
            thick = self.degradation(thin.reshape(len(thin), -1), levels=self.levels)
            thick = thick.reshape(-1, *thin.shape[1:])
            self._path, self._pair = item["path"], (thin.astype(np.float32), thick)
        return self._pair


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
