"""The image sets that a bundle is trained on: its own, those that are named, or those that the data folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.datasets.manifest import Kind, read_manifest, set_folders
from monai_sr_bundle.errors import InputError

SOURCES = tuple(f"{part}{kind}" for kind in ("films", "scans") for part in ("", "validation_", "error_bars_"))
"""Keys of model.yaml that list image sets with the factor by which they are reduced and their share of the patches."""


def with_image_sets(bundle: Bundle, data: Path, sets: Sequence[str] | None = None) -> Bundle:
    """Return the bundle with the image sets that it is to be trained on as its `sets`.

    Those are the sets that are named; else the bundle's own; else, if `data` holds none of them, every set in `data`
    that has training images of the bundle's modality. `SOURCES` then list these sets too.

    Args:
        bundle: to be trained.
        data: folder with a manifest, or of such folders. A set is named as its folder.
        sets: names of image sets. Default None: as above.

    Raises:
        InputError: no manifest, a set that is not in `data`, or no training image.
    """
    available = [folder.name for folder in set_folders(data)]
    chosen = list(sets or bundle.facts.get("sets") or [])
    missing = [name for name in chosen if name not in available]
    if missing and (sets or len(missing) < len(chosen)):
        raise InputError(
            f"{data}: no image set named {', '.join(missing)}; there is {', '.join(available)}. "
            "Name those to train on with --sets."
        )
    if missing or not chosen:
        kind: Kind | None = None if bundle.modality == "any" else "ct" if bundle.modality == "CT" else "cxr"
        records = read_manifest(data, kind=kind, split="train")
        with_training_images = {
            folder.name for folder in set_folders(data) if any(record.file.is_relative_to(folder) for record in records)
        }
        chosen = sorted(with_training_images)
    return replace(bundle, facts={**bundle.facts, **_sources_of(bundle, chosen), "sets": chosen})


def _sources_of(bundle: Bundle, chosen: Sequence[str]) -> dict[str, Any]:
    """Return the `SOURCES` of the chosen sets: the bundle's own, or else each set as it is stored, in equal shares."""
    sources = {key: bundle.facts[key] for key in SOURCES if key in bundle.facts}
    listed = {source[0] for of_key in sources.values() for source in of_key}
    if chosen == bundle.facts.get("sets") and listed & set(chosen):
        return sources
    stored = {
        key: [[name, 1] if key.startswith("validation") else [name, 1, 1.0] for name in chosen] for key in sources
    }
    if not set(chosen) <= listed:
        return stored
    of_chosen = {key: [source for source in of_key if source[0] in chosen] for key, of_key in sources.items()}
    return {key: of_chosen[key] or stored[key] for key in sources}


def describe_image_sets(bundle: Bundle, usual_sets: Sequence[str]) -> str:
    """Return one line for the terminal: the image sets, and why they are not the bundle's own.

    Args:
        bundle: from `with_image_sets`.
        usual_sets: sets that its `model.yaml` names; empty if it names none.
    """
    names = bundle.facts["sets"]
    reason = "" if not usual_sets or names == list(usual_sets) else f" (the bundle's own: {', '.join(usual_sets)})"
    return f"image set{'s' * (len(names) > 1)} to train on: {', '.join(names)}{reason}"
