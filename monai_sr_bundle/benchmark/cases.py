"""Cases of a protocol: which images it measures, and their inputs, made as the workflows make their pairs."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai_sr_bundle.benchmark.methods import interpolator
from monai_sr_bundle.benchmark.protocol import Protocol
from monai_sr_bundle.benchmark.slice_pairs import Item, keep_whole_groups
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.inferers.tiling import middle
from monai_sr_bundle.metrics.fidelity import as_stored
from monai_sr_bundle.transforms.augmentation import BOXES, draw_artifacts, move_boxes
from monai_sr_bundle.transforms.pairs import Degraded, LoadHighResd, MiddleSliced, evenly_spread, pair_items


@dataclass
class Case:
    """One image: the original, the methods' input, and the clean input if artifacts were drawn.

    Inputs are ``[slices, rows, columns]``, with neighbouring slices if a method of the protocol uses them.

    Attributes:
        high_res: ``[1, 1, rows, columns]``, the original without artifacts.
        low_res: input of the methods.
        boxes_xyxy: findings in pixels of `high_res`.
        name: name of the image.
        clean_low_res: input without artifacts; None if none were drawn.
        artifact_energy: energy of the artifacts in the bicubic result.
    """

    high_res: torch.Tensor
    low_res: np.ndarray
    boxes_xyxy: np.ndarray
    name: str
    clean_low_res: np.ndarray | None = None
    artifact_energy: float = 0.0


class CaseLoader:
    """A function that loads the case of an item."""

    def __init__(self, protocol: Protocol, rotation_degrees: int) -> None:
        self.protocol, self.quarter_turns = protocol, rotation_degrees // 90
        self.load = LoadHighResd(
            "label",
            window=protocol.window,
            reduce=protocol.reduce,
            multiple=protocol.scale,
            levels=protocol.levels,
            slices=max((bundle.family.slices for row in protocol.rows if (bundle := row.bundle())), default=1),
        )
        self.degrade = Degraded("label", "image", operator=protocol.operator, levels=protocol.levels)
        self.middle = MiddleSliced("label")

    def __call__(self, item: Item) -> Case:
        name = str(item["name"])
        pair = _rotate(self.load(item), self.quarter_turns)
        high_res, boxes = self.middle(pair)["label"][None], pair[BOXES]
        low_res = self.degrade(pair)["image"].numpy()
        if not self.protocol.artifacts:
            return Case(high_res, low_res, boxes, name)
        # Artifacts are drawn into the middle slice of the original, always the same for a name.
        rng = np.random.default_rng([0, zlib.crc32(name.encode())])
        marked = pair["label"].clone()
        marked[len(marked) // 2] = torch.from_numpy(draw_artifacts(high_res[0, 0].numpy(), rng))
        marked_low_res = self.degrade({**pair, "label": marked})["image"].numpy()
        bicubic = interpolator("bicubic", self.protocol.scale)
        energy = difference_energy(bicubic(middle(marked_low_res)), bicubic(middle(low_res)), self.protocol.levels)
        return Case(high_res, marked_low_res, boxes, name, low_res, energy)


def _rotate(pair: Item, quarter_turns: int) -> dict[Hashable, Any]:
    """Rotate the target and its boxes counter-clockwise."""
    rotated = dict(pair)
    for _ in range(quarter_turns):
        rows, columns = rotated["label"].shape[1:]
        rotated["label"] = torch.rot90(rotated["label"], 1, (1, 2)).contiguous()
        rotated |= move_boxes(rotated, np.array([[0, 1, 0], [-1, 0, columns], [0, 0, 1]]), columns, rows)
    return rotated


def difference_energy(first: np.ndarray, second: np.ndarray, levels: int) -> float:
    """Return the sum of squared differences of two results as they are stored."""
    stored = [as_stored(torch.from_numpy(image), levels).double() for image in (first, second)]
    return float((stored[0] - stored[1]).square().sum())


def list_items(protocol: Protocol, data: Path, limit: int | None = None) -> list[dict[Hashable, Any]]:
    """List the images of a protocol without reading them.

    Raises:
        InputError: no image has a box although the protocol needs one, or see `pair_items`.
    """
    items = pair_items(
        str(data),
        protocol.modality,
        protocol.split,
        sets=protocol.sets or None,
        validation_share=protocol.validation_share,
    )
    if protocol.along_slices:
        items = keep_whole_groups(items, protocol.scale)
    if protocol.only_boxes:
        items = [item for item in items if len(item[BOXES])]
        if not items:
            raise InputError(
                f"{data}: no image of the {protocol.split} split has a box, which protocol {protocol.name} asks for. "
                "Add boxes.csv to a folder of the data, or choose another protocol with --protocol."
            )
    return evenly_spread(items, min(limit or len(items), protocol.limit or len(items)))


def sample_indices(items: Sequence[Item], count: int) -> set[int]:
    """Choose images for the sample sheet: evenly spread over those with boxes, then over the others."""
    with_boxes = [index for index, item in enumerate(items) if len(item[BOXES])]
    without_boxes = sorted(set(range(len(items))) - set(with_boxes))
    chosen = evenly_spread(with_boxes, count)
    return set(chosen + evenly_spread(without_boxes, count - len(chosen)))
