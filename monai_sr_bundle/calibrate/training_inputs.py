"""Records of a bundle's training inputs: their known range, and fingerprints of the images and patients."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL.Image
from monai_sr_bundle.bundles import LEARNT_FROM, Bundle, sha256_of
from monai_sr_bundle.calibrate.calibration_cases import open_pairs, require_in_plane
from monai_sr_bundle.calibrate.whole_images import draw_image
from monai_sr_bundle.datasets.manifest import Record, read_manifest
from monai_sr_bundle.images.input_checks import measure_sharpness_and_noise
from monai_sr_bundle.inferers.tiling import middle
from monai_sr_bundle.transforms.native_patches import FilmPatches, ScanPatches

LIMIT = 400
"""Number of training images that are measured, evenly spread."""
PUBLIC_PREFIXES = ("nih-", "vindr-", "openi-", "kermany-", "LIDC-IDRI-", "Lung_Dx-", "LungFCP-", "TCGA-")
"""Prefixes of patient names of public sources, which are the same everywhere."""
QUANTILES = (0.5, 99.5)
"""Percentiles of the training inputs that end the known range."""
BEYOND = 0.1
"""Distance of the limits of sharpness and noise from all training inputs, in parts of their span."""
DIGITS = 16
"""Hexadecimal digits of a fingerprint: enough to tell a few thousand images apart, too few to say more of them."""


def measure_training_range(
    bundle: Bundle, data: Path, *, limit: int | None = LIMIT
) -> dict[str, dict[str, list[float]]]:
    """Measure the range of sharpness, noise, contrast and spacing over a bundle's training inputs.

    For a bundle that was trained on images as they are, these are images degraded as in its training, and as many
    unmodified ones, which are what it is given to enlarge.

    Args:
        bundle: bundle whose operator reduces the images.
        data: folder with a manifest, or a folder of such folders.
        limit: number of training images, None for all. Of a bundle that was trained on images as they are, number of
            inputs to draw, at least 2, 400 for None. Default 400.

    Returns:
        `input_range` of the metadata, see `known_range`; of a bundle that was trained on images as they are
        `input_limits`, see `known_limits`.

    Raises:
        BundleError: the bundle enlarges along the slices.
        InputError: see `pair_items`.
    """
    require_in_plane(bundle, "range of inputs")
    if "films" in bundle.facts or "scans" in bundle.facts:
        measured = [measure_sharpness_and_noise(image) for image in _draw_inputs(bundle, data, limit or LIMIT)]
        return {"input_limits": known_limits(measured)}
    sets = _sets(bundle)
    reduction = int(bundle.facts.get("reduce", 1)) * bundle.scale
    spacings = {
        str(record.file): reduction * record.mm_per_pixel
        for record in read_manifest(data, split="train", sets=sets)
        if record.mm_per_pixel
    }
    items, load = open_pairs(bundle, data, "train", sets=sets, limit=limit)
    measured = [measure_sharpness_and_noise(middle(load(item)["low"].numpy())) for item in items]
    known_spacings = [{"spacing_mm": spacings[item["path"]]} for item in items if item["path"] in spacings]
    return {"input_range": known_range([*measured, *known_spacings])}


def known_range(measured: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return the `QUANTILES` of each measure over training inputs, for a bundle's metadata."""
    names = {name for measures in measured for name in measures}
    return {
        name: [float(f"{end:.4g}") for end in np.percentile([m[name] for m in measured if name in m], QUANTILES)]
        for name in sorted(names)
    }


def known_limits(measured: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return limits for sharpness and noise that lie `BEYOND` all training inputs, for a bundle's metadata.

    Those of contrast are half the least and twice the most: a network is trained on parts of images, which have less
    contrast than the whole, and more for their size.
    """
    limits = {}
    for name in ("contrast_percent", "noise_percent", "sharpness_db"):
        values = [measures[name] for measures in measured if name in measures]
        margin = BEYOND * (max(values) - min(values))
        low, high = min(values) - margin, max(values) + margin
        if name == "contrast_percent":
            low, high = min(values) / 2, 2 * max(values)
        limits[name] = [float(f"{end:.4g}") for end in (low if name == "sharpness_db" else max(0.0, low), high)]
    return limits


def _draw_inputs(bundle: Bundle, data: Path, count: int) -> Iterator[np.ndarray]:
    """Yield images ``[rows, columns]`` in units of the window, half of them degraded as in the training."""
    patches: FilmPatches | ScanPatches
    if "films" in bundle.facts:
        patches = FilmPatches(data, sources=bundle.facts["films"], patch_size=40, scales=bundle.scales, seed=0)
    else:
        patches = ScanPatches(
            data,
            sources=bundle.facts["scans"],
            window=bundle.window,
            slices=1,
            patch_size=36,
            scales=bundle.scales,
            seed=0,
        )
    for _ in range(count // 2):
        _, low_res, high_res = draw_image(patches)
        yield middle(low_res)
        yield high_res


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
