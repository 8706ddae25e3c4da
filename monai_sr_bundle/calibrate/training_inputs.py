"""What a bundle was trained on: the range of its inputs, and by what images and patients of it are recognised."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import PIL.Image

from monai_sr_bundle.bundles import LEARNT_FROM, Bundle, sha256_of
from monai_sr_bundle.calibrate.cases import pairs_of
from monai_sr_bundle.datasets.manifest import Record, read_manifest
from monai_sr_bundle.images.input_range import known_range, measure
from monai_sr_bundle.inferers.neighbours import middle

LIMIT = 400
"""Training images that are measured, evenly spread."""
PUBLIC = ("nih-", "vindr-", "openi-", "kermany-", "LIDC-IDRI-", "Lung_Dx-")
"""What the names of patients of public sources begin with, here and in their own lists: the same everywhere."""
DIGITS = 16
"""Of a fingerprint, hexadecimal: enough to tell a few thousand images apart, too few to say more of them."""


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
    sets = _sets(bundle)
    coarser = int(bundle.facts.get("reduce", 1)) * bundle.scale
    spacings = {
        str(record.file): coarser * record.mm_per_pixel
        for record in read_manifest(data, split="train", sets=sets)
        if record.mm_per_pixel
    }
    items, load = pairs_of(bundle, data, "train", sets=sets, limit=limit)
    return known_range([measure(middle(load(item)["low"].numpy()), spacings.get(item["path"])) for item in items])


def fingerprints(record: Record) -> set[str]:
    """What an image is recognised by, in whatever folder.

    Its file's SHA-256; its pixels', of a grey picture of 8 bits, which may have been written again in another format;
    its patient's in a set with a name; and its patient's alone where the name tells the public source.
    """
    words = [f"{record.set}:{record.patient_id}"] if record.set and record.patient_id else []
    if record.patient_id.startswith(PUBLIC):
        words.append(record.patient_id)
    found = {hashlib.sha256(word.encode()).hexdigest()[:DIGITS] for word in words}
    if record.file.is_file():
        found.add((record.sha256 or sha256_of(record.file))[:DIGITS])
        # What cannot be read is told by what reads it for its pixels.
        with suppress(OSError, PIL.Image.DecompressionBombError):
            found |= _of_pixels(record)
    return found


def _of_pixels(record: Record) -> set[str]:
    if record.kind != "cxr":
        return set()
    with PIL.Image.open(record.file) as picture:
        if picture.mode != "L":
            return set()
        return {hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()[:DIGITS]}


def training_fingerprints(bundle: Bundle, data: Path) -> list[str]:
    """The fingerprints of a bundle's training images and their patients, sorted.

    Raises:
        InputError: as `read_manifest`.
    """
    records = read_manifest(data, split="train", sets=_sets(bundle))
    return sorted(set().union(*map(fingerprints, records)))


def learnt_from(bundle: Bundle) -> frozenset[str]:
    """The fingerprints that a bundle brings, in its source folder or packed; none where it brings no list."""
    places = (bundle.folder / LEARNT_FROM, bundle.folder / "configs" / LEARNT_FROM)
    return frozenset(word for path in places if path.is_file() for word in path.read_text(encoding="utf-8").split())


def _sets(bundle: Bundle) -> list[str] | None:
    return list(bundle.facts.get("sets") or []) or None  # bicubic learns from every folder
