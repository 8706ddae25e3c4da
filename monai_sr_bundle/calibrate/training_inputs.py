"""Records of a bundle's training inputs: their known range, and fingerprints of the images and patients."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import PIL.Image

from monai_sr_bundle.bundles import LEARNT_FROM, Bundle, sha256_of
from monai_sr_bundle.calibrate.calibration_cases import open_pairs
from monai_sr_bundle.datasets.manifest import Record, read_manifest
from monai_sr_bundle.images.input_range import known_range, measure_sharpness_and_noise
from monai_sr_bundle.inferers.neighbours import middle

LIMIT = 400
"""Number of training images that are measured, evenly spread."""
PUBLIC_PREFIXES = ("nih-", "vindr-", "openi-", "kermany-", "LIDC-IDRI-", "Lung_Dx-")
"""Prefixes of patient names of public sources, which are the same everywhere."""
DIGITS = 16
"""Hexadecimal digits of a fingerprint: enough to tell a few thousand images apart, too few to say more of them."""


def measure_training_range(bundle: Bundle, data: Path, *, limit: int | None = LIMIT) -> dict[str, list[float]]:
    """Measure the range of spacing, sharpness and noise over a bundle's training inputs; see `known_range`.

    Args:
        bundle: bundle whose operator reduces the images.
        data: folder with a manifest, or a folder of such folders.
        limit: number of training images, default 400; None for all.

    Raises:
        BundleError: the bundle enlarges along the slices.
        InputError: see `pair_items`.
    """
    bundle.require_in_plane("range of inputs")
    sets = _sets(bundle)
    reduction = int(bundle.facts.get("reduce", 1)) * bundle.scale
    spacings = {
        str(record.file): reduction * record.mm_per_pixel
        for record in read_manifest(data, split="train", sets=sets)
        if record.mm_per_pixel
    }
    items, load = open_pairs(bundle, data, "train", sets=sets, limit=limit)
    return known_range(
        [measure_sharpness_and_noise(middle(load(item)["low"].numpy()), spacings.get(item["path"])) for item in items]
    )


def fingerprint_image(record: Record) -> set[str]:
    """Return hashes that identify an image in any folder.

    These are the SHA-256 of its file; of its pixels, for a grey picture of 8 bits, which may have been saved in
    another format; of its patient in a named set; and of its patient alone if the name tells the public source.
    """
    words = [f"{record.set}:{record.patient_id}"] if record.set and record.patient_id else []
    if record.patient_id.startswith(PUBLIC_PREFIXES):
        words.append(record.patient_id)
    fingerprints = {hashlib.sha256(word.encode()).hexdigest()[:DIGITS] for word in words}
    if record.file.is_file():
        fingerprints.add((record.sha256 or sha256_of(record.file))[:DIGITS])
        # The reader of its pixels reports a picture that cannot be read.
        with suppress(OSError, PIL.Image.DecompressionBombError):
            fingerprints |= _fingerprint_pixels(record)
    return fingerprints


def _fingerprint_pixels(record: Record) -> set[str]:
    if record.kind != "cxr":
        return set()
    with PIL.Image.open(record.file) as picture:
        if picture.mode != "L":
            return set()
        return {hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()[:DIGITS]}


def training_fingerprints(bundle: Bundle, data: Path) -> list[str]:
    """Return the fingerprints of a bundle's training images and their patients, sorted.

    Raises:
        InputError: see `read_manifest`.
    """
    records = read_manifest(data, split="train", sets=_sets(bundle))
    return sorted(set().union(*map(fingerprint_image, records)))


def read_training_fingerprints(bundle: Bundle) -> frozenset[str]:
    """Read the fingerprints inside a bundle, in its source folder or packed; empty if it has none."""
    paths = (bundle.folder / LEARNT_FROM, bundle.folder / "configs" / LEARNT_FROM)
    return frozenset(word for path in paths if path.is_file() for word in path.read_text(encoding="utf-8").split())


def _sets(bundle: Bundle) -> list[str] | None:
    return list(bundle.facts.get("sets") or []) or None  # bicubic learns from every folder
