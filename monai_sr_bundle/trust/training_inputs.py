"""The inputs that a bundle was trained on: between which limits their spacing, sharpness and noise lie."""

from __future__ import annotations

from pathlib import Path

from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.datasets.manifest import read_manifest
from monai_sr_bundle.inferers.slices import middle
from monai_sr_bundle.trust.cases import pairs_of
from monai_sr_bundle.trust.input_range import known_range, measure

LIMIT = 400
"""Training images that are measured, evenly spread."""


def training_range(bundle: Bundle, data: Path, *, limit: int | None = LIMIT) -> dict[str, list[float]]:
    """The range of each measure over a bundle's training inputs, by `known_range`.

    Args:
        bundle: whose loss of resolution makes the inputs.
        data: folder with a manifest, or of such folders.
        limit: training images; all if None.

    Raises:
        BundleError: it enlarges along the slices.
        InputError: as `pair_items`.
    """
    bundle.require_in_plane("range of inputs")
    sets = list(bundle.facts.get("sets") or []) or None  # bicubic learns from every folder
    coarser = int(bundle.facts.get("reduce", 1)) * bundle.scale
    spacings = {
        str(record.file): coarser * record.mm_per_pixel
        for record in read_manifest(data, split="train", sets=sets)
        if record.mm_per_pixel
    }
    items, load = pairs_of(bundle, data, "train", sets=sets, limit=limit)
    return known_range([measure(middle(load(item)["low"].numpy()), spacings.get(item["path"])) for item in items])
